# Licensed under a 3-clause BSD style license - see LICENSE
"""Where images end."""

import numpy as np
from scipy.ndimage import binary_erosion, binary_fill_holes
from scipy.spatial import cKDTree

__all__ = ["near_edge"]

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
    for image, binning in ((pair.rubin, 2), (pair.euclid, 1)):
        if image is None:
            continue
        shown = _shown(image)
        rim = np.argwhere(shown & ~binary_erosion(shown))[:, ::-1]
        side = _BLOCK * binning
        distance, _ = cKDTree((rim + 0.5) * side - 0.5).query(np.stack([x, y], axis=-1))
        near |= distance - side / 2 < reach
    return near


def _shown(image):
    """Blocks of an image that hold good pixels of any band, or are surrounded by such."""
    good = ~np.logical_and.reduce([image.mask[band] for band in image.bands])
    good = np.pad(good, [(0, -length % _BLOCK) for length in good.shape])
    ny, nx = (length // _BLOCK for length in good.shape)
    return binary_fill_holes(good.reshape(ny, _BLOCK, nx, _BLOCK).any(axis=(1, 3)))
