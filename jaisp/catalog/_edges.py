# Licensed under a 3-clause BSD style license - see LICENSE
"""Where images end."""

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion, binary_fill_holes
from scipy.spatial import cKDTree

from jaisp.surveys import RUBIN

__all__ = ["depth", "near_edge"]

_BLOCK = 4  # pixels of an image: as finely its edges are known


def near_edge(pair, x, y, reach):
    """
    Whether the edge of an image is nearer to objects than their light reaches, on either side of it.

    Masked holes in an image, as bright stars leave them, are no edges.

    Parameters
    ----------
    pair : `~jaisp.io.AlignedPair`
    x, y : ndarray, shape (n,)
        Pixels of the pair's grid.
    reach : ndarray, shape (n,)
        Pixels of the same grid.

    Returns
    -------
    ndarray of bool, shape (n,)
    """
    near = np.zeros(len(x), bool)
    for image in filter(None, pair):
        near |= np.abs(depth(image, x, y)) < reach
    return near


def depth(image, x, y):
    """
    How far inside an image positions are.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`
        Of an aligned pair.
    x, y : ndarray, shape (n,)
        Pixels of the pair's grid.

    Returns
    -------
    ndarray, shape (n,)
        Distance to the image's edge in pixels of the grid, to some of the image's own pixels; negative
        outside. Masked holes, as bright stars leave them, count as inside.
    """
    shown = np.pad(_shown(image), 1)
    side = _BLOCK * (2 if image.survey is RUBIN else 1)
    column, row = (np.floor((np.asarray(at) + 0.5) / side).astype(int) + 1 for at in (x, y))
    ny, nx = shown.shape
    inside = (column >= 0) & (column < nx) & (row >= 0) & (row < ny)
    inside[inside] = shown[row[inside], column[inside]]
    rim = shown & ~binary_erosion(shown)
    beyond = ~shown & binary_dilation(shown, np.ones((3, 3)))
    distance = [
        cKDTree((np.argwhere(blocks)[:, ::-1] - 0.5) * side - 0.5).query(np.stack([x, y], axis=-1))[0]
        for blocks in (rim, beyond)
    ]
    return np.where(inside, 1, -1) * (np.where(inside, distance[1], distance[0]) - side / 2)


def _shown(image):
    """Blocks of an image that hold good pixels of any band, or are surrounded by such."""
    masked = image.mask[image.bands[0]].copy()
    for band in image.bands[1:]:
        masked &= image.mask[band]
    good = ~masked
    good = np.pad(good, [(0, -length % _BLOCK) for length in good.shape])
    ny, nx = (length // _BLOCK for length in good.shape)
    return binary_fill_holes(good.reshape(ny, _BLOCK, nx, _BLOCK).any(axis=(1, 3)))
