# Licensed under a 3-clause BSD style license - see LICENSE
"""The training loop: runs, resumes to the last bit, refuses what cannot work."""

import dataclasses
import errno
import json
import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from jaisp.exceptions import ConfigError, FileError, MissingDependencyError, WeightsError
from jaisp.models import DETRJEPA
from jaisp.simulation import SceneBank, SceneConfig
from jaisp.training import TrainingError, check, load_config, objectives, train
from jaisp.training._run_files import RunFiles
from jaisp.training.config import DataConfig, ObjectiveConfig, OptimizerConfig
from jaisp.training.data import TileBatches
from jaisp.training.engine import _learning_rate
from jaisp.training.objectives.supervised import Supervised
from jaisp.training.validation import _embedding_gauges, validate

from . import toy
from .configs import supervised_config, toy_config


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return supervised_config(tmp_path_factory.mktemp("scenes"))


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_run_writes_weights_and_metrics(config, tmp_path):
    weights = train(config, tmp_path / "run")
    model = DETRJEPA.from_pretrained(weights)
    assert model.config == config.model
    metrics = read_metrics(tmp_path / "run")
    steps = [line["step"] for line in metrics if "train/loss" in line]
    assert steps == [1, 2, 3, 4]
    assert {"train/loss", "train/n_objects", "train/tiles_per_second"} <= set(metrics[0])
    assert "train/jepa" in metrics[-2]
    assert "val/f1_joint" in metrics[-1]


def test_check_runs_one_step_and_measures_loader_and_model(config):
    metrics = check(config)
    assert "train/jepa" in metrics  # the late terms are checked too
    assert metrics["train/loader_tiles_per_second"] > 0
    assert metrics["train/model_tiles_per_second"] >= metrics["train/tiles_per_second"]


def test_refuses_to_overwrite_and_to_resume_nothing(config, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(FileError, match=r"has no checkpoint.pt to resume from"):
        train(config, tmp_path / "run", resume=True)
    (tmp_path / "run" / "checkpoint.pt").touch()
    with pytest.raises(FileError, match="already holds a run; use --resume"):
        train(config, tmp_path / "run")


def test_batches_depend_on_seed_and_step_alone(config, tmp_path):
    from jaisp.training.data import load_scenes

    bank = load_scenes(config.data, tmp_path, seed=5, n=3)
    first, again, other = (TileBatches(bank, batch_size=2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[7][0]["euclid_snr"], again[7][0]["euclid_snr"])
    assert not torch.equal(first[7][0]["euclid_snr"], other[7][0]["euclid_snr"])
    assert not torch.equal(first[7][0]["euclid_snr"], first[8][0]["euclid_snr"])


def test_validation_sees_each_scene_once(config, tmp_path):
    """Of scenes drawn at random some come twice, and a scene is no null for itself."""
    from jaisp.training.data import load_scenes

    class Counting:
        def __init__(self, bank):
            self.bank, self.config, self.seen = bank, bank.config, []

        def __len__(self):
            return len(self.bank)

        def __getitem__(self, number):
            self.seen.append(number)
            return self.bank[number]

    bank = Counting(load_scenes(config.data, tmp_path, seed=5, n=4))
    batches = TileBatches(bank, batch_size=2, seed=1, in_order=True)
    first = [batches[step][0]["euclid_snr"] for step in range(2)]
    assert bank.seen == [0, 1, 2, 3]
    assert torch.equal(batches[1][0]["euclid_snr"], first[1])
    for size in (2, 3, 8):
        bank.seen.clear()
        validate(DETRJEPA(config.model).eval(), bank, batch_size=size)
        assert bank.seen == [0, 1, 2, 3]


@pytest.mark.parametrize("n_tiles", [1, 2, 3])
def test_tiles_are_no_nulls_of_themselves(n_tiles):
    """Embeddings that are all different, at one place: whatever is matched across tiles is not similar."""
    from jaisp.evaluation import Objects

    objects = Objects(
        embedding=np.eye(n_tiles),
        xy=np.zeros((n_tiles, 2)),
        error=np.full(n_tiles, 0.1),
        tile=np.arange(n_tiles),
        source=np.arange(n_tiles),
    )
    gauges = _embedding_gauges(objects, objects)
    if n_tiles == 1:
        assert gauges == {}
    else:
        assert gauges["similarity"] == 1
        assert gauges["shuffled_on_sky"] == gauges["shuffled_similarity"] == 0


def test_runs_with_other_scenes_share_a_cache(tmp_path, monkeypatch):
    from jaisp.training import data

    drawn = []

    def make_scenes(n, config, **options):
        drawn.append(config)
        names = ("rubin", "euclid", "rubin_psf", "euclid_psf", "offset")
        names += ("x", "y", "half_light_radius", "e1", "e2", "is_star", "flux", "norm")
        return SceneBank({"start": np.arange(n + 1), **{name: np.zeros(n) for name in names}}, config)

    monkeypatch.setattr(data, "make_scenes", make_scenes)
    settings = [SceneConfig(), SceneConfig(density=50.0), SceneConfig(size=128)]
    for scenes in settings * 2:
        bank = data.load_scenes(DataConfig(scenes=scenes), tmp_path, seed=5, n=3)
        assert bank.config == scenes
    assert drawn == settings
    # That of the default settings is where it has always been.
    assert len(list(tmp_path.iterdir())) == 3
    assert SceneBank.load(tmp_path / "scenes_5_3").config == SceneConfig()


def test_survey_dropout_ends_where_jepa_starts_if_it_does(config, tmp_path, monkeypatch):
    monkeypatch.setattr(Supervised, "load_data", lambda *_: None)
    without = dataclasses.replace(config, loss=dataclasses.replace(config.loss, jepa=0.0))
    ends = [Supervised(one, tmp_path).hidden()["survey_dropout_end"] for one in (config, without)]
    assert ends == [2, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimiser]\nsteps = 3\n", r"unknown section \[optimiser\] \(did you mean 'optimizer'\?\)"),
        ("[optimizer]\nstep = 3\n", r"unknown key 'step' .*did you mean 'steps'"),
        ("[optimizer]\nprecision = 'fp8'\n", "unknown precision 'fp8'; allowed: bf16, float32"),
        ("[loss]\npositive_snr = 2.0\n", "ignore_snr 3.0 is above positive_snr 2.0"),
        ("[objective]\nkind = 'labelfree'\n[loss]\nignore_snr = 6.0\n", "ignore_snr 6.0 is above"),
        (
            "[objective]\nkind = 'labelfree'\n[loss]\nsurvey_dropout = 1.0\n",
            r"survey_dropout must be in \[0, 1",
        ),
        ("[loss]\nmatching = 'places'\n", "unknown matching 'places'; allowed: both, position, similarity"),
        ("[optimizer]\nwarmup = 0\n", "warmup must be at least 1"),
        ("[objective]\nkind = 'supervized'\n", "unknown objective 'supervized' .did you mean 'supervised'"),
        ("[objective]\ntrainable = 'readout'\n", r"trainable is 'readout'; give a list: \['readout'\]"),
        ("[objective]\nkind = 'nowhere:Kind'\n", "cannot import objective 'nowhere:Kind': No module"),
        (
            "[objective]\nkind = 'json:loads'\n",
            "'json:loads' is no objective: it lacks model_class, data_class",
        ),
        ("[data]\nn_scenes = 0\n", "n_scenes 0 must be at least 1"),
        ("[data.scenes]\nsise = 128\n", "sise"),
        ("[data]\nscenes = 3\n", "scenes must be a section with keys, not 3"),
        ("[data]\nn_scenes = 10.5\n", "n_scenes is 10.5; give a whole number"),
        ("[data]\nseed = -1\n", "seed must be at least 0, not -1"),
        ("[data]\nworkers = -1\n", "workers must be at least 0, not -1"),
        ("[data]\ncache = 3\n", "cache is 3; give a text in quotes"),
        ("[loss]\nheat = 'big'\n", "heat is 'big'; give a number"),
        ("[model]\nchannels = 8\n", r"channels is 8; give a list: \[8\]"),
        ("[optimizer]\nlearning_rate = 'fast'\n", "learning_rate is 'fast'; give a number"),
        ("[optimizer]\nlearning_rate = -1.0\n", "learning_rate must be positive, not -1.0"),
        ("[optimizer]\nclip = nan\n", "clip must be positive, not nan"),
        ("[optimizer]\nsteps = 100.5\n", "steps is 100.5; give a whole number"),
        ("[optimizer]\nsteps = true\n", "steps is True; give a whole number"),
        ("[optimizer]\nema = 1\n", r"ema must be in \[0, 1\), not 1"),
        ("[optimizer]\nema = 'x'\n", "ema is 'x'; give a number"),
        ("[optimizer]\nseed = -1\n", "seed must be at least 0, not -1"),
        ("[optimizer]\nthreads = -2\n", "threads must be at least 0, not -2"),
        ("[optimizer]\ntensorboard = 'no'\n", "tensorboard is 'no'; give true or false"),
        ("model = 3\n", r"\[model\] must be a section"),
        ("[model\n", "is not a TOML file"),
    ],
)
def test_bad_config(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_whole_numbers_are_numbers(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[optimizer]\nlearning_rate = 1\n[model]\nchannels = [8, 8, 8]\n")
    config = load_config(path)
    assert config.optimizer.learning_rate == 1
    assert config.model.channels == (8, 8, 8)


def test_curves_are_drawn_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    files = RunFiles(tmp_path / "run")
    files.metrics.write_text('{"step": 1, "train/loss": 2.0}\n')
    files.draw_curves()
    whole = (files.folder / "curves.png").read_bytes()
    assert whole.startswith(b"\x89PNG")

    def fail(self, path, **options):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(figure.Figure, "savefig", fail)
    with pytest.raises(FileError, match=r"cannot write '.*curves.png': No space left"):
        files.draw_curves()
    assert (files.folder / "curves.png").read_bytes() == whole
    assert {path.name for path in files.folder.iterdir()} == {"curves.png", "metrics.jsonl"}


def test_missing_config(tmp_path):
    with pytest.raises(FileError, match="cannot read"):
        load_config(tmp_path / "none.toml")


@pytest.fixture
def toy_kind(monkeypatch):
    monkeypatch.setitem(objectives._CLASSES, "toy", toy.NAME)


def test_an_objective_of_ones_own_is_named_by_its_module(tmp_path):
    train(toy_config(steps=2, kind=toy.NAME), tmp_path / "run")
    assert (tmp_path / "run" / "weights" / "model.safetensors").is_file()


def test_learning_rate_rises_over_the_warm_up():
    rates = [
        _learning_rate(step, OptimizerConfig(steps=100, warmup=10, learning_rate=1.0)) for step in range(99)
    ]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[29] == 1
    assert rates[65] == pytest.approx(0.01 + 0.99 / 2, abs=0.01)


def test_accumulated_batches_equal_a_large_one(toy_kind, tmp_path):
    train(toy_config(batch_size=8), tmp_path / "large")
    train(toy_config(batch_size=2, accumulate=4), tmp_path / "small")
    large, small = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
        for name in ("large", "small")
    )
    for name, value in large.items():
        torch.testing.assert_close(small[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (
            {"bad_step": 2},
            r"the loss is not finite at step 2: {'loss': nan, 'square': nan}; look for bad pixels",
        ),
        ({"gauge": 0.2}, r"collapsed at step 1: gauge is 0.200, its guard 0.5"),
        ({"gauge": math.nan}, r"collapsed at step 1: gauge is nan, its guard 0.5"),
    ],
)
def test_a_run_that_cannot_go_on_says_why(toy_kind, model, text, tmp_path):
    with pytest.raises(TrainingError, match=text):
        train(toy_config(model=toy.ToyConfig(**model)), tmp_path / "run")


def test_average_follows_and_buffers_are_copied(config, tmp_path):
    train(config, tmp_path / "run")
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    for name, value in state["model"].items():
        if "projector_norm" in name:
            assert torch.equal(state["average"][name], value)
    name = "decoder.content.weight"
    assert not torch.equal(state["average"][name], state["model"][name])


def test_checkpoints_of_another_model_or_damaged_are_refused(toy_kind, tmp_path):
    train(toy_config(), tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"another configuration \(width 3 there, 4 here\); start a new run"
    ):
        train(toy_config(model=toy.ToyConfig(width=4)), tmp_path / "run", resume=True)
    less = dataclasses.replace(toy_config(), objective=ObjectiveConfig(kind="toy", trainable=("line",)))
    with pytest.raises(ConfigError, match=r"\(trainable \[\] there, \['line'\] here\); start a new run"):
        train(less, tmp_path / "run", resume=True)
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    with pytest.raises(FileError, match=r"checkpoint.pt' is damaged: .*; start a new run"):
        train(toy_config(), tmp_path / "run", resume=True)


def test_a_run_resumed_with_other_settings_says_which(toy_kind, tmp_path, caplog):
    train(toy_config(steps=2), tmp_path / "run")
    train(toy_config(steps=3), tmp_path / "run", resume=True)
    assert not caplog.messages  # any run may go on for longer
    train(toy_config(steps=4, learning_rate=0.25), tmp_path / "run", resume=True)
    (message,) = caplog.messages
    assert re.search(
        r"run' goes on with other settings .*: \[optimizer\] learning_rate 0.\d+ -> 0.25$", message
    )


def test_the_log_is_json_where_a_gauge_has_nothing_to_say(toy_kind, tmp_path, monkeypatch):
    monkeypatch.setattr(
        toy.Toy, "validate", lambda self, model: {"val/gauge": 1.0, "val/pairs": float("nan")}
    )
    train(toy_config(), tmp_path / "run")
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"val/gauge": 1.0' in text
    assert "NaN" not in text
    assert "val/pairs" not in text


def test_threads_and_random_numbers_are_given_back(toy_kind, tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    config = toy_config(steps=2, threads=threads + 1)
    train(config, tmp_path / "run")
    check(config)
    assert torch.get_num_threads() == threads
    assert torch.get_rng_state().equal(state)


def test_a_finished_run_resumed_is_left_as_it_is(toy_kind, tmp_path):
    train(toy_config(), tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_text()
    train(toy_config(), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == before


def test_a_run_killed_as_it_ends_is_finished_by_resuming(toy_kind, tmp_path, monkeypatch):
    config, save = toy_config(), toy.ToyModel.save_pretrained

    def killed(model, path, *, notes):
        if notes["step"] == 4:
            raise KeyboardInterrupt
        return save(model, path, notes=notes)

    monkeypatch.setattr(toy.ToyModel, "save_pretrained", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run")
    monkeypatch.setattr(toy.ToyModel, "save_pretrained", save)
    weights = train(config, tmp_path / "run", resume=True)
    assert json.loads((weights / "config.json").read_text())["notes"]["step"] == 4
    assert (weights / "model.safetensors").read_bytes() == (
        train(config, tmp_path / "whole") / "model.safetensors"
    ).read_bytes()


def test_no_space_left(toy_kind, tmp_path, monkeypatch):
    monkeypatch.setattr("jaisp.training._run_files.shutil.disk_usage", lambda _: SimpleNamespace(free=5e6))
    with pytest.raises(
        FileError, match=r"no space left for the checkpoint and the weights: 10 MB needed, 5 MB"
    ):
        train(toy_config(), tmp_path / "begin")
    monkeypatch.undo()
    monkeypatch.setitem(objectives._CLASSES, "toy", toy.NAME)

    def full(state, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FileError, match=r"cannot write '.*checkpoint.pt': .*No space left on device"):
        train(toy_config(), tmp_path / "later")
    assert not list((tmp_path / "later").glob("checkpoint*"))


def test_missing_tensorboard(toy_kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependencyError, match=r"tensorboard = true of .* needs tensorboard; install"):
        check(toy_config(tensorboard=True))


def test_cuda_that_is_not_there(toy_kind, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device 'cuda' was asked for, but torch sees no CUDA device"):
        check(toy_config(device="cuda"))


def test_training_goes_on_from_weights(config, tmp_path):
    torch.manual_seed(5)
    model = DETRJEPA(dataclasses.replace(config.model, calibration={"activity": {"intercept": 1.0}}))
    model.save_pretrained(tmp_path / "start")
    objective = ObjectiveConfig(weights=str(tmp_path / "start"))
    optimizer = dataclasses.replace(config.optimizer, steps=1, learning_rate=1e-12, weight_decay=0.0)
    weights = train(dataclasses.replace(config, objective=objective, optimizer=optimizer), tmp_path / "run")
    new = DETRJEPA.from_pretrained(weights)
    assert new.config.calibration == {}  # it was that of other weights
    torch.testing.assert_close(new.decoder.content.weight, model.decoder.content.weight)
    notes = json.loads((weights / "config.json").read_text())["notes"]
    assert notes["start"]["name"] == "start"
    with pytest.raises(WeightsError, match="does not exist"):
        check(dataclasses.replace(config, objective=ObjectiveConfig(weights=str(tmp_path / "none"))))


def test_only_the_named_parts_learn(config, tmp_path):
    torch.manual_seed(5)
    model = DETRJEPA(dataclasses.replace(config.model, calibration={"activity": {"intercept": 1.0}}))
    model.save_pretrained(tmp_path / "start")
    objective = ObjectiveConfig(weights=str(tmp_path / "start"), trainable=("heads.projector", "readout"))
    optimizer = dataclasses.replace(config.optimizer, steps=2, jepa_start=0.0, ema=0.1)
    weights = train(dataclasses.replace(config, objective=objective, optimizer=optimizer), tmp_path / "run")
    new = DETRJEPA.from_pretrained(weights)
    old = dict(model.named_parameters())
    changed = {name for name, value in new.named_parameters() if not torch.equal(value, old[name])}
    assert changed
    assert {name.split(".")[0] for name in changed} <= {"heads", "readout"}
    assert not {name for name in changed if "properties" in name}
    assert new.config.calibration == model.config.calibration  # activity is what it was
    wrong = dataclasses.replace(config, objective=dataclasses.replace(objective, trainable=("projector",)))
    with pytest.raises(ConfigError, match=r"trainable names 'projector'.*there are backbone.rubin_stem, "):
        check(wrong)


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "docs" / "recipes").glob("*.toml")))
def test_recipes_are_valid(path):
    assert load_config(path).objective.kind in path.read_text()
