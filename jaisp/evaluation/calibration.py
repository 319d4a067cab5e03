# Licensed under a 3-clause BSD style license - see LICENSE
"""Whether probabilities mean what they say: reliability, expected calibration error, cross-match outcomes."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u

from jaisp.evaluation.matching import IGNORED, TRUE, match_one_to_one
from jaisp.exceptions import ConfigError

__all__ = [
    "Calibration",
    "activity_calibration",
    "calibration",
    "cross_match_calibration",
    "cross_match_outcomes",
]


@dataclass(frozen=True)
class Calibration:
    """
    Reliability of a probability.

    Parameters
    ----------
    probability : `~numpy.ndarray` (k,)
        Mean probability in each filled bin.
    fraction : `~numpy.ndarray` (k,)
        Fraction of the bin for which it came true.
    count : `~numpy.ndarray` of int (k,)
        Size of the bin.
    error : float
        Expected calibration error: mean of ``|probability - fraction|`` weighted by count; NaN if empty.
    brier : float
        Mean squared difference of probability and outcome; NaN if empty.
    """

    probability: np.ndarray
    fraction: np.ndarray
    count: np.ndarray
    error: float
    brier: float


def calibration(probability, outcome, *, bins=10):
    """
    Compare probabilities with what happened.

    Parameters
    ----------
    probability : array_like (n,)
        Between 0 and 1; entries that are masked or NaN are left out.
    outcome : array_like of bool (n,)
        Whether it came true.
    bins : int
        Number of equal bins from 0 to 1.

    Returns
    -------
    `Calibration`

    Examples
    --------
    >>> from jaisp.evaluation import calibration
    >>> round(calibration([0.9, 0.9, 0.9, 0.9], [1, 1, 1, 0]).error, 3)
    0.15
    """
    probability = np.ma.filled(np.ma.asarray(probability, dtype=float), np.nan)
    outcome = np.asarray(outcome, dtype=bool)
    if probability.shape != outcome.shape or probability.ndim != 1:
        raise ConfigError(
            f"probability has shape {probability.shape} and outcome {outcome.shape}; "
            "give two one-dimensional arrays of one length"
        )
    keep = np.isfinite(probability)
    probability, outcome = probability[keep], outcome[keep]
    if len(probability) == 0:
        empty = np.zeros(0)
        return Calibration(empty, empty, np.zeros(0, int), np.nan, np.nan)
    if probability.min() < 0 or probability.max() > 1:
        raise ConfigError(
            f"probabilities reach from {probability.min():g} to {probability.max():g}; "
            "they must lie in 0 to 1"
        )
    place = np.minimum((probability * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    filled = count > 0
    mean = np.bincount(place, probability, minlength=bins)[filled] / count[filled]
    fraction = np.bincount(place, outcome, minlength=bins)[filled] / count[filled]
    count = count[filled]
    error = float(np.average(np.abs(mean - fraction), weights=count))
    return Calibration(mean, fraction, count, error, float(np.mean((probability - outcome) ** 2)))


def activity_calibration(score, *, bins=10):
    """
    Calibration of a ranking that claims to be the probability of a real source.

    Parameters
    ----------
    score : `~jaisp.evaluation.DetectionScore`
        Detections ranked by a probability. Those matched to sources too faint to be asked for are real
        sources all the same, but are left out, as in purity.
    bins : int
        Number of bins.

    Returns
    -------
    `Calibration`
    """
    ranking = np.concatenate([field.ranking for field in score.fields])
    outcome = np.concatenate([field.outcome for field in score.fields])
    return calibration(ranking[outcome != IGNORED], outcome[outcome != IGNORED] == TRUE, bins=bins)


def cross_match_outcomes(catalog, truth, *, radius=0.5 * u.arcsec):
    """
    Which matches between the surveys are right: do both surveys' slots of a row sit on one source?

    Parameters
    ----------
    catalog : `~astropy.table.QTable`
        Needs ``match_probability``, ``rubin_sky_centroid`` and ``euclid_sky_centroid``; rows in which one
        is missing are left out.
    truth : `~astropy.table.QTable`
        Needs ``sky_centroid``.
    radius : `~astropy.units.Quantity`
        Largest distance of a slot to its source; wide enough for the offset between the surveys.

    Returns
    -------
    probability : `~numpy.ndarray` (k,)
    right : `~numpy.ndarray` of bool (k,)
    """
    probability = np.ma.filled(np.ma.asarray(catalog["match_probability"], dtype=float), np.nan)
    use = np.isfinite(probability)
    source = {}
    for survey in ("rubin", "euclid"):
        position = catalog[f"{survey}_sky_centroid"]
        use &= np.isfinite(np.ma.filled(np.ma.asarray(position.icrs.ra.deg, dtype=float), np.nan))
        use &= ~np.asarray(getattr(position, "mask", np.zeros(len(catalog), bool)))
    for survey in ("rubin", "euclid"):
        position = catalog[f"{survey}_sky_centroid"][use]
        source[survey], _ = match_one_to_one(position, truth["sky_centroid"], radius=radius)
    right = (source["rubin"] == source["euclid"]) & (source["rubin"] >= 0)
    return probability[use], right


def cross_match_calibration(catalog, truth, *, radius=0.5 * u.arcsec, bins=10):
    """
    Calibration of ``match_probability``, on the outcomes of `cross_match_outcomes`.

    Parameters
    ----------
    catalog, truth, radius
        As for `cross_match_outcomes`.
    bins : int
        Number of bins.

    Returns
    -------
    `Calibration`
    """
    return calibration(*cross_match_outcomes(catalog, truth, radius=radius), bins=bins)
