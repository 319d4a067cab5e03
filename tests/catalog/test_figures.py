# Licensed under a 3-clause BSD style license - see LICENSE
"""
Pictures look as they did when somebody looked at them.

Compared only where matplotlib and FreeType are those that drew the baselines, which are the pinned ones of
constraints.txt. To draw them anew, and then look at them: ``JAISP_DRAW_BASELINES=1 python -m pytest FILE``.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from jaisp.catalog import attention, plots, plots_objects, plots_offsets
from jaisp.catalog.attention import SlotAttention
from jaisp.evaluation import ab_magnitude, plot_completeness, score

from .drawn import drawn_pair, drawn_table

matplotlib = pytest.importorskip("matplotlib")

BASELINE = Path(__file__).parent / "baseline"
VERSIONS = BASELINE / "versions.json"
DRAW = bool(os.environ.get("JAISP_DRAW_BASELINES"))
TOLERANCE = 2.0  # root mean square of 255 levels: the last digits of a picture's numbers may differ


def versions():
    from matplotlib.ft2font import __freetype_version__

    return {"matplotlib": matplotlib.__version__, "freetype": __freetype_version__}


@pytest.fixture
def compare(tmp_path):
    """Compare a figure with its baseline, or draw that."""
    from matplotlib.testing.compare import compare_images

    here = versions()
    if DRAW:
        VERSIONS.write_text(json.dumps(here) + "\n")
    drawn_by = json.loads(VERSIONS.read_text())
    if here != drawn_by:
        pytest.skip(f"the baselines were drawn by {drawn_by}, here is {here}")

    def check(figure, name):
        path = (BASELINE if DRAW else tmp_path) / f"{name}.png"
        figure.savefig(path, dpi=45, metadata={"Software": None})
        if DRAW:
            pytest.skip(f"drawn: {path}")
        report = compare_images(str(BASELINE / path.name), str(path), TOLERANCE)
        assert report is None, report

    return check


@pytest.fixture(scope="module")
def pair():
    return drawn_pair()


@pytest.fixture
def table(pair):
    return drawn_table(pair)


@pytest.fixture
def looks(monkeypatch):
    """Attention that falls off from the slot, as if a model had told it."""

    def told(model, table, images, ids=None, *, view="joint"):
        rows, columns = np.indices((24, 24))
        result = []
        for number, (x, y) in ((1, (40.0, 40.0)), (2, (85.0, 70.0))):
            distance = np.hypot(16 * columns + 7.5 - 132 - x, 16 * rows + 7.5 - 132 - y)
            weights = np.exp(-distance / 20)
            result.append(SlotAttention(number, x, y, -132, -132, 16, (weights / weights.sum())[None]))
        return result

    monkeypatch.setattr(attention, "slot_attention", told)


def test_the_baselines_are_of_the_pinned_version():
    """Else no environment would compare anything; after a change of the pin draw them anew."""
    pins = (BASELINE.parents[2] / "constraints.txt").read_text().splitlines()
    assert f"matplotlib=={json.loads(VERSIONS.read_text())['matplotlib']}" in pins


def test_catalog(compare, table, pair):
    compare(plots.plot_catalog(table, pair), "catalog")


def test_cutouts(compare, table, pair):
    compare(plots.plot_cutouts(table, pair), "cutouts")


def test_crossmatch(compare, table):
    compare(plots.plot_crossmatch(table), "crossmatch")


def test_attention(compare, table, pair, looks):
    compare(attention.plot_attention(None, table, pair, [1, 2], half_width=3 * u.arcsec), "attention")


def test_sed(compare, table):
    for name in ("rubin_u", "rubin_z", "rubin_y", "euclid_j", "euclid_h"):
        table[f"{name}_flux"] = [80.0, 40.0, np.nan] * u.nJy
        table[f"{name}_flux_err"] = [9.0, 9.0, np.nan] * u.nJy
    compare(plots_objects.plot_sed(table, [1, 2]), "sed")


def test_embedding(compare):
    vectors = np.random.default_rng(5).normal(size=(60, 6))
    vectors[:30, 0] += 6
    table = QTable({"id": np.arange(60), "embedding": vectors, "activity": np.linspace(0, 1, 60)})
    table["activity"][50:] = np.nan
    compare(plots_objects.plot_embedding(table, label=[3]), "embedding")


def test_offsets(compare, pair):
    from jaisp.catalog import fit_offsets

    x, y = (axis.ravel().astype(float) for axis in np.meshgrid(np.arange(5, 120, 10), np.arange(5, 120, 10)))
    dx, dy = 0.2 + 0.002 * x, -0.1 + 0.003 * y
    field = fit_offsets(x, y, dx, dy, *np.full((2, len(x)), 0.05))
    table = QTable({"sky_centroid": pair.wcs.pixel_to_world(x, y)})
    table["match_similarity"] = np.ones(len(x))
    table.meta = {
        "grid": {"reference": "euclid", "pixel_scale_arcsec": 0.1, "wcs": dict(pair.wcs.to_header())},
        "astrometric_offset": {"field": field.to_dict()},
    }
    compare(plots_offsets.plot_offsets(table), "offsets")


def test_completeness(compare):
    rng = np.random.default_rng(6)
    n = 400
    places = SkyCoord(10 * np.arange(n), np.zeros(n), unit="arcsec")
    magnitude = rng.uniform(22, 27, n)
    truth = QTable({"sky_centroid": places, "snr": np.full(n, 20.0)})
    truth["euclid_vis_flux"] = 10 ** ((31.4 - magnitude) / 2.5) * u.nJy
    found = {
        name: score(places[chosen], np.ones(chosen.sum()), truth)
        for name, chosen in (
            ("one", rng.uniform(22, 28, n) > magnitude),
            ("other", rng.uniform(20, 28, n) > magnitude),
        )
    }
    magnitudes = ab_magnitude("euclid_vis_flux")
    figure = plot_completeness(found, magnitudes, np.arange(22, 27.5), label="VIS (AB mag)")
    compare(figure, "completeness")
