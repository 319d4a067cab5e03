# Licensed under a 3-clause BSD style license - see LICENSE
"""The scripts in ``benchmarks/`` run, and what they work out by themselves is right."""

import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable

import jaisp
from jaisp.evaluation import match_field, read_field
from jaisp.simulation import simulate

from .helpers import sky, star_field

FOLDER = Path(__file__).parents[2] / "benchmarks"

pytest.importorskip("galsim")
pytest.importorskip("sep")


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def skies(tmp_path_factory):
    """Folder with the smallest fields that the benchmark of detection draws."""
    return tmp_path_factory.mktemp("skies")


@pytest.fixture(scope="module")
def field(skies):
    """The first of them, wherever the test stands that asks for it."""
    detection = load("detection")
    return next(detection.Skies(skies, "test", "ten_year", "plain", 1, 0.3).paths())


@pytest.fixture(scope="module")
def perfect(skies):
    """A model that knows the truth: it looks up the field by its frame."""

    class Perfect:
        def catalog(self, rubin=None, euclid=None, **options):
            for path in skies.rglob("truth.fits"):
                truth = QTable.read(path)
                x, y = euclid.wcs.world_to_pixel(truth["sky_centroid"])
                if np.allclose(x, truth["x"].value, atol=1e-3) and np.allclose(
                    y, truth["y"].value, atol=1e-3
                ):
                    break
            truth = truth[truth["snr"] > 3]
            table = QTable({"sky_centroid": truth["sky_centroid"], "activity": np.ones(len(truth))})
            table["match_probability"] = np.ones(len(truth))
            table["rubin_sky_centroid"] = table["euclid_sky_centroid"] = truth["sky_centroid"]
            for name in ("ra_err", "dec_err"):
                table[name] = np.full(len(truth), 10.0) * u.mas
            for name in truth.colnames:
                if name.endswith("_flux"):
                    table[name], table[f"{name}_err"] = truth[name], 0.1 * truth[name]
            return table

    return Perfect()


@pytest.fixture
def with_perfect(monkeypatch, perfect):
    fake = SimpleNamespace(from_pretrained=lambda weights=None: perfect)
    monkeypatch.setitem(vars(jaisp), "DETRJEPA", fake)


def test_detection_from_skies_to_tables(skies, tmp_path, with_perfect):
    detection = load("detection")
    options = ["--folder", skies, "-o", tmp_path, "--fields", 1, "--size", 0.3, "--quick", "--kinds", "plain"]
    detection.main([str(option) for option in options])
    table = QTable.read(tmp_path / "detection.ecsv")
    assert list(table["finder"]) == [
        "jaisp",
        "SEP on VIS",
        "SEP on VIS + griz",
        "SEP on VIS joined with griz",
        "matched filter",
    ]
    assert table["completeness_98"][0] == table["best_f1"][0] == 1
    assert (table["best_f1"][1:] < 1).all()
    assert (table["best_f1"][1:] > 0.3).all()
    text = (tmp_path / "detection.md").read_text()
    for part in (
        "blends at purity 0.95 / best SEP",
        "Expected calibration error",
        "Positions",
        "rubin_i",
        '"rule"',
    ):
        assert part in text
    assert (tmp_path / "curves_ten_year_plain.png").exists()
    shown, ratios = (QTable.read(tmp_path / f"{name}.csv") for name in ("finders", "ratios"))
    assert list(shown["finder"]) == list(table["finder"])
    assert shown["best F1"][0] == 1
    gained = table["best_f1"][0] - table["best_f1"][1:].max()
    assert ratios["F1 gained"][0] == pytest.approx(gained, abs=1e-3)


def test_detection_of_given_fields_and_bands(field, skies, tmp_path, with_perfect):
    detection = load("detection")
    options = ["--folder", skies, "-o", tmp_path, "--fields-from", field, "--no-peers", "--bands", "VIS", "y"]
    detection.main([str(option) for option in options])
    assert list(QTable.read(tmp_path / "detection.ecsv")["sky"]) == ["given fields"]
    images = read_field(field, bands=["VIS", "y"])
    assert images.rubin.bands == ("y",)
    assert images.euclid.bands == ("VIS",)
    assert read_field(field, surveys="rubin").euclid is None


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--bands", "w"], "unknown band 'w'; allowed: u, g, r, i, z, y, VIS, Y, J, H"),
        (["--fields-from", "x"], "--fields-from needs --tune-on"),
    ],
)
def test_detection_refuses(options, text, capsys):
    with pytest.raises(SystemExit):
        load("detection").parse(["--folder", "f", "-o", "o", *options])
    assert text in capsys.readouterr().err


def test_ratios_are_against_the_best_of_each_kind():
    rows = [("jaisp", 0.9, 0.9, 0.8), ("SEP on VIS", 0.7, 0.5, 0.2), ("SEP x", 0.6, 0.6, 0.4)]
    rows.append(("matched filter", 0.8, 0.75, 0.5))
    table = QTable(rows=rows, names=["finder", "best_f1", "completeness_95", "blends_95"])
    np.testing.assert_allclose(load("detection").ratios(table)["reached"], [1.5, 2.0, 1.2, 0.1])


def test_plain_script_measures_what_is_there(tmp_path):
    plain = load("plain_script")
    (field,) = simulate(tmp_path, n_tiles=1, seed=31, size_arcmin=0.6)
    files = {survey: [str(path) for path in field.glob(f"{survey}_*.fits")] for survey in ("rubin", "euclid")}
    plain.main(["--rubin", *files["rubin"], "--euclid", *files["euclid"], "-o", str(tmp_path / "plain.fits")])
    table, truth = QTable.read(tmp_path / "plain.fits"), QTable.read(field / "truth.fits")
    assert sum(name.endswith("_flux") for name in table.colnames) == 10
    match = match_field(
        SkyCoord(table["ra"], table["dec"], unit="deg"), np.ones(len(table)), truth, min_snr=50
    )
    found = match.outcome == 1
    assert found.sum() >= 3
    for name in ("rubin_i_flux", "euclid_vis_flux"):
        ratio = table[name][found] / truth[name][match.truth_index[found]].value
        assert 0.4 < np.median(ratio) < 1.3


def test_cost_of_a_command(tmp_path):
    pipeline = load("pipeline")
    code = "x = bytearray(200_000_000); import time; time.sleep(0.2); print('done')"
    wall, processor, memory = pipeline.measure([sys.executable, "-c", code], tmp_path / "log")
    assert 0.2 < wall < 20
    assert processor < wall + 1
    assert 2e8 < memory < 1e9
    assert (tmp_path / "log").read_text() == "done\n"
    with pytest.raises(SystemExit, match="failed with status 3"):
        pipeline.measure([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "log")


def test_injections_have_their_flux_and_lie_on_blank_sky(field):
    realsky = load("realsky")
    image = realsky.read_vis(next(field.glob("euclid_VIS.fits*")))
    blank = realsky.blank_sky(image)
    assert 0.05 < blank.mean() < 0.95
    data, truth = realsky.inject(image, blank, np.random.default_rng(1), density=300, faintest=26)
    added = data - image.data["VIS"]
    assert added.sum() == pytest.approx(truth["flux"].value.sum(), rel=0.05)
    assert len(realsky.in_blank(image, blank, truth)) == len(truth)
    assert (truth["snr"] > 5).any()


def test_real_sky_without_a_model(field, tmp_path):
    options = [next(field.glob("euclid_VIS.fits*")), "-o", tmp_path, "--no-model", "--realisations", 2]
    load("realsky").main([str(option) for option in options])
    text = (tmp_path / "realsky.md").read_text()
    assert "SEP default, aperture S/N" in text
    table = QTable.read(tmp_path / "euclid_VIS_injected.ecsv")
    assert (table["average_precision"] > 0.3).all()


def test_bright_sources_of_an_exact_catalogue_agree_with_apertures():
    place, flux = sky([-6.0, 0.0, 6.0], [0.0, 5.0, -4.0]), np.array([400.0, 600.0, 900.0])
    image = star_field("euclid", {"VIS": 0.3}, place, flux, size=256, scale=0.1)
    truth = QTable({"sky_centroid": place, "euclid_vis_flux": flux * u.nJy, "activity": np.ones(3)})
    bright_test = load("realsky").bright_test
    table = bright_test(image, SimpleNamespace(catalog=lambda rubin, euclid: truth))
    assert len(table) == 3
    assert (table["separation (arcsec)"] < 0.03).all()
    np.testing.assert_allclose(table["jaisp / SEP flux"], 1, atol=0.1)
    nothing = bright_test(image, SimpleNamespace(catalog=lambda rubin, euclid: truth[:0]))
    assert np.isnan(nothing["activity"]).all()
    assert (nothing["jaisp / SEP flux"] == 0).all()


def test_pages_get_every_file_that_they_read(tmp_path, monkeypatch, capsys):
    """Each kind of sky is run once, and what is copied has the names of the files in ``docs/benchmark``."""
    pages = load("pages")
    runs = []

    def benchmark(arguments):
        runs.append(arguments)
        folder = Path(arguments[arguments.index("-o") + 1])
        folder.mkdir()
        for name in pages.BENCHMARK:
            (folder / name).write_text(" ".join(arguments))
        return 0

    monkeypatch.setattr(pages, "jaisp", benchmark)
    options = ["benchmark", "--work", str(tmp_path / "work"), "--quick"]
    pages.main([*options, "-o", str(tmp_path / "docs")])
    assert [run[run.index("--kind") + 1] for run in runs] == ["plain", "hard"]
    made = {path.name: path for path in (tmp_path / "docs" / "benchmark").iterdir()}
    assert set(made) == {path.name for path in (FOLDER.parent / "docs" / "benchmark").iterdir()}
    assert "--kind hard" in made["hard_bins.png"].read_text()
    with pytest.raises(SystemExit):
        pages.main(options)
    assert "--quick is no measurement: give -o" in capsys.readouterr().err
    monkeypatch.setattr(pages, "jaisp", lambda arguments: 2)
    with pytest.raises(SystemExit, match="jaisp benchmark on plain skies failed"):
        pages.main([*options, "-o", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_asv_configuration_names_this_folder():
    config = json.loads((FOLDER / "asv.conf.json").read_text())
    assert (FOLDER / config["repo"] / "pyproject.toml").exists()
    assert (FOLDER / config["benchmark_dir"] / "bench_catalog.py").exists()


def test_close_sources_are_lost_at_the_first_step_that_leaves_nothing():
    close = load("close_sources")
    steps = np.array(
        [
            [0, 1, 1, 1, 0],  # peak
            [0, 1, 0, 1, 1],  # proposal
            [0, 0, 1, 1, 1],  # slot
            [0, 0, 1, 1, 1],  # row
            [0, 0, 0, 1, 1],  # ranked high enough
        ],
        bool,
    )
    lost = np.where(steps[-1], len(close.STEPS) - 1, close.first_missing(steps))
    # What a later step has was not lost before, whichever peak it came from.
    assert lost.tolist() == [0, 2, 4, 5, 5]
    table = close.tabulate(np.array([0.1, 0.1, 0.7, 5.0, 0.5]), np.array([1, 1, 1, 1, 0], bool), lost)
    rows = {row["sources"]: row for row in table}
    assert rows["0 to 0.3"]["n"] == 2
    assert float(rows["0 to 0.3"]["no peak in the heat map"]) == 0.5
    assert float(rows["0.6 to 0.8"]["ranked too low"]) == 1
    assert float(rows["above 1"]["found"]) == 1
    assert rows["within 1, no Euclid image"]["n"] == 1


def test_blended_sources_are_set_beside_those_of_the_same_signal_that_stand_alone(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    limits = load("blend_limits")
    left = np.array([6.0, 6.5, 6.1, 6.2, 40.0, 50.0, 60.0])
    blended = np.array([1, 1, 0, 0, 1, 1, 0], bool)
    found = np.array([1, 0, 1, 1, 1, 0, 1], bool)
    rows = {row["S/N left"]: row for row in limits.tabulate("deep", left, blended, found)}
    assert rows["5 to 7"] == {
        "S/N left": "5 to 7",
        "deep: n": 2,
        "deep: blended": "0.50",
        "deep: alone": "1.00",
    }
    assert rows["0 to 3"]["deep: blended"] == ""
    assert rows["all"]["deep: n"] == 4
    assert rows["all"]["deep: blended"] == "0.50"
    assert rows["all"]["deep: alone"] == "1.00"  # of the blended ones, were they found as those alone


def test_unusual_skies_are_what_they_are_called_and_are_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    unusual = load("unusual_skies")
    size = 0.5

    def drawn(kind):
        sources = kind(np.random.default_rng(5), size)
        inside = (np.minimum(sources.x, sources.y) > 0) & (np.maximum(sources.x, sources.y) < 60 * size)
        return sources.select(inside), unusual.vis_magnitude(sources.select(inside))

    stars, magnitude = drawn(unusual.crowd)
    assert stars.is_star.mean() > 0.6
    assert (magnitude < 26.5).sum() > 2 * 100 * size**2
    thin, _ = drawn(unusual.edge_on)
    assert np.hypot(thin.e1, thin.e2)[~thin.is_star].min() > (1 - 0.3) / (1 + 0.3) - 1e-6
    bright, magnitude = drawn(unusual.bright_stars)
    star = np.flatnonzero(magnitude < 17.5)
    assert len(star) == round(4 * size**2)
    distance = np.hypot(bright.x - bright.x[star[0]], bright.y - bright.y[star[0]])
    assert ((distance > 1.4) & (distance < 8.1)).sum() > 5
    empty, _ = drawn(unusual.next_to_empty)
    assert len(empty) < 20

    monkeypatch.setattr(unusual, "KINDS", (unusual.edge_on,))
    unusual.main(["-o", str(tmp_path), "--fields", "1", "--size", "0.3"])
    row = QTable.read(tmp_path / "unusual.csv")[0]
    assert row["sky"] == "edge on"
    assert row["n"] > 3
    assert 0.5 < row["jaisp"] <= 1
    assert "| edge on |" in capsys.readouterr().out


def test_cosmic_rays_are_masked_and_would_be_rows(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(FOLDER)
    rays = load("cosmic_rays")
    for name, value in {"EVENTS": 12, "HEIGHTS": (30,), "LENGTHS": (3,)}.items():
        monkeypatch.setattr(rays, name, value)
    rays.main(["-o", str(tmp_path), "--fields", "1", "--size", "0.4"])
    row = QTable.read(tmp_path / "cosmic_rays.csv")[0]
    assert 5 < row["n"] <= 12
    assert row["pixels masked"] > 0.9
    assert row["become rows"] <= 1
    assert row["become rows, not masked"] > row["n"] / 2
    assert "too sharp: 0" in capsys.readouterr().out
