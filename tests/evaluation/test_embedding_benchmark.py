# Licensed under a 3-clause BSD style license - see LICENSE
"""``benchmarks/embedding.py`` on a few scenes with the bundled weights."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from jaisp import DETRJEPA

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    pytest.importorskip("sep")
    pytest.importorskip("galsim")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("embedding")


def test_gauges_of_scenes(script):
    model = script.with_vector(DETRJEPA.from_pretrained())
    seen, nulls = script.see_scenes(model, 48, seed=9_300_000)
    assert seen["rubin"]["embedding"].shape[1] == 64 + model.config.dim
    assert nulls["active slots on white noise, joint (1/arcmin2)"] < 1
    assert nulls["spread of a slot over images, rubin, least"] > 0.5
    gauges, figure = script.gauges_of(seen, 64)
    assert gauges["similarity, matched on the sky"] > 0.6
    # Of shuffled images few pairs are left: twelve scenes have a handful.
    assert gauges["similarity, matched on the sky, shuffled"] < 0.2
    assert gauges["matched fraction on the sky, shuffled"] < 0.05
    assert gauges["top-1 in the tile, by embedding"] > 5 * gauges["top-1 in the tile, chance"]
    assert gauges["right partner, both, offset removed"] > 0.96
    assert figure["spectrum"].sum() == pytest.approx(1)
    table = script.gauge_rows(gauges, gauges)
    assert all(np.isfinite(row["scenes"]) for row in table)


def test_the_vector_hardly_counts_in_a_cosine(script):
    model = script.with_vector(DETRJEPA.from_pretrained())
    output = {"slots": 3 * torch.randn(1, 4, 160), "ellipticity": torch.zeros(1, 4, 2)}
    output |= {name: torch.zeros(1, 4, 2) for name in ("position", "error")}
    output |= {name: torch.zeros(1, 4) for name in ("activity_logit", "star_logit", "log_radius")}
    output |= {"flux_asinh": torch.zeros(1, 4, 10), "projection": torch.randn(1, 4, 64)}
    output |= {"valid": torch.ones(1, 4, dtype=torch.bool), "n_proposals": torch.ones(1)}
    embedding = model.to_slots(output).embedding
    assert embedding.shape == (1, 4, 224)
    torch.testing.assert_close(embedding.square().sum(-1), torch.ones(1, 4), rtol=0.01, atol=0)


def test_own_source_takes_what_is_to_be_found_first(script):
    xy = np.array([[10.0, 10.0], [30.0, 30.0], [50.0, 50.0]])
    true_xy = np.array([[10.5, 10.0], [11.5, 10.0], [30.0, 34.0], [50.0, 51.0]])
    # A faint source is nearer to the first slot than the bright one; the second slot has none in reach.
    source = importlib.import_module("embedding_skies").own_source(
        xy, np.ones(3), true_xy, np.array([2.0, 20.0, 50.0, 9.0])
    )
    assert source.tolist() == [1, -1, 3]


def test_the_offset_of_each_tile_is_removed(script):
    rng = np.random.default_rng(0)
    xy, tile = rng.uniform(0, 20, (40, 2)), np.repeat([3, 8], 20)
    offset = np.array([[0.06, -0.02], [-0.03, 0.05]])[np.repeat([0, 1], 20)]
    unit = np.eye(40)
    euclid = script.Objects(unit, xy, np.ones(40), tile, np.arange(40))
    rubin = script.Objects(unit, xy + offset, np.ones(40), tile, np.arange(40))
    np.testing.assert_allclose(script.without_offset(rubin, euclid).xy, xy, atol=1e-12)


def test_gains_are_over_the_same_probe_and_over_the_better_one(script):
    """An embedding that says what the fluxes say only in their square."""
    rng = np.random.default_rng(3)
    n = 1500
    snr = rng.uniform(2, 40, (n, 6))
    value = np.arcsinh(snr[:, 0] / 2) - 2
    truth = value**2 + 0.02 * rng.normal(size=n)
    rows = {
        "flux": snr,
        "flux_err": np.exp(rng.normal(0, 0.1, (n, 6))) * np.ones((n, 6)),
        "embedding": np.stack([truth, rng.normal(size=n), rng.normal(size=n)], axis=-1),
        "sky": np.arange(n) % 6,
        "is_star": rng.random(n) < 0.3,
    }
    rows["flux"] = rows["flux"] * rows["flux_err"]
    rows |= dict.fromkeys(("log_radius", "colour", "log_redshift"), truth)
    table = script.gain_table(rows, 1)
    assert list(table["gain of"][:2]) == ["Rubin embedding"] * 2
    same, better = table[0], table[1]
    assert same["over which probe on Rubin fluxes"] == "the same"
    assert same["redshift"] > 0.2
    assert abs(better["redshift"]) < 0.05  # squares know it too
    assert same["redshift err"] < 0.1
