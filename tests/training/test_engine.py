# Licensed under a 3-clause BSD style license - see LICENSE
"""The training loop: runs, resumes to the last bit, refuses what cannot work."""

import dataclasses
import json

import pytest
import torch

from jaisp.exceptions import ConfigError, FileError
from jaisp.models import DETRJEPA, DETRJEPAConfig
from jaisp.simulation import SceneConfig
from jaisp.training import TrainingConfig, check, load_config, train
from jaisp.training.config import DataConfig, LossConfig, OptimizerConfig
from jaisp.training.data import TileBatches


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return TrainingConfig(
        model=DETRJEPAConfig.tiny(),
        data=DataConfig(
            n_scenes=4,
            n_validation=2,
            cache=str(tmp_path_factory.mktemp("scenes")),
            workers=0,
            scenes=SceneConfig(size=128, psf_sets=2),
        ),
        loss=LossConfig(),
        optimizer=OptimizerConfig(
            batch_size=2,
            steps=4,
            jepa_start=0.5,
            precision="float32",
            log_every=1,
            validate_every=2,
            threads=1,
        ),
    )


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


def test_resumed_run_equals_an_uninterrupted_one(config, tmp_path):
    train(config, tmp_path / "whole")
    half = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, log_every=1, validate_every=2)
    )

    class StopError(Exception):
        pass

    def stop(step, steps, metrics):
        if step == 3:  # after the checkpoint of step 2: this step is lost and taken again
            raise StopError

    with pytest.raises(StopError):
        train(half, tmp_path / "parts", progress=stop)
    train(half, tmp_path / "parts", resume=True)

    def losses(folder):
        return [line["train/loss"] for line in read_metrics(folder) if "train/loss" in line]

    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, parts = (DETRJEPA.from_pretrained(tmp_path / name / "weights") for name in ("whole", "parts"))
    for first, second in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        assert torch.equal(first, second)


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
    assert torch.equal(first[7][0]["euclid"], again[7][0]["euclid"])
    assert not torch.equal(first[7][0]["euclid"], other[7][0]["euclid"])
    assert not torch.equal(first[7][0]["euclid"], first[8][0]["euclid"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimiser]\nsteps = 3\n", r"unknown section \[optimiser\] \(did you mean 'optimizer'\?\)"),
        ("[optimizer]\nstep = 3\n", r"unknown key 'step' .*did you mean 'steps'"),
        ("[optimizer]\nprecision = 'fp8'\n", "unknown precision 'fp8'; allowed: bf16, float32"),
        ("[loss]\npositive_snr = 2.0\n", "ignore_snr 3.0 is above positive_snr 2.0"),
        ("[data]\nn_scenes = 0\n", "n_scenes 0 must be at least 1"),
        ("[data.scenes]\nsise = 128\n", "sise"),
        ("model = 3\n", r"\[model\] must be a section"),
        ("[model\n", "is not a TOML file"),
    ],
)
def test_bad_config(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_missing_config(tmp_path):
    with pytest.raises(FileError, match="cannot read"):
        load_config(tmp_path / "none.toml")
