# Licensed under a 3-clause BSD style license - see LICENSE
"""`jaisp.io.align`: pixels that nest are not touched, positions, what is carried along, real images."""

import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import fftconvolve

from jaisp.image import SurveyImage
from jaisp.io import align

from ._frames import (
    FRAMES,
    gaussian,
    make_image,
    make_wcs,
    plain,
)


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


def test_where_psfs_came_from_is_known_of_a_selection_too():
    rubin, euclid = nested_pair(7, 4)
    rubin = SurveyImage({"i": rubin.data["i"], "g": rubin.data["i"]}, rubin.wcs, survey="rubin")
    moved = align(rubin, euclid).rubin
    part = moved.select("g")
    assert moved.psf_source["i"] == part.psf_source["g"] == "survey"
    assert_array_equal(part.psf["g"], moved.psf["g"])


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


def test_a_measured_variance_stays_a_measured_one():
    """The noise of what is stated is believed in part, that of what was measured is taken as it is."""
    image, euclid = nested_pair(7, 4, shape=(61, 61))
    smooth = fftconvolve(image.data["i"], gaussian(9, 2.5), mode="same")
    bare = SurveyImage({"i": smooth}, image.wcs, survey="rubin", psf=image.psf)
    padded = align(bare, euclid).rubin
    assert padded.shape != bare.shape
    assert padded.noise["i"].scale == pytest.approx(bare.noise["i"].scale, rel=1e-3)
    assert padded.select("i").noise["i"].scale == padded.noise["i"].scale
    # Also of a selection made before anything was measured.
    assert align(bare.select("i"), euclid).rubin.noise["i"].scale == padded.noise["i"].scale


def test_what_one_region_leaves_out_is_no_finding_of_the_next():
    rubin, euclid = nested_pair(-30, 4, euclid_shape=(60, 60))
    rubin = make_image("rubin", dict.fromkeys("iz", rubin.data["i"]), rubin.wcs, fwhm=4.0)
    rubin.mask["z"][:, 10:] = True
    found = align(rubin, euclid, region="euclid").rubin.findings
    assert [str(finding) for finding in found] == ["z: no usable pixel in the region; left out"]
    pair = align(rubin, euclid, region="union")
    assert pair.rubin.bands == ("i", "z")
    assert not pair.rubin.findings
    assert not rubin.findings


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


def test_unpacking():
    pair = align(plain("rubin"), plain("euclid"))
    rubin, euclid = pair
    assert rubin is pair.rubin
    assert euclid is pair.euclid
    assert next(iter(align(euclid=plain("euclid")))) is None


def test_wcs_with_both_cd_and_pc():
    """As `WCS(header)` of MER cutouts is: Rubin's grid has twice Euclid's pixels all the same."""
    wcs = make_wcs((100, 100), 0.1, rotation=20)
    header = wcs.to_header()
    header.update({f"CD{i}_{j}": wcs.wcs.cd[i - 1, j - 1] for i in (1, 2) for j in (1, 2)})
    header.update({f"PC{i}_{j}": wcs.wcs.cd[i - 1, j - 1] for i in (1, 2) for j in (1, 2)})
    header["CDELT1"] = header["CDELT2"] = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        both = WCS(header)
    pair = align(plain("rubin"), make_image("euclid", np.ones((100, 100)), both, fwhm=3.0))
    assert pair.rubin.pixel_scale == pytest.approx(0.2, rel=1e-3)
    x, y = pair.wcs.world_to_pixel(pair.rubin.wcs.pixel_to_world(0, 0))
    assert_allclose([x, y], 0.5, atol=1e-6)
