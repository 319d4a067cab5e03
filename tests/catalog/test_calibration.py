# Licensed under a 3-clause BSD style license - see LICENSE
"""The calibrated activity: a logistic model of logit, significance and position error."""

import numpy as np
import pytest
from scipy.special import expit

from jaisp.catalog import ActivityCalibration


def test_the_default_is_the_network_itself():
    logit = np.array([-3.0, 0.0, 2.0])
    activity = ActivityCalibration()(logit, np.zeros(3), np.full(3, 0.2))
    np.testing.assert_allclose(activity, 1 / (1 + np.exp(-logit)))


def test_finds_the_coefficients_that_outcomes_were_drawn_with():
    rng = np.random.default_rng(4)
    n = 40_000
    logit, snr, error = rng.normal(0, 2, n), rng.exponential(8, n), 0.03 * np.exp(rng.exponential(0.8, n))
    score = -1.0 + 0.8 * logit + 0.4 * np.log(1 + np.minimum(snr, 100)) - 1.3 * np.log(error / 0.1)
    is_real = rng.random(n) < expit(score)
    found = ActivityCalibration.fit(logit, snr, error, is_real)
    assert found.intercept == pytest.approx(-1.0, abs=0.15)
    assert found.logit_slope == pytest.approx(0.8, abs=0.05)
    assert found.snr_slope == pytest.approx(0.4, abs=0.08)
    assert found.error_slope == pytest.approx(1.3, abs=0.1)
    activity = found(logit, snr, error)
    for low in (0.0, 0.25, 0.5, 0.75):
        chosen = (activity >= low) & (activity < low + 0.25)
        assert activity[chosen].mean() == pytest.approx(is_real[chosen].mean(), abs=0.02)


def test_more_evidence_never_lowers_it():
    calibration = ActivityCalibration(intercept=-1.0, logit_slope=0.8, snr_slope=0.3, error_slope=1.3)
    base = calibration(1.0, 10.0, 0.1)
    assert calibration(1.5, 10.0, 0.1) > base
    assert calibration(1.0, 20.0, 0.1) > base
    assert calibration(1.0, 10.0, 0.05) > base
    assert calibration(1.0, 10.0, 0.001) == calibration(1.0, 10.0, 0.02)  # sharp enough


def test_slopes_are_not_negative_where_the_data_say_so():
    rng = np.random.default_rng(5)
    logit, snr, error = rng.normal(size=500), rng.exponential(8, 500), rng.uniform(0.05, 0.3, 500)
    found = ActivityCalibration.fit(logit, snr, error, logit < 0)
    assert found.logit_slope == 0
    assert min(found.snr_slope, found.error_slope) >= 0
    assert ActivityCalibration(**found.to_dict()) == found
