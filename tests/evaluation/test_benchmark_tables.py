# Licensed under a 3-clause BSD style license - see LICENSE
"""The tables of ``jaisp benchmark``, against figures worked out by hand."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation import (
    Comparison,
    DetectionScore,
    Field,
    benchmark_markdown,
    binned,
    field_bounds,
    headline,
    match_catalog,
    match_field,
    plot_bins,
    sky_blocks,
)
from jaisp.evaluation.benchmark import BOUND

from .helpers import sky, star_field

SIZE = 256
PLACES = sky(*np.random.default_rng(8).uniform(-11, 11, (2, 60)))


@pytest.fixture(scope="module")
def field():
    euclid = star_field("euclid", {"VIS": 0.2}, PLACES, np.full(60, 200.0), size=SIZE, scale=0.1)
    truth = QTable({"sky_centroid": PLACES, "snr": np.full(60, 50.0), "nearest": np.full(60, 5.0) * u.arcsec})
    return Field(None, euclid, truth)


def test_blocks_hold_every_row_and_source_once(field):
    rng = np.random.default_rng(3)
    shifted = PLACES.directional_offset_by(
        rng.uniform(0, 360, 60) * u.deg, rng.uniform(0, 0.2, 60) * u.arcsec
    )
    catalog = QTable({"sky_centroid": shifted, "activity": rng.uniform(size=60), "row": np.arange(60)})[5:]
    catalog, match = match_catalog(catalog, field)
    pieces = sky_blocks(catalog, match, field, 2)
    assert len(pieces) == 4
    assert sorted(np.concatenate([piece["row"] for piece, _ in pieces])) == sorted(catalog["row"])
    assert sum(len(one.truth) for _, one in pieces) == len(match.truth)
    for name in ("best_f1", "average_precision"):
        whole, parts = DetectionScore([match]), DetectionScore([one for _, one in pieces])
        assert getattr(parts, name) == pytest.approx(getattr(whole, name))
    for piece, one in pieces:  # a row still points at its source, though its block has other numbers
        paired = one.truth_index >= 0
        distance = piece["sky_centroid"][paired].separation(
            one.truth["sky_centroid"][one.truth_index[paired]]
        )
        np.testing.assert_allclose(distance.to_value(u.arcsec), one.separation[paired], atol=1e-6)


def block(found, n):
    """One piece of sky with ``n`` sources of which ``found`` are detected, no false ones."""
    x = 5.0 * np.arange(n)
    truth = QTable({"sky_centroid": sky(x), "snr": np.full(n, 50.0)})
    return match_field(sky(x[:found]), np.ones(found), truth)


def test_bootstrap_over_blocks_is_the_error_of_a_mean():
    """Equal blocks without false detections: completeness is the mean of theirs, its error s / sqrt(K)."""
    found = np.array([4, 5, 6, 7, 8, 9, 10, 10, 3, 6, 7, 9])
    score = DetectionScore([block(n, 10) for n in found])
    assert score.completeness_at(0.95) == pytest.approx(found.mean() / 10)
    error = score.bootstrap(lambda one: one.completeness_at(0.95), n_resamples=2000, rng=0)
    assert error == pytest.approx((found / 10).std() / np.sqrt(len(found)), rel=0.06)


N = 40
TRUE_FLUX = np.geomspace(50, 5000, N)


def comparison(shift_mas=10.0, flux_factor=1.1, keep=N):
    """A finder that sees all, shifted by a constant and with fluxes off by a factor; and one without VIS."""
    x = 5.0 * np.arange(N)
    snr = TRUE_FLUX / 2
    truth = QTable(
        {
            "sky_centroid": sky(x),
            "snr": snr,
            "euclid_vis_snr": snr,
            "euclid_vis_flux": TRUE_FLUX * u.nJy,
            "nearest": np.where(np.arange(N) < 10, 0.5, 5.0) * u.arcsec,
        }
    )
    catalog = QTable(
        {
            "sky_centroid": sky(x + shift_mas / 1000, np.full(N, shift_mas / 1000)),
            "activity": np.linspace(1, 0.5, N),
            "euclid_vis_flux": flux_factor * TRUE_FLUX * u.nJy,
            "euclid_vis_flux_err": np.full(N, 2.0) * u.nJy,
        }
    )[:keep]
    result = Comparison({})
    for name, table in {"full": catalog, "bare": catalog["sky_centroid", "activity"]}.items():
        match = match_field(table["sky_centroid"], table["activity"], truth)
        score = DetectionScore([match])
        result.scores[name] = dict.fromkeys(("best_f1", "completeness_95", "average_precision"), score)
        result.catalogs[name] = [table]
        result.costs[name] = {"seconds": 1.5, "memory_mb": 7.0}
    return result


def test_headline():
    table = headline(comparison(), bootstrap=0)
    assert list(table["finder"]) == ["full", "bare"]
    assert list(table["n_blocks"]) == [1, 1]
    np.testing.assert_allclose(table["best_f1"], 1)
    np.testing.assert_allclose(table["position_mas"], 10, rtol=0.02)
    assert table["vis_flux_bias"][0] == pytest.approx(0.1)
    assert table["vis_flux_error"][0] == pytest.approx(0.1)
    assert np.isnan(table["vis_flux_bias"][1])
    np.testing.assert_allclose(table["seconds"], 1.5)
    assert "blends_95" in table.colnames


def pick(bins, figure, by, finder="full"):
    return bins[(bins["figure"] == figure) & (bins["by"] == by) & (bins["finder"] == finder)]


def test_bins():
    result = comparison(keep=30)  # the ten brightest are not found
    bins = binned(result)
    found = pick(bins, "completeness", "S/N")
    snr = TRUE_FLUX / 2
    for row in found:
        inside = (snr >= row["low"]) & (snr < row["high"])
        assert row["n"] == inside.sum()
        if row["n"]:
            assert row["value"] == pytest.approx((inside & (np.arange(N) < 30)).sum() / row["n"])
    assert 0 < found["value"][-1] < 1
    blends = pick(bins, "completeness", "separation (arcsec)")
    assert dict(zip(blends["low"], blends["n"], strict=True))[0.45] == 10
    pure = pick(bins, "purity", "VIS magnitude")
    assert pure["n"].sum() == 30
    np.testing.assert_allclose(pure["value"][pure["n"] > 0], 1)
    shifts = pick(bins, "position (mas per axis)", "S/N")
    np.testing.assert_allclose(shifts["value"][shifts["n"] > 0], 10, rtol=0.02)
    assert shifts["n"].sum() == 30
    assert pick(bins, "VIS flux (relative error)", "VIS S/N", "bare")["n"].sum() == 0


def test_detections_below_the_threshold_of_the_best_f1_do_not_count():
    result = comparison()
    # Twenty false detections that rank last: they lower the purity only if they are counted.
    table = result.catalogs["full"][0]
    false = table[:20].copy()
    false["sky_centroid"] = sky(5.0 * np.arange(20) + 2.5)
    false["activity"] = 0.1
    both = QTable(
        {
            name: np.concatenate([table[name], false[name]])
            for name in table.colnames
            if name != "sky_centroid"
        }
    )
    x = np.r_[5.0 * np.arange(N), 5.0 * np.arange(20) + 2.5]
    both["sky_centroid"] = sky(x)
    truth = result.scores["full"]["best_f1"].fields[0].truth
    score = DetectionScore([match_field(both["sky_centroid"], both["activity"], truth)])
    result.scores["full"] = dict.fromkeys(result.scores["full"], score)
    result.catalogs["full"] = [both]
    pure = pick(binned(result), "purity", "S/N")
    assert pure["n"].sum() == N
    np.testing.assert_allclose(pure["value"][pure["n"] > 0], 1)


def test_bounds_of_stars_are_those_of_theory():
    """A star in white noise, Gaussian PSF: sigma_x = sigma_psf / (S/N) x sqrt(2), sigma_flux = 1 / (S/N)."""
    fwhm, scale = 0.4, 0.1
    flux = np.array([300.0, 1000.0])
    places = sky([-3.0, 3.0])
    euclid = star_field("euclid", {"VIS": fwhm}, places, flux, size=128, scale=scale)
    sigma = fwhm / 2.3548
    noise = float(np.sqrt(np.median(euclid.source_variance("VIS"))))
    snr = flux / (noise * 2 * np.sqrt(np.pi) * sigma / scale)
    truth = QTable(
        {
            "sky_centroid": places,
            "snr": snr,
            "euclid_vis_snr": snr,
            "euclid_vis_flux": flux * u.nJy,
            "half_light_radius": np.zeros(2) * u.arcsec,
            "e1": np.zeros(2),
            "e2": np.zeros(2),
            "is_star": [True, True],
        }
    )
    bounds = field_bounds(Field(None, euclid, truth))
    np.testing.assert_allclose(bounds["vis_flux"], 1 / snr, rtol=0.03)
    np.testing.assert_allclose(bounds["position"], 1e3 * np.sqrt(2) * sigma / snr, rtol=0.05)
    bins = binned(comparison(), bounds)
    drawn = pick(bins, "VIS flux (relative error)", "VIS S/N", BOUND)
    assert drawn["n"].sum() == 2


def test_page_and_figure(tmp_path):
    result = comparison()
    tables = {
        "benchmark": headline(result, bootstrap=0),
        "benchmark_partners": QTable(rows=[{"finder": "full", "partner": 0.5}]),
        "benchmark_bins": binned(result),
        "benchmark_tuning": QTable(rows=[{"finder": "bare", "tuned": 0.25}]),
    }
    text = benchmark_markdown(tables, "a sky")
    assert text.startswith("# jaisp benchmark\n")
    assert "a sky" in text
    assert "| full | 0.500 |" in text
    assert "| bare | 0.250 |" in text
    assert "| VIS S/N | full | bare |" in text
    assert "> 200 |" in text
    lines = [line for line in text.splitlines() if line.startswith("| 5 - 7 | ")]
    assert lines[0].endswith("| - | - |")  # no source there
    plot_bins(tables["benchmark_bins"], tmp_path / "bins.png", title="a sky")
    assert (tmp_path / "bins.png").read_bytes().startswith(b"\x89PNG")
