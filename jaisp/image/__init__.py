# Licensed under a 3-clause BSD style license - see LICENSE
"""Images of one survey: bands on one celestial WCS, in nJy, with noise, mask, background and PSF."""

from jaisp.image.background import estimate_background
from jaisp.image.noise import Noise, measure_noise, measure_variance
from jaisp.image.psf import centre_psf, moffat_psf, normalize_psf, psf_fwhm, resize_psf, survey_psf
from jaisp.image.stars import estimate_psf
from jaisp.image.survey_image import Finding, SurveyImage

__all__ = [
    "Finding",
    "Noise",
    "SurveyImage",
    "centre_psf",
    "estimate_background",
    "estimate_psf",
    "measure_noise",
    "measure_variance",
    "moffat_psf",
    "normalize_psf",
    "psf_fwhm",
    "resize_psf",
    "survey_psf",
]
