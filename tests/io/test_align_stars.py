# Licensed under a 3-clause BSD style license - see LICENSE
"""Stars keep place, flux and width on the grid, and bad pixels spoil no more than they must."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.wcs import DistortionLookupTable
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import fftconvolve

from jaisp.image import SurveyImage
from jaisp.io import align

from ._frames import (
    FRAMES,
    make_image,
    make_wcs,
    moments,
    pixel_integral,
    psf_moments,
    star_image,
    star_positions,
)


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


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_scattered_bad_pixels(share):
    """They cost no more of the target than they were, and neither fluxes nor their errors suffer."""
    rng = np.random.default_rng(12)
    shape, fwhm = (420, 420), 0.7
    wcs, sky = make_wcs(shape, 0.2, rotation=23), star_positions(rng, 50, 10)
    bad = rng.random(shape) < share
    bands = {"r": rng.normal(size=shape), "i": star_image(wcs, shape, fwhm / 0.2, sky)}
    rubin = make_image("rubin", bands, wcs, fwhm=fwhm / 0.2, mask=bad)
    # What masked pixels hold is of no account, nor is their variance.
    rubin.data["r"][bad], rubin.variance["r"][bad] = 1e6, 1e6
    euclid = make_image("euclid", rng.normal(size=(560, 560)), make_wcs((560, 560), 0.1), fwhm=1.8)
    image = align(rubin, euclid, region="euclid").rubin
    assert share / 2 < image.mask["r"].mean() < share
    weight = np.where(image.mask["r"], 0, 1 / image.variance["r"].astype(float))
    assert weight[~image.mask["r"]].min() > 0.49
    psf = image.psf["r"].astype(float)
    sums = fftconvolve(weight * image.data["r"], psf[::-1, ::-1], "valid")
    errors = fftconvolve(weight, psf[::-1, ::-1] ** 2, "valid") ** -0.5
    assert np.std(sums * errors) == pytest.approx(1, abs=0.05)
    # The bad pixels by themselves would bring half of that.
    assert np.median(errors) * np.sqrt(np.sum(psf**2)) < 1 + share
    flux = []
    for x, y in zip(*image.wcs.world_to_pixel(sky), strict=True):
        star = np.outer(pixel_integral(280, y, fwhm / 0.2), pixel_integral(280, x, fwhm / 0.2))
        used = np.where(image.mask["i"], 0, star / image.variance["i"])
        flux.append(np.sum(used * image.data["i"]) / np.sum(used * star))
    assert np.mean(flux) == pytest.approx(1000, rel=0.005)
    assert_allclose(flux, 1000, rtol=0.03)
