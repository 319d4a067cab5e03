# Licensed under a 3-clause BSD style license - see LICENSE
"""What runs on a CUDA device gives what a CPU gives; skipped where there is none."""

import dataclasses

import numpy as np
import pytest
import torch

from jaisp.models import DETRJEPA
from jaisp.simulation import NoiseBank, SceneConfig, draw_tile, make_scenes
from jaisp.surveys import EUCLID, RUBIN
from jaisp.training import TrainingConfig, train
from jaisp.training._run_files import read_metrics
from jaisp.training.objectives import objective_class

from .catalog.drawn import SOURCES, make_image
from .training.configs import supervised_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("scenes")


@pytest.fixture(scope="module")
def tiles():
    bank, rng, noise = make_scenes(2, SceneConfig(psf_sets=2), seed=5), np.random.default_rng(5), NoiseBank()
    tiles = [draw_tile(bank[k], rng, noise)[0] for k in range(2)]
    return {key: torch.from_numpy(np.stack([tile[key] for tile in tiles])) for key in tiles[0]}


def test_slots(tiles, monkeypatch):
    # By default convolutions are in TF32, with three digits: of logits .06 then.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = DETRJEPA.from_pretrained()
    with torch.no_grad():
        here = {view: slots.to_numpy() for view, slots in model(tiles).items()}
        model = DETRJEPA.from_pretrained(device="cuda")
        there = model({key: value.cuda() for key, value in tiles.items()})
    for view, slots in there.items():
        slots, expected = slots.to_numpy(), here[view]
        active = expected["valid"] & (expected["activity_logit"] > -1)
        assert active.sum() > 20
        for name, tolerance in {"activity_logit": 0.02, "x": 0.02, "y": 0.02, "embedding": 0.01}.items():
            # Proposals of equal height may change places; those that count do not.
            assert np.quantile(np.abs(slots[name] - expected[name])[active], 0.98) < tolerance, (view, name)


def configuration(kind, cache, **optimizer):
    config = supervised_config(cache, **optimizer)
    if kind == "supervised":
        return config
    values = {"objective": {"kind": kind}, "model": config.model.to_dict()}
    for name in ("data", "optimizer"):
        values[name] = dataclasses.asdict(getattr(config, name))
    return TrainingConfig.from_dict(values)


@pytest.mark.parametrize("kind", ["supervised", "labelfree"])
def test_losses(kind, cache, tmp_path):
    """Terms of one batch, JEPA's among them, on the weights that training begins with."""
    config = configuration(kind, cache, jepa_start=0.0)
    torch.manual_seed(0)
    objective = objective_class(kind)(config, tmp_path)
    batch = next(iter(objective.batches(0, 1)))
    terms = []
    for device in ("cpu", "cuda"):
        objective.model.to(device)
        _, values, _ = objective.losses(_moved(batch, device), 3)
        terms.append({name: float(torch.as_tensor(value).detach()) for name, value in values.items()})
    for name, value in terms[0].items():
        if name != "regularizer":  # its random directions are of the device's own generator
            assert terms[1][name] == pytest.approx(value, rel=2e-3, abs=1e-4), name


def _moved(values, device):
    if isinstance(values, torch.Tensor):
        return values.to(device)
    if isinstance(values, dict):
        return {key: _moved(value, device) for key, value in values.items()}
    return type(values)(_moved(value, device) for value in values)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_training(precision, cache, tmp_path):
    config = supervised_config(cache, device="cuda", precision=precision)
    weights = train(config, tmp_path / "run")
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 4
    assert np.isfinite(losses).all()
    assert next(DETRJEPA.from_pretrained(weights).parameters()).device.type == "cpu"

    def stop(step, steps, metrics):
        if step == 3:  # after the checkpoint of step 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "resumed", progress=stop)
    train(config, tmp_path / "resumed", resume=True)
    resumed = read_metrics(tmp_path / "resumed" / "metrics.jsonl")
    # Sums on a GPU are taken in any order: near, and not the same to the last digit.
    last = [line["train/loss"] for line in resumed if "train/loss" in line][-1]
    assert last == pytest.approx(losses[-1], rel=0.02)


def test_catalogue():
    pytest.importorskip("reproject")
    rubin = make_image(RUBIN, {"g": 60, "r": 60, "i": 80}, sources=SOURCES)
    euclid = make_image(EUCLID, {"VIS": 60, "Y": 60}, sources=SOURCES)
    here = DETRJEPA.from_pretrained().catalog(rubin, euclid, region="euclid")
    there = DETRJEPA.from_pretrained(device="cuda").catalog(rubin, euclid, region="euclid")
    assert len(there) == len(here) > 0
    np.testing.assert_allclose(there["activity"], here["activity"], atol=0.01)
    assert there["sky_centroid"].separation(here["sky_centroid"]).max().to_value("mas") < 1
