# Licensed under a 3-clause BSD style license - see LICENSE
"""Cross-match of two sets of objects by position, with errors, and by embedding."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jaisp.catalog.columns import arcsec, values
from jaisp.exceptions import ConfigError

__all__ = ["Matches", "crossmatch", "match_positions"]

SYSTEMATIC = 0.03  # arcsec: what is left of the offset field, added to all errors
# What separations and cosines say of slots being one object, fitted by benchmarks/calibrate_match.py on the
# calibration skies for the bundled weights. Separations have the wings of Student's t, blends above all: a
# Gaussian gate would lose true pairs.
_FREEDOM = 4.0
_TRUST, _SIMILARITY = 0.69, (1.4, 0.69)
_NEIGHBOURS = 50  # that tell how dense a set is
_LEAST_ODDS = 1 / 3  # below these odds an object rather stays unmatched


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
    similarity=_SIMILARITY,
    area=None,
    systematic=SYSTEMATIC,
    trust=_TRUST,
):
    """
    Match two sets of points, one-to-one, so that the odds of all pairs together are best.

    The odds that two are one object, and not unrelated ones of the mean density, are those of their
    separation in units of its error, which has the wings of Student's t with four degrees of freedom, times
    those of the cosine of their embeddings. Pairs beyond ``radius`` or with odds below 1:3 are not matched.

    Parameters
    ----------
    xy1, xy2 : ndarray, shape (n, 2), (m, 2) or (n, 3), (m, 3)
        Positions in arcsec on a common tangent plane, or on the sphere whose radius is 206265 arcsec.
    error1, error2 : ndarray, shape (n,), (m,)
        1 sigma per axis, arcsec.
    embedding1, embedding2 : ndarray, shape (n, d), (m, d), optional
        Unit vectors.
    radius : float
        Largest separation in arcsec.
    similarity : tuple of float
        Slope and midpoint of the log odds of the cosine.
    area : float, optional
        Area in square arcsec over which both sets spread, for the density of unrelated objects to be
        expected: that of the denser set. By default that of its bounding box in a plane, which must be
        filled, and on the sphere the density of the nearest 50 objects.
    systematic : float
        Error per axis in arcsec that all separations have beside the errors given.
    trust : float
        Power to which the odds of the positions are raised: 1 if neighbours are unrelated; less where
        sources come in groups.

    Returns
    -------
    `Matches`
    """
    xy1, xy2 = (np.asarray(xy, float) for xy in (xy1, xy2))
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
    else:
        cosine = np.einsum("kd,kd->k", np.asarray(embedding1)[i], np.asarray(embedding2)[j]).astype(float)
    density = max(n, m) / area if area is not None else pair_density(xy1, xy2, i, j, radius=radius)
    log_odds = pair_odds(chi2, variance, density, cosine, trust=trust, similarity=similarity)
    probability = pair_probability(i, j, log_odds, n, m)

    gain = log_odds - np.log(_LEAST_ODDS)
    allowed = np.flatnonzero(gain > 0)
    chosen = allowed[_assign_sparse(i[allowed], j[allowed], -gain[allowed], n, m)]
    order = chosen[np.argsort(i[chosen])]
    return Matches(
        first=i[order],
        second=j[order],
        separation=distance[order],
        similarity=cosine[order],
        probability=probability[order],
        n_candidates=np.bincount(i, minlength=n),
    )


def pair_density(xy1, xy2, i, j, *, radius):
    """
    Objects per square arcsec that are about a pair by chance: those of the denser set.

    Wherever in the order it stands, most of its objects have no partner in the other.
    """
    return np.maximum(_density(xy1, xy2, radius)[i], _density(xy2, xy1, radius)[j])


def _density(places, others, radius):
    """Other objects per square arcsec about each place: in their bounding box, or by the nearest of them."""
    n, least = len(others), np.pi * radius**2
    if others.shape[1] == 2:
        # The box of n objects is this much smaller than what they fill, along each axis.
        box = np.prod(np.ptp(others, axis=0)) * ((n + 1) / (n - 1)) ** 2 if n > 1 else np.inf
        both = np.prod(np.ptp(np.concatenate([places, others]), axis=0))
        return np.full(len(places), n / max(min(box, both), least))
    # Patches far apart, of any shape and depth. The nearest may be the object itself: it is not counted.
    k = min(_NEIGHBOURS, n - 1)
    if k < 1:
        return np.full(len(places), n / least)
    distance, _ = cKDTree(others).query(places, [k + 1])
    return n / np.maximum(np.pi * distance[:, 0] ** 2 * n / k, least)


def pair_odds(chi2, variance, density, cosine, *, trust=_TRUST, similarity=_SIMILARITY):
    """
    Log odds that two objects are one, and not unrelated ones (Budavari & Szalay 2008); see `match_positions`.

    ``chi2`` of their separation, its ``variance`` in square arcsec, ``density`` of unrelated objects per
    square arcsec, and ``cosine`` of their embeddings, NaN where there are none.
    """
    log_odds = -(_FREEDOM / 2 + 1) * np.log1p(chi2 / _FREEDOM) - np.log(2 * np.pi * variance * density)
    slope, middle = similarity
    return trust * log_odds + np.where(np.isnan(cosine), 0.0, slope * (cosine - middle))


def pair_probability(i, j, log_odds, n, m):
    """Probability of each pair of objects ``i`` of ``n`` and ``j`` of ``m``, given their other pairs."""
    odds = np.exp(np.minimum(log_odds, 700))
    row_odds, column_odds = np.bincount(i, odds, n), np.bincount(j, odds, m)
    return odds / (1 + row_odds[i] + column_odds[j] - odds)


def _assign_sparse(i, j, cost, n, m):
    """Indices of the pairs of the one-to-one assignment of least (negative) cost, solved group by group."""
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
        matrix = np.zeros((len(rows), len(columns)))  # no pair: no gain
        matrix[row, column] = cost[group]
        pair = np.full(matrix.shape, -1)
        pair[row, column] = group
        taken = pair[linear_sum_assignment(matrix)]
        chosen.append(taken[taken >= 0])
    return np.concatenate(chosen)


def _with_places(table):
    """Rows of a table that have a position, and their positions (ICRS)."""
    sky = table["sky_centroid"].icrs
    ra, dec = (values(angle, u.deg) for angle in (sky.ra, sky.dec))
    rows = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
    return rows, SkyCoord(ra[rows], dec[rows], unit="deg")


def _sphere(sky):
    """Positions (n, 3) on a sphere on which an arcsec is 1 long."""
    return u.rad.to(u.arcsec) * sky.cartesian.xyz.value.T


def _errors(table, rows, default):
    if {"ra_err", "dec_err"} <= set(table.colnames):
        errors = np.hypot(*(arcsec(table[name], name)[rows] for name in ("ra_err", "dec_err"))) / np.sqrt(2)
        return np.where(np.isfinite(errors), errors, default)
    return np.full(len(rows), default)


def _embeddings(tables, rows):
    """Embeddings of the rows of two tables, None where either has none."""
    if not all("embedding" in table.colnames for table in tables):
        return None, None
    first, second = (
        np.asarray(table["embedding"])[chosen] for table, chosen in zip(tables, rows, strict=True)
    )
    if first.shape[1:] != second.shape[1:]:
        raise ConfigError(
            f"embeddings of shape {first.shape[1:]} and {second.shape[1:]} cannot be compared; "
            "give catalogues of one model, or embedding=False"
        )
    return first, second


def crossmatch(table1, table2, *, radius=1 * u.arcsec, embedding=True, default_error=0.1 * u.arcsec):
    """
    Match two catalogues of any part of the sky, one-to-one, by position and embedding.

    How many unrelated objects are to be expected is judged about each object: patches may lie far apart, and
    be deep here and shallow there.

    Parameters
    ----------
    table1, table2 : `~astropy.table.Table`
        With ``sky_centroid`` (SkyCoord, in any frame); ``ra_err``, ``dec_err`` and ``embedding`` are used
        where present. Rows whose position is NaN or masked match nothing.
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

    Raises
    ------
    ConfigError
        If a table has no positions, an angle no unit or is not positive, or the embeddings are of different
        length.
    """
    columns = ("index1", "index2", "separation", "match_similarity", "match_probability")
    for table in (table1, table2):
        if not isinstance(table["sky_centroid"] if "sky_centroid" in table.colnames else None, SkyCoord):
            raise ConfigError(
                "a table to match needs a sky_centroid column of SkyCoord; it has "
                f"{', '.join(table.colnames)}"
            )
    default, radius = (
        float(arcsec(angle, name)) for angle, name in ((default_error, "default_error"), (radius, "radius"))
    )
    if not (radius > 0 and default > 0):
        raise ConfigError(
            f"radius {radius:g} arcsec and default_error {default:g} arcsec must be larger than 0"
        )
    tables = table1, table2
    rows, sky = zip(*(_with_places(table) for table in tables), strict=True)
    if not len(rows[0]) or not len(rows[1]):
        return QTable([np.zeros(0, int)] * 2 + [np.zeros(0) * u.mas] + [np.zeros(0)] * 2, names=columns)
    xy = [_sphere(places) for places in sky]
    errors = [_errors(table, chosen, default) for table, chosen in zip(tables, rows, strict=True)]
    vectors = _embeddings(tables, rows) if embedding else (None, None)
    matches = match_positions(
        *xy,
        error1=errors[0],
        error2=errors[1],
        embedding1=vectors[0],
        embedding2=vectors[1],
        radius=radius,
    )
    found = [
        rows[0][matches.first],
        rows[1][matches.second],
        (matches.separation * u.arcsec).to(u.mas),
        matches.similarity,
        matches.probability,
    ]
    return QTable(found, names=columns)
