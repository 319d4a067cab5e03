# Licensed under a 3-clause BSD style license - see LICENSE
"""Blends beside scarlet2: which are chosen, how they are compared, and scarlet2 itself where there is one."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation import Field, fit_scarlet2, scarlet2_blends
from jaisp.exceptions import MissingDependencyError
from jaisp.io import align

from .helpers import sky, star_field

# A pair, another pair whose second part is not found, and a single source; arcsec east and north.
PLACES = sky([-5.0, -4.3, 5.0, 5.6, 0.0], [0.0, 0.3, 4.0, 4.0, -6.0])
FLUX = np.array([900.0, 500.0, 700.0, 600.0, 800.0])
NEAREST = np.array([0.76, 0.76, 0.6, 0.6, 6.0])


@pytest.fixture(scope="module")
def field():
    rubin = star_field("rubin", {"i": 0.7, "r": 0.75}, PLACES, FLUX, size=128, scale=0.2)
    euclid = star_field("euclid", {"VIS": 0.2}, PLACES, FLUX, size=256, scale=0.1)
    truth = QTable({"sky_centroid": PLACES, "snr": FLUX / 10, "nearest": NEAREST * u.arcsec})
    truth["euclid_vis_flux"] = truth["rubin_i_flux"] = FLUX * u.nJy
    return Field(rubin, euclid, truth)


@pytest.fixture
def catalog():
    rows = [0, 1, 2, 4]
    table = QTable({"sky_centroid": PLACES[rows], "activity": np.ones(4)})
    table["euclid_vis_flux"] = 1.1 * FLUX[rows] * u.nJy
    table["rubin_i_flux"] = 0.8 * FLUX[rows] * u.nJy
    return table


def test_only_blends_that_were_found_are_compared(field, catalog):
    asked = []

    def fit(pair, positions, centre):
        asked.append(centre)
        rows = np.flatnonzero(positions.separation(centre) < 2 * u.arcsec)
        found = catalog["euclid_vis_flux"][rows].value / 1.1
        return rows, {"euclid_vis": 1.3 * found, "rubin_i": 0.9 * found}

    table = scarlet2_blends([catalog], [field], 5, fit=fit)
    assert len(asked) == 1
    assert asked[0].separation(PLACES[0]).arcsec < 1e-6
    assert list(table["n_blends"]) == [1] * 4
    assert list(table["n_objects"]) == [2] * 4
    values = {(row["method"], row["band"]): (row["bias"], row["error"]) for row in table}
    expected = {
        ("finder", "euclid_vis"): 0.1,
        ("finder", "rubin_i"): -0.2,
        ("scarlet2", "euclid_vis"): 0.3,
        ("scarlet2", "rubin_i"): -0.1,
    }
    for key, bias in expected.items():
        np.testing.assert_allclose(values[key], (bias, abs(bias)), rtol=1e-6)
    assert np.isnan(table["seconds"][0])
    assert table["seconds"][-1] >= 0
    assert list(scarlet2_blends([catalog], [field], 0, fit=fit)["n_objects"]) == [0] * 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scarlet2_shares_the_light_of_two_stars(field):
    pytest.importorskip("scarlet2")
    pair = align(field.rubin, field.euclid, region="overlap")
    rows, fluxes = fit_scarlet2(pair, PLACES, PLACES[0], iterations=50)
    assert list(rows) == [0, 1]
    np.testing.assert_allclose(fluxes["euclid_vis"], FLUX[:2], rtol=0.3)
    assert set(fluxes) == {"euclid_vis", "rubin_r", "rubin_i"}
    assert not len(fit_scarlet2(pair, PLACES, sky(-12.0, 0.0))[0])  # not whole on the images


def test_without_scarlet2(field, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'jaisp\[scarlet2\]'"):
        fit_scarlet2(None, PLACES, PLACES[0])
