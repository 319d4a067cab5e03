# Licensed under a 3-clause BSD style license - see LICENSE
"""One-to-one matching of a catalogue to the truth, and what each detection then counts as."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.table import QTable
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from jaisp.exceptions import ConfigError, suggest

__all__ = ["FALSE", "IGNORED", "TRUE", "FieldMatch", "match_field", "match_one_to_one"]

TRUE, FALSE, IGNORED = 1, 0, -1


@dataclass(frozen=True)
class FieldMatch:
    """
    What the detections of one field are, and which sources they found.

    Parameters
    ----------
    ranking : `~numpy.ndarray` (n,)
        Score of each detection; larger is surer.
    outcome : `~numpy.ndarray` of int8 (n,)
        `TRUE` (a source that was to be found), `FALSE`, or `IGNORED` (a source too faint to be asked for).
    truth_index : `~numpy.ndarray` of int (n,)
        Row of the truth that the detection was matched to, -1 where there is none.
    separation : `~numpy.ndarray` (n,)
        Distance to that source in arcsec, NaN where there is none.
    truth : `~astropy.table.QTable` (m rows)
        The truth of the field.
    wanted : `~numpy.ndarray` of bool (m,)
        Sources that were to be found.
    """

    ranking: np.ndarray
    outcome: np.ndarray
    truth_index: np.ndarray
    separation: np.ndarray
    truth: QTable
    wanted: np.ndarray

    @property
    def found_at(self):
        """Score of the detection that found each source (m,), ``-inf`` where none did."""
        found = np.full(len(self.wanted), -np.inf)
        matched = self.truth_index >= 0
        found[self.truth_index[matched]] = self.ranking[matched]
        return found


def match_one_to_one(detections, truth, *, radius=0.3 * u.arcsec, ranking=None):
    """
    Match detections to sources so that each takes part at most once.

    Of all pairings within ``radius`` it is the one with the most pairs, and of those the one with the
    least total distance. With a ranking, surer detections come first: the detections above any threshold
    are then matched as well as if the others did not exist, so that one matching serves a whole
    purity-completeness curve.

    Parameters
    ----------
    detections, truth : `~astropy.coordinates.SkyCoord` (n,), (m,)
        Positions; a position that is not finite matches nothing.
    radius : `~astropy.units.Quantity`
        Largest separation of a pair.
    ranking : array_like (n,), optional
        Score of each detection; larger is surer.

    Returns
    -------
    index : `~numpy.ndarray` of int (n,)
        Matched row of ``truth``, -1 where there is none.
    separation : `~numpy.ndarray` (n,)
        Distance in arcsec, NaN where there is none.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from jaisp.evaluation import match_one_to_one
    >>> truth = SkyCoord([0.0, 0.25], [0.0, 0.0], unit="arcsec")
    >>> detections = SkyCoord([0.1, -0.1], [0.0, 0.0], unit="arcsec")
    >>> match_one_to_one(detections, truth)[0]
    array([1, 0])
    """
    n, m = len(detections), len(truth)
    index, separation = np.full(n, -1), np.full(n, np.nan)
    i, j, distance = _pairs(detections, truth, radius.to_value(u.arcsec))
    if len(i) == 0:
        return index, separation
    # Rank 0 is the surest. A bipartite matching is a matroid on its detections, so any weights that fall
    # with the rank admit the surest first and still give the most pairs.
    rank = np.zeros(n) if ranking is None else _ranks(ranking, n)
    _, label = connected_components(coo_matrix((np.ones(len(i)), (i, n + j)), shape=(n + m, n + m)), False)
    label = label[i]
    alone = np.bincount(label)[label] == 1
    index[i[alone]], separation[i[alone]] = j[alone], distance[alone]
    crowded = np.flatnonzero(~alone)
    crowded = crowded[np.argsort(label[crowded], kind="stable")]
    starts = np.flatnonzero(np.diff(label[crowded])) + 1
    for group in np.split(crowded, starts) if len(crowded) else ():
        rows, row = np.unique(i[group], return_inverse=True)
        columns, column = np.unique(j[group], return_inverse=True)
        total = distance[group].sum() + 1e-6
        weight = 1 + np.argsort(np.argsort(-rank[rows], kind="stable")) if ranking is not None else 1
        cost = np.zeros((len(rows), len(columns)))
        cost[row, column] = distance[group] - total * np.broadcast_to(weight, rows.shape)[row]
        allowed = np.zeros(cost.shape, dtype=bool)
        allowed[row, column] = True
        for a, b in zip(*linear_sum_assignment(cost), strict=True):
            if allowed[a, b]:
                index[rows[a]] = columns[b]
                separation[rows[a]] = distance[group][(row == a) & (column == b)][0]
    return index, separation


def match_field(
    positions, ranking, truth, *, radius=0.3 * u.arcsec, min_snr=5.0, snr_column="snr", inside=None
):
    """
    Match the detections of one field to its truth by the rules of the benchmark.

    Sources with a signal-to-noise ratio above ``min_snr`` are to be found and are matched first. What is
    left may match fainter sources and is then neither true nor false. The rest is false, second
    detections of one source included.

    Parameters
    ----------
    positions : `~astropy.coordinates.SkyCoord` (n,)
        Positions of the detections.
    ranking : array_like (n,)
        Score of each detection; larger is surer. NaN counts as least sure.
    truth : `~astropy.table.QTable` (m rows)
        Needs ``sky_centroid`` and ``snr_column``; other columns are carried along.
    radius : `~astropy.units.Quantity`
        Largest separation of a match.
    min_snr : float
        Sources above it are to be found.
    snr_column : str
        Column of ``truth`` that ``min_snr`` refers to; ``snr`` is the optimal one of all bands together.
    inside : array_like of bool (m,), optional
        Sources that may be asked for; the others (say, outside the image) are treated as too faint.

    Returns
    -------
    `FieldMatch`
    """
    for column in ("sky_centroid", snr_column):
        if column not in truth.colnames:
            raise ConfigError(
                f"the truth table has no column {column!r}{suggest(column, truth.colnames)}; "
                f"it has: {', '.join(truth.colnames)}"
            )
    ranking = np.asarray(ranking, dtype=float)
    if ranking.shape != (len(positions),):
        raise ConfigError(
            f"ranking has shape {ranking.shape} for {len(positions)} positions; "
            "give one score for each detection"
        )
    ranking = np.where(np.isnan(ranking), -np.finfo(float).max, ranking)
    wanted = np.asarray(u.Quantity(truth[snr_column]).value > min_snr)
    if inside is not None:
        wanted &= np.asarray(inside, dtype=bool)
    outcome = np.full(len(positions), FALSE, dtype=np.int8)
    index, separation = np.full(len(positions), -1), np.full(len(positions), np.nan)
    for sources, value in ((np.flatnonzero(wanted), TRUE), (np.flatnonzero(~wanted), IGNORED)):
        free = np.flatnonzero(index < 0)
        if len(free) == 0 or len(sources) == 0:
            continue
        found, distance = match_one_to_one(
            positions[free], truth["sky_centroid"][sources], radius=radius, ranking=ranking[free]
        )
        matched = found >= 0
        index[free[matched]] = sources[found[matched]]
        separation[free[matched]] = distance[matched]
        outcome[free[matched]] = value
    return FieldMatch(ranking, outcome, index, separation, truth, wanted)


def _ranks(ranking, n):
    """Place of each score in descending order, 0 for the largest."""
    ranking = np.asarray(ranking, dtype=float)
    if ranking.shape != (n,):
        raise ConfigError(f"ranking has shape {ranking.shape} for {n} detections; give one score for each")
    return np.argsort(np.argsort(-ranking, kind="stable"), kind="stable")


def _pairs(first, second, radius):
    """Indices and distances (arcsec) of all pairs within ``radius`` (arcsec)."""
    if len(first) == 0 or len(second) == 0:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    vectors, keep = [], []
    for coordinates in (first, second):
        xyz = np.asarray(coordinates.icrs.represent_as("unitspherical").to_cartesian().xyz.value).T
        finite = np.flatnonzero(np.isfinite(xyz).all(axis=1))
        vectors.append(xyz[finite])
        keep.append(finite)
    if min(map(len, vectors)) == 0:
        return np.zeros(0, int), np.zeros(0, int), np.zeros(0)
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    near = cKDTree(vectors[0]).sparse_distance_matrix(cKDTree(vectors[1]), chord, output_type="ndarray")
    distance = np.degrees(2 * np.arcsin(near["v"] / 2)) * 3600
    return keep[0][near["i"]], keep[1][near["j"]], distance
