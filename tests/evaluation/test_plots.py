# Licensed under a 3-clause BSD style license - see LICENSE
"""The completeness figure against counts made by hand and the formula of Wilson."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation import ab_magnitude, plot_completeness, score
from jaisp.exceptions import ConfigError

from .helpers import sky


@pytest.fixture
def result():
    """Twenty sources of S/N 6 to 9, of which five are found, and ten brighter ones that are all found."""
    places = sky(5.0 * np.arange(30))
    truth = QTable({"sky_centroid": places, "snr": np.r_[np.linspace(6, 9, 20), np.linspace(11, 90, 10)]})
    truth["euclid_vis_flux"] = truth["snr"] * 10 * u.nJy
    chosen = np.r_[np.arange(5), np.arange(20, 30)]
    return score(places[chosen], np.linspace(0.9, 0.1, 15), truth)


def wilson(k, n, z=1.0):
    """Interval of one sigma."""
    middle = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return middle - half, middle + half


def test_rates_and_their_errors(result):
    figure = plot_completeness({"a": result}, edges=[5, 10, 100, 200])
    panel, numbers = figure.axes
    line, _, (across, along) = panel.containers[0].lines
    np.testing.assert_allclose(line.get_xydata(), [[7.5, 0.25], [55, 1.0]])
    for segment, (k, n) in zip(along.get_segments(), ((5, 20), (10, 10)), strict=True):
        np.testing.assert_allclose(segment[:, 1], wilson(k, n), rtol=1e-3)
    np.testing.assert_allclose(across.get_segments()[0][:, 0], [5, 10])
    np.testing.assert_allclose([bar.get_height() for bar in numbers.patches], [20, 10])
    assert panel.get_xscale() == "log"
    assert panel.get_legend() is not None
    figure.canvas.draw()


def test_a_threshold_and_a_property(result):
    """Above .7 in activity the five faint ones only; magnitudes by a function of the truth."""
    figure = plot_completeness(
        result, ab_magnitude("euclid_vis_flux"), [22, 26.4, 28], threshold=0.65, label="VIS"
    )
    panel = figure.axes[0]
    np.testing.assert_allclose(panel.containers[0].lines[0].get_ydata(), [0, 0.25])
    assert panel.get_xlabel() == "VIS"
    assert panel.get_legend() is None


def test_refusals(result):
    with pytest.raises(ConfigError, match="no score to draw"):
        plot_completeness({})
    with pytest.raises(ConfigError, match="no true source lies between 1 and 2"):
        plot_completeness(result, edges=[1, 2])
