# Licensed under a 3-clause BSD style license - see LICENSE
"""The objectives of PatchJEPA and ObjectJEPA: their losses against closed forms, and a few steps of each."""

import dataclasses
import json
import math

import pytest
import torch
from torch.nn import functional

from jaisp.exceptions import ConfigError
from jaisp.models import ObjectJEPA, ObjectJEPAConfig, PatchJEPA, PatchJEPAConfig
from jaisp.training import TrainingConfig, check, load_config, train
from jaisp.training.config import LossConfig, ObjectiveConfig
from jaisp.training.losses import similarities
from jaisp.training.objectives import objective_class
from jaisp.training.objectives.objects import Contrast, contrast, match_within
from jaisp.training.objectives.patch import Patches, PatchLossConfig

from .configs import supervised_config


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Scenes, drawn once."""
    return tmp_path_factory.mktemp("scenes")


def run_config(kind, cache, **optimizer):
    base = supervised_config(cache, **optimizer)
    model, loss = {
        "objects": (ObjectJEPAConfig.tiny(), LossConfig()),
        "patch": (PatchJEPAConfig.tiny(), PatchLossConfig()),
    }[kind]
    return TrainingConfig(
        model=model,
        loss=loss,
        data=base.data,
        optimizer=base.optimizer,
        objective=ObjectiveConfig(kind=kind),
    )


def test_contrast_of_vectors_that_say_nothing_is_log_k():
    same = torch.ones(7, 5)
    assert contrast(same, 3 * same).item() == pytest.approx(math.log(7), rel=1e-6)
    # Only one side says nothing: still no vector can name its partner.
    distinct = torch.eye(7)
    assert contrast(distinct, torch.ones(7, 7)).item() == pytest.approx(math.log(7), rel=1e-6)


def test_contrast_of_equal_distinct_vectors_is_that_of_theory():
    """Orthogonal vectors: the partner has the logit 1 / T, the others 0."""
    for k, temperature in ((7, 0.1), (20, 0.5)):
        expected = math.log1p((k - 1) * math.exp(-1 / temperature))
        found = contrast(torch.eye(k), 2 * torch.eye(k), temperature=temperature)
        assert found.item() == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert contrast(torch.eye(7), torch.eye(7)) < 1e-3
    assert contrast(torch.eye(7), torch.eye(7).roll(1, 0)) > 9  # each names a wrong one


def test_contrast_is_symmetric_and_draws_partners_together():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 16, 8, generator=generator)
    torch.testing.assert_close(contrast(first, second), contrast(second, first))
    first = first.requires_grad_()
    contrast(first, second).backward()
    moved = similarities(first - 0.5 * first.grad / first.grad.abs().max(), second)
    before = similarities(first, second)
    assert moved["similarity"] > before["similarity"]


def test_similarities_are_means_over_the_diagonal_and_beside_it():
    first = functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), dim=-1)
    second = 2 * torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = similarities(first, second)
    root = math.sqrt(0.5)
    assert found["similarity"] == pytest.approx((1 + 0 + root) / 3)
    assert found["unmatched_similarity"] == pytest.approx((1 + 0 + 0 + 1 + root + root) / 6)
    assert found["n_matched"] == 3


def view(positions, *, logit=1.0, valid=None):
    """Output of a model for one tile: positions in 0.1 arcsec pixels."""
    position = torch.tensor([positions], dtype=torch.float32)
    shape = position.shape[:2]
    return {
        "position": position,
        "activity_logit": torch.full(shape, logit),
        "valid": torch.ones(shape, dtype=torch.bool) if valid is None else torch.tensor([valid]),
    }


def pairs(first, second, radius=0.5):
    tile, i, j = match_within(first, second, radius)
    assert (tile == 0).all()
    return sorted(zip(i.tolist(), j.tolist(), strict=True))


def test_match_within_is_one_to_one_and_ends_at_the_radius():
    # Slot 0 and 1 both lie within the radius of partner 0; only the assignment of least distance is taken.
    first = view([[10.0, 10.0], [13.0, 10.0], [40.0, 40.0], [60.0, 60.0]])
    second = view([[10.5, 10.0], [16.0, 10.0], [44.9, 40.0], [65.1, 60.0]])
    assert pairs(first, second) == [(0, 0), (1, 1), (2, 2)]
    assert pairs(first, second, radius=0.52) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert pairs(first, second, radius=0.1) == [(0, 0)]
    one = view([[10.5, 10.0]])
    assert pairs(first, one) == [(0, 0)]


def test_distances_of_many_slots_are_as_sharp_as_those_of_few():
    places = torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * 200 + 50
    first, second = view(places.tolist()), view((places + torch.tensor([0.002, 0.0])).tolist())
    assert pairs(first, second, radius=0.001) == [(k, k) for k in range(40)]


def test_match_within_takes_active_and_valid_slots_only():
    first = view([[10.0, 10.0], [30.0, 30.0]])
    second = view([[10.0, 10.0], [30.0, 30.0]], valid=[True, False])
    assert pairs(first, second) == [(0, 0)]
    assert pairs(first, dict(second, activity_logit=torch.full((1, 2), -1.0))) == []


def test_match_within_stays_in_its_tile():
    first, second = view([[10.0, 10.0]]), view([[50.0, 50.0]])
    first = {key: torch.cat([value, second[key]]) for key, value in first.items()}
    other = {key: value.flip(0) for key, value in first.items()}
    assert match_within(first, other, 0.5).shape == (3, 0)
    tile, i, j = match_within(first, first, 0.5)
    assert tile.tolist() == [0, 1]
    assert i.tolist() == j.tolist() == [0, 0]


@pytest.mark.parametrize(("kind", "model"), [("objects", ObjectJEPA), ("patch", PatchJEPA)])
def test_a_run_learns_and_writes_weights(kind, model, cache, tmp_path):
    config = run_config(kind, cache)
    weights = train(config, tmp_path / "run")
    loaded = model.from_pretrained(weights)
    assert loaded.config == config.model
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert len(losses) == 4
    assert all(math.isfinite(value) for value in losses)
    torch.manual_seed(0)
    fresh = model(config.model).state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in loaded.state_dict().items())
    wanted = {"objects": "val/f1_joint", "patch": "val/separation"}[kind]
    assert wanted in lines[-1]
    record = json.loads((weights / "config.json").read_text())
    assert record["notes"]["objective"] == kind


@pytest.mark.parametrize("kind", ["objects", "patch"])
def test_check_runs_one_step(kind, cache):
    metrics = check(run_config(kind, cache))
    assert math.isfinite(metrics["train/loss"])
    assert {"objects": "train/jepa", "patch": "train/contrast"}[kind] in metrics


def test_patch_loss_falls_when_it_is_followed(cache, tmp_path):
    """The same batch again and again: two skies become told apart, from log 2 or above."""
    objective = Patches(run_config("patch", cache), tmp_path)
    (batch,) = objective.batches(0, 1)
    optimizer = torch.optim.Adam(objective.model.parameters(), lr=3e-3)
    values = []
    for step in range(25):
        loss, terms, gauges = objective.losses(batch, step)
        values.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert terms["contrast"] is loss
    assert gauges["n_matched"] == 2
    assert values[0] > 0.3
    assert values[-1] < 0.5 * values[0]


def test_patches_that_one_survey_lacks_are_left_out(cache, tmp_path):
    objective = Patches(run_config("patch", cache), tmp_path)
    (batch,) = objective.batches(0, 1)
    tiles = {key: value.clone() for key, value in batch[0].items()}
    tiles["euclid_noise"][0] = 0
    loss, terms, gauges = objective.losses((tiles, batch[1]), 0)
    assert loss == 0  # one tile is left, and nothing to tell it from
    assert loss.requires_grad
    assert gauges == {}
    assert terms == {"contrast": 0.0}


def test_contrast_takes_what_position_matches(cache, tmp_path):
    """Too few pairs teach nothing; enough of them give the loss of their embeddings."""
    objective = Contrast(run_config("objects", cache), tmp_path)
    generator = torch.Generator().manual_seed(4)
    places = [[12.0 * k, 30.0] for k in range(10)]
    projection = torch.randn(1, 10, 64, generator=generator)
    outputs = {name: dict(view(places), projection=projection) for name in ("joint", "rubin", "euclid")}
    terms, gauges = objective.between_surveys(outputs, 0)
    torch.testing.assert_close(terms["jepa"], contrast(projection[0], projection[0]))
    assert gauges["similarity"] == pytest.approx(1, abs=1e-5)
    far = dict(outputs, euclid=dict(view([[x + 6.0, y] for x, y in places]), projection=projection))
    terms, gauges = objective.between_surveys(far, 0)  # .6 arcsec are beyond the radius of .5
    torch.testing.assert_close(terms["jepa"], 0.25 * contrast(projection[0], projection[0]))
    assert gauges == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[objective]\nkind = 'patches'\n", "unknown objective 'patches'.*did you mean 'patch'"),
        ("[objective]\nkind = 'patch'\n[loss]\ntemperature = 0\n", "temperature must be positive, not 0"),
        ("[objective]\nkind = 'patch'\n[loss]\nband_dropout = 1.0\n", r"band_dropout must be in \[0, 1\)"),
        ("[objective]\nkind = 'patch'\n[loss]\njepa = 1.0\n", "unknown key 'jepa' for PatchLossConfig"),
        ("[objective]\nkind = 'objects'\n[model]\nwindow = 5\n", "unknown key 'window' for ObjectJEPAConfig"),
    ],
)
def test_bad_config(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("kind", "model", "data", "message"),
    [
        ("supervised", {"patch_size": 32}, {"scenes": {"size": 80}}, r"80 .* of 32 pixels, e.g. 64 or 96"),
        ("patch", {}, {"scenes": {"size": 100}}, r"\[data.scenes\] size = 100 does not suit this PatchJEPA"),
        ("objects", {}, {"scenes": {"size": 100}}, "it takes multiples of 16 pixels, e.g. 96 or 112"),
        ("labelfree", {"patch_size": 32}, {"folder": "x", "tile_size": 80}, r"\[data\] tile_size = 80"),
    ],
)
def test_tiles_that_a_model_cannot_take_are_refused_before_they_are_made(kind, model, data, message):
    values = {"objective": {"kind": kind}, "model": model, "data": data, "optimizer": {"device": "cpu"}}
    with pytest.raises(ConfigError, match=message):
        check(TrainingConfig.from_dict(values))


@pytest.mark.parametrize("name", ["patch_jepa", "object_jepa"])
def test_recipes_of_the_bundled_weights_are_valid(name):
    import jaisp.training

    folder = jaisp.training.__path__[0].replace("training", "data/weights")
    config = load_config(f"{folder}/{name}/training.toml")
    model = objective_class(config.objective.kind).model_class
    assert model.bundled_name == name
    assert dataclasses.asdict(config.model) == dataclasses.asdict(model.from_pretrained().config)
