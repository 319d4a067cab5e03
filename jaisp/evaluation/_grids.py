# Licensed under a 3-clause BSD style license - see LICENSE
"""The grid on which the peers look for sources, and how maps of either survey get onto it."""

from itertools import pairwise

import numpy as np
from scipy.interpolate import RectBivariateSpline
from scipy.ndimage import gaussian_filter, map_coordinates, median_filter

from jaisp.io.grid import rescaled, transform

_NODE_STEP = 16
_FILL_SIGMA = 1.5  # pixels


def detection_grid(rubin=None, euclid=None):
    """WCS and shape of the finest grid at hand: Euclid's, or Rubin's with pixels cut in four."""
    if euclid is not None:
        return euclid.wcs, euclid.shape
    shape = 2 * rubin.shape[0], 2 * rubin.shape[1]
    return rescaled(rubin.wcs, 2, shape), shape


def pixel_map(wcs, target_wcs, shape):
    """
    Places (2, ny, nx), as (y, x), on ``wcs`` of the pixels of the target grid.

    The transformation is worked out on every 16th pixel and interpolated: between tangent planes it is so
    smooth that the error stays below 1e-5 pixels.
    """
    nodes = [np.linspace(0, size - 1, max(4, size // _NODE_STEP + 2)) for size in shape]
    y, x = np.meshgrid(*nodes, indexing="ij")
    source = transform(target_wcs, wcs, x, y)
    return np.stack(
        [
            RectBivariateSpline(*nodes, value)(np.arange(shape[0]), np.arange(shape[1]))
            for value in source[::-1]
        ]
    )


def resample(image, places, *, order=3):
    """Values of a map at ``places``, 0 outside; a cubic spline unless told otherwise."""
    return map_coordinates(image, places, order=order, mode="constant", output=np.float32)


def resample_valid(valid, places):
    """Whether the nearest pixel of a bool map is True; False outside."""
    return map_coordinates(valid.astype(np.uint8), places, order=0, mode="constant").astype(bool)


def filled(image, band):
    """
    Sky-subtracted data and inverse variance of a band, bad pixels filled from good ones near them.

    Every survey's pipeline interpolates over its bad columns and cosmic rays; a finder that takes them for
    holes sees sources along their edges. Places far from any good pixel keep weight 0.
    """
    bad = image.mask[band]
    data, weight = image.sky_subtracted(band), 1 / image.source_variance(band)
    if not bad.any():
        return data, weight
    share = gaussian_filter((~bad).astype(np.float32), _FILL_SIGMA, mode="constant", truncate=3)
    near = bad & (share > 0.02)
    data, weight = data.copy(), weight.copy()
    for plane in (data, weight):
        plane[near] = (gaussian_filter(plane, _FILL_SIGMA, mode="constant", truncate=3) / share)[near]
    return data, weight


def local_background(image, box):
    """
    Smooth background of a map: sigma-clipped medians of boxes, median-filtered 3 x 3, linear between them.

    Parameters
    ----------
    image : `~numpy.ndarray` (ny, nx)
        The map.
    box : int
        Side of a box in pixels.

    Returns
    -------
    `~numpy.ndarray` (ny, nx)
    """
    counts = [max(1, round(size / box)) for size in image.shape]
    edges = [np.linspace(0, size, n + 1).astype(int) for size, n in zip(image.shape, counts, strict=True)]
    level = np.empty(counts)
    # Every other pixel will do: neighbours are correlated.
    for i, rows in enumerate(pairwise(edges[0])):
        for j, columns in enumerate(pairwise(edges[1])):
            level[i, j] = _clipped_median(image[slice(*rows, 2), slice(*columns, 2)].ravel())
    level = median_filter(level, 3, mode="nearest")
    centres = [(edge[:-1] + edge[1:] - 1) / 2 for edge in edges]
    places = [
        np.interp(np.arange(size), centre, np.arange(len(centre)))
        for size, centre in zip(image.shape, centres, strict=True)
    ]
    return map_coordinates(level, np.meshgrid(*places, indexing="ij"), order=1, output=np.float32)


def _clipped_median(values):
    """Median after three rounds of clipping at 3 robust standard deviations."""
    for _ in range(3):
        median = np.median(values)
        values = values[np.abs(values - median) <= 3 * 1.4826 * np.median(np.abs(values - median))]
    return np.median(values)
