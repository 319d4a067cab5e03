# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.utils.masked import Masked

from jaisp.evaluation import (
    activity_calibration,
    calibration,
    cross_match_calibration,
    flux_residuals,
    match_field,
    position_residuals,
    score,
)
from jaisp.exceptions import ConfigError

from .helpers import sky, truth_table


def test_a_calibrated_sample_has_no_calibration_error():
    rng = np.random.default_rng(5)
    probability = rng.uniform(size=50_000)
    outcome = rng.uniform(size=50_000) < probability
    result = calibration(probability, outcome)
    assert result.error < 0.01
    assert result.brier == pytest.approx(1 / 6, abs=0.005)
    assert result.count.sum() == 50_000


def test_calibration_error_by_hand():
    result = calibration([0.95, 0.95, 0.95, 0.95, 0.15], [1, 1, 1, 0, 0])
    assert result.error == pytest.approx(0.8 * 0.2 + 0.2 * 0.15)
    np.testing.assert_allclose(result.probability, [0.15, 0.95])
    np.testing.assert_allclose(result.fraction, [0, 0.75])
    np.testing.assert_array_equal(result.count, [1, 4])


def test_certainty_is_in_the_last_bin():
    assert calibration([1.0, 0.0], [1, 0]).error == 0


def test_missing_probabilities_are_left_out():
    probability = np.ma.array([0.5, 0.9, 0.5], mask=[False, True, False])
    assert calibration(probability, [1, 0, 0]).error == 0
    assert np.isnan(calibration([np.nan], [1]).error)


def test_calibration_mistakes():
    with pytest.raises(ConfigError, match="they must lie in 0 to 1"):
        calibration([1.5], [1])
    with pytest.raises(ConfigError, match=r"shape \(2,\) and outcome \(1,\)"):
        calibration([0.5, 0.5], [1])


def test_activity_leaves_faint_sources_out():
    truth = truth_table([0, 10], [50, 2])
    result = activity_calibration(score(sky([0.0, 10.0, 20.0]), [1.0, 0.5, 0.0], truth))
    assert result.error == 0
    assert result.count.sum() == 2


def test_cross_match_is_right_if_both_slots_sit_on_one_source():
    rubin, euclid = sky([0.05, 10.05, 20.0]), sky([0.0, 11.0, 20.0])
    catalog = QTable(
        {
            "match_probability": np.ma.array([0.9, 0.1, 0.5], mask=[False, False, True]),
            "rubin_sky_centroid": rubin,
            "euclid_sky_centroid": euclid,
        }
    )
    result = cross_match_calibration(catalog, truth_table([0, 10, 11, 20], [9] * 4))
    assert result.count.sum() == 2
    assert result.error == pytest.approx(0.1)


@pytest.fixture
def measured():
    rng = np.random.default_rng(2)
    n = 400
    truth = truth_table(5.0 * np.arange(n), np.full(n, 20.0), euclid_vis_flux=np.full(n, 100.0) * u.nJy)
    shift = rng.normal(0, 10, (2, n)) / 1000 / 3600
    place = truth["sky_centroid"]
    dec = place.dec.deg + shift[1]
    catalog = QTable(
        {
            "sky_centroid": SkyCoord(place.ra.deg + shift[0] / np.cos(np.radians(dec)), dec, unit="deg"),
            "ra_err": np.full(n, 10.0) * u.mas,
            "dec_err": np.full(n, 5.0) * u.mas,
            "euclid_vis_flux": Masked(rng.normal(105, 10, n) * u.nJy, mask=np.arange(n) < 50),
            "euclid_vis_flux_err": np.full(n, 10.0) * u.nJy,
        }
    )
    return catalog, match_field(catalog["sky_centroid"], np.ones(n), truth)


def test_position_residuals(measured):
    ra, dec = position_residuals(*measured)
    assert len(ra.difference) == 400
    assert ra.summary()["scatter"].to_value(u.mas) == pytest.approx(10, rel=0.1)
    assert ra.summary()["pull_scatter"] == pytest.approx(1, rel=0.1)
    assert dec.summary()["pull_scatter"] == pytest.approx(2, rel=0.1)
    assert abs(dec.summary()["median"]) < 2 * u.mas


def test_flux_residuals(measured):
    result = flux_residuals(*measured, "euclid_vis")
    figures = result.summary()
    assert figures["n"] == 350  # the masked ones are left out
    assert figures["pull_median"] == pytest.approx(0.5, abs=0.15)
    assert figures["pull_scatter"] == pytest.approx(1, rel=0.15)
    assert figures["relative_median"] == pytest.approx(0.05, abs=0.015)
    assert len(result.select(result.relative > 0).snr) < 350


def test_only_found_sources_enter(measured):
    catalog, _ = measured
    nothing = match_field(catalog["sky_centroid"], np.ones(400), truth_table([-50.0], [9.0]))
    ra, _ = position_residuals(catalog, nothing)
    assert ra.summary()["n"] == 0
    assert np.isnan(ra.summary()["scatter"])
