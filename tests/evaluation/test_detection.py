# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation import DetectionScore, ab_magnitude, score
from jaisp.exceptions import ConfigError

from .helpers import sky, truth_table


def field(ranking, real, n_missed=0):
    """Score of a field in which the detections are real or not, and more sources were missed."""
    real = np.asarray(real, bool)
    x = 10.0 * np.arange(len(real) + n_missed)
    wanted = np.r_[real, np.ones(n_missed, bool)]
    return score(sky(x[: len(real)]), ranking, truth_table(x[wanted], np.full(wanted.sum(), 20.0)))


def test_curve_by_hand():
    result = field([0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0], n_missed=1)
    np.testing.assert_allclose(result.thresholds, [0.9, 0.8, 0.7, 0.6, 0.5])
    np.testing.assert_allclose(result.purity, [1, 1, 2 / 3, 3 / 4, 3 / 5])
    np.testing.assert_allclose(result.completeness, [0.25, 0.5, 0.5, 0.75, 0.75])
    np.testing.assert_allclose(result.f1, [2 / 5, 2 / 3, 4 / 7, 3 / 4, 2 / 3])
    assert result.best_f1 == pytest.approx(0.75)
    assert result.best_f1_threshold == 0.6
    assert result.average_precision == pytest.approx(0.25 + 0.25 + 0.25 * 0.75)
    assert result.threshold_at(0.95) == 0.8
    assert result.completeness_at(0.95) == 0.5
    assert result.completeness_at(0.75) == 0.75
    assert result.n_wanted == 4


def test_purity_may_come_back_at_a_lower_threshold():
    result = field(np.arange(20)[::-1], [0] + [1] * 19)
    assert result.threshold_at(0.95) == 0
    assert result.completeness_at(0.95) == 1
    assert result.completeness_at(0.96) == 0


def test_equal_scores_enter_together():
    result = field([0.9, 0.5, 0.5], [1, 1, 0])
    np.testing.assert_allclose(result.thresholds, [0.9, 0.5])
    np.testing.assert_allclose(result.purity, [1, 2 / 3])


def test_faint_matches_change_nothing():
    truth = truth_table([0, 10, 20], [50, 50, 2])
    bare = score(sky([0.0, 30.0]), [3, 1], truth)
    more = score(sky([0.0, 20.0, 30.0]), [3, 2, 1], truth)
    np.testing.assert_array_equal(bare.purity, more.purity)
    np.testing.assert_array_equal(bare.completeness, more.completeness)


def test_fields_share_one_threshold():
    good, bad = field([0.9, 0.8], [1, 1]), field([0.95, 0.85], [0, 1])
    pooled = DetectionScore([good, bad])
    assert len(pooled.fields) == 2
    np.testing.assert_allclose(pooled.thresholds, [0.95, 0.9, 0.85, 0.8])
    np.testing.assert_allclose(pooled.purity, [0, 1 / 2, 2 / 3, 3 / 4])
    assert pooled.completeness_at(0.95) == 0


def test_no_detections_and_no_sources():
    nothing = score(sky([]), [], truth_table([0.0], [9]))
    assert (nothing.best_f1, nothing.average_precision, nothing.completeness_at(0.95)) == (0, 0, 0)
    assert nothing.best_f1_threshold == np.inf
    assert np.isnan(score(sky([0.0]), [1], truth_table([], [])).completeness_at(0.95))
    with pytest.raises(ConfigError, match="no fields were given"):
        DetectionScore([])


def test_blends_use_the_threshold_of_the_whole_catalogue():
    truth = truth_table([0, 0.5, 10, 20], [50] * 4, nearest=[0.5, 0.5, 9.5, 10] * u.arcsec)
    result = score(sky([0.0, 10.0, 20.0, 40.0, 0.5]), [5, 4, 3, 2, 1], truth)
    assert result.completeness_at(0.95) == 0.75
    assert result.blend_completeness_at(0.95) == 0.5
    assert result.blend_completeness_at(0.5) == 1
    assert result.summary()["blends_95"] == 0.5


def test_completeness_by_magnitude_and_by_separation():
    flux = [1000.0, 100.0, 100.0, 10.0] * u.nJy
    truth = truth_table([0, 10, 20, 30], [50] * 4, euclid_vis_flux=flux, nearest=[0.3, 5, 5, 5] * u.arcsec)
    result = score(sky([0.0, 10.0]), [2, 1], truth)
    table = result.completeness_by(ab_magnitude("euclid_vis_flux"), [22, 25, 28, 30, 32])
    assert list(table["n_sources"]) == [1, 2, 1, 0]
    assert list(table["n_found"]) == [1, 1, 0, 0]
    np.testing.assert_allclose(table["completeness"], [1, 0.5, 0, np.nan])
    by_separation = result.completeness_by("nearest", [0, 1, 10])
    np.testing.assert_allclose(by_separation["completeness"], [1, 1 / 3])
    assert list(result.completeness_by("nearest", [0, 1, 10], threshold=3)["n_found"]) == [0, 0]


def test_bootstrap_over_fields():
    fields = [field([0.9], [1], n_missed=k % 2) for k in range(10)]
    error = DetectionScore(fields).bootstrap(lambda s: s.completeness_at(0.95), rng=1)
    assert 0.03 < error < 0.2
    assert error == DetectionScore(fields).bootstrap(lambda s: s.completeness_at(0.95), rng=1)
    assert np.isnan(fields[0].bootstrap(lambda s: s.best_f1))


def test_repr_tells_the_headlines():
    assert repr(field([0.9], [1], n_missed=1)) == (
        "<DetectionScore of 1 fields, 2 sources: best F1 0.667, completeness at purity 0.95 0.500>"
    )


def test_truth_without_neighbours_has_no_blend_figure():
    truth = QTable({"sky_centroid": sky([0.0]), "snr": [9.0]})
    assert "blends_95" not in score(sky([0.0]), [1], truth).summary()
