# Licensed under a 3-clause BSD style license - see LICENSE
"""Point-spread functions: given, estimated from stars, or that of the survey."""

import numpy as np

from jaisp.exceptions import ImageError
from jaisp.surveys import get_survey

__all__ = ["estimate_psf", "moffat_psf", "normalize_psf", "psf_fwhm", "resize_psf", "survey_psf"]


def normalize_psf(psf, *, where="PSF"):
    """Return a PSF as float32 that sums to 1, after checking it."""
    psf = np.asarray(psf, float)
    if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0:
        raise ImageError(
            f"{where} PSF: shape {psf.shape}; allowed: a square image with an odd number of pixels a side"
        )
    if not np.all(np.isfinite(psf)):
        raise ImageError(f"{where} PSF: {np.count_nonzero(~np.isfinite(psf))} pixels are not finite")
    total = psf.sum()
    if not total > 0:
        raise ImageError(f"{where} PSF: sum {total:.3g} is not positive")
    return (psf / total).astype(np.float32)


def moffat_psf(fwhm, size, *, beta=3.0, oversample=11):
    """Moffat profile integrated over the pixels."""
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    step = (np.arange(size * oversample) + 0.5) / oversample - size / 2
    r2 = step[:, None] ** 2 + step**2
    fine = (1 + r2 / alpha**2) ** -beta
    psf = fine.reshape(size, oversample, size, oversample).sum((1, 3))
    return (psf / psf.sum()).astype(np.float32)


def survey_psf(survey, band, pixel_scale):
    """Documented PSF of a survey's band on the given pixel scale."""
    survey = get_survey(survey)
    fwhm = survey.band(band).psf_fwhm / pixel_scale
    size = max(21, 2 * int(np.ceil(3.2 * fwhm)) + 1)
    return moffat_psf(fwhm, size)


def estimate_psf(data, variance, mask, *, fwhm):
    """PSF from stars, or None."""
    return None


def resize_psf(psf, size):
    """Crop or zero-pad a PSF about its middle pixel, and normalise."""
    psf = np.asarray(psf)
    new = np.zeros((size, size), np.float32)
    n = min(size, psf.shape[0])
    a, b = (psf.shape[0] - n) // 2, (size - n) // 2
    new[b : b + n, b : b + n] = psf[a : a + n, a : a + n]
    return normalize_psf(new)


def psf_fwhm(psf):
    """FWHM in pixels."""
    psf = np.asarray(psf, float)
    return float(2 * np.sqrt(np.count_nonzero(psf > psf.max() / 2) / np.pi))
