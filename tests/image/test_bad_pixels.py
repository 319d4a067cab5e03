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
