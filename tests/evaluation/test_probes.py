# Licensed under a 3-clause BSD style license - see LICENSE
"""Linear probes against closed formulas."""

import numpy as np
import pytest

from jaisp.evaluation import (
    bootstrap_groups,
    explained_variance,
    flux_features,
    probe,
    quadratic_features,
    ranking_quality,
)
from jaisp.exceptions import ConfigError

N = 1200
GROUP = np.repeat(np.arange(12), N // 12)


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def test_a_linear_relation_is_found_to_its_noise(rng):
    features = rng.normal(size=(N, 10)) * 10.0 ** np.arange(-5, 5)
    signal = features @ (rng.normal(size=10) / 10.0 ** np.arange(-5, 5))
    target = 7 + signal + rng.normal(size=N) * signal.std() / 3
    assert explained_variance(target, probe(features, target, GROUP)) == pytest.approx(0.9, abs=0.015)


def test_noise_explains_nothing(rng):
    """With as many features as a third of the objects a fit to all would explain a third."""
    features, target = rng.normal(size=(N, N // 3)), rng.normal(size=N)
    assert abs(explained_variance(target, probe(features, target, GROUP))) < 0.03
    assert ranking_quality(target > 0, probe(features[:, :30], target > 0, GROUP)) == pytest.approx(
        0.5, abs=0.06
    )


def test_what_only_the_group_tells_is_not_learned(rng):
    """A feature that names the sky explains the target on that sky alone: tested on skies apart, nothing."""
    level = rng.normal(size=12)[GROUP]
    features = np.eye(12)[GROUP]
    assert explained_variance(level, probe(features, level, GROUP)) < 0.05


def test_logistic_reaches_the_best_possible_ranking(rng):
    from scipy.stats import norm

    is_star = rng.random(N) < 0.2
    features = rng.normal(size=(N, 5))
    features[:, 2] += 2.0 * is_star
    quality = ranking_quality(is_star, probe(features, is_star, GROUP))
    assert quality == pytest.approx(norm.cdf(2 / np.sqrt(2)), abs=0.02)


def test_quadratic_features_solve_what_linear_ones_cannot(rng):
    features = rng.normal(size=(N, 4))
    target = features[:, 0] * features[:, 1]
    assert explained_variance(target, probe(features, target, GROUP)) < 0.05
    quadratic = quadratic_features(features)
    assert quadratic.shape == (N, 4 * 7 // 2)
    assert explained_variance(target, probe(quadratic, target, GROUP)) > 0.99


def test_magnitudes_and_colours_are_linear_in_flux_features(rng):
    flux = 10 ** rng.uniform(2, 5, (N, 6))
    error = 10 ** rng.uniform(-1, 0, (N, 6))
    features = flux_features(flux, error)
    magnitude = np.log(flux)
    np.testing.assert_allclose(features[:, :6] + features[:, 6:], magnitude, atol=1e-3)
    colour = magnitude[:, 2] - magnitude[:, 3]
    assert explained_variance(colour, probe(features, colour, GROUP)) > 0.9999


def test_fluxes_that_were_not_measured(rng):
    flux, error = rng.normal(5, 1, (50, 2)), np.full((50, 2), 1.0)
    error[:, 1] = np.linspace(1, 2, 50)
    flux[3, 1] = error[4, 1] = np.nan
    features = flux_features(flux, error)
    assert np.isfinite(features).all()
    np.testing.assert_allclose(features[[3, 4]][:, [1, 3]], [[0, np.log(2)]] * 2)
    with pytest.raises(ConfigError, match="leave the band out"):
        flux_features(flux, np.full((50, 2), np.nan))


def test_statistics_by_hand():
    assert explained_variance([1, 2, 3], [2, 2, 2]) == 0
    assert explained_variance([1, 2, 3], [1, 2, 3]) == 1
    assert ranking_quality([False, True, True], [0.1, 0.1, 0.5]) == 0.75
    assert np.isnan(ranking_quality([True, True], [1, 2]))


def test_bootstrap_resamples_groups_not_objects(rng):
    """The mean of 12 skies of 100 equal values is known to the scatter of the skies over the root of 12."""
    values = rng.normal(size=12)[GROUP]
    error = bootstrap_groups(np.mean, GROUP, values, n_resamples=2000)
    assert error == pytest.approx(values[::100].std() / np.sqrt(12), rel=0.06)


def test_mistakes(rng):
    with pytest.raises(ConfigError, match=r"needed: \(n, k\), \(n,\), \(n,\)"):
        probe(np.zeros((5, 2)), np.zeros(4), np.arange(5))
    with pytest.raises(ConfigError, match="a probe needs at least 3"):
        probe(np.zeros((4, 2)), np.zeros(4), [0, 0, 1, 1])
