# Licensed under a 3-clause BSD style license - see LICENSE
"""Residual sky: what is left of it in images that are sky-subtracted already."""

import numpy as np

from jaisp.image._mesh import measure_mesh
from jaisp.image._sky import psf_sd

__all__ = ["CELL", "estimate_background"]

CELL = 12.8  # arcsec: several times the size of most galaxies, a fraction of the scale of sky residuals
# A level below this many sigma of a source is left: it is within the light of undetected sources.
_LEAST_LEVEL = 0.15
# In an image of a cell or two the halo of one galaxy passes for a slope of the sky: only an obvious one is
# taken out.
_LEAST_SLOPE_IN_SMALL = 2.0


def estimate_background(data, variance, mask, psf, *, pixel_scale):
    """
    Estimate the residual sky.

    The mode of the sky is measured in cells of 12.8 arcsec, sources masked from core to wings, on the image
    smoothed by the PSF, because what matters is the bias of a source. A level, and its variation over the
    image, is returned only as far as it is significant.

    Parameters
    ----------
    data, variance : 2-D array
        Image in nJy and its variance.
    mask : 2-D bool array
        True where bad.
    psf : 2-D array
        PSF of the image, or one like it.
    pixel_scale : float
        In arcsec.

    Returns
    -------
    background : 2-D float32 array or None
        In nJy per pixel; None where there is nothing significant to subtract.
    """
    mesh = measure_mesh(data, variance, mask, psf_sd(psf), cell=CELL / pixel_scale)
    whole = mesh.whole
    level = whole["level"]
    if abs(level) < max(4 * whole["level_err"], _LEAST_LEVEL * whole["source_level"]):
        level = 0.0
    surface = mesh.surface_pixels()
    # Variation is variation about the level that was measured, significant or not.
    part = mesh.varies(mesh.level, mesh.level_err, whole["level"])
    if part:
        return surface + mesh.to_pixels(whole["level"] + part * (mesh.level - whole["level"]))
    small = min(data.shape) < 2 * CELL / pixel_scale
    least = _LEAST_SLOPE_IN_SMALL * whole["source_level"] if small else 0
    if np.ptp(surface) > least:
        return surface + np.float32(whole["level"])
    return np.full(data.shape, level, np.float32) if level else None
