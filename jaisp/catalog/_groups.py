# Licensed under a 3-clause BSD style license - see LICENSE
"""Blends: sources whose light overlaps are measured together."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

__all__ = ["cut_blends", "find_blends"]


def find_blends(x, y, radius, *, reach):
    """
    Friends of friends: two sources are linked when nearer than the width of their light.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Pixels.
    radius : ndarray, shape (n,)
        Half-light radii in pixels, 0 for points.
    reach : float
        FWHM of the widest PSF in pixels.

    Returns
    -------
    label : ndarray of int, shape (n,)
        Number of the blend of each source, from 0.
    blends : list of ndarray of int
        Their members.
    """
    n = len(x)
    if n == 0:
        return np.zeros(0, int), []
    xy = np.stack([x, y], axis=-1)
    extent = np.hypot(0.6 * reach, 1.2 * np.minimum(radius, 30.0))
    pairs = cKDTree(xy).query_pairs(2 * extent.max(), output_type="ndarray")
    distance = np.hypot(*(xy[pairs[:, 0]] - xy[pairs[:, 1]]).T)
    pairs = pairs[distance < extent[pairs[:, 0]] + extent[pairs[:, 1]]]
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label, kind="stable")
    return label, np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def cut_blends(blends, xy, most):
    """
    Cut large blends into nearby pieces.

    Parameters
    ----------
    blends : list of ndarray of int
        From `find_blends`.
    xy : ndarray, shape (n, 2)
        Pixels.
    most : int
        Members of a piece.

    Returns
    -------
    list of ndarray of int
    """
    return [piece for blend in blends for piece in _cut(blend, xy, most)]


def _cut(members, xy, most):
    """Halve a group across its longer side until it is small enough."""
    if len(members) <= most:
        return [members]
    axis = np.argmax(np.ptp(xy[members], axis=0))
    order = members[np.argsort(xy[members, axis])]
    half = len(order) // 2
    return _cut(order[:half], xy, most) + _cut(order[half:], xy, most)
