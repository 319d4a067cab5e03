# Licensed under a 3-clause BSD style license - see LICENSE
"""How well a ranked catalogue finds sources: purity, completeness, F1, by threshold and by kind of source."""

from functools import cached_property

import numpy as np
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation.matching import FALSE, IGNORED, TRUE, match_field
from jaisp.exceptions import ConfigError
from jaisp.surveys import AB_ZERO_POINT

__all__ = ["DetectionScore", "ab_magnitude", "score"]


def score(positions, ranking, truth, **options):
    """
    Score one field; shorthand for `DetectionScore` of one `~jaisp.evaluation.match_field`.

    Parameters
    ----------
    positions : `~astropy.coordinates.SkyCoord` (n,)
        Positions of the detections.
    ranking : array_like (n,)
        Score of each detection; larger is surer.
    truth : `~astropy.table.QTable`
        Sources with ``sky_centroid`` and ``snr``.
    **options
        As in `~jaisp.evaluation.match_field`.

    Returns
    -------
    `DetectionScore`

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astropy.table import QTable
    >>> from jaisp.evaluation import score
    >>> places = SkyCoord([0, 5, 9], [0, 0, 0], unit="arcsec")
    >>> truth = QTable({"sky_centroid": places, "snr": [50.0, 8.0, 2.0]})
    >>> found = SkyCoord([0.1, 7.0, 5.1, 9.0], [0, 0, 0, 0], unit="arcsec")
    >>> result = score(found, [0.9, 0.8, 0.7, 0.6], truth)
    >>> float(result.completeness_at(0.95)), round(result.best_f1, 2)
    (0.5, 0.8)
    """
    return DetectionScore([match_field(positions, ranking, truth, **options)])


def ab_magnitude(column):
    """Return a function of a truth table: AB magnitudes of a flux column in nJy."""

    def magnitude(truth):
        flux = u.Quantity(truth[column], u.nJy).value
        return AB_ZERO_POINT - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))

    return magnitude


class DetectionScore:
    """
    Detections of one or more fields, pooled, with one threshold for all of them.

    Parameters
    ----------
    matches : iterable of `~jaisp.evaluation.FieldMatch` or `DetectionScore`
        The fields.

    Notes
    -----
    Purity is TRUE / (TRUE + FALSE), completeness is TRUE / (sources to be found); detections matched to
    sources too faint to be asked for enter neither. Equal scores enter together.
    """

    def __init__(self, matches):
        fields = []
        for match in matches:
            fields.extend(match.fields if isinstance(match, DetectionScore) else [match])
        if not fields:
            raise ConfigError("no fields were given to score; give at least one FieldMatch")
        self.fields = tuple(fields)

    def __repr__(self):
        return (
            f"<DetectionScore of {len(self.fields)} fields, {self.n_wanted} sources: "
            f"best F1 {self.best_f1:.3f}, completeness at purity 0.95 {self.completeness_at(0.95):.3f}>"
        )

    @property
    def n_wanted(self):
        """Number of sources that were to be found."""
        return int(sum(field.wanted.sum() for field in self.fields))

    @cached_property
    def _curve(self):
        ranking = np.concatenate([field.ranking for field in self.fields])
        outcome = np.concatenate([field.outcome for field in self.fields])
        counted = outcome != IGNORED
        ranking, outcome = ranking[counted], outcome[counted]
        order = np.argsort(-ranking, kind="stable")
        ranking = ranking[order]
        last = np.flatnonzero(np.diff(ranking, append=-np.inf)) if len(ranking) else np.zeros(0, int)
        n_true = np.cumsum(outcome[order] == TRUE)[last]
        n_false = np.cumsum(outcome[order] == FALSE)[last]
        return ranking[last], n_true, n_false

    @property
    def thresholds(self):
        """Distinct scores, descending (k,)."""
        return self._curve[0]

    @property
    def purity(self):
        """Purity of the detections at or above each threshold (k,)."""
        _, n_true, n_false = self._curve
        return n_true / (n_true + n_false)

    @property
    def completeness(self):
        """Completeness at each threshold (k,); NaN if there was nothing to find."""
        return self._curve[1] / self.n_wanted if self.n_wanted else np.full(len(self.thresholds), np.nan)

    @property
    def f1(self):
        """Harmonic mean of purity and completeness at each threshold (k,)."""
        _, n_true, n_false = self._curve
        return 2 * n_true / (n_true + n_false + self.n_wanted)

    @property
    def best_f1(self):
        """Largest F1 of all thresholds; 0 without detections."""
        return float(self.f1.max(initial=0.0))

    @property
    def best_f1_threshold(self):
        """Threshold of the largest F1; infinite without detections."""
        return float(self.thresholds[np.argmax(self.f1)]) if len(self.thresholds) else np.inf

    @property
    def average_precision(self):
        """Area under the purity-completeness curve, as a sum of steps; 0 without detections."""
        return float(np.sum(np.diff(self.completeness, prepend=0.0) * self.purity))

    def threshold_at(self, purity):
        """Lowest threshold whose detections are at least this pure; infinite if none are."""
        enough = np.flatnonzero(self.purity >= purity)
        return float(self.thresholds[enough[-1]]) if len(enough) else np.inf

    def completeness_at(self, purity, *, where=None):
        """
        Largest completeness at which the whole catalogue is at least this pure.

        Parameters
        ----------
        purity : float
            Purity of all detections together, 0 to 1.
        where : callable, optional
            Takes a truth table and returns a bool array: the sources to count. The threshold stays that
            of the whole catalogue.

        Returns
        -------
        float
            0 if no threshold is pure enough, NaN if there is nothing to find.
        """
        return self.completeness_above(self.threshold_at(purity), where=where)

    def completeness_above(self, threshold, *, where=None):
        """Completeness of the sources ``where(truth)`` among detections at or above ``threshold``."""
        n_found = n_wanted = 0
        for field in self.fields:
            chosen = (
                field.wanted if where is None else field.wanted & np.asarray(where(field.truth), dtype=bool)
            )
            n_wanted += chosen.sum()
            n_found += np.sum(field.found_at[chosen] >= threshold) if np.isfinite(threshold) else 0
        return float(n_found / n_wanted) if n_wanted else np.nan

    def blend_completeness_at(self, purity, *, within=1.0 * u.arcsec):
        """Completeness at this purity of sources whose ``nearest`` neighbour is closer than this."""
        limit = within.to_value(u.arcsec)
        return self.completeness_at(
            purity, where=lambda truth: u.Quantity(truth["nearest"], u.arcsec).value < limit
        )

    def completeness_by(self, values, edges, *, threshold=None, purity=0.95):
        """
        Completeness in bins of a property of the sources.

        Parameters
        ----------
        values : str or callable
            Column of the truth, or a function of the truth table, e.g. ``ab_magnitude("euclid_vis_flux")``.
        edges : array_like (k + 1,)
            Edges of the bins, in the unit of the column.
        threshold : float, optional
            Lowest score counted; by default the one of ``purity``.
        purity : float
            Used if no threshold is given.

        Returns
        -------
        `~astropy.table.QTable`
            Columns ``low``, ``high``, ``n_sources``, ``n_found``, ``completeness`` (NaN in empty bins).
        """
        threshold = self.threshold_at(purity) if threshold is None else threshold
        get = values if callable(values) else lambda truth: truth[values]
        edges = np.asarray(edges, dtype=float)
        n_sources, n_found = np.zeros(len(edges) - 1, int), np.zeros(len(edges) - 1, int)
        for field in self.fields:
            value = np.asarray(getattr(get(field.truth), "value", get(field.truth)), dtype=float)[
                field.wanted
            ]
            found = (field.found_at[field.wanted] >= threshold) & np.isfinite(threshold)
            n_sources += np.histogram(value, edges)[0]
            n_found += np.histogram(value[found], edges)[0]
        with np.errstate(invalid="ignore"):
            completeness = n_found / n_sources
        return QTable(
            {
                "low": edges[:-1],
                "high": edges[1:],
                "n_sources": n_sources,
                "n_found": n_found,
                "completeness": completeness,
            }
        )

    def bootstrap(self, statistic, *, n_resamples=200, rng=None):
        """
        Standard deviation of a statistic over resampled fields.

        Parameters
        ----------
        statistic : callable
            Takes a `DetectionScore`, returns a number.
        n_resamples : int
            Number of resamples.
        rng : `~numpy.random.Generator` or int, optional
            Source of randomness.

        Returns
        -------
        float
            NaN with fewer than two fields.
        """
        if len(self.fields) < 2:
            return np.nan
        rng = np.random.default_rng(rng)
        values = [
            statistic(
                DetectionScore(
                    [self.fields[k] for k in rng.integers(len(self.fields), size=len(self.fields))]
                )
            )
            for _ in range(n_resamples)
        ]
        return float(np.nanstd(values, ddof=1))

    def summary(self, *, purities=(0.9, 0.95, 0.98)):
        """Headline figures as a dict: counts, average precision, best F1, completeness by purity, blends."""
        figures = {
            "n_fields": len(self.fields),
            "n_wanted": self.n_wanted,
            "average_precision": self.average_precision,
            "best_f1": self.best_f1,
        }
        for purity in purities:
            figures[f"completeness_{100 * purity:.0f}"] = self.completeness_at(purity)
        if all("nearest" in field.truth.colnames for field in self.fields):
            figures["blends_95"] = self.blend_completeness_at(0.95)
        return figures
