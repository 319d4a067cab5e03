# Licensed under a 3-clause BSD style license - see LICENSE
"""The WCS of an image as it is given: checked, and the same for all bands."""

import numpy as np
from astropy.wcs.utils import proj_plane_pixel_scales

from jaisp.exceptions import ImageError, WCSError
from jaisp.image.inputs import celestial_wcs, check_frame, grid_shift

__all__ = ["ONE_GRID", "given_wcs"]

# Coarser or finer than any survey image: almost always a wrong or missing CD matrix.
_PIXEL_SCALES = (0.01, 2.0)
ONE_GRID = "all bands of one survey must lie on one grid: reproject them first"


def given_wcs(wcs, stated, shape, where):
    """
    Check the WCS of an image.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS` or FITS header, or None
        Of all bands.
    stated : dict of `~astropy.wcs.WCS`
        Those that bands state themselves; the first is that of the image where ``wcs`` is None.
    shape : tuple of int
        ``(ny, nx)`` of the image.
    where : str
        What messages begin with.

    Returns
    -------
    wcs : `~astropy.wcs.WCS`
        Its celestial part.
    pixel_scale : float
        In arcsec.

    Raises
    ------
    ImageError, WCSError
        For a WCS that cannot be used, or bands on different grids.
    """
    wcs = celestial_wcs(next(iter(stated.values()), None) if wcs is None else wcs, where)
    for each in (wcs, *stated.values()):
        check_frame(each, where)
    scales = np.abs(proj_plane_pixel_scales(wcs)) * 3600
    if not np.all(np.isfinite(scales)) or scales.min() < _PIXEL_SCALES[0] or scales.max() > _PIXEL_SCALES[1]:
        raise WCSError(
            f"{where}: wrong pixel scale of {scales[0]:.4g} x {scales[1]:.4g} arcsec; allowed: "
            f"{_PIXEL_SCALES[0]} to {_PIXEL_SCALES[1]} arcsec; check the CD or CDELT cards"
        )
    if scales.max() > 1.1 * scales.min():
        raise WCSError(
            f"{where}: pixels of {scales[0]:.4g} x {scales[1]:.4g} arcsec are not square; "
            "reproject the image first"
        )
    pixel_scale = float(np.sqrt(scales[0] * scales[1]))
    ny, nx = shape
    corners = np.array([[0, 0], [nx - 1, 0], [0, ny - 1], [nx - 1, ny - 1]], float)
    sky = wcs.pixel_to_world_values(*corners.T)
    if not np.all(np.isfinite(sky)):
        raise WCSError(
            f"{where}: the WCS gives no sky position for the image's corners; check CRPIX and CRVAL"
        )
    for band, other in stated.items():
        if not (shift := grid_shift(wcs, other, shape)) <= 0.05:
            raise ImageError(
                f"{where}: the WCS of band {band} differs from the image's by {shift:.3g} px; {ONE_GRID}"
            )
    return wcs, pixel_scale
