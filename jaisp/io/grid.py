# Licensed under a 3-clause BSD style license - see LICENSE
"""Geometry of pixel grids: finer, shifted and fresh WCSs, footprints, and when one grid nests in another."""

import warnings
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS, Sip
from astropy.wcs.utils import pixel_to_pixel

__all__ = [
    "Nesting",
    "bounding_box",
    "can_rescale",
    "clip_polygon",
    "describe_position",
    "footprint",
    "local_jacobian",
    "nesting",
    "outline",
    "polygon_area",
    "rescaled",
    "shifted",
    "sky_jacobian",
    "tangent_grid",
    "transform",
]

# Two grids are one if no pixel centre is further off than this, in pixels of the image.
_SAME = 1e-3


@dataclass(frozen=True)
class Nesting:
    """
    How an image lies on a grid: its pixel (i, j) covers ``scale`` x ``scale`` grid pixels from (x + scale i,
    y + scale j).

    Parameters
    ----------
    scale : int
        Side of a pixel of the image in grid pixels.
    x, y : int
        First of the grid pixels that the image's pixel (0, 0) covers.
    """

    scale: int
    x: int
    y: int


def transform(wcs_from, wcs_to, x, y):
    """
    Pixel positions on one WCS to those on another, through the sky (and through their celestial frames).

    Positions without a counterpart are NaN. A distortion that cannot be inverted outside its image gives its
    best guess, silently: only positions far outside an image meet it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return pixel_to_pixel(wcs_from, wcs_to, x, y)


def local_jacobian(wcs_from, wcs_to, x, y, step=2.0):
    """
    Derivative of `transform` at one or more positions.

    Parameters
    ----------
    wcs_from, wcs_to : `~astropy.wcs.WCS`
        The grid of ``x`` and ``y``, and the grid to transform to.
    x, y : float or array
        Pixel positions on ``wcs_from``.
    step : float
        Half the baseline of the central difference, in pixels.

    Returns
    -------
    jacobian : array of shape (..., 2, 2)
        ``[[dx'/dx, dx'/dy], [dy'/dx, dy'/dy]]``.
    """
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    right = np.array(transform(wcs_from, wcs_to, x + step, y))
    left = np.array(transform(wcs_from, wcs_to, x - step, y))
    upper = np.array(transform(wcs_from, wcs_to, x, y + step))
    lower = np.array(transform(wcs_from, wcs_to, x, y - step))
    return np.moveaxis(np.array([right - left, upper - lower]) / (2 * step), (0, 1), (-1, -2))


def sky_jacobian(wcs, x, y):
    """Offset on the sky, (east, north) in arcsec, of a pixel step along (x, y) at a position, (2, 2)."""
    centre = wcs.pixel_to_world(x, y).icrs
    return local_jacobian(wcs, _tangent(centre, np.eye(2), (0.0, 0.0)), x, y)


def _tangent(centre, matrix, middle):
    """TAN WCS about an ICRS position, with a matrix in arcsec per pixel and its tangent point at a pixel."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.radesys = "ICRS"
    wcs.wcs.cunit = ["deg", "deg"]
    wcs.wcs.crval = [centre.ra.deg, centre.dec.deg]
    wcs.wcs.crpix = [middle[0] + 1, middle[1] + 1]
    wcs.wcs.cd = np.asarray(matrix) / 3600
    wcs.wcs.set()
    return wcs


def tangent_grid(wcs, shape, pixel_scale):
    """
    Make a plain TAN grid over an image, of the same orientation and parity, with square pixels of the given
    scale.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        The image's.
    shape : tuple of int
        Its shape.
    pixel_scale : float
        In arcsec.

    Returns
    -------
    grid : `~astropy.wcs.WCS`
        ICRS; its tangent point is the middle of the image.
    """
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    left, scales, right = np.linalg.svd(sky_jacobian(wcs, x, y))
    middle = (
        (shape[1] * scales.mean() / pixel_scale - 1) / 2,
        (shape[0] * scales.mean() / pixel_scale - 1) / 2,
    )
    return _tangent(wcs.pixel_to_world(x, y).icrs, pixel_scale * (left @ right), np.round(middle))


def can_rescale(wcs):
    """Tell whether `shifted` and `rescaled` can express a grid: lookup tables of distortion they cannot."""
    tables = wcs.cpdis1, wcs.cpdis2, wcs.det2im1, wcs.det2im2
    return all(table is None for table in tables)


def rescaled(wcs, factor, shape=None):
    """
    WCS of the grid that cuts every pixel into ``factor`` x ``factor`` (or joins them, for 1 / ``factor``).

    The outer edges of the first pixel stay where they are: x' = (x + 0.5) factor - 0.5.
    """
    new = wcs.deepcopy()
    new.wcs.crpix = (wcs.wcs.crpix - 0.5) * factor + 0.5
    if wcs.wcs.has_cd():
        new.wcs.cd = wcs.wcs.cd / factor
    else:
        new.wcs.cdelt = wcs.wcs.cdelt / factor
    if wcs.sip is not None:
        sip = wcs.sip
        arrays = (_rescaled_sip(array, factor) for array in (sip.a, sip.b, sip.ap, sip.bp))
        new.sip = Sip(*arrays, (sip.crpix - 0.5) * factor + 0.5)
    return _finish(new, shape)


def _rescaled_sip(array, factor):
    """Coefficients of a distortion polynomial in pixels that are ``factor`` times smaller."""
    if array is None:
        return None
    p, q = np.indices(array.shape)
    return array * float(factor) ** (1 - p - q)


def shifted(wcs, x0, y0, shape=None):
    """WCS of the grid whose pixel (0, 0) is pixel (x0, y0) of the given one; x0 and y0 may be negative."""
    new = wcs.deepcopy()
    new.wcs.crpix = wcs.wcs.crpix - (x0, y0)
    if wcs.sip is not None:
        sip = wcs.sip
        new.sip = Sip(sip.a, sip.b, sip.ap, sip.bp, sip.crpix - (x0, y0))
    return _finish(new, shape)


def _finish(wcs, shape):
    """Drop the old image's bounds, which would turn pixels outside of it into NaN."""
    wcs.pixel_bounds = None
    wcs.array_shape = shape
    wcs.wcs.set()
    return wcs


def outline(shape, n=17):
    """Points along the outer edge of an image, in order, shape (4 (n - 1), 2) as (x, y)."""
    t = np.linspace(0, 1, n)[:-1]
    zero, one = np.zeros_like(t), np.ones_like(t)
    x = np.concatenate([t, one, 1 - t, zero])
    y = np.concatenate([zero, t, one, 1 - t])
    return np.column_stack([x * shape[1], y * shape[0]]) - 0.5


def footprint(wcs, shape, grid):
    """Outline of an image on a grid: polygon of shape (n, 2) in the grid's pixels."""
    points = outline(shape)
    return np.column_stack(transform(wcs, grid, points[:, 0], points[:, 1]))


def bounding_box(polygon):
    """Whole pixels that hold a polygon, as (x0, x1, y0, y1), half open."""
    # The slack keeps an edge that lies on a pixel edge, but for rounding, from taking in one more pixel.
    low = np.floor(polygon.min(axis=0) + 0.5 + _SAME).astype(int)
    high = np.ceil(polygon.max(axis=0) + 0.5 - _SAME).astype(int)
    return int(low[0]), int(high[0]), int(low[1]), int(high[1])


def clip_polygon(polygon, box):
    """
    Part of a polygon inside a box of pixels (Sutherland and Hodgman 1974).

    Parameters
    ----------
    polygon : array of shape (n, 2)
        Corners (x, y) in order.
    box : tuple of int
        (x0, x1, y0, y1), half open: the box ends at the pixels' outer edges.

    Returns
    -------
    polygon : array of shape (m, 2)
        Empty where nothing is common.
    """
    x0, x1, y0, y1 = (edge - 0.5 for edge in box)
    for axis, sign, edge in ((0, 1, x0), (0, -1, x1), (1, 1, y0), (1, -1, y1)):
        if len(polygon) == 0:
            break
        inside = sign * (polygon[:, axis] - edge)
        corners = []
        for k in range(len(polygon)):
            previous, a, b = polygon[k - 1], inside[k - 1], inside[k]
            if (a >= 0) != (b >= 0):
                corners.append(previous + (polygon[k] - previous) * a / (a - b))
            if b >= 0:
                corners.append(polygon[k])
        polygon = np.array(corners).reshape(-1, 2)
    return polygon


def polygon_area(polygon):
    """Area of a polygon in square pixels."""
    if len(polygon) < 3:
        return 0.0
    x, y = polygon.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def nesting(wcs, shape, grid, scales):
    """
    Tell whether an image lies on a grid: same orientation, whole-number scale, no fraction of a pixel between
    them.

    Parameters
    ----------
    wcs : `~astropy.wcs.WCS`
        The image's.
    shape : tuple of int
        Its shape.
    grid : `~astropy.wcs.WCS`
        The grid.
    scales : sequence of int
        Allowed sides of a pixel of the image in grid pixels.

    Returns
    -------
    Nesting or None
        None where the image must be reprojected.
    """
    y, x = np.meshgrid(np.linspace(0, shape[0] - 1, 9), np.linspace(0, shape[1] - 1, 9), indexing="ij")
    on_grid = np.array(transform(wcs, grid, x, y))
    for scale in scales:
        # The first pixel spans [offset - scale/2, offset + scale/2]; its lower edge is a pixel edge, k - 0.5.
        rest = on_grid - scale * np.array([x, y]) - (scale - 1) / 2
        first = np.round(np.median(rest, axis=(1, 2)))
        if np.all(np.abs(rest - first[:, None, None]) < _SAME * scale):
            return Nesting(scale, int(first[0]), int(first[1]))
    return None


def describe_position(wcs, shape):
    """Centre of an image as `~astropy.coordinates.SkyCoord` (ICRS) and its half diagonal in degrees."""
    corners = outline(shape, n=2)
    centre = wcs.pixel_to_world((shape[1] - 1) / 2, (shape[0] - 1) / 2).icrs
    corners = wcs.pixel_to_world(*corners.T).icrs
    return centre, float(centre.separation(corners).deg.max())
