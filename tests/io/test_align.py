# Licensed under a 3-clause BSD style license - see LICENSE
"""`jaisp.io.align` against stars of known position, flux and width, astropy's WCS and closed formulas."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS, DistortionLookupTable, Sip
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import fftconvolve
from scipy.special import erf

from jaisp.exceptions import ConfigError, ImageError, OverlapError
from jaisp.image import SurveyImage
from jaisp.io import align

CENTRE = SkyCoord(53.1, -28.0, unit="deg")


def make_wcs(shape, scale, *, rotation=0.0, flip=False, tangent=None, kind="cd", shift=(0.0, 0.0)):
    """WCS whose middle pixel lies at ``CENTRE``, shifted by arcsec; the tangent point may lie elsewhere."""
    tangent = tangent or CENTRE
    angle, s = np.deg2rad(rotation), scale / 3600
    turn = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        turn[:, 0] *= -1
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"] if kind == "galactic" else ["RA---TAN", "DEC--TAN"]
    place = tangent.galactic if kind == "galactic" else tangent
    wcs.wcs.crval = [place.data.lon.deg, place.data.lat.deg]
    if kind == "pc":
        wcs.wcs.pc, wcs.wcs.cdelt = turn, [s, s]
    else:
        wcs.wcs.cd = turn * s
    wcs.wcs.set()
    middle = CENTRE.spherical_offsets_by(shift[0] * u.arcsec, shift[1] * u.arcsec)
    x, y = wcs.world_to_pixel(middle)
    wcs.wcs.crpix = wcs.wcs.crpix + np.array([(shape[1] - 1) / 2 - x, (shape[0] - 1) / 2 - y])
    if kind == "sip":
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2] = 2e-6, -1e-6, 3e-6
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.array_shape = shape
    wcs.wcs.set()
    return wcs


def gaussian(size, fwhm):
    """Gaussian integrated over pixels."""
    profile = pixel_integral(size, (size - 1) / 2, fwhm)
    return np.outer(profile, profile)


def pixel_integral(n, centre, fwhm):
    sigma = fwhm / 2.3548200450309493
    return np.diff(erf((np.arange(n + 1) - 0.5 - centre) / (np.sqrt(2) * sigma))) / 2


def star_image(wcs, shape, fwhm, sky, flux=1000.0):
    """Round Gaussian stars; ``fwhm`` in pixels."""
    data = np.zeros(shape)
    for x, y in zip(*wcs.world_to_pixel(sky), strict=True):
        data += flux * np.outer(pixel_integral(shape[0], y, fwhm), pixel_integral(shape[1], x, fwhm))
    return data


def star_positions(rng, side, n=5):
    """A grid of ``n`` x ``n`` stars over ``side`` arcsec, at random places within their pixels."""
    step = side / n
    east, north = np.meshgrid(*2 * [(np.arange(n) + 0.5) * step - side / 2])
    east, north = (axis.ravel() + rng.uniform(-0.2, 0.2, n * n) for axis in (east, north))
    return CENTRE.spherical_offsets_by(east * u.arcsec, north * u.arcsec)


def make_image(survey, data, wcs, *, fwhm, variance=1.0, mask=None, size=25):
    data = data if isinstance(data, dict) else {"i" if survey == "rubin" else "VIS": data}
    return SurveyImage(
        data,
        wcs,
        survey=survey,
        variance={band: np.full(value.shape, variance) for band, value in data.items()},
        mask=None if mask is None else dict.fromkeys(data, mask),
        psf=dict.fromkeys(data, gaussian(size, fwhm)),
    )


def moments(image, wcs, sky, half):
    """Flux, offset from the WCS position and second moments (Ixx, Ixy, Iyy) of each star that lies inside."""
    flux, offset, second = [], [], []
    for x, y in zip(*wcs.world_to_pixel(sky), strict=True):
        i, j = round(float(x)), round(float(y))
        cut = image[max(j - half, 0) : j + half + 1, max(i - half, 0) : i + half + 1].astype(float)
        if cut.shape != (2 * half + 1,) * 2:
            continue
        dy, dx = np.mgrid[-half : half + 1, -half : half + 1] + np.array([j - y, i - x])[:, None, None]
        total = cut.sum()
        flux.append(total)
        mx, my = (cut * dx).sum() / total, (cut * dy).sum() / total
        offset.append((mx, my))
        second.append(
            [(cut * a * b).sum() / total for a, b in ((dx - mx,) * 2, (dx - mx, dy - my), (dy - my,) * 2)]
        )
    assert flux
    return np.array(flux), np.array(offset), np.array(second)


def psf_moments(psf):
    dy, dx = np.mgrid[: psf.shape[0], : psf.shape[1]] - psf.shape[0] // 2
    return np.array([(psf * dx).sum(), (psf * dy).sum()]), np.array(
        [(psf * a * b).sum() for a, b in ((dx, dx), (dx, dy), (dy, dy))]
    )


FAR = SkyCoord(53.9, -27.6, unit="deg")
FRAMES = {
    "turned": {"rotation": 23.0},
    "flipped": {"rotation": -70.0, "flip": True},
    "other tangent point": {"rotation": 5.0, "tangent": FAR},
    "PC": {"rotation": 160.0, "kind": "pc"},
    "SIP": {"rotation": 23.0, "kind": "sip"},
    "galactic": {"rotation": 12.0, "kind": "galactic"},
    "offset": {"shift": (3.33, -2.17)},
}


# -- stars through the grid ----------------------------------------


@pytest.mark.parametrize("flip", [False, True], ids=["", "euclid flipped"])
@pytest.mark.parametrize("frame", FRAMES)
def test_stars_keep_place_flux_and_psf(frame, flip):
    rng = np.random.default_rng(1)
    sky = star_positions(rng, 22)
    shape, fwhm = (161, 170), 0.75
    wcs = make_wcs(shape, 0.2, **FRAMES[frame])
    rubin = make_image("rubin", star_image(wcs, shape, fwhm / 0.2, sky), wcs, fwhm=fwhm / 0.2)
    euclid_wcs = make_wcs((300, 300), 0.1, flip=flip)
    euclid = make_image("euclid", rng.normal(size=(300, 300)), euclid_wcs, fwhm=1.8)
    pair = align(rubin, euclid)
    assert pair.rubin.shape == (pair.shape[0] // 2, pair.shape[1] // 2)
    flux, offset, second = moments(pair.rubin.data["i"], pair.rubin.wcs, sky, 9)
    assert len(flux) > 20
    assert_allclose(flux, 1000, rtol=1e-3)
    assert np.abs(offset).max() * 200 < 1  # mas
    middle, expected = psf_moments(pair.rubin.psf["i"])
    assert np.abs(middle).max() < 2e-3
    widths = second[:, 0] + second[:, 2], expected[0] + expected[2]
    assert_allclose(np.sqrt(widths[0]), np.sqrt(widths[1]), rtol=0.01)
    assert np.abs(second - expected).max() < 0.02 * expected[0]


def test_elliptical_psf_turns_with_the_image():
    rng = np.random.default_rng(2)
    sky = star_positions(rng, 20, 3)
    shape = (160, 160)
    wcs = make_wcs(shape, 0.2, rotation=40, flip=True)
    data = np.zeros(shape)
    for x, y in zip(*wcs.world_to_pixel(sky), strict=True):
        data += np.outer(pixel_integral(160, y, 3.0), pixel_integral(160, x, 5.0))
    psf = np.outer(pixel_integral(31, 15, 3.0), pixel_integral(31, 15, 5.0))
    rubin = SurveyImage({"r": data}, wcs, survey="rubin", variance={"r": np.ones(shape)}, psf={"r": psf})
    pair = align(
        rubin, make_image("euclid", rng.normal(size=(200, 200)), make_wcs((200, 200), 0.1), fwhm=1.8)
    )
    _, _, second = moments(pair.rubin.data["r"], pair.rubin.wcs, sky, 11)
    _, expected = psf_moments(pair.rubin.psf["r"])
    assert abs(expected[1]) > 0.3
    assert_allclose(second, np.broadcast_to(expected, second.shape), rtol=0.02)


@pytest.mark.parametrize(("scale", "fwhm"), [(0.03, 0.15), (0.05, 0.18), (0.17, 0.7), (0.3, 0.6)])
def test_other_pixel_scales_of_euclid(scale, fwhm):
    # HST-like, half-size, HSC-like and native NISP pixels, all brought to 0.1 arcsec.
    rng = np.random.default_rng(3)
    n = round(27 / scale)
    wcs = make_wcs((n, n), scale, rotation=30)
    sky = star_positions(rng, 18, 4)
    euclid = make_image("euclid", star_image(wcs, (n, n), fwhm / scale, sky), wcs, fwhm=fwhm / scale, size=41)
    pair = align(euclid=euclid)
    assert pair.euclid.pixel_scale == pytest.approx(0.1, rel=1e-6)
    half = round(1.4 * fwhm / 0.1) + 4
    flux, offset, second = moments(pair.euclid.data["VIS"], pair.wcs, sky, half)
    assert_allclose(flux, 1000, rtol=1e-3)
    assert np.abs(np.mean(offset, axis=0)).max() < 0.01
    expected = psf_moments(pair.euclid.psf["VIS"])[1]
    assert np.sqrt(second[:, 0].mean() / expected[0]) == pytest.approx(1, abs=0.01)
    # The grid keeps the image's orientation, and gives positions back on the image as it was.
    x, y = pair.wcs.world_to_pixel(sky)
    assert_allclose(pair.to_reference(x, y), wcs.world_to_pixel(sky), atol=1e-5)


def test_grid_of_an_image_with_distortion_tables():
    rng = np.random.default_rng(4)
    shape = (220, 220)
    wcs = make_wcs(shape, 0.1, rotation=20)
    table = np.full((3, 3), 0.4, np.float32)
    wcs.cpdis1 = DistortionLookupTable(table, (1, 1), (1, 1), (110, 110))
    sky = star_positions(rng, 14, 4)
    x, y = wcs.world_to_pixel(sky)
    data = sum(
        1000 * np.outer(pixel_integral(220, b, 4.0), pixel_integral(220, a, 4.0))
        for a, b in zip(x, y, strict=True)
    )
    pair = align(euclid=make_image("euclid", data, wcs, fwhm=4.0))
    flux, offset, _ = moments(pair.euclid.data["VIS"], pair.wcs, sky, 12)
    assert_allclose(flux, 1000, rtol=1e-3)
    assert np.abs(offset).max() < 0.02
    assert_allclose(pair.to_reference(*pair.wcs.world_to_pixel(sky)), (x, y), atol=1e-3)


def test_an_offset_between_the_surveys_is_left_alone():
    # Coordinates 60 mas apart are not registered: the WCS is trusted.
    rng = np.random.default_rng(5)
    sky = star_positions(rng, 16, 4)
    moved = SkyCoord(sky.ra, sky.dec + 60 * u.mas)
    shape = (130, 130)
    wcs = make_wcs(shape, 0.2, rotation=10)
    rubin = make_image("rubin", star_image(wcs, shape, 4.0, moved), wcs, fwhm=4.0)
    euclid_wcs = make_wcs((220, 220), 0.1)
    euclid = make_image("euclid", star_image(euclid_wcs, (220, 220), 1.8, sky), euclid_wcs, fwhm=1.8)
    pair = align(rubin, euclid)
    _, rubin_offset, _ = moments(pair.rubin.data["i"], pair.rubin.wcs, sky, 9)
    _, euclid_offset, _ = moments(pair.euclid.data["VIS"], pair.euclid.wcs, sky, 8)
    difference = np.median(rubin_offset[:, 1]) * 200 - np.median(euclid_offset[:, 1]) * 100
    assert difference == pytest.approx(60, abs=1)


# -- noise ----------------------------------------


@pytest.mark.parametrize(
    ("scale", "rotation"),
    [(0.2, 23.0), (0.168, 40.0), (0.1, 10.0), (0.3, 5.0)],
    ids=["LSST", "HSC", "MER", "coarse"],
)
def test_noise_of_fluxes_is_that_of_the_source_variance(scale, rotation):
    rng = np.random.default_rng(6)
    n = round(130 / scale)
    wcs = make_wcs((n, n), scale, rotation=rotation)
    sd = 3.0 * scale  # the same depth whatever the scale
    rubin = make_image("rubin", sd * rng.normal(size=(n, n)), wcs, fwhm=0.75 / scale, variance=sd**2)
    euclid = make_image("euclid", rng.normal(size=(900, 900)), make_wcs((900, 900), 0.1), fwhm=1.8)
    pair = align(rubin, euclid, region="euclid")
    image = pair.rubin
    assert not image.mask["i"].any()
    variance, psf = image.source_variance("i"), image.psf["i"].astype(float)
    # White-equivalent variance per area is kept, and the noise at the scale of a source was measured.
    assert np.median(image.variance["i"]) == pytest.approx(9 * 0.04, rel=0.01)
    data = image.data["i"].astype(float)
    step = 3
    matched = fftconvolve(data / variance, psf[::-1, ::-1], "valid")[::step, ::step]
    weight = fftconvolve(1 / variance, psf**2, "valid")[::step, ::step]
    assert np.std(matched / np.sqrt(weight)) == pytest.approx(1, abs=0.05)
    y, x = np.mgrid[-4:5, -4:5]
    aperture = (np.hypot(x, y) <= 3.5).astype(float)  # r = 0.7 arcsec
    flux, error = (fftconvolve(plane, aperture, "valid")[::step, ::step] for plane in (data, variance))
    assert np.std(flux / np.sqrt(error)) == pytest.approx(1, abs=0.05)


def test_variance_follows_the_sky():
    # Two halves of different depth stay where they were.
    n = 200
    wcs = make_wcs((n, n), 0.2, rotation=90)
    variance = np.ones((n, n))
    variance[:, n // 2 :] = 4
    data = np.random.default_rng(7).normal(size=(n, n)) * np.sqrt(variance)
    rubin = SurveyImage(
        {"i": data}, wcs, survey="rubin", variance={"i": variance}, psf={"i": gaussian(25, 4)}
    )
    pair = align(rubin, make_image("euclid", data, make_wcs((n, n), 0.1), fwhm=1.8), region="euclid")
    y, x = np.indices(pair.rubin.shape)
    source_x, _ = wcs.world_to_pixel(pair.rubin.wcs.pixel_to_world(x, y))
    assert_allclose(pair.rubin.variance["i"][source_x < n / 2 - 2], 1, rtol=1e-3)
    assert_allclose(pair.rubin.variance["i"][source_x > n / 2 + 2], 4, rtol=1e-3)


# -- bad pixels ----------------------------------------


@pytest.fixture
def turned():
    """A turned Rubin image of bright stars in the middle of a Euclid image, without noise."""
    shape = (120, 120)
    wcs = make_wcs(shape, 0.2, rotation=33)
    sky = star_positions(np.random.default_rng(8), 12, 3)
    euclid = make_image(
        "euclid", np.random.default_rng(9).normal(size=(160, 160)), make_wcs((160, 160), 0.1), fwhm=1.8
    )
    return wcs, star_image(wcs, shape, 4.0, sky, flux=1e5), sky, euclid


def test_one_nan_spoils_a_few_pixels(turned):
    wcs, data, _, euclid = turned
    data = data + np.random.default_rng(10).normal(size=data.shape)
    clean = align(make_image("rubin", data, wcs, fwhm=4.0), euclid, region="euclid").rubin
    spoilt = data.copy()
    spoilt[60, 63] = np.nan
    rubin = make_image("rubin", spoilt, wcs, fwhm=4.0)
    image = align(rubin, euclid, region="euclid").rubin
    bad = image.mask["i"]
    assert 1 <= bad.sum() <= 6
    x, y = image.wcs.world_to_pixel(wcs.pixel_to_world(63, 60))
    assert np.all(np.hypot(*(np.argwhere(bad) - [y, x]).T) < 1.5)
    assert np.isfinite(image.data["i"]).all()
    assert_allclose(image.data["i"][~bad], clean.data["i"][~bad], atol=1)
    # What was found in the image as given is still told.
    assert [str(finding) for finding in image.findings] == ["i: 1 pixels not finite; masked"]


def test_a_bad_peak_does_not_ring(turned):
    wcs, data, sky, euclid = turned
    x, y = (round(float(v)) for v in wcs.world_to_pixel(sky[4]))
    mask = np.zeros(data.shape, bool)
    mask[y, x] = True
    clean = align(make_image("rubin", data, wcs, fwhm=4.0), euclid, region="euclid").rubin.data["i"]
    spoilt = np.where(mask, 1e7, data)
    image = align(make_image("rubin", spoilt, wcs, fwhm=4.0, mask=mask), euclid, region="euclid").rubin
    good = ~image.mask["i"]
    assert 1 <= (~good).sum() <= 6
    assert np.abs(image.data["i"] - clean)[good].max() < 0.01 * data.max()


def test_holes_stay_holes(turned):
    wcs, data, _, euclid = turned
    y, x = np.indices(data.shape)
    mask = np.hypot(x - 70, y - 55) < 12
    image = align(make_image("rubin", data, wcs, fwhm=4.0, mask=mask), euclid, region="euclid").rubin
    y, x = np.indices(image.shape)
    source = wcs.world_to_pixel(image.wcs.pixel_to_world(x, y))
    radius = np.hypot(source[0] - 70, source[1] - 55)
    assert image.mask["i"][radius < 11.5].all()
    assert not image.mask["i"][radius > 13.5].any()
    assert np.all(image.data["i"][image.mask["i"]] == 0)


def test_outside_of_the_footprint_is_masked(turned):
    wcs, data, _, euclid = turned
    pair = align(make_image("rubin", data, wcs, fwhm=4.0), euclid)
    y, x = np.indices(pair.rubin.shape)
    source = np.array(wcs.world_to_pixel(pair.rubin.wcs.pixel_to_world(x, y)))
    inside = np.all((source > -0.4) & (source < 119.4), axis=0)
    outside = np.any((source < -0.6) | (source > 119.6), axis=0)
    assert not pair.rubin.mask["i"][inside].any()
    assert pair.rubin.mask["i"][outside].all()
    assert_array_equal(np.isinf(pair.rubin.source_variance("i")), pair.rubin.mask["i"])


def test_bands_keep_their_own_pixels(turned):
    wcs, data, _, euclid = turned
    rubin = make_image("rubin", {"y": data, "g": 2 * data, "i": 3 * data}, wcs, fwhm=4.0)
    image = align(rubin, euclid).rubin
    assert image.bands == ("g", "i", "y")
    assert_allclose(image.data["g"], 2 * image.data["y"], atol=1e-2)
    assert_allclose(image.data["i"], 3 * image.data["y"], atol=1e-2)


def test_blocks_leave_no_seams(turned, monkeypatch):
    wcs, data, _, euclid = turned
    rubin = make_image("rubin", data, wcs, fwhm=4.0)
    whole = align(rubin, euclid).rubin.data["i"]
    monkeypatch.setattr("jaisp.io._resample._BLOCK", 37)
    assert_allclose(align(rubin, euclid).rubin.data["i"], whole, atol=1e-3 * whole.max() / 100)


# -- pixels that are not touched ----------------------------------------


def nested_pair(x, y, *, shape=(40, 50), euclid_shape=(100, 120)):
    """Rubin of 0.2 arcsec whose first pixel begins at Euclid's pixel (x, y)."""
    rng = np.random.default_rng(11)
    euclid_wcs = make_wcs(euclid_shape, 0.1, rotation=15, kind="sip")
    euclid_wcs.sip = None
    euclid_wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs = euclid_wcs.deepcopy()
    wcs.wcs.crpix = (euclid_wcs.wcs.crpix - [x, y] - 0.5) / 2 + 0.5
    wcs.wcs.cd = euclid_wcs.wcs.cd * 2
    rubin = make_image("rubin", rng.normal(size=shape), wcs, fwhm=4.0)
    euclid = make_image("euclid", rng.normal(size=euclid_shape), euclid_wcs, fwhm=1.8)
    return rubin, euclid


@pytest.mark.parametrize("start", [(0, 0), (7, 4), (-3, -5), (10, -8), (101, 77)])
@pytest.mark.parametrize("region", ["union", "euclid", "overlap"])
def test_nested_pixels_are_not_touched(start, region):
    rubin, euclid = nested_pair(*start)
    pair = align(rubin, euclid, region=region)
    assert pair.shape[0] % 2 == pair.shape[1] % 2 == 0
    assert pair.rubin.meta.get("alignment", "cut") in ("cut", "cut or padded by whole pixels")
    for image, original in ((pair.rubin, rubin), (pair.euclid, euclid)):
        band = image.bands[0]
        y, x = np.nonzero(~image.mask[band])
        old = original.wcs.world_to_pixel(image.wcs.pixel_to_world(x, y))
        i, j = (np.round(axis).astype(int) for axis in old)
        assert_allclose(old, [i, j], atol=1e-6)
        assert_array_equal(image.data[band][y, x], original.data[band][j, i])
        assert_array_equal(image.psf[band], original.psf[band])
    sizes = {"union": rubin.data["i"].size, "euclid": None, "overlap": None}
    if sizes[region]:
        assert (~pair.rubin.mask["i"]).sum() == sizes[region]
        assert (~pair.euclid.mask["VIS"]).sum() == euclid.data["VIS"].size
    # The grids nest: Rubin's pixel centre is the middle of 2 x 2 pixels.
    sky = pair.rubin.wcs.pixel_to_world([0, 5], [0, 9])
    assert_allclose(pair.wcs.world_to_pixel(sky), [[0.5, 10.5], [0.5, 18.5]], atol=1e-6)


def test_an_image_that_fills_the_grid_is_handed_on():
    rubin, euclid = nested_pair(0, 0, shape=(50, 60))
    pair = align(rubin, euclid)
    assert pair.rubin is rubin
    assert pair.euclid is euclid


def test_almost_nested_pixels_are_reprojected():
    rubin, euclid = nested_pair(0, 0)
    moved = rubin.wcs.deepcopy()
    moved.wcs.crpix += 0.01
    rubin = make_image("rubin", rubin.data["i"], moved, fwhm=4.0)
    assert align(rubin, euclid).rubin.meta["alignment"].startswith("reprojected")


def test_ground_bands_on_the_euclid_grid_are_added_up():
    rng = np.random.default_rng(12)
    wcs = make_wcs((61, 80), 0.1, rotation=15)
    data = rng.normal(size=(61, 80))
    mask = np.zeros(data.shape, bool)
    mask[21, 33] = True
    rubin = make_image("rubin", data, wcs, fwhm=8.0, mask=mask, variance=2.0, size=49)
    euclid = make_image("euclid", data, wcs, fwhm=1.8)
    pair = align(rubin, euclid)
    assert pair.shape == (62, 80)
    image = pair.rubin
    expected = data[:60].reshape(30, 2, 40, 2).sum(axis=(1, 3))
    good = ~image.mask["i"][:30]
    assert_allclose(image.data["i"][:30][good], expected[good], rtol=1e-4, atol=1e-5)
    assert_array_equal(np.argwhere(~good), [[10, 16]])
    assert image.mask["i"][30].all()  # half outside
    assert_allclose(image.variance["i"][:30], 8)
    # The PSF of the sum: a Gaussian and the larger pixel.
    assert_allclose(image.psf["i"], gaussian(image.psf["i"].shape[0], 4.0), atol=2e-4)
    assert align(rubin).reference == "rubin"
    assert_array_equal(align(rubin).rubin.data["i"], image.data["i"])


# -- positions ----------------------------------------


@pytest.mark.parametrize("region", ["union", "euclid", "overlap"])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("which", ["both", "euclid", "rubin"])
def test_positions_on_the_reference_image(which, frame, region):
    rng = np.random.default_rng(13)
    shape = (51, 60)
    scale = 0.2 if which == "rubin" else 0.1
    wcs = make_wcs(shape, scale, **FRAMES[frame])
    other = make_wcs((61, 61), 0.2)
    rubin = make_image("rubin", rng.normal(size=shape if which == "rubin" else (61, 61)), other, fwhm=4.0)
    if which == "rubin":
        rubin = make_image("rubin", rng.normal(size=shape), wcs, fwhm=4.0)
    euclid = make_image("euclid", rng.normal(size=shape), make_wcs(shape, 0.1, **FRAMES[frame]), fwhm=1.8)
    pair = align(None if which == "euclid" else rubin, None if which == "rubin" else euclid, region=region)
    x, y = rng.uniform(0, 50, (2, 100))
    sky = pair.wcs.pixel_to_world(x, y)
    reference = rubin if which == "rubin" else euclid
    assert pair.reference == reference.survey.name
    assert_allclose(pair.to_reference(x, y), reference.wcs.world_to_pixel(sky), atol=1e-6)
    if pair.rubin is not None:
        nested = pair.rubin.wcs.world_to_pixel(sky)
        assert_allclose(nested, [(x - 0.5) / 2, (y - 0.5) / 2], atol=1e-6)
    if which == "rubin":
        assert pair.rubin is rubin
        assert pair.euclid is None


def test_regions():
    rng = np.random.default_rng(14)
    euclid = make_image("euclid", rng.normal(size=(200, 300)), make_wcs((200, 300), 0.1), fwhm=1.8)
    wcs = make_wcs((60, 60), 0.2, rotation=45, shift=(-15, 0))  # to the right, half outside
    rubin = make_image("rubin", rng.normal(size=(60, 60)), wcs, fwhm=4.0)
    assert align(rubin, euclid, region="euclid").shape == (200, 300)
    half = 60 * np.sqrt(2)  # half diagonal in grid pixels
    union, overlap = align(rubin, euclid), align(rubin, euclid, region="overlap")
    assert_allclose(union.shape, (200, 300 + half), atol=3)
    assert_allclose(overlap.shape, (2 * half, half), atol=3)
    assert_allclose(overlap.to_reference(0, 0), (299.5 - half, 99.5 - half), atol=2)
    assert union.euclid.mask["VIS"][:, 300:].all()
    assert not union.euclid.mask["VIS"][:, :300].any()


# -- mistakes ----------------------------------------


def plain(survey, **keywords):
    scale, shape = (0.2, (50, 50)) if survey == "rubin" else (0.1, (100, 100))
    data = np.random.default_rng(15).normal(size=shape)
    return make_image(survey, data, make_wcs(shape, scale, **keywords), fwhm=3.0)


@pytest.mark.parametrize("shift", [(14.9, 0.0), (0.0, -3000.0), (170 * 3600.0, 80 * 3600.0)])
def test_no_common_sky(shift):
    with pytest.raises(
        OverlapError, match=r"Rubin \(centre RA .* Euclid \(centre RA 53.1.* share no sky.* apart"
    ):
        align(
            plain("rubin", shift=shift, tangent=CENTRE.spherical_offsets_by(*(s * u.arcsec for s in shift))),
            plain("euclid"),
        )


def test_corners_that_miss_each_other_share_no_sky():
    # The boxes around both images overlap, the images do not.
    with pytest.raises(OverlapError, match="share no sky"):
        align(plain("rubin", rotation=45, shift=(9.5, 9.5)), plain("euclid"))


def test_a_nearly_empty_union_is_refused():
    rng = np.random.default_rng(16)
    tall = make_image(
        "euclid", rng.normal(size=(4000, 10)), make_wcs((4000, 10), 0.1, shift=(0, 199)), fwhm=1.8
    )
    wide = make_image(
        "rubin", rng.normal(size=(5, 2000)), make_wcs((5, 2000), 0.2, shift=(-199, 0)), fwhm=4.0
    )
    with pytest.raises(OverlapError, match='hardly overlap; use region="overlap"'):
        align(wide, tall)
    assert_allclose(align(wide, tall, region="overlap").shape, 10, atol=3)


def test_no_usable_pixel_in_the_region():
    rng = np.random.default_rng(17)
    mask = np.zeros((100, 100), bool)
    mask[:, :60] = True
    wcs = make_wcs((100, 100), 0.2, shift=(-9, 0))
    euclid = plain("euclid")
    rubin = make_image("rubin", rng.normal(size=(100, 100)), wcs, fwhm=4.0, mask=mask)
    with pytest.raises(OverlapError, match="Rubin has no usable pixel in the region"):
        align(rubin, euclid, region="overlap")
    # One band of two: it is left out, and told.
    rubin = SurveyImage(
        {band: rng.normal(size=(100, 100)) for band in "gi"},
        wcs,
        survey="rubin",
        variance={band: np.ones((100, 100)) for band in "gi"},
        mask={"g": mask},
        psf={band: gaussian(25, 4.0) for band in "gi"},
    )
    image = align(rubin, euclid, region="overlap").rubin
    assert image.bands == ("i",)
    assert "g: no usable pixel in the region; left out" in [str(finding) for finding in image.findings]


def test_wrong_arguments():
    rubin, euclid = plain("rubin"), plain("euclid")
    with pytest.raises(ImageError, match="nothing to align"):
        align()
    with pytest.raises(ImageError, match="rubin is an image of Euclid"):
        align(euclid, rubin)
    with pytest.raises(ImageError, match="euclid is a ndarray; allowed: a SurveyImage"):
        align(rubin, np.zeros((3, 3)))
    with pytest.raises(ConfigError, match="unknown region 'both'; allowed: union, euclid, overlap"):
        align(rubin, euclid, region="both")


def test_what_is_carried_along():
    rubin = plain("rubin", rotation=20)
    rubin.meta["origin"] = "tract 5063"
    bare = SurveyImage({"i": rubin.data["i"]}, rubin.wcs, survey="rubin", meta=rubin.meta)
    for image in (rubin, bare):
        new = align(image, plain("euclid")).rubin
        assert new.meta["origin"] == "tract 5063"
        assert new.unit == u.nJy
        assert new.psf_source["i"] == image.psf_source["i"]
        assert new.psf["i"].shape[0] % 2 == 1
        assert new.psf["i"].sum() == pytest.approx(1, abs=1e-5)


def test_repr_and_tiles():
    pair = align(plain("rubin"), plain("euclid"))
    assert repr(pair) == "<AlignedPair Rubin i + Euclid VIS, 100 x 100 px in the frame of euclid>"
    (tile,) = align(plain("rubin"), plain("euclid"), tiles=True)
    assert tile.own == (0, 100, 0, 100)


# -- real sky ----------------------------------------


def test_real_hst_and_hsc(realdata):
    """HST at 0.03 and HSC at 0.168 arcsec of the same blend land on the same pixels."""
    with (
        fits.open(realdata / "hsc_hst" / "Cut_HST1.fits") as hst,
        fits.open(realdata / "hsc_hst" / "Cut_HSC1.fits") as hsc,
    ):
        hst_data, hst_wcs = np.squeeze(hst[0].data), WCS(hst[0].header).celestial
        hsc_data, hsc_wcs = hsc[0].data, WCS(hsc[0].header).celestial
    euclid = SurveyImage({"VIS": hst_data}, hst_wcs, survey="euclid")
    rubin = SurveyImage(dict(zip("grizy", hsc_data, strict=True)), hsc_wcs, survey="rubin")
    pair = align(rubin, euclid, region="overlap")
    assert pair.euclid.pixel_scale == pytest.approx(0.1, rel=1e-6)
    sharp = pair.euclid.data["VIS"].reshape(pair.rubin.shape[0], 2, pair.rubin.shape[1], 2).sum(axis=(1, 3))
    inner = np.s_[4:-4, 4:-4]
    smooth = fftconvolve(sharp, gaussian(15, 3.5), "same")
    best = fftconvolve(smooth[inner], pair.rubin.data["i"][inner][::-1, ::-1], "same")
    peak = np.array(np.unravel_index(best.argmax(), best.shape)) - np.array(best.shape) // 2
    assert np.abs(peak).max() <= 1


def test_real_ground_bands_of_a_mer_cutout(realdata):
    """Ground bands on the MER grid become Rubin pixels without any interpolation."""
    with fits.open(realdata / "euclid_q1" / "EUCLJ174752.17+660743.0.fits") as hdus:
        wcs = WCS(hdus["VIS_FLUX"].header)

        def image(survey, names):
            planes = {
                kind: {band: hdus[f"{name}_{kind}"].data.astype(float) for band, name in names.items()}
                for kind in ("FLUX", "RMS", "PSF")
            }
            variance = {band: rms**2 for band, rms in planes["RMS"].items()}
            return SurveyImage(planes["FLUX"], wcs, survey=survey, variance=variance, psf=planes["PSF"])

        rubin = image("rubin", {"g": "HSC_G", "r": "MEGACAM_R"})
        euclid = image("euclid", {"VIS": "VIS", "H": "NIR_H"})
    pair = align(rubin, euclid)
    assert pair.euclid is euclid
    assert pair.rubin.shape == (50, 50)
    for band in rubin.bands:
        assert pair.rubin.data[band].sum() == pytest.approx(rubin.data[band].sum(), rel=1e-4)
        sums = rubin.data[band].reshape(50, 2, 50, 2).sum(axis=(1, 3))
        assert_allclose(pair.rubin.data[band], sums, rtol=1e-4, atol=1e-3)
    (tile,) = pair.tiles()
    assert tile.arrays["rubin_valid"].sum() == 2 * 50 * 50
