# Licensed under a 3-clause BSD style license - see LICENSE
"""What the pictures hold is what the table says."""

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable

from jaisp.catalog import embedding_map, plot_embedding, plot_sed
from jaisp.exceptions import ConfigError
from jaisp.surveys import EUCLID, RUBIN, column_prefix


@pytest.fixture
def table():
    n = 30
    table = QTable({"id": np.arange(1, n + 1), "activity": np.linspace(0, 1, n)})
    for survey in (RUBIN, EUCLID):
        for band in survey.bands:
            prefix = column_prefix(survey, band.name)
            table[f"{prefix}_flux"] = np.arange(n) * band.wavelength * u.nJy
            table[f"{prefix}_flux_err"] = np.full(n, 7.0) * u.nJy
    table["euclid_h_flux"][4] = np.nan * u.nJy
    table["match_similarity"] = MaskedColumn(np.linspace(0, 1, n), mask=np.arange(n) < 10)
    table["embedding"] = np.random.default_rng(0).normal(size=(n, 8))
    return table


def test_sed(table):
    figure = plot_sed(table, [5, 3])
    first, second = figure.axes
    rubin, euclid = first.containers
    wavelength, flux = rubin.lines[0].get_data()
    np.testing.assert_allclose(flux, 4 * wavelength)
    bars = rubin.lines[2][0].get_segments()
    np.testing.assert_allclose([bar[1, 1] - bar[0, 1] for bar in bars], 14)
    assert len(euclid.lines[0].get_xdata()) == 3  # H is NaN
    assert {text.get_text() for text in first.texts} == set("ugrizyYJ") | {"VIS"}
    assert second.get_title() == "object 3"
    figure.canvas.draw()
    with pytest.raises(ConfigError, match="no object 99 in this catalogue of 30"):
        plot_sed(table, 99)
    with pytest.raises(ConfigError, match="no object is asked for"):
        plot_sed(table, [])


def test_embedding(table):
    figure = plot_embedding(table, "match_similarity", label=[12])
    grey, points = figure.axes[0].collections
    places = embedding_map(table)
    np.testing.assert_allclose(grey.get_offsets(), places[:10])
    np.testing.assert_allclose(points.get_offsets(), places[10:])
    np.testing.assert_allclose(points.get_array(), np.linspace(0, 1, 30)[10:])
    assert figure.axes[0].texts[0].get_text() == "12"
    figure.canvas.draw()
    assert plot_embedding(table, "rubin_i_flux").axes[1].get_ylabel() == "rubin_i_flux (nJy)"
    plot_embedding(table, np.arange(30.0)).canvas.draw()


def test_embedding_refusals(table):
    with pytest.raises(ConfigError, match=r"no column 'activities' .* .did you mean 'activity'"):
        plot_embedding(table, "activities")
    with pytest.raises(ConfigError, match="embedding does not hold one number for each of 30"):
        plot_embedding(table, "embedding")
    with pytest.raises(ConfigError, match="no object 99 in this catalogue of 30"):
        plot_embedding(table, label=[99])
