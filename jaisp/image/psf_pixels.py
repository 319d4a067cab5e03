# Licensed under a 3-clause BSD style license - see LICENSE
"""PSF images carried from one pixel grid to another, through the same interpolation as the pixels."""

import warnings

import astropy.units as u
import numpy as np
from astropy.wcs import WCS
from scipy import ndimage

from jaisp.exceptions import ImageError
from jaisp.image.psf import normalize_psf
from jaisp.image.units import number_card

__all__ = ["on_pixels", "resample_psf"]

# Positions of the star within its pixel, per axis, over which the interpolated PSF is averaged.
_PHASES = 3
# Zeros around the PSF, so that the splines do not see its edge.
_PAD = 8
_SCALES = (1e-3, 10)  # arcsec: cards that say other pixels are not of the sky
_RATIOS = (1 / 20, 5)  # pixels of a PSF, in those of the image, that can be resampled


def resample_psf(psf, jacobian, *, oversample=1, interpolated=True):
    """
    PSF of an image after the image was resampled.

    Parameters
    ----------
    psf : 2-D array
        PSF on the pixels of the image, centred on its middle pixel, odd and square.
    jacobian : array of shape (2, 2)
        Image pixels per target pixel: ``[[dx/dx', dx/dy'], [dy/dx', dy/dy']]``.
    oversample : int
        Number of samples averaged per target pixel and axis.
    interpolated : bool
        Whether the target was made by spline interpolation, which broadens the PSF, or by adding whole
        pixels.

    Returns
    -------
    psf : 2-D float32 array
        PSF on the target grid: centred, odd, square, sum 1.

    Notes
    -----
    What a cubic spline makes of a star depends on where in its pixel the star lies. The mean over those
    positions, which is returned, is the PSF convolved with the spline's kernel.
    """
    padded = np.pad(np.asarray(psf, float), _PAD)
    middle = padded.shape[0] // 2
    half = int(np.ceil(psf.shape[0] // 2 / np.sqrt(abs(np.linalg.det(jacobian)))))
    step = (np.arange(oversample) + 0.5) / oversample - 0.5
    target = (np.arange(-half, half + 1)[:, None] + step).ravel()
    y, x = np.meshgrid(target, target, indexing="ij")
    at = np.array([jacobian[1][0] * x + jacobian[1][1] * y, jacobian[0][0] * x + jacobian[0][1] * y]) + middle
    if interpolated:
        phases = (np.arange(_PHASES) + 0.5) / _PHASES - 0.5
        # A spline of fifth order is near enough to the continuous PSF to move the star by part of a pixel.
        fine = ndimage.spline_filter(padded, order=5)
        total = 0
        for dy in phases:
            for dx in phases:
                star = ndimage.shift(fine, (dy, dx), order=5, prefilter=False)
                total = total + ndimage.map_coordinates(star, at + np.array([dy, dx])[:, None, None], order=3)
    else:
        total = ndimage.map_coordinates(padded, at, order=5)
    n = 2 * half + 1
    return normalize_psf(total.reshape(n, oversample, n, oversample).sum(axis=(1, 3)))


def on_pixels(psf, header, scale, where):
    """PSF on the pixels of the image, ``scale`` arcsec wide, where its header states others."""
    stated = _stated_scale(header, scale, where)
    if stated is None or abs(stated / scale - 1) < 0.02:
        return psf
    ratio = stated / scale
    if not _RATIOS[0] < ratio < _RATIOS[1]:
        raise ImageError(
            f"{where}: its PSF states pixels of {stated:.3g} arcsec, those of the image are {scale:.3g}; "
            "give the PSF on the pixels of the image"
        )
    # Sums over the pixels of the image, as the image itself is.
    return resample_psf(
        normalize_psf(psf, where=f"{where} PSF"),
        np.eye(2) / ratio,
        oversample=max(1, round(1 / ratio)),
        interpolated=False,
    )


def _stated_scale(header, scale, where):
    """Pixel scale in arcsec that the header of a PSF states, or None; ``scale`` is that of the image."""
    for key in ("PIXELSCL", "PIXSCALE"):
        if (stated := number_card(header.get, key, where)) is not None and stated > 0:
            return stated
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wcs = WCS(header, naxis=2)
    except Exception:
        # wcslib raises many kinds of errors, and this is no image of the sky.
        wcs = WCS(naxis=2)
    unit = wcs.wcs.cunit[0]
    unit = unit.to(u.arcsec) if unit.is_equivalent(u.arcsec) else 3600
    stated = unit * float(np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix))))
    if _SCALES[0] < stated < _SCALES[1]:
        return stated
    oversampling = number_card(header.get, "OVERSAMP", where)
    return scale / oversampling if oversampling is not None and oversampling > 0 else None
