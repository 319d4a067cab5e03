# Licensed under a 3-clause BSD style license - see LICENSE
"""Tune a peer on fields that are not reported, so that the comparison is fair to it and to the reader."""

from dataclasses import dataclass
from typing import NamedTuple

from astropy.table import QTable

from jaisp.evaluation.detection import DetectionScore
from jaisp.evaluation.matching import match_field
from jaisp.exceptions import ConfigError, suggest
from jaisp.image import SurveyImage

__all__ = ["STATISTICS", "Field", "Tuning", "evaluate", "tune"]

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
        As in `~jaisp.evaluation.match_field`.

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
        As in `~jaisp.evaluation.match_field`.

    Returns
    -------
    list of `~jaisp.evaluation.DetectionScore`
        In the order of ``settings``.
    """
    matches = [[] for _ in settings]
    for rubin, euclid, truth in fields:
        prepared = peer.prepare(rubin, euclid)
        for place, choice in enumerate(settings):
            found = peer.detect(prepared, **choice)
            matches[place].append(match_field(found["sky_centroid"], found["snr"], truth, **options))
    return [DetectionScore(group) for group in matches]
