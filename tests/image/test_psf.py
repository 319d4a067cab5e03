# Licensed under a 3-clause BSD style license - see LICENSE
"""PSFs: their shape, their width, and the PSF that an image's stars show."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photutils.psf import fit_fwhm

from jaisp.exceptions import ImageError
from jaisp.image import (
    SurveyImage,
    centre_psf,
    estimate_psf,
    moffat_psf,
    normalize_psf,
    psf_fwhm,
    resize_psf,
    survey_psf,
)
from jaisp.io import read_euclid
from jaisp.surveys import SURVEYS

from .helpers import galaxies, make_wcs, noise, star


@pytest.mark.parametrize("survey", SURVEYS.values(), ids=lambda survey: survey.name)
def test_survey_psfs_have_the_documented_width(survey):
    for band in survey.bands:
        # VIS is narrower than the pixels of ground-based cameras: no profile is that narrow there.
        for scale in (survey.pixel_scale, min(0.168, band.psf_fwhm / 1.7)):
            psf = survey_psf(survey, band.name, scale)
            assert psf.shape[0] == psf.shape[1]
            assert psf.shape[0] % 2 == 1
            assert psf.sum() == pytest.approx(1, abs=1e-5)
            assert psf_fwhm(psf) * scale == pytest.approx(band.psf_fwhm, rel=0.03)


@pytest.mark.parametrize(("fwhm", "beta"), [(1.6, 2.5), (4.0, 3.0), (5.0, 4.5)])
def test_moffat_is_integrated_over_pixels(fwhm, beta):
    galsim = pytest.importorskip("galsim")
    expected = galsim.Moffat(beta=beta, fwhm=fwhm, trunc=0).drawImage(nx=31, ny=31, scale=1).array
    psf = moffat_psf(fwhm, 31, beta=beta)
    np.testing.assert_allclose(psf, expected / expected.sum(), atol=2e-3 * psf.max())


def test_width_of_a_gaussian_is_that_of_photutils():
    y, x = np.indices((31, 31)) - 15
    psf = np.exp(-0.5 * (x**2 + y**2) / 2.2**2)
    assert psf_fwhm(psf) == pytest.approx(2.2 * 2.3548, rel=0.01)
    assert psf_fwhm(psf) == pytest.approx(fit_fwhm(psf, xypos=(15, 15), fit_shape=15)[0], rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    fwhm=st.floats(2.5, 8),
    beta=st.floats(2.2, 6),
    x=st.floats(-0.5, 0.5),
    y=st.floats(-0.5, 0.5),
    flux=st.floats(1e-3, 1e6),
)
def test_centred_and_normalised_whatever_the_psf(fwhm, beta, x, y, flux):
    image = star((51, 51), 25 + x, 25 + y, flux, fwhm=fwhm, beta=beta)
    psf, offset = centre_psf(image)
    assert psf.sum() == pytest.approx(1, abs=1e-5)
    assert psf_fwhm(psf) == pytest.approx(psf_fwhm(image), rel=0.04)
    if np.hypot(x, y) > 0.17:
        assert offset == pytest.approx((x, y), abs=0.03)
    if np.hypot(x, y) < 0.13:
        assert offset == (0, 0)


def test_resize():
    psf = moffat_psf(3.0, 31)
    for size in (11, 31, 45):
        new = resize_psf(psf, size)
        assert new.shape == (size, size)
        assert new.sum() == pytest.approx(1, abs=1e-5)
        assert np.unravel_index(np.argmax(new), new.shape) == (size // 2, size // 2)
        shared = min(size, 31) // 2
        ratio = (
            new[size // 2 - shared : size // 2 + shared + 1, size // 2]
            / psf[15 - shared : 15 + shared + 1, 15]
        )
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert np.array_equal(resize_psf(psf, 31), psf)


@pytest.mark.parametrize(
    ("psf", "message"),
    [
        (np.ones((4, 4)), "odd number of pixels"),
        (np.ones((5, 7)), "allowed: a square image"),
        (np.ones(5), "allowed: a square image"),
        (np.zeros((5, 5)), "its sum is 0"),
        (-np.ones((5, 5)), "its sum is -25"),
        (np.full((5, 5), np.nan), "25 of 25 pixels are not finite"),
    ],
)
def test_what_is_no_psf(psf, message):
    with pytest.raises(ImageError, match=message):
        normalize_psf(psf)
    for size in (4, 10):
        with pytest.raises(ImageError, match="odd number of pixels"):
            resize_psf(np.ones((5, 5)), size)
    with pytest.raises(ImageError, match="odd number of pixels"):
        moffat_psf(2.0, 20)


def test_psf_far_off_its_middle():
    with pytest.raises(ImageError, match=r"its core lies \(8.0, -?0.0\) px off the middle"):
        centre_psf(star((41, 41), 28, 20, 1.0, fwhm=3.0))


def field(seed, stars, *, n=500, fwhm=3.5, beta=3.2, blur=0.0, pixel_scale=0.2, density=60):
    rng = np.random.default_rng(seed)
    true = moffat_psf(fwhm, 61, beta=beta)
    data = noise(rng, (n, n), blur=blur)
    data += galaxies(rng, n, true.astype(float), density=density, pixel_scale=pixel_scale)
    for _ in range(stars):
        flux = 10 ** rng.uniform(1.9, 3) / np.sqrt(np.sum(true**2))
        data += star((n, n), *rng.uniform(30, n - 30, 2), flux, fwhm=fwhm, beta=beta)
    return data.astype(np.float32), true


@pytest.mark.parametrize(
    ("fwhm", "beta", "pixel_scale", "nominal", "blur"),
    [(3.5, 3.2, 0.2, 4.0, 0.0), (1.9, 2.4, 0.1, 1.8, 0.5), (5.0, 4.0, 0.1, 5.0, 1.0)],
    ids=["Rubin", "VIS", "NISP"],
)
def test_psf_from_stars(fwhm, beta, pixel_scale, nominal, blur):
    data, true = field(1, 25, fwhm=fwhm, beta=beta, blur=blur, pixel_scale=pixel_scale)
    size = 2 * int(3.2 * nominal) + 9
    psf = estimate_psf(data, np.ones_like(data), data > 1e9, fwhm=nominal, size=size)
    true = resize_psf(true, size)
    assert psf.shape == true.shape
    assert psf_fwhm(psf) == pytest.approx(psf_fwhm(true), rel=0.03)
    assert np.sum(psf**2) == pytest.approx(np.sum(true**2), rel=0.05)
    assert np.abs(psf - true).max() < 0.05 * true.max()


@pytest.mark.parametrize("seed", range(4))
def test_galaxies_are_not_taken_for_stars(seed):
    data, true = field(seed, 0, fwhm=1.9, beta=2.4, pixel_scale=0.1, density=80)
    psf = estimate_psf(data, np.ones_like(data), data > 1e9, fwhm=1.8, size=21)
    assert psf is None or psf_fwhm(psf) == pytest.approx(psf_fwhm(true), rel=0.15)


def test_too_few_stars_or_none():
    data, _ = field(3, 3)
    assert estimate_psf(data, np.ones_like(data), data > 1e9, fwhm=4.0, size=27) is None
    tiny = data[:30, :30]
    assert estimate_psf(tiny, np.ones_like(tiny), tiny > 1e9, fwhm=4.0, size=27) is None
    assert estimate_psf(0 * data, np.ones_like(data), data > 1e9, fwhm=4.0, size=27) is None


def test_stars_of_an_impossible_width_are_not_believed():
    data, _ = field(4, 25, fwhm=9.0, density=0)
    assert estimate_psf(data, np.ones_like(data), data > 1e9, fwhm=4.0, size=27) is None


def test_saturated_stars_are_left_out():
    data, true = field(5, 25)
    mask = np.zeros(data.shape, bool)
    mask[data > 100] = True
    clipped = np.minimum(data, 100)
    psf = estimate_psf(clipped, np.ones_like(data), mask, fwhm=4.0, size=27)
    assert psf is None or psf_fwhm(psf) == pytest.approx(psf_fwhm(true), rel=0.05)


def test_image_without_a_psf():
    data, true = field(1, 25)
    image = SurveyImage({"i": data}, make_wcs(0.2), survey="rubin")
    assert image.psf_source["i"] == "stars"
    assert psf_fwhm(image.psf["i"]) == pytest.approx(psf_fwhm(true), rel=0.03)
    empty = SurveyImage({"i": data[:60, :60]}, make_wcs(0.2), survey="rubin")
    assert empty.psf_source["i"] == "survey"
    assert psf_fwhm(empty.psf["i"]) * 0.2 == pytest.approx(0.80, rel=0.01)


def test_real_vis_image_without_its_psf(realdata):
    given = read_euclid(realdata / "euclid_q1" / "example_ra63.587_dec-49.684_300px.fits", bands=["VIS"])
    image = SurveyImage(given.data, given.wcs, survey="euclid")
    assert image.psf_source["VIS"] == "survey"
    assert psf_fwhm(image.psf["VIS"]) == pytest.approx(psf_fwhm(given.psf["VIS"]), rel=0.2)
    assert image.noise["VIS"].depth == pytest.approx(given.noise["VIS"].depth, abs=0.3)
