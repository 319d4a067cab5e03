# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
from astropy import units as u

from jaisp.evaluation import match_field, match_one_to_one
from jaisp.evaluation.matching import FALSE, IGNORED, TRUE
from jaisp.exceptions import ConfigError

from .helpers import sky, truth_table


def test_every_detection_and_source_is_used_once():
    rng = np.random.default_rng(3)
    detections, truth = sky(*rng.uniform(0, 8, (2, 300))), sky(*rng.uniform(0, 8, (2, 250)))
    index, separation = match_one_to_one(detections, truth)
    matched = index >= 0
    assert matched.sum() > 100
    assert len(np.unique(index[matched])) == matched.sum()
    true = detections[matched].separation(truth[index[matched]]).arcsec
    np.testing.assert_allclose(separation[matched], true, rtol=1e-6)
    assert true.max() <= 0.3
    assert np.isnan(separation[~matched]).all()


def test_a_double_needs_the_optimal_assignment():
    # the nearest source of the first detection is the only one that the second can have
    index, _ = match_one_to_one(sky([0.1, -0.1]), sky([0.0, 0.25]))
    assert list(index) == [1, 0]


def test_least_total_distance_among_equally_many_pairs():
    index, separation = match_one_to_one(sky([0.0, 0.1]), sky([0.02, 0.12]))
    assert list(index) == [0, 1]
    np.testing.assert_allclose(separation, 0.02, rtol=1e-4)


def test_surer_detections_come_first():
    # the less sure one is nearer, but above a threshold between the two it does not exist
    detections, truth = sky([0.1, 0.01]), sky([0.0])
    assert list(match_one_to_one(detections, truth)[0]) == [-1, 0]
    assert list(match_one_to_one(detections, truth, ranking=[0.9, 0.5])[0]) == [0, -1]


def test_matching_of_a_prefix_is_the_prefix_of_the_matching():
    rng = np.random.default_rng(8)
    detections, truth = sky(*rng.uniform(0, 3, (2, 80))), sky(*rng.uniform(0, 3, (2, 60)))
    ranking = rng.permutation(80).astype(float)
    index, _ = match_one_to_one(detections, truth, ranking=ranking)
    for threshold in (20, 40, 60):
        above = ranking >= threshold
        alone, _ = match_one_to_one(detections[above], truth)
        assert (alone >= 0).sum() == (index[above] >= 0).sum()


def test_radius_is_inclusive_of_nothing_beyond_it():
    index, _ = match_one_to_one(sky([0.0, 10.0]), sky([0.299, 10.301]))
    assert list(index) == [0, -1]
    index, _ = match_one_to_one(sky([0.0]), sky([0.4]), radius=0.5 * u.arcsec)
    assert list(index) == [0]


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 2), (2, 0)])
def test_nothing_to_match(n, m):
    index, separation = match_one_to_one(sky(np.zeros(n)), sky(np.zeros(m)))
    assert list(index) == [-1] * n
    assert np.isnan(separation).all()


def test_positions_that_are_not_finite_match_nothing():
    index, _ = match_one_to_one(sky([np.nan, 0.0]), sky([0.0, np.nan]))
    assert list(index) == [-1, 0]


def test_outcomes_of_the_benchmark():
    truth = truth_table([0, 10, 20], [50, 3, 6])
    #           found, doubled, faint, doubled faint, nothing, beyond the radius
    positions = sky([0.05, 0.1, 10.0, 10.1, 30.0, 20.31])
    match = match_field(positions, [6, 5, 4, 3, 2, 1], truth)
    assert list(match.outcome) == [TRUE, FALSE, IGNORED, FALSE, FALSE, FALSE]
    assert list(match.truth_index) == [0, -1, 1, -1, -1, -1]
    assert list(match.wanted) == [True, False, True]
    assert list(match.found_at) == [6, 4, -np.inf]


def test_a_faint_source_does_not_take_the_detection_of_a_bright_one():
    match = match_field(sky([0.1]), [1.0], truth_table([0.0, 0.1], [20, 2]))
    assert list(match.outcome) == [TRUE]
    assert list(match.truth_index) == [0]


def test_sources_outside_are_not_asked_for():
    match = match_field(sky([0.0, 5.0]), [1, 1], truth_table([0.0, 5.0], [20, 20]), inside=[True, False])
    assert list(match.outcome) == [TRUE, IGNORED]
    assert match.wanted.sum() == 1


def test_limit_and_column_can_be_chosen():
    truth = truth_table([0.0], [3.0], euclid_snr=[30.0])
    assert match_field(sky([0.0]), [1], truth).outcome[0] == IGNORED
    assert match_field(sky([0.0]), [1], truth, min_snr=2).outcome[0] == TRUE
    assert match_field(sky([0.0]), [1], truth, snr_column="euclid_snr").outcome[0] == TRUE


def test_nan_ranks_last():
    match = match_field(sky([0.0, 0.1]), [np.nan, -5.0], truth_table([0.0], [9]))
    assert list(match.outcome) == [FALSE, TRUE]


def test_mistakes_are_named():
    truth = truth_table([0.0], [9])
    with pytest.raises(ConfigError, match=r"no column 'euclid_snr'.*it has: sky_centroid, snr"):
        match_field(sky([0.0]), [1], truth, snr_column="euclid_snr")
    with pytest.raises(ConfigError, match=r"ranking has shape \(2,\) for 1 positions"):
        match_field(sky([0.0]), [1, 2], truth)
    with pytest.raises(ConfigError, match=r"ranking has shape \(1,\) for 2 detections"):
        match_one_to_one(sky([0.0, 1.0]), sky([0.0]), ranking=[1])
