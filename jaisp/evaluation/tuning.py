# Licensed under a 3-clause BSD style license - see LICENSE
"""Tune a peer on fields that are not reported, so that the comparison is fair to it and to the reader."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation.detection import DetectionScore
from jaisp.evaluation.matching import FieldMatch, match_field
from jaisp.exceptions import ConfigError, suggest
from jaisp.image import SurveyImage

__all__ = ["STATISTICS", "Field", "Tuning", "evaluate", "match_catalog", "sky_blocks", "tune"]

STATISTICS = {
    "best_f1": lambda score: score.best_f1,
    "completeness_95": lambda score: score.completeness_at(0.95),
    "average_precision": lambda score: score.average_precision,
}


class Field(NamedTuple):
    """One field: its images and its true sources."""

    rubin: SurveyImage | None
    euclid: SurveyImage | None
    truth: QTable


@dataclass(frozen=True)
class Tuning:
    """
    Outcome of a sweep.

    Parameters
    ----------
    peer : object
        The peer.
    settings : list of dict
        All settings that were tried.
    scores : list of `~jaisp.evaluation.DetectionScore`
        Their scores on the validation fields.
    """

    peer: object
    settings: list
    scores: list

    def best(self, statistic="best_f1"):
        """Settings with the largest value of a statistic (a key of ``STATISTICS``)."""
        if statistic not in STATISTICS:
            raise ConfigError(
                f"unknown statistic {statistic!r}{suggest(statistic, STATISTICS)}; "
                f"allowed: {', '.join(STATISTICS)}"
            )
        values = [STATISTICS[statistic](score) for score in self.scores]
        return self.settings[values.index(max(values))]


def tune(peer, fields, **options):
    """
    Run a peer with all its settings.

    Parameters
    ----------
    peer : object
        One of `~jaisp.evaluation.sep_peers`, or a `~jaisp.evaluation.MatchedFilter`.
    fields : iterable of `Field`
        Validation fields; each is read once.
    **options
        As in `match_catalog`.

    Returns
    -------
    `Tuning`
    """
    settings = peer.sweep()
    return Tuning(peer, settings, evaluate(peer, fields, settings, **options))


def evaluate(peer, fields, settings, **options):
    """
    Score a peer on test fields with some settings at once.

    Parameters
    ----------
    peer : object
        As in `tune`.
    fields : iterable of `Field`
        Test fields; each is read once.
    settings : list of dict
        Settings to score.
    **options
        As in `match_catalog`.

    Returns
    -------
    list of `~jaisp.evaluation.DetectionScore`
        In the order of ``settings``.
    """
    matches = [[] for _ in settings]
    for field in fields:
        prepared = peer.prepare(field.rubin, field.euclid)
        for place, choice in enumerate(settings):
            found = peer.detect(prepared, **choice)
            matches[place].append(match_catalog(found, field, ranking="snr", **options)[1])
    return [DetectionScore(group) for group in matches]


def match_catalog(catalog, field, *, ranking="activity", margin=1.0 * u.arcsec, **options):
    """
    Match a catalogue to the truth of its field, inside the image that sets the frame.

    That image is Euclid's, or Rubin's if there is no other. Rows outside it, or closer to its edge than the
    margin, are dropped, so that a finder gains or loses nothing by looking farther; a source there is not
    asked for, but a row inside may match it.

    Parameters
    ----------
    catalog : `~astropy.table.QTable`
        Needs ``sky_centroid`` and the column of ``ranking``.
    field : `Field`
        The field.
    ranking : str
        Column by which rows are ranked.
    margin : `~astropy.units.Quantity`
        Width of the edge left out.
    **options
        As in `~jaisp.evaluation.match_field`.

    Returns
    -------
    catalog : `~astropy.table.QTable`
        The rows that were kept.
    match : `~jaisp.evaluation.FieldMatch`
        Their match.
    """
    image = field.rubin if field.euclid is None else field.euclid
    catalog = catalog[_inside(image, catalog["sky_centroid"], margin)]
    inside = _inside(image, field.truth["sky_centroid"], margin)
    match = match_field(catalog["sky_centroid"], catalog[ranking], field.truth, inside=inside, **options)
    return catalog, match


def sky_blocks(catalog, match, field, n):
    """
    Cut a matched field into ``n`` times ``n`` pieces of sky, for bootstraps that resample sky.

    A detection goes with the source that it was matched to, so that no pair is torn apart.

    Parameters
    ----------
    catalog : `~astropy.table.QTable`
        As `match_catalog` returned it.
    match : `~jaisp.evaluation.FieldMatch`
        Its match.
    field : `Field`
        The field.
    n : int
        Pieces along each side.

    Returns
    -------
    list of (`~astropy.table.QTable`, `~jaisp.evaluation.FieldMatch`)
        Those of the pieces; together they hold every row and every source once.
    """
    image = field.rubin if field.euclid is None else field.euclid

    def block(positions):
        x, y = image.wcs.world_to_pixel(positions)
        ny, nx = image.shape
        column, row = (
            np.clip(np.nan_to_num(place / size * n), 0, n - 1).astype(int)
            for place, size in ((x, nx), (y, ny))
        )
        return row * n + column

    of_source, of_row = block(match.truth["sky_centroid"]), block(catalog["sky_centroid"])
    matched = match.truth_index >= 0
    of_row[matched] = of_source[match.truth_index[matched]]
    pieces = []
    for k in range(n * n):
        sources, rows = np.flatnonzero(of_source == k), np.flatnonzero(of_row == k)
        place = np.full(len(of_source) + 1, -1)  # the last is what -1 points to
        place[sources] = np.arange(len(sources))
        piece = FieldMatch(
            match.ranking[rows],
            match.outcome[rows],
            place[match.truth_index[rows]],
            match.separation[rows],
            match.truth[sources],
            match.wanted[sources],
        )
        pieces.append((catalog[rows], piece))
    return pieces


def _inside(image, positions, margin):
    """Whether positions are on an image, away from its edge by the margin."""
    edge = margin.to_value(u.arcsec) / image.pixel_scale - 0.5
    (x, y), (ny, nx) = image.wcs.world_to_pixel(positions), image.shape
    return (x > edge) & (x < nx - 1 - edge) & (y > edge) & (y < ny - 1 - edge)
