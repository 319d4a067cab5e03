# Licensed under a 3-clause BSD style license - see LICENSE
"""``benchmarks/measurement.py``: what it does to images, and what it makes of rows of known errors."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.utils.masked import Masked

from jaisp.evaluation import Field

from .helpers import sky

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    for name in ("sep", "galsim", "matplotlib"):
        pytest.importorskip(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("measurement")


@pytest.fixture(scope="module")
def checks(script):
    return importlib.import_module("measurement_checks")


def test_psfs_are_widened_by_a_tenth(checks):
    axis = np.arange(-20, 21)
    psf = np.exp(-0.5 * (axis**2 + axis[:, None] ** 2) / 3**2)
    wide = checks.widened(psf / psf.sum())
    assert wide.sum() == pytest.approx(1)
    assert np.sqrt((wide.sum(axis=0) * axis**2).sum()) == pytest.approx(3.3, rel=0.01)


def test_a_bent_frame_is_off_by_20_to_60_mas(checks):
    from jaisp.simulation import simulate_field

    rubin, euclid, _ = simulate_field(1, size_arcmin=0.3, tangent_offset=0.0, psf="moffat")
    wcs = checks.bend(rubin.wcs, np.random.default_rng(2), rubin.shape)
    x, y = np.meshgrid(*[np.linspace(0, side - 1, 9) for side in rubin.shape])
    off = wcs.pixel_to_world(x, y).separation(rubin.wcs.pixel_to_world(x, y)).mas
    assert 15 < np.sqrt(np.mean(off**2)) < 90
    assert np.std(off) > 3
    moved = checks.shifted(rubin)
    assert moved.wcs.pixel_to_world(5, 5).separation(rubin.wcs.pixel_to_world(5, 5)).mas == pytest.approx(
        50, abs=0.1
    )
    wrong = checks.wrong_inputs(type("Field", (), {"rubin": rubin, "euclid": euclid}))
    assert "g" not in wrong["without g, z, H"][0].bands
    assert "Y" in wrong["without g, z, H"][1].bands


def test_figures_of_rows_of_known_errors(script):
    rng = np.random.default_rng(5)
    n = 4000
    rows = QTable({"is_star": np.zeros(n, bool), "nearest": np.full(n, 9.0)})
    rows["band_snr"] = np.full((n, 10), 50.0)
    rows["true_flux"] = np.full((n, 10), 100.0)
    rows["bound_flux"] = np.full((n, 10), 2.0)
    for method in script.METHODS:
        rows[f"{method}: flux"] = rng.normal(101, 3, (n, 10))
        rows[f"{method}: flux_err"] = np.full((n, 10), 3.0)
        for axis in ("ra", "dec"):
            rows[f"bound_{axis}"] = np.full(n, 5.0)
            rows[f"{method}: {axis}"] = rng.normal(0, 10, n)
            rows[f"{method}: {axis}_err"] = np.full(n, 8.0)
    rows["jaisp: ra"][:400] = rows["jaisp: dec"][:400] = np.nan
    positions, fluxes = script.isolated_tables(rows)
    own = positions[0]
    assert own["found"] == pytest.approx(0.9)
    assert own["scatter / bound"] == pytest.approx(2, rel=0.05)
    assert own["pull"] == pytest.approx(1.25, rel=0.05)
    assert fluxes["scatter / bound"] == pytest.approx(np.full(10, 1.5), rel=0.06)
    assert fluxes["bias"] == pytest.approx(np.full(10, 0.01), abs=0.002)
    rows["nearest"] = 0.5
    blends = script.blend_table(rows)
    assert blends["jaisp: scatter"][0] == pytest.approx(0.03, rel=0.06)
    rows["jaisp: resolved"] = np.arange(n) >= 1000
    rows["jaisp: flux"][:1000] = 300.0  # they hold the light of a neighbour that has no row
    resolved = script.resolved_table(rows)
    assert resolved["n"][0] == n - 1000
    assert resolved["scatter"][0] == pytest.approx(0.03, rel=0.06)
    assert resolved["bias"][0] == pytest.approx(0.01, abs=0.002)


def test_what_becomes_of_merged_pairs(script):
    pairs = QTable(
        {
            "separation": [0.5, 0.5, 0.55, 0.7],
            "sharp": [True, False, True, True],
            "difference": [0.5, 0.5, 1.5, 0.2],
            "unrecognised": [True, True, True, False],
            "resolved": [True, False, True, True],
            "flagged": [True, False, False, False],
        }
    )
    table = script.unrecognised_table(pairs, QTable({"right": [True, False], "nearest": [0.5, 0.45]}))
    row = table[(table["separation"] == "0.4-0.6") & (table["pairs of"] == "0-1 mag")][0]
    assert (row["number"], row["merged by Rubin"]) == (2, 2)
    assert (row["of these resolved"], row["of these flagged"]) == (0.5, 0.5)
    row = table[(table["separation"] == "0.4-0.6") & (table["pairs of"] == "all")][0]
    assert row["of these flagged"] == pytest.approx(1 / 3)
    assert row["purity of the flag"] == 0.5


def masked_sky(x, y):
    plain = sky(x, y)
    return SkyCoord(*(Masked(angle, mask=np.zeros(len(x), bool)) for angle in (plain.ra, plain.dec)))


def test_a_rubin_slot_between_two_sources_is_merged_not_wrong(checks):
    truth = QTable({"sky_centroid": sky([0.0, 0.4, 9.0], [0.0, 0.0, 0.0])})
    # Rubin's slot lies nearer to the second source, Euclid's on the first; then a clear mismatch.
    catalog = QTable({"rubin_sky_centroid": masked_sky([0.3, 5.0], [0.0, 0.0])})
    catalog["euclid_sky_centroid"] = masked_sky([0.0, 9.0], [0.0, 0.0])
    assert checks.merged_by_rubin(catalog, truth).tolist() == [True, False]


def test_bounds_know_the_noise_that_the_simulation_drew(script):
    """A star's S/N in the truth (sky noise only) over its flux is what the band's model says of a point."""
    from jaisp.simulation import simulate_field

    rows = importlib.import_module("measurement_rows")
    field = Field(*simulate_field(3, size_arcmin=0.7, psf="moffat", bright_stars=False, defects=False))
    stars = field.truth[np.asarray(field.truth["is_star"]) & (field.truth["euclid_vis_snr"] > 0)]
    assert len(stars) > 2
    models = rows.band_models(field)
    for prefix, model in list(zip(rows.PREFIXES, models, strict=True))[:7]:  # NISP's noise is resampled
        noise = model.noise / np.sqrt((model.psf.astype(float) ** 2).sum())
        found = stars[f"{prefix}_flux"].value / stars[f"{prefix}_snr"]
        assert np.median(found) == pytest.approx(noise, rel=0.1)


def test_nothing_is_near_sources_that_stand_alone(script):
    rows = importlib.import_module("measurement_rows")
    field = rows.alone_field(5, depth="deep", size=0.5, number=1, galaxies="sersic")
    assert len(field.truth) > 8
    _, apart, _ = field.truth["sky_centroid"].match_to_catalog_sky(field.truth["sky_centroid"], nthneighbor=2)
    assert apart.arcsec.min() > 3.99
    assert -2.5 * np.log10(field.truth["euclid_vis_flux"].value.min()) + 31.4 < 26.0


def test_sources_are_resolved_where_all_neighbours_are_found(script):
    """Of a pair one source has no row: neither is resolved; the third stands alone and is."""
    rows = importlib.import_module("measurement_rows")
    field = rows.alone_field(6, depth="ten_year", size=0.5, number=0, galaxies="sersic")
    truth = field.truth[np.asarray(field.truth["snr"]) > 5]
    truth = truth[rows.whole(field, truth)][:3]
    place = truth["sky_centroid"]
    beside = place[0].directional_offset_by(0 * u.deg, 0.6 * u.arcsec)
    truth["sky_centroid"] = SkyCoord([place[0], beside, place[2]])
    field = Field(field.rubin, field.euclid, truth)
    catalog = QTable({"sky_centroid": truth["sky_centroid"][[0, 2]]})
    found = rows.source_rows(field, {"jaisp": catalog})
    order = [int(np.argmin(found["sky_centroid"].separation(at))) for at in truth["sky_centroid"]]
    assert found["jaisp: resolved"][order].tolist() == [False, False, True]
