# Licensed under a 3-clause BSD style license - see LICENSE
"""Gaps of zeros and saturated cores, which no mask tells of."""

from io import BytesIO

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from jaisp.image import moffat_psf

from .helpers import make_wcs, noise, star


def test_zeros_of_counts_and_noiseless_images_are_no_gaps(make):
    rng = np.random.default_rng(3)
    counts = rng.poisson(1.0, (40, 40)).astype(float)
    assert not make({"VIS": counts}).mask["VIS"].any()
    noiseless = np.zeros((40, 40))
    noiseless[18:22, 18:22] = 3.3
    assert not make({"VIS": noiseless}, variance={"VIS": np.ones((40, 40))}).mask["VIS"].any()


@pytest.mark.parametrize("kind", ["integers", "steps", "compressed"])
@pytest.mark.parametrize("border", [0, 1, 8])
def test_zeros_of_quantised_images_are_gaps_where_they_make_an_area(make, kind, border):
    """Zero is one of the values of such a sky, whatever its unit; a border without data is none of it."""
    sky = np.random.default_rng(4).normal(0, 3, (60, 70)).astype(np.float32)
    gap = np.ones(sky.shape, bool)
    gap[border : 60 - border, border : 70 - border] = False
    sky[gap] = 0
    if kind == "compressed":
        packed = BytesIO()
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(sky)]).writeto(packed)
        sky = fits.getdata(BytesIO(packed.getvalue()))
    else:
        step = 1 if kind == "integers" else 0.25
        sky = np.rint(sky / step) * step
    assert (sky[~gap] == 0).sum() > 20
    for unit in ("nJy", u.Unit(57.5 * u.nJy)):
        np.testing.assert_array_equal(make({"VIS": sky}, unit=unit).mask["VIS"], gap)


def test_zeros_far_from_the_sky_are_gaps(make):
    counts = np.random.default_rng(3).poisson(900.0, (40, 40)).astype(float)
    counts[7, 8] = 0
    assert np.argwhere(make({"VIS": counts}).mask["VIS"]).tolist() == [[7, 8]]


@pytest.mark.parametrize("value", [-30.0, -3.0, 0.7, 8.0])
@pytest.mark.parametrize("border", [1, 8])
def test_padding_with_any_value_is_a_gap(make, value, border):
    sky = np.random.default_rng(5).normal(0, 1, (60, 70)).astype(np.float32)
    sky[30, 30] = 20  # sharp; without it the padding could be the maximum, which counts as saturated
    gap = np.ones(sky.shape, bool)
    gap[border : 60 - border, border : 70 - border] = False
    sky[gap] = value
    image = make({"VIS": sky})
    np.testing.assert_array_equal(image.mask["VIS"], gap | (sky == 20))
    told = f"VIS: {gap.sum()} pixels exactly {value:g} (no data); masked"
    assert told in [str(finding) for finding in image.findings]


@pytest.mark.parametrize("sd", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("blur", [0.0, 1.0])
@pytest.mark.parametrize("padding", [None, -1, -40])
def test_values_that_repeat_in_a_quantised_sky_are_none(make, sd, blur, padding):
    """Whatever the steps of the noise; an area of one value is, unless it is lost among the sky's own."""
    sky = noise(np.random.default_rng(6), (150, 160), blur=blur) + star((150, 160), 90, 70, 5e3, fwhm=3)
    sky = np.rint(sd * sky) + 1000
    gap = np.zeros(sky.shape, bool)
    if padding is not None:
        gap[:, :30] = True
        sky[gap] = 1000 + padding
    mask = make({"VIS": sky}).mask["VIS"]
    lost = padding == -1 and sd < 1
    assert lost or mask[gap].all()
    # Sky that touches the padding and happens to have its value goes with it.
    assert np.mean(mask[~gap]) <= (0.015 if padding == -1 else 0)


@pytest.mark.parametrize("level", [20, 1000])
def test_zeros_beside_a_sky_that_is_bright_are_gaps(make, level):
    """Also with a variance: it is not for want of noise that nothing is below zero."""
    sky = np.random.default_rng(7).normal(level, 1, (60, 70))
    sky[:, :20] = 0
    image = make({"VIS": sky}, variance={"VIS": np.ones(sky.shape)})
    np.testing.assert_array_equal(image.mask["VIS"], sky == 0)


def test_saturated_cores_are_masked_and_nothing_else(make, pixels):
    stars = star(pixels.shape, 20, 25, 1e5, fwhm=3) + star(pixels.shape, 40.5, 10, 2e4, fwhm=3)
    whole = (pixels + stars).astype(np.float32)
    image = make({"VIS": whole})
    assert image.findings == []
    assert not image.mask["VIS"].any()
    clipped = np.minimum(whole, 1500)
    image = make({"VIS": clipped * u.nJy})
    core = whole >= 1500
    assert core.sum() > 8
    np.testing.assert_array_equal(image.mask["VIS"], core)
    told = f"VIS: {core.sum()} pixels at the image's maximum of 1500 nJy look saturated; masked"
    assert [str(finding) for finding in image.findings] == [told]
    # Known already; and plateaus of a few levels or without noise are none.
    assert make({"VIS": clipped}, mask={"VIS": core}).findings == []
    assert make({"VIS": np.minimum(np.round(pixels), 2)}).findings == []
    flat = np.where(stars > 1500, 1500, 0)
    assert make({"VIS": flat}, variance={"VIS": np.ones(pixels.shape)}).findings == []


def test_cosmic_rays_and_hot_pixels_are_masked(make, pixels):
    """A pixel, a track along the rows, one across, and a block that is as wide as the PSF but has edges."""
    rays = np.zeros(pixels.shape, bool)
    rays[12, 30] = rays[20, 5:11] = rays[40:42, 40:42] = True
    rays[np.arange(30, 36), np.arange(20, 26)] = True
    image = make({"VIS": pixels + 40 * rays.astype(np.float32)})
    np.testing.assert_array_equal(image.mask["VIS"], rays)
    told = "VIS: 17 pixels sharper than the PSF (cosmic rays, hot pixels); masked"
    assert [str(finding) for finding in image.findings] == [told]
    # The scale of a variance does not matter, a mask that has them leaves nothing to tell.
    noisy = pixels * 1e3 + 4e4 * rays
    again = make({"VIS": noisy}, variance={"VIS": np.full(pixels.shape, 7.0)})
    np.testing.assert_array_equal(again.mask["VIS"], rays)
    assert make({"VIS": noisy}, mask={"VIS": rays}).findings == []


@pytest.mark.parametrize(
    ("survey", "fwhm", "scale"), [("euclid", 1.3, 0.1), ("rubin", 2.5, 0.2), ("rubin", 5, 0.2)]
)
@pytest.mark.parametrize("wide", [None, 1.0, 2.0])
def test_stars_are_not_sharper_than_their_psf(make, survey, fwhm, scale, wide):
    """Wherever they lie in a pixel, however bright, and where the PSF is stated too wide or not at all."""
    rng = np.random.default_rng(8)
    band = "VIS" if survey == "euclid" else "i"
    image = noise(rng, (240, 240), blur=0.5)
    for x, y in np.argwhere(np.ones((12, 12))) * 20 + rng.uniform(5, 15, (144, 2)):
        image += star(image.shape, x, y, 10 ** rng.uniform(1.5, 5) * fwhm**2, fwhm=fwhm)
    image[np.arange(0, 240, 40)] = 0  # as rows without data, beside which a star has no neighbours
    psf = {} if wide is None else {"psf": {band: moffat_psf(wide * fwhm, 41)}}
    made = make({band: image.astype(np.float32)}, make_wcs(scale), survey=survey, **psf)
    assert made.mask[band].sum() == 6 * 240
