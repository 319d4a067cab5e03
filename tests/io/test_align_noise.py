# Licensed under a 3-clause BSD style license - see LICENSE
"""Noise on the grid is what `jaisp.image.SurveyImage.source_variance` says."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.signal import fftconvolve

from jaisp.image import SurveyImage
from jaisp.io import align

from ._frames import gaussian, make_image, make_wcs


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
