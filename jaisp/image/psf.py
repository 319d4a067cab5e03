# Licensed under a 3-clause BSD style license - see LICENSE
"""Point-spread functions: checked, measured, resized, and that of a survey where none is known."""

import numpy as np
from scipy import ndimage
from scipy.optimize import least_squares

from jaisp.exceptions import ImageError
from jaisp.surveys import get_survey

__all__ = ["centre_psf", "moffat_psf", "normalize_psf", "psf_fwhm", "resize_psf", "survey_psf"]

_BETA = {"rubin": 3.0, "euclid": 2.5}
# Variance of a pixel's box is 1/12; a Gaussian's FWHM^2 is 8 ln 2 times its variance.
_PIXEL_FWHM2 = 8 * np.log(2) / 12
# Pixels. Stamps cut out to the next pixel are off by up to a half; the core of a lopsided PSF, centred as
# it should be, by a tenth.
_LEAST_SHIFT = 0.15
_SMALLEST = {"rubin": 25, "euclid": 21}


def normalize_psf(psf, *, where="PSF"):
    """
    Check a PSF image and scale it to a sum of 1.

    Parameters
    ----------
    psf : 2-D array
        Square image with an odd number of pixels a side; negative wings are fine.
    where : str, optional
        What to call it in messages.

    Returns
    -------
    psf : 2-D float32 array

    Raises
    ------
    ImageError
        If it has another shape, a pixel that is not finite, or no light.

    Examples
    --------
    >>> import numpy as np
    >>> from jaisp.image import normalize_psf
    >>> float(normalize_psf(np.ones((3, 3)))[0, 0] * 9)
    1.0
    """
    psf = np.asarray(psf, dtype=float)
    if psf.ndim != 2 or psf.shape[0] != psf.shape[1] or psf.shape[0] % 2 == 0:
        raise ImageError(f"{where}: shape {psf.shape}; allowed: a square image, odd number of pixels a side")
    if bad := np.count_nonzero(~np.isfinite(psf)):
        raise ImageError(f"{where}: {bad} of {psf.size} pixels are not finite; give a PSF without gaps")
    total = psf.sum()
    if not total > 0:
        raise ImageError(f"{where}: its sum is {total:.3g}; allowed: a PSF with light in it")
    return (psf / total).astype(np.float32)


def centre_psf(psf, *, where="PSF"):
    """
    Move a PSF so that its core lies on the middle pixel.

    PSF stamps are often centred to the next pixel only, which would shift every position by as much.

    Parameters
    ----------
    psf : 2-D array
        Square image with an odd number of pixels a side.
    where : str, optional
        What to call it in messages.

    Returns
    -------
    psf : 2-D float32 array
        Of sum 1.
    offset : tuple of float
        Where the core lay, in x and y pixels from the middle; ``(0, 0)`` if nearer than 0.15 pixels, as the
        core of a lopsided PSF may be by right.
    """
    psf = normalize_psf(psf, where=where)
    x, y = fit_moffat(psf)[3:]
    if np.hypot(x, y) < _LEAST_SHIFT:
        return psf, (0.0, 0.0)
    if max(abs(x), abs(y)) > max(2, psf.shape[0] / 8):
        raise ImageError(
            f"{where}: its core lies ({x:.1f}, {y:.1f}) px off the middle of {psf.shape}; "
            "allowed: a PSF centred in its image"
        )
    moved = ndimage.shift(psf.astype(float), (-y, -x), order=5, mode="constant")
    return normalize_psf(moved), (float(x), float(y))


def moffat_psf(fwhm, size, *, beta=3.0, oversample=11):
    """
    Moffat profile integrated over the pixels.

    Parameters
    ----------
    fwhm : float
        Full width at half maximum before the pixels, in pixels.
    size : int
        Side of the image in pixels, odd.
    beta : float, optional
        Power of the wings; a large value is a Gaussian.
    oversample : int, optional
        Points per pixel in each direction.

    Returns
    -------
    psf : 2-D float32 array
        Of sum 1.

    Examples
    --------
    >>> from jaisp.image import moffat_psf
    >>> moffat_psf(4.0, 25).shape
    (25, 25)
    """
    if size % 2 == 0:
        raise ImageError(f"PSF: size {size}; allowed: an odd number of pixels")
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    step = (np.arange(size * oversample) + 0.5) / oversample - size / 2
    fine = (1 + (step[:, None] ** 2 + step**2) / alpha**2) ** -beta
    return normalize_psf(fine.reshape(size, oversample, size, oversample).sum((1, 3)))


def survey_psf(survey, band, pixel_scale):
    """
    PSF of a survey's band where no better is known: a Moffat profile of the documented width.

    Parameters
    ----------
    survey : str or Survey
        Survey.
    band : str
        Name of the band.
    pixel_scale : float
        In arcsec.

    Returns
    -------
    psf : 2-D float32 array
        Of sum 1; its width with the pixels is that of `jaisp.surveys.Band.psf_fwhm`.
    """
    survey = get_survey(survey)
    fwhm = survey.band(band).psf_fwhm / pixel_scale
    beta = _BETA[survey.name]
    size = psf_size(survey, fwhm)
    # A pixel as wide as the PSF leaves little of it to see.
    least = 0.2 * fwhm
    inside = np.sqrt(max(fwhm**2 - _PIXEL_FWHM2, least**2))
    for _ in range(3):
        psf = moffat_psf(inside, size, beta=beta)
        inside = max(inside * fwhm / psf_fwhm(psf), least)
    return psf


def psf_size(survey, fwhm):
    """Odd side of a PSF image that holds nearly all the light of a PSF ``fwhm`` pixels wide."""
    return int(max(_SMALLEST[survey.name], 2 * np.ceil(3.2 * fwhm) + 1))


def resize_psf(psf, size):
    """
    Crop or pad a PSF with zeros about its middle pixel, and normalise it.

    Parameters
    ----------
    psf : 2-D array
        Square image with an odd number of pixels a side.
    size : int
        Side wanted, odd.

    Returns
    -------
    psf : 2-D float32 array
        Of sum 1.
    """
    psf = normalize_psf(psf)
    if size % 2 == 0:
        raise ImageError(f"PSF: size {size}; allowed: an odd number of pixels")
    pad = (size - psf.shape[0]) // 2
    return normalize_psf(np.pad(psf, pad) if pad >= 0 else psf[-pad:pad, -pad:pad])


def psf_fwhm(psf):
    """
    Full width at half maximum of a PSF image, from a Moffat profile fitted to its pixels.

    Parameters
    ----------
    psf : 2-D array
        PSF image, pixels included.

    Returns
    -------
    fwhm : float
        In pixels.

    Examples
    --------
    >>> from jaisp.image import psf_fwhm, survey_psf
    >>> round(psf_fwhm(survey_psf("rubin", "i", 0.2)) * 0.2, 2)
    0.8
    """
    return float(fit_moffat(psf)[1])


def psf_extent(psf):
    """
    How much of a PSF its image holds, from a Moffat profile fitted to its core.

    Parameters
    ----------
    psf : 2-D array
        PSF image, pixels included.

    Returns
    -------
    width : float
        Side of the image in units of the FWHM.
    lost : float
        Share of the light beyond the image, if the profile goes on.
    """
    _, fwhm, beta = fit_moffat(psf)[:3]
    side = np.shape(psf)[0]
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    # A circle of the same area is as good as the square.
    return side / fwhm, float((1 + side**2 / np.pi / alpha2) ** (1 - beta))


def psf_pedestal(psf):
    """
    Light in a level beneath a PSF, as its edge tells: 0 where the edge is what its core leads to expect.

    Parameters
    ----------
    psf : 2-D array
        PSF image of sum 1, pixels included.

    Returns
    -------
    light : float
        Of the level over all of the image; may be negative.
    """
    psf = np.asarray(psf, float)
    peak, fwhm, beta, x0, y0 = fit_moffat(psf)
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    y, x = np.indices(psf.shape) - psf.shape[0] // 2
    edge = np.maximum(abs(x), abs(y)) == psf.shape[0] // 2
    wings = peak * (1 + ((x[edge] - x0) ** 2 + (y[edge] - y0) ** 2) / alpha2) ** -beta
    return float(np.median(psf[edge] - wings) * psf.size)


def fit_moffat(image, *, beta=None, radius=None):
    """
    Fit a round Moffat profile to the core of a star or PSF.

    Returns
    -------
    peak, fwhm, beta, x, y : float
        Position in pixels from the middle of the image.
    """
    image = np.asarray(image, dtype=float)
    half = image.shape[0] // 2
    top = image.max()
    first = 2 * np.sqrt(max(np.count_nonzero(image > top / 2), 1) / np.pi)
    peak_y, peak_x = np.array(np.unravel_index(np.argmax(image), image.shape)) - half
    reach = int(np.ceil(radius or 2.5 * first)) + max(abs(peak_x), abs(peak_y))
    cut = slice(max(0, half - reach), half + reach + 1)
    image = image[cut, cut]
    middle = half - cut.start
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] - middle

    def misfit(values):
        peak, fwhm, power, x0, y0 = values if beta is None else (*values[:2], beta, *values[2:])
        alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / power) - 1)
        return ((peak * (1 + ((x - x0) ** 2 + (y - y0) ** 2) / alpha2) ** -power - image) / top).ravel()

    start = np.array([top, first, 3.0, peak_x, peak_y])
    lower = np.array([0, 0.2, 1.1, peak_x - 2, peak_y - 2])
    upper = np.array([10 * top, 4 * first + 2, 60.0, peak_x + 2, peak_y + 2])
    if beta is not None:
        keep = [0, 1, 3, 4]
        start, lower, upper = start[keep], lower[keep], upper[keep]
    fit = least_squares(misfit, start, bounds=(lower, upper), x_scale=np.maximum(np.abs(start), 0.3)).x
    return tuple(fit) if beta is None else (*fit[:2], beta, *fit[2:])
