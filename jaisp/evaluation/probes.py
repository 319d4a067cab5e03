# Licensed under a 3-clause BSD style license - see LICENSE
"""Linear probes: what a linear model can read off a vector, tested on skies that it was not fitted to."""

import numpy as np
from scipy.linalg import eigh
from scipy.optimize import minimize
from scipy.special import log_expit
from scipy.stats import rankdata

from jaisp.exceptions import ConfigError

__all__ = [
    "bootstrap_groups",
    "explained_variance",
    "flux_features",
    "probe",
    "quadratic_features",
    "ranking_quality",
]

_PENALTIES = 10.0 ** np.arange(-4.0, 2.0)  # in units of the number of objects


def flux_features(flux, error):
    """
    Fluxes and their errors as features of which a linear model can make the most.

    For each band the arsinh of half the signal-to-noise ratio, and the logarithm of the error. Their sum is
    the asinh magnitude (Lupton, Gunn & Szalay 1999) softened at the noise, so magnitudes and colours are
    linear in them. A flux that was not measured counts as 0 with the largest error of its band.

    Parameters
    ----------
    flux, error : array, shape (n, n_bands)
        In one linear unit; NaN where not measured.

    Returns
    -------
    ndarray, shape (n, 2 * n_bands)
    """
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    good = np.isfinite(flux) & np.isfinite(error) & (error > 0)
    if not good.any(axis=0).all():
        raise ConfigError("a band holds no flux with a positive error; leave the band out")
    flux = np.where(good, flux, 0.0)
    error = np.where(good, error, np.where(good, error, 0.0).max(axis=0))
    return np.concatenate([np.arcsinh(flux / (2 * error)), np.log(error)], axis=1)


def quadratic_features(features):
    """
    Add the squares and products of features (n, k), each standardised before.

    Returns
    -------
    ndarray, shape (n, k * (k + 3) / 2)
    """
    features = np.asarray(features, float)
    features = (features - features.mean(axis=0)) / _spread(features)
    i, j = np.triu_indices(features.shape[1])
    return np.concatenate([features, features[:, i] * features[:, j]], axis=1)


def _spread(features):
    """Standard deviations; infinite for a constant feature, which standardises it to 0."""
    spread = features.std(axis=0)
    return np.where(spread > 1e-9, spread, np.inf)


def _ridge(features, target, penalties):
    """Weights (k, n_penalties) of ridge regression; features and target have zero mean."""
    values, vectors = eigh(features.T @ features)
    projected = vectors.T @ (features.T @ target)
    return vectors @ (projected[:, None] / (values[:, None] + penalties * len(features)))


def _logistic(features, target, penalties):
    """Weights and intercept (k + 1, n_penalties) of logistic regression, from strong to weak penalty."""
    sign = np.where(target, 1.0, -1.0)
    start, found = np.zeros(features.shape[1] + 1), []

    def cost(parameters, penalty):
        weights, intercept = parameters[:-1], parameters[-1]
        score = sign * (features @ weights + intercept)
        slope = -sign * np.exp(log_expit(-score)) / len(sign)
        gradient = np.append(features.T @ slope + penalty * weights, slope.sum())
        return -log_expit(score).mean() + 0.5 * penalty * weights @ weights, gradient

    for penalty in sorted(penalties, reverse=True):
        start = minimize(cost, start, (penalty,), jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
        found.append(start)
    return np.stack(found[::-1], axis=-1)


def _predict(features, target, train, test, penalties):
    """Predictions (n_test, n_penalties) of a model fitted to ``train``."""
    mean, spread = features[train].mean(axis=0), _spread(features[train])
    fitted, asked = ((features[index] - mean) / spread for index in (train, test))
    if target.dtype == bool:
        weights = _logistic(fitted, target[train], penalties)
        return asked @ weights[:-1] + weights[-1]
    level = target[train].mean()
    return asked @ _ridge(fitted, target[train] - level, penalties) + level


def probe(features, target, group, *, n_folds=6, penalties=_PENALTIES):
    """
    Predict a target by a linear model of the features, each group by a model that has not seen it.

    Ridge regression for numbers, logistic regression for a bool target. Features are standardised. For each
    fold the penalty is the one that does best on the next fold in a fit to the others; the model is then
    fitted to all but the fold itself.

    Parameters
    ----------
    features : array, shape (n, k)
    target : array, shape (n,)
        Numbers, or bool.
    group : array of int, shape (n,)
        Sky that each object is from; a fold holds whole groups.
    n_folds : int
        Number of folds; at most the number of groups, at least 3.
    penalties : array
        Weights of the squared coefficients to choose from, over the number of objects.

    Returns
    -------
    ndarray, shape (n,)
        Prediction for each object; for a bool target its log odds.
    """
    features, target, group = np.asarray(features, float), np.asarray(target), np.asarray(group)
    if features.ndim != 2 or not len(features) == len(target) == len(group):
        raise ConfigError(
            f"features {features.shape}, target {target.shape} and group {group.shape} do not belong "
            "together; needed: (n, k), (n,), (n,)"
        )
    penalties = np.asarray(penalties, float)
    names, place = np.unique(group, return_inverse=True)
    n_folds = min(n_folds, len(names))
    if n_folds < 3:
        raise ConfigError(f"{len(names)} groups and {n_folds} folds; a probe needs at least 3 of both")
    fold = place % n_folds
    quality = _log_likelihood if target.dtype == bool else explained_variance
    prediction = np.empty(len(target))
    for k in range(n_folds):
        test, validation = fold == k, fold == (k + 1) % n_folds
        tried = _predict(features, target, ~test & ~validation, validation, penalties)
        best = np.argmax([quality(target[validation], column) for column in tried.T])
        prediction[test] = _predict(features, target, ~test, test, penalties[best : best + 1])[:, 0]
    return prediction


def _log_likelihood(target, log_odds):
    # Not the ranking: it is blind to the scale of the log odds, which the folds must share.
    return log_expit(np.where(target, log_odds, -log_odds)).mean()


def explained_variance(target, prediction):
    """Fraction of the variance of a target that a prediction explains: 1 at best, 0 for the mean."""
    target = np.asarray(target, float)
    return float(1 - np.mean((target - prediction) ** 2) / target.var())


def ranking_quality(target, prediction):
    """
    Area under the ROC curve: how often a true case is ranked above a false one.

    1 at best, 0.5 for chance; NaN unless there are cases of both kinds.
    """
    target = np.asarray(target, bool)
    n_true, n_false = target.sum(), (~target).sum()
    if not n_true or not n_false:
        return np.nan
    ranks = rankdata(prediction)
    return float((ranks[target].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))


def bootstrap_groups(statistic, group, *arrays, n_resamples=200, rng=0):
    """
    Standard deviation of a statistic under resampling of whole groups.

    Parameters
    ----------
    statistic : callable
        Takes the arrays, returns a number.
    group : array of int, shape (n,)
        Sky that each object is from.
    *arrays : array, shape (n, ...)
        Resampled together.
    n_resamples : int
    rng : `~numpy.random.Generator` or int

    Returns
    -------
    float
    """
    rng = np.random.default_rng(rng)
    members = [np.flatnonzero(group == name) for name in np.unique(group)]
    values = []
    for _ in range(n_resamples):
        index = np.concatenate([members[k] for k in rng.integers(0, len(members), len(members))])
        values.append(statistic(*(np.asarray(array)[index] for array in arrays)))
    return float(np.nanstd(values, ddof=1))
