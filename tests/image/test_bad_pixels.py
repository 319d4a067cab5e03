# Licensed under a 3-clause BSD style license - see LICENSE
"""Gaps of zeros and saturated cores, which no mask tells of."""

from io import BytesIO

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits

from .helpers import star


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
