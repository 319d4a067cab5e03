# Licensed under a 3-clause BSD style license - see LICENSE
"""Cross-match of two sets of objects by position, with errors, and by embedding."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.table import QTable
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jaisp.exceptions import ConfigError

__all__ = ["Matches", "crossmatch", "match_positions"]

_CHI2_99 = 9.21  # 99 % of chi-square with two degrees of freedom
_COMPLETENESS = 0.8  # prior probability that an object of one set is in the other
SYSTEMATIC = 0.03  # arcsec: what is left of the offset field, added to all errors
# Log odds of "same object" gained per unit of cosine above the midpoint; replaced by measured values
# where the weights carry them.
SIMILARITY_SLOPE, SIMILARITY_MIDPOINT = 6.0, 0.4


@dataclass
class Matches:
    """
    One-to-one matches between two sets, and how many partners each object could have.

    Attributes
    ----------
    first, second : ndarray of int
        Indices of the matched objects.
    separation : ndarray
        arcsec, after the offset.
    similarity : ndarray
        Cosine of the embeddings; NaN without embeddings.
    probability : ndarray
        Probability that the two are one object, given its rivals in both sets.
    n_candidates : ndarray, shape (n_first,)
        Objects of the second set near enough to belong to each object of the first.
    """

    first: np.ndarray
    second: np.ndarray
    separation: np.ndarray
    similarity: np.ndarray
    probability: np.ndarray
    n_candidates: np.ndarray


def match_positions(
    xy1,
    xy2,
    *,
    error1,
    error2,
    embedding1=None,
    embedding2=None,
    radius=1.0,
    similarity_weight=3.0,
    similarity=(SIMILARITY_SLOPE, SIMILARITY_MIDPOINT),
    area=None,
    systematic=SYSTEMATIC,
    trust=1.0,
):
    """
    Match two sets of points in a plane, one-to-one, of least cost; an object may stay unmatched.

    The cost is half the squared separation in units of its error plus ``similarity_weight`` times
    (1 - cosine). Pairs beyond ``radius`` or the 99 % chi-square are not matched.

    Parameters
    ----------
    xy1, xy2 : ndarray, shape (n, 2), (m, 2)
        Positions in arcsec on a common tangent plane.
    error1, error2 : ndarray, shape (n,), (m,)
        1 sigma per axis, arcsec.
    embedding1, embedding2 : ndarray, shape (n, d), (m, d), optional
        Unit vectors.
    radius : float
        Largest separation in arcsec.
    similarity_weight : float
        Weight of the embeddings in the assignment.
    similarity : tuple of float
        Slope and midpoint of the log odds of the cosine.
    area : float, optional
        Area in square arcsec, for the density of unrelated objects; that of the bounding box by default.
    systematic : float
        Error per axis in arcsec that all separations have beside the errors given.
    trust : float
        Power to which the odds of the positions are raised: 1 if the errors are Gaussian and neighbours
        unrelated; less where errors have wings and sources come in groups.

    Returns
    -------
    `Matches`
    """
    xy1, xy2 = np.asarray(xy1, float).reshape(-1, 2), np.asarray(xy2, float).reshape(-1, 2)
    n, m = len(xy1), len(xy2)
    empty = np.zeros(0, int)
    if not n or not m:
        return Matches(empty, empty, np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(n, int))
    near = cKDTree(xy1).sparse_distance_matrix(cKDTree(xy2), radius, output_type="coo_matrix")
    i, j, distance = near.row, near.col, near.data
    variance = np.asarray(error1)[i] ** 2 + np.asarray(error2)[j] ** 2 + systematic**2
    chi2 = distance**2 / variance
    if embedding1 is None or embedding2 is None:
        cosine = np.full(len(i), np.nan)
        log_odds_similarity = cost_similarity = np.zeros(len(i))
    else:
        cosine = np.einsum("kd,kd->k", np.asarray(embedding1)[i], np.asarray(embedding2)[j]).astype(float)
        cost_similarity = similarity_weight * (1 - cosine)
        log_odds_similarity = similarity[0] * (cosine - similarity[1])
    if area is None:
        span = np.ptp(np.concatenate([xy1, xy2]), axis=0)
        area = max(span[0] * span[1], np.pi * radius**2)
    # Odds of being the same object, against an unrelated one of the local density (Budavari & Szalay 2008).
    prior = _COMPLETENESS / (1 - _COMPLETENESS)
    log_odds = -0.5 * chi2 + np.log(prior / (2 * np.pi * variance * (m / area)))
    odds = np.exp(trust * log_odds + log_odds_similarity)
    row_odds, column_odds = np.bincount(i, odds, n), np.bincount(j, odds, m)
    probability = odds / (1 + row_odds[i] + column_odds[j] - odds)

    allowed = chi2 < _CHI2_99
    chosen = _assign_sparse(i[allowed], j[allowed], (0.5 * chi2 + cost_similarity)[allowed], n, m)
    chosen = np.flatnonzero(allowed)[chosen]
    order = chosen[np.argsort(i[chosen])]
    return Matches(
        first=i[order],
        second=j[order],
        separation=distance[order],
        similarity=cosine[order],
        probability=probability[order],
        n_candidates=np.bincount(i, minlength=n),
    )


def _assign_sparse(i, j, cost, n, m):
    """Indices of the pairs of a least-cost one-to-one assignment, solved group by group."""
    if not len(i):
        return np.zeros(0, int)
    graph = coo_matrix((np.ones(len(i)), (i, n + j)), shape=(n + m, n + m))
    _, label = connected_components(graph, directed=False)
    order = np.argsort(label[i], kind="stable")
    chosen = []
    for group in np.split(order, np.flatnonzero(np.diff(label[i][order])) + 1):
        if len(group) == 1:
            chosen.append(group)
            continue
        rows, row = np.unique(i[group], return_inverse=True)
        columns, column = np.unique(j[group], return_inverse=True)
        matrix = np.full((len(rows), len(columns)), 1e6)
        matrix[row, column] = cost[group]
        pair = np.full(matrix.shape, -1)
        pair[row, column] = group
        taken = pair[linear_sum_assignment(matrix)]
        chosen.append(taken[taken >= 0])
    return np.concatenate(chosen)


def _plane(table, centre):
    """Positions of a table as arcsec offsets from ``centre``."""
    east, north = centre.spherical_offsets_to(table["sky_centroid"])
    return np.stack([east.to_value(u.arcsec), north.to_value(u.arcsec)], axis=-1)


def _errors(table, default):
    if {"ra_err", "dec_err"} <= set(table.colnames):
        errors = np.hypot(table["ra_err"].to_value(u.arcsec), table["dec_err"].to_value(u.arcsec)) / np.sqrt(
            2
        )
        return np.where(np.isfinite(errors), errors, default)
    return np.full(len(table), default)


def crossmatch(table1, table2, *, radius=1 * u.arcsec, embedding=True, default_error=0.1 * u.arcsec):
    """
    Match two catalogues of one patch of sky, one-to-one, by position and embedding.

    Parameters
    ----------
    table1, table2 : `~astropy.table.Table`
        With ``sky_centroid`` (SkyCoord); ``ra_err``, ``dec_err`` and ``embedding`` are used where present.
    radius : `~astropy.units.Quantity`
        Largest separation.
    embedding : bool
        Whether to use the embeddings where both tables have them.
    default_error : `~astropy.units.Quantity`
        1 sigma of a position per axis, where a table has none.

    Returns
    -------
    `~astropy.table.QTable`
        ``index1``, ``index2``, ``separation`` (mas), ``match_similarity``, ``match_probability``.
    """
    columns = ("index1", "index2", "separation", "match_similarity", "match_probability")
    for table in (table1, table2):
        if "sky_centroid" not in table.colnames:
            raise ConfigError(
                f"a table to match needs a sky_centroid column; it has {', '.join(table.colnames)}"
            )
    if not len(table1) or not len(table2):
        values = [np.zeros(0, int)] * 2 + [np.zeros(0) * u.mas] + [np.zeros(0)] * 2
        return QTable(values, names=columns)
    both = embedding and all("embedding" in table.colnames for table in (table1, table2))
    # A plane is exact enough for a field; its origin is the first object.
    centre = table1["sky_centroid"][0]
    centre = type(centre)(centre.ra, centre.dec, frame=centre.frame.name)
    default = default_error.to_value(u.arcsec)
    matches = match_positions(
        _plane(table1, centre),
        _plane(table2, centre),
        error1=_errors(table1, default),
        error2=_errors(table2, default),
        embedding1=np.asarray(table1["embedding"]) if both else None,
        embedding2=np.asarray(table2["embedding"]) if both else None,
        radius=radius.to_value(u.arcsec),
    )
    values = [
        matches.first,
        matches.second,
        (matches.separation * u.arcsec).to(u.mas),
        matches.similarity,
        matches.probability,
    ]
    return QTable(values, names=columns)
