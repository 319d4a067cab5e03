# Licensed under a 3-clause BSD style license - see LICENSE
"""PSF images carried from one pixel grid to another, through the same interpolation as the pixels."""

import numpy as np
from scipy import ndimage

from jaisp.image import normalize_psf

__all__ = ["resample_psf"]

# Positions of the star within its pixel, per axis, over which the interpolated PSF is averaged.
_PHASES = 3
# Zeros around the PSF, so that the splines do not see its edge.
_PAD = 8


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
