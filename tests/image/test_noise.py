# Licensed under a 3-clause BSD style license - see LICENSE
"""Noise measured from pixels: white and correlated, empty and crowded, invented and real."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from jaisp.image import SurveyImage, measure_noise, measure_variance, moffat_psf
from jaisp.image._sky import matched_filter, sample_windows, sky_statistics, source_mask, windows
from jaisp.io import read_euclid, read_rubin

from .helpers import galaxies, make_wcs, noise, sky


def test_sky_statistics_of_a_gaussian():
    values = np.random.default_rng(1).normal(3.0, 2.0, 20000)
    mode, sd = sky_statistics(values)
    assert mode == pytest.approx(3, abs=0.1)
    assert sd == pytest.approx(2, rel=0.02)


def test_sky_statistics_under_sources():
    """A fifth of the values raised by sources moves the median; the mode stays."""
    rng = np.random.default_rng(2)
    values = rng.normal(size=30000)
    values[::5] += rng.exponential(10, 6000)
    mode, sd = sky_statistics(values)
    assert mode == pytest.approx(0, abs=0.06)
    assert sd == pytest.approx(1, abs=0.05)
    assert np.median(values) > 0.2
    assert np.std(values) > 4


def test_sky_statistics_of_few_or_no_values():
    assert sky_statistics([]) == (0.0, 0.0)
    assert sky_statistics([np.nan, 2.0]) == (2.0, 0.0)
    assert sky_statistics(np.full(100, 7.0)) == (7.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(shift=st.floats(-1e4, 1e4), factor=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
@example(shift=8192.0, factor=2.0**-8, seed=61)  # whose steps went to and fro between two values
def test_sky_statistics_follow_shift_and_scale(shift, factor, seed):
    values = np.random.default_rng(seed).normal(size=2000)
    mode, sd = sky_statistics(values)
    moved, scaled = sky_statistics(shift + factor * values)
    assert scaled == pytest.approx(factor * sd, rel=1e-6)
    assert moved == pytest.approx(shift + factor * mode, abs=1e-6 * factor)


@pytest.mark.parametrize("sd", [1.0, 3.0])
def test_matched_filter_of_white_noise_has_unit_scatter(sd):
    data, psf, variance, mask = sky(3)
    snr = matched_filter(sd * data, sd**2 * variance, mask, psf)
    assert np.nanstd(snr) == pytest.approx(1, abs=0.05)


def test_matched_filter_finds_flux_over_its_error():
    psf = moffat_psf(4.0, 31)
    data, variance, mask = np.zeros((81, 81)), np.full((81, 81), 2.0), np.zeros((81, 81), bool)
    data[25:56, 25:56] = 100 * psf
    snr = matched_filter(data, variance, mask, psf)
    assert snr[40, 40] == pytest.approx(100 * np.sqrt(np.sum(psf.astype(float) ** 2) / 2), rel=1e-5)
    mask[38:43, 38:43] = True
    assert np.isnan(matched_filter(data, variance, mask, psf)[40, 40])


@pytest.mark.parametrize("density", [0, 30, 100])
def test_white_noise_with_the_right_variance(density):
    data, psf, variance, mask = sky(4, density=density)
    found, finding = measure_noise(data, variance, mask, psf, pixel_scale=0.2)
    assert found.scale == pytest.approx(1, abs=0.1)
    assert found.pixel_sd == 1
    assert found.stated
    assert finding is None
    white = np.zeros((7, 7))
    white[3, 3] = 1
    np.testing.assert_allclose(found.correlation, white, atol=0.05 if density == 0 else 0.15)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_variance_stated_wrong_by_two(factor):
    data, psf, variance, mask = sky(5, density=30)
    found, _ = measure_noise(data, factor * variance, mask, psf, pixel_scale=0.2)
    assert found.scale == pytest.approx(1 / np.sqrt(factor), rel=0.1)
    image = SurveyImage(
        {"i": data}, make_wcs(0.2), survey="rubin", variance={"i": factor * variance}, psf={"i": psf}
    )
    np.testing.assert_allclose(image.source_variance("i"), 1, rtol=0.2)


def test_depth_is_that_of_a_point_source():
    data, psf, variance, mask = sky(6)
    found, _ = measure_noise(10 * data, 100 * variance, mask, psf, pixel_scale=0.2)
    flux = 5 * 10 / np.sqrt(np.sum(psf.astype(float) ** 2))
    assert found.depth == pytest.approx(31.4 - 2.5 * np.log10(flux), abs=0.1)


@pytest.mark.parametrize("density", [0, 60])
def test_correlated_noise(density):
    """Sky blurred as if resampled: pixels scatter little, sources more."""
    rng = np.random.default_rng(7)
    psf = moffat_psf(5.0, 33)
    data = noise(rng, (300, 300), blur=1.2)
    expected = np.nanstd(matched_filter(data, np.ones(data.shape), np.zeros(data.shape, bool), psf))
    data += galaxies(rng, 300, psf.astype(float), density=density, pixel_scale=0.1)
    mask = np.zeros(data.shape, bool)
    variance = measure_variance(data, mask, psf, pixel_scale=0.1)
    assert np.sqrt(np.median(variance)) == pytest.approx(1, abs=0.05)
    found, _ = measure_noise(data, variance, mask, psf, pixel_scale=0.1, stated=False)
    # A source is a little larger than the PSF, and its noise a little more than a point's.
    assert 0.95 * expected < found.scale < 1.3 * expected
    lag = np.exp(-1 / (4 * 1.2**2))
    assert found.correlation[3, 4] == pytest.approx(lag, abs=0.05)
    assert found.correlation[4, 3] == pytest.approx(lag, abs=0.05)
    np.testing.assert_allclose(found.correlation, found.correlation[::-1, ::-1])
    assert found.depth == pytest.approx(
        31.4 - 2.5 * np.log10(5 * expected / np.sqrt(np.sum(psf**2))), abs=0.15
    )


def test_small_image_with_a_big_galaxy():
    rng = np.random.default_rng(8)
    y, x = np.indices((100, 100)) - 50.0
    galaxy = 300 * np.exp(-1.68 * np.hypot(x, y) / 10)
    psf = moffat_psf(1.8, 21, beta=2.5)
    scales = []
    for _ in range(4):
        data = noise(rng, (100, 100)) + galaxy
        variance = np.ones(data.shape)
        scales.append(measure_noise(data, variance, variance < 0, psf, pixel_scale=0.1)[0].scale)
    assert np.mean(scales) == pytest.approx(1, abs=0.12)
    assert np.std(scales) < 0.15


def test_absurd_variance_is_limited_and_told():
    data, psf, variance, mask = sky(9)
    found, finding = measure_noise(data, variance / 1e4, mask, psf, pixel_scale=0.2)
    assert found.scale == 8
    assert finding[0].startswith("the noise of a source is ")
    assert "limited to 8 times" in finding[1]
    found, _ = measure_noise(data, variance * 1e4, mask, psf, pixel_scale=0.2)
    assert found.scale == 0.3
    image = SurveyImage({"i": data}, make_wcs(0.2), survey="rubin", variance={"i": variance / 1e4})
    assert image.findings == []
    image.noise["i"]
    assert len(image.findings) == 1


def test_too_little_sky():
    data, psf, variance, mask = sky(10, n=20)
    found, finding = measure_noise(data, variance, mask, psf, pixel_scale=0.2)
    assert found.scale == 1
    assert finding[0] == "too little sky to measure the noise of a source"


def test_variance_follows_the_noise_over_the_image():
    rng = np.random.default_rng(11)
    sd = np.linspace(1, 3, 512)[:, None] * np.ones(512)
    psf = moffat_psf(4.0, 27)
    data = sd * rng.normal(size=sd.shape)
    found = np.sqrt(measure_variance(data, sd < 0, psf, pixel_scale=0.2))
    assert np.median(np.abs(found / sd - 1)) < 0.1
    flat = measure_variance(rng.normal(size=sd.shape), sd < 0, psf, pixel_scale=0.2)
    assert np.ptp(flat) == 0


def test_noiseless_image_still_has_a_variance():
    data = np.zeros((50, 50))
    data[20:30, 20:30] = 5
    variance = measure_variance(data, data < 0, moffat_psf(4.0, 27), pixel_scale=0.2)
    assert (variance > 0).all()


def test_source_mask_takes_wings_and_leaves_sky():
    data, _, variance, mask = sky(12)
    assert source_mask(data, variance, mask, 1.7).mean() < 0.03
    y, x = np.indices(data.shape) - 128.0
    galaxy = 100 * np.exp(-np.hypot(x, y) / 8)
    found = source_mask(data + galaxy, variance, mask, 1.7)
    assert found[galaxy > 0.7].mean() > 0.95
    assert found[galaxy < 0.02].mean() < 0.1


def test_windows_cover_the_image_once():
    count = np.zeros((1000, 470), int)
    for box in windows(count.shape, 200):
        count[box] += 1
    assert (count == 1).all()


def test_sampled_windows_lie_where_there_is_data():
    y, x = np.mgrid[:1000, :1000]
    mask = np.abs(y - 500) + np.abs(x - 500) > 500  # a square image turned by 45 deg in its box
    boxes = sample_windows(mask, 200, 4)
    assert len(boxes) == 4
    assert all((~mask[box]).mean() > 0.2 for box in boxes)
    assert {box[0].start for box in boxes} >= {0, 800}
    assert len(sample_windows(np.ones((300, 300), bool), 500, 9)) == 1


def test_large_images_are_sampled():
    rng = np.random.default_rng(13)
    data = rng.normal(size=(2600, 2600)).astype(np.float32)
    found, _ = measure_noise(data, np.ones_like(data), data > 99, moffat_psf(4.0, 27), pixel_scale=0.2)
    assert found.scale == pytest.approx(1, abs=0.03)


def test_matched_filter_noise_is_gaussian_in_the_sky():
    """The scale is a standard deviation only if the signal-to-noise ratios of empty sky are Gaussian."""
    data, psf, variance, mask = sky(14, n=400, blur=0.8)
    snr = matched_filter(data, variance, mask, psf)[12:-12:12, 12:-12:12].ravel()
    assert stats.kstest(snr / np.std(snr), "norm").pvalue > 0.01


# Real sky. Aperture noise in VIS is 1.4 to 1.6 times what its pixel scatter says, NISP's about 4 times.
REAL = ["EUCLJ174752.17+660743.0.fits", "example_ra63.587_dec-49.684_300px.fits"]


@pytest.mark.parametrize("name", REAL)
def test_real_rms_maps_are_right_for_sources(realdata, name):
    image = read_euclid(realdata / "euclid_q1" / name)
    for band in image.bands:
        assert 0.7 < image.noise[band].scale < 1.25, band
        assert image.noise[band].stated
    assert np.mean([image.noise[band].scale for band in image.bands]) == pytest.approx(1, abs=0.1)
    assert 0.1 < image.noise["VIS"].correlation[3, 4] < 0.3
    for band in "YJH":
        assert 0.7 < image.noise[band].correlation[3, 4] < 0.9


@pytest.mark.parametrize("name", REAL)
def test_real_noise_with_the_rms_withheld(realdata, name):
    stated = read_euclid(realdata / "euclid_q1" / name)
    image = SurveyImage(stated.data, stated.wcs, survey="euclid", psf=stated.psf)
    assert 1.25 < image.noise["VIS"].scale < 1.65
    for band in "YJH":
        assert 3.2 < image.noise[band].scale < 5.5, band
    for band in image.bands:
        assert not image.noise[band].stated
        assert image.noise[band].depth == pytest.approx(stated.noise[band].depth, abs=0.2)


def test_real_ground_bands(realdata):
    """Ground bands are resampled from 0.2 arcsec and more to 0.1: their pixels hang together."""
    image = read_rubin(realdata / "euclid_q1" / REAL[0])
    for band in image.bands:
        assert 0.6 < image.noise[band].correlation[3, 4] < 0.9, band
        assert 0.75 < image.noise[band].scale < 1.3, band


def test_aperture_noise_of_the_real_vis_image(realdata):
    """Oracle: the scatter of sums in empty apertures of 0.3 arcsec, against the source variance."""
    image = read_euclid(realdata / "euclid_q1" / REAL[1])
    data = image.sky_subtracted("VIS")
    free = ~source_mask(data, image.variance["VIS"], image.mask["VIS"], 1.0)
    y, x = np.indices((7, 7)) - 3
    disc = (np.hypot(x, y) <= 3.0).astype(float)
    sums = ndimage.convolve(data.astype(float), disc, mode="constant")
    inside = ndimage.binary_erosion(free, iterations=4)
    measured = sky_statistics(sums[inside][::5])[1]
    expected = np.sqrt(np.median(image.source_variance("VIS")) * disc.sum())
    assert measured / expected == pytest.approx(1, abs=0.15)
