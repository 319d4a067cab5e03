# Licensed under a 3-clause BSD style license - see LICENSE
"""PSF images as they are given: what is accepted, mended and told."""

import numpy as np
import pytest
from astropy.io import fits

from jaisp.exceptions import ImageError
from jaisp.image import Finding, moffat_psf, normalize_psf, psf_fwhm, survey_psf
from jaisp.surveys import EUCLID, RUBIN

from .helpers import fails, make_wcs


def test_psfs(make):
    image = make(psf={"VIS": 3.0 * moffat_psf(2.0, 21, beta=2.5)})
    assert image.psf_source["VIS"] == "given"
    assert image.findings == [Finding("VIS", "PSF summed to 3", "normalised to 1")]
    assert image.psf["VIS"].sum() == pytest.approx(1, abs=1e-5)
    assert make(psf={"VIS": moffat_psf(3.0, 101)}).psf["VIS"].shape == (101, 101)
    negative = moffat_psf(3.0, 21) - np.float32(1e-4)
    assert make(psf={"VIS": negative}).psf["VIS"].min() < 0
    fails(
        ImageError,
        "Euclid VIS PSF: shape (20, 20); allowed: a square image, odd",
        make,
        psf={"VIS": np.ones((20, 20))},
    )
    fails(ImageError, "shape (21, 23); allowed", make, psf={"VIS": np.ones((21, 23))})
    fails(
        ImageError,
        "Euclid VIS PSF: its sum is 0; allowed: a PSF with light",
        make,
        psf={"VIS": np.zeros((21, 21))},
    )
    fails(ImageError, "441 of 441 pixels are not finite", make, psf={"VIS": np.full((21, 21), np.nan)})


def test_zeros_around_a_psf_say_nothing_of_its_wings(make):
    psf = moffat_psf(3.0, 21)
    image = make(psf={"VIS": np.pad(psf, 10)})
    np.testing.assert_array_equal(image.psf["VIS"], make(psf={"VIS": psf}).psf["VIS"])
    # Cut as much on all sides: its middle is the middle of what was given.
    lopsided = np.pad(psf, ((4, 10), (7, 7)))
    assert make(psf={"VIS": lopsided}).psf["VIS"].shape == (27, 27)


@pytest.mark.parametrize(
    ("fwhm", "side", "width", "off"),
    [(1.9, 9, 4.6, 10), (1.9, 7, 3.6, 10), (4.1, 7, 1.7, 25), (4.1, 3, 0.7, 72)],
)
def test_psf_image_that_is_too_small(make, fwhm, side, width, off):
    large = moffat_psf(np.sqrt(fwhm**2 - 0.45), 61)  # as wide as that with its pixels
    wcs = make_wcs(EUCLID.band("VIS").psf_fwhm / fwhm)
    cut = (61 - side) // 2
    (finding,) = make(wcs=wcs, psf={"VIS": normalize_psf(large[cut:-cut, cut:-cut])}).findings
    assert finding.what == f"PSF image of {side} px is only {width} FWHM wide"
    assert finding.done == f"fluxes may be off by up to {off} %; give a larger one"
    assert finding.doubtful is (off > 10)  # more than the measurement makes up for
    assert make(wcs=wcs, psf={"VIS": large}).findings == []


@pytest.mark.parametrize(("fwhm", "told"), [(0.08, True), (0.1, False), (0.35, False), (0.38, True)])
def test_psf_that_may_be_on_other_pixels(make, fwhm, told):
    """Half to twice as wide as the survey's, of 0.18 arcsec, is what telescopes and the air make."""
    psf = moffat_psf(fwhm / 0.02, 201)
    image = make(wcs=make_wcs(0.02), psf={"VIS": psf})
    what = f"PSF of {0.02 * psf_fwhm(psf):.2g} arcsec FWHM, where Euclid has 0.18"
    assert [finding.what for finding in image.findings] == told * [what]
    done = "if it is not on pixels of 0.02 arcsec, fluxes are wrong: resample it"
    assert [finding.done for finding in image.findings] == told * [done]
    assert all(finding.doubtful for finding in image.findings)


@pytest.mark.parametrize("level", [-2e-4, 0, 1e-4])
@pytest.mark.parametrize("light", ["moffat", "airy", "kolmogorov"])
def test_level_beneath_a_psf(make, light, level):
    """Wings and diffraction rings are none."""
    galsim = pytest.importorskip("galsim")
    profile = {
        "moffat": galsim.Moffat(beta=2, fwhm=0.18),
        "airy": galsim.Convolve(galsim.Airy(lam=700, diam=1.2, obscuration=0.35), galsim.Gaussian(fwhm=0.1)),
        "kolmogorov": galsim.Kolmogorov(fwhm=0.2),
    }[light]
    psf = profile.drawImage(nx=61, ny=61, scale=0.1).array
    image = make(psf={"VIS": psf / psf.sum() + level})
    told = [finding.what for finding in image.findings if finding.doubtful]
    light = 61**2 * level / (1 + 61**2 * level)
    assert [what[:37] for what in told] == (level != 0) * ["PSF has a level beneath it that adds "]
    for what in told:
        assert float(what.split()[-5]) == pytest.approx(100 * light, rel=0.1)


@pytest.mark.parametrize("cards", [{"PIXELSCL": 0.02}, {"OVERSAMP": 5}])
def test_psf_hdu_on_pixels_of_its_own(make, cards):
    fine = moffat_psf(9.0, 105)
    image = make(psf={"VIS": fits.ImageHDU(fine, fits.Header(cards))})
    expected = np.pad(fine.reshape(21, 5, 21, 5).sum((1, 3)), 1)
    np.testing.assert_allclose(image.psf["VIS"], expected, atol=1e-4)
    assert image.findings == []
    message = "Euclid VIS: its PSF states pixels of 3 arcsec, those of the image are 0.1; give the PSF on"
    fails(ImageError, message, make, psf={"VIS": fits.ImageHDU(fine, fits.Header({"PIXELSCL": 3.0}))})


@pytest.mark.parametrize("survey", [RUBIN, EUCLID])
def test_psfs_of_the_surveys_are_large_enough(make, pixels, survey):
    scale = survey.pixel_scale
    for name in survey.band_names:
        psf = {name: survey_psf(survey, name, scale)}
        assert make({name: pixels}, make_wcs(scale), survey=survey, psf=psf).findings == []


def test_psf_that_is_off_its_middle_is_moved(make):
    y, x = np.indices((21, 21)) - 10.0
    psf = np.exp(-0.5 * ((x - 0.4) ** 2 + (y + 0.3) ** 2) / 2**2)
    image = make(wcs=make_wcs(0.04), psf={"VIS": psf / psf.sum()})
    moved = image.psf["VIS"]
    assert np.sum(moved * x) == pytest.approx(0, abs=0.01)
    assert np.sum(moved * y) == pytest.approx(0, abs=0.01)
    assert psf_fwhm(moved) == pytest.approx(2 * 2.3548, rel=0.01)
    assert [finding.what for finding in image.findings] == ["PSF centred (0.40, -0.30) px off its middle"]
