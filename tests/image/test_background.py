# Licensed under a 3-clause BSD style license - see LICENSE
"""Residual sky: taken out where it is there, left where it is not."""

import numpy as np
import pytest
from photutils.background import Background2D, MedianBackground

from jaisp.image import SurveyImage, estimate_background, moffat_psf
from jaisp.image._sky import source_mask

from .helpers import galaxies, make_wcs, noise, sky

# The level at which the flux of a point source is off by one sigma: sd / sqrt(noise-equivalent area).


def source_level(psf):
    return np.sqrt(np.sum(psf.astype(float) ** 2))


@pytest.mark.parametrize("density", [0, 30, 60])
@pytest.mark.parametrize("n", [256, 400])
def test_flat_sky_under_sources(density, n):
    errors = []
    for seed in range(4):
        data, psf, variance, mask = sky(20 + seed, n=n, density=density, level=1.0)
        background = estimate_background(data, variance, mask, psf, pixel_scale=0.2)
        assert np.ptp(background) < 0.3 * source_level(psf)
        errors.append((background.mean() - 1) / source_level(psf))
    assert abs(np.mean(errors)) < 0.1 + 2 * np.std(errors) / 2
    assert abs(np.mean(errors)) < 0.2


@pytest.mark.parametrize("density", [0, 60])
def test_nothing_is_subtracted_where_nothing_is(density):
    for seed in range(3):
        data, psf, variance, mask = sky(30 + seed, density=density)
        background = estimate_background(data, variance, mask, psf, pixel_scale=0.2)
        assert background is None or np.abs(background).max() < 0.25 * source_level(psf)


def test_correlated_sky_with_sources():
    errors = []
    for seed in range(3):
        rng = np.random.default_rng(40 + seed)
        psf = moffat_psf(5.0, 33)
        data = noise(rng, (300, 300), blur=1.2) - 0.7
        data += galaxies(rng, 300, psf.astype(float), density=60, pixel_scale=0.1)
        background = estimate_background(data, np.ones(data.shape), data > 1e9, psf, pixel_scale=0.1)
        # A sigma of a source is about four times what it would be if pixels were independent.
        errors.append((background.mean() + 0.7) / (4 * source_level(psf)))
    assert abs(np.mean(errors)) < 0.1


def test_varying_sky():
    rng = np.random.default_rng(50)
    psf = moffat_psf(4.0, 27)
    y, x = np.indices((512, 512)) / 512
    truth = 0.7 * np.sin(3 * x) * np.cos(4 * y)
    data = rng.normal(size=truth.shape) + truth
    data += galaxies(rng, 512, psf.astype(float), density=30, pixel_scale=0.2)
    background = estimate_background(data, np.ones(truth.shape), truth > 9, psf, pixel_scale=0.2)
    assert np.std(background - truth) < 0.65 * source_level(psf) < 0.3 * np.std(truth)
    # photutils, given the same mask of sources, agrees.
    mask = source_mask(data - truth, np.ones(truth.shape), truth > 9, 1.8)
    other = Background2D(
        data, 64, mask=mask, exclude_percentile=80, bkg_estimator=MedianBackground()
    ).background
    assert np.std(background - other) < 0.8 * source_level(psf)


@pytest.mark.parametrize("steep", [30, 300, 3000])
@pytest.mark.parametrize("turn", [0, 45, 90])
def test_steep_slopes_along_any_direction(steep, turn):
    """Along an axis its values have a sharp lower end, which must not pass for the sky's mode."""
    rng = np.random.default_rng(8)
    psf = moffat_psf(2.0, 21)
    y, x = (np.indices((300, 300)) - 149.5) / 300
    slope = steep * (np.cos(np.radians(turn)) * x + np.sin(np.radians(turn)) * y)
    data = noise(rng, slope.shape, blur=1.3) + slope
    background = estimate_background(data, np.ones(slope.shape), slope > np.inf, psf, pixel_scale=0.1)
    assert np.std(background - slope) < 0.3


def test_slope_in_a_small_image():
    """A cutout of 10 arcsec on the skirts of something bright."""
    rng = np.random.default_rng(51)
    psf = moffat_psf(7.0, 47)
    slope = np.linspace(0.5, 2.0, 100) * np.ones((100, 1))
    data = noise(rng, (100, 100), blur=1.3) + slope
    background = estimate_background(data, np.ones(slope.shape), slope < 0, psf, pixel_scale=0.1)
    assert np.abs(background - slope).max() < 0.6
    assert np.ptp(background[:, 0]) < 0.5


def test_level_in_a_small_image():
    """What the halo of a galaxy leaves, half a sigma of a source, makes points look like its knots."""
    rng = np.random.default_rng(55)
    psf = moffat_psf(1.8, 25)
    level = 0.5 * source_level(psf)
    data = rng.normal(size=(100, 100)) + level
    background = estimate_background(data, np.ones(data.shape), data > 1e9, psf, pixel_scale=0.1)
    np.testing.assert_allclose(background, level, atol=0.2 * source_level(psf))


@pytest.mark.parametrize("radius", [10.0, 30.0])
def test_big_galaxies_are_not_eaten(radius):
    rng = np.random.default_rng(52)
    psf = moffat_psf(4.0, 27)
    y, x = np.indices((512, 512)) - 256.0
    galaxy = 200 * np.exp(-1.68 * np.hypot(x, y / 0.7) / radius)
    data = rng.normal(size=galaxy.shape) + galaxy
    background = estimate_background(data, np.ones(galaxy.shape), galaxy < 0, psf, pixel_scale=0.2)
    lost = 0 if background is None else background[galaxy > 0.5].sum()
    assert abs(lost) < 0.005 * galaxy.sum()


def test_galaxy_that_fills_a_cutout():
    rng = np.random.default_rng(53)
    psf = moffat_psf(5.0, 33)
    y, x = np.indices((100, 100)) - 50.0
    galaxy = 100 * np.exp(-1.68 * np.hypot(x, y) / 12)
    data = noise(rng, galaxy.shape, blur=1.2) + galaxy
    background = estimate_background(data, np.ones(galaxy.shape), galaxy < 0, psf, pixel_scale=0.1)
    lost = 0 if background is None else background.sum()
    assert abs(lost) < 0.02 * galaxy.sum()


def test_masked_pixels_do_not_count():
    data, psf, variance, mask = sky(54)
    mask[:, :100] = True
    data[mask] = 1e6
    background = estimate_background(data, variance, mask, psf, pixel_scale=0.2)
    assert background is None or np.abs(background).max() < 0.3


def test_image_subtracts_its_background():
    data, psf, variance, _ = sky(55, level=3.0)
    image = SurveyImage({"r": data}, make_wcs(0.2), survey="rubin", variance={"r": variance}, psf={"r": psf})
    assert image.background["r"].mean() == pytest.approx(3, abs=0.05)
    np.testing.assert_allclose(image.sky_subtracted("r"), data - image.background["r"])
    flat = SurveyImage(
        {"r": data - 3}, make_wcs(0.2), survey="rubin", variance={"r": variance}, psf={"r": psf}
    )
    assert flat.background["r"] is None
    np.testing.assert_array_equal(flat.sky_subtracted("r"), flat.data["r"])


def test_scale_does_not_depend_on_the_sky_level():
    data, psf, variance, _ = sky(56, density=30)
    images = [
        SurveyImage(
            {"r": data + level}, make_wcs(0.2), survey="rubin", variance={"r": variance}, psf={"r": psf}
        )
        for level in (0.0, 50.0)
    ]
    assert images[0].noise["r"].scale == pytest.approx(images[1].noise["r"].scale, rel=0.03)
