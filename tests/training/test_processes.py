# Licensed under a 3-clause BSD style license - see LICENSE
"""Runs in processes of their own: two that share the work, and one that is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from jaisp.training import objectives, train
from jaisp.training._run_files import read_metrics

from . import toy
from .configs import supervised_config, toy_config

SHARED = """
import sys
from pathlib import Path
from tests.training import configs, toy
from jaisp.training import objectives, train
objectives._CLASSES["toy"] = toy.NAME
folder = Path(sys.argv[1])
train(configs.toy_config(batch_size=4), folder / "toy")
train(configs.supervised_config(folder / "cache", accumulate=1), folder / "run")
"""
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.training import configs
from jaisp.training import train
folder = Path(sys.argv[1])
def kill(step, steps, metrics):
    if step == 3:  # after the checkpoint of step 2: this step is lost and taken again
        os.kill(os.getpid(), signal.SIGKILL)
train(configs.supervised_config(folder / "cache"), folder / "killed", progress=kill)
"""


def run_python(code, folder, *, n_processes=1):
    script = folder / "script.py"
    script.write_text(code)
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n_processes}"]
        if n_processes > 1
        else []
    )
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, *launcher, str(script), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def parameters_and_gradients(folder):
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    moments = [moment["exp_avg"] for moment in state["optimizers"][0]["state"].values()]
    weights = {name: value for name, value in state["model"].items() if "projector_norm" not in name}
    return [*weights.values(), *moments]


def loss_lines(folder):
    lines = read_metrics(folder / "metrics.jsonl")
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.slow
def test_two_processes_equal_one_with_all_batches(tmp_path, monkeypatch):
    """A plain mean against the double batch; the real objective, whose terms are ratios, batch by batch."""
    monkeypatch.setitem(objectives._CLASSES, "toy", toy.NAME)
    train(toy_config(batch_size=8), tmp_path / "toy_alone")
    train(supervised_config(tmp_path / "cache", accumulate=2), tmp_path / "alone")
    done = run_python(SHARED, tmp_path, n_processes=2)
    assert done.returncode == 0, done.stderr[-2000:]
    for alone, shared in (("toy_alone", "toy"), ("alone", "run")):
        pairs = zip(*(parameters_and_gradients(tmp_path / name) for name in (alone, shared)), strict=True)
        for one, two in pairs:
            torch.testing.assert_close(two, one, rtol=1e-4, atol=2e-6)
        losses = [loss_lines(tmp_path / name) for name in (alone, shared)]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.slow
def test_killed_run_goes_on_to_the_last_digit(tmp_path):
    done = run_python(KILLED, tmp_path)
    assert done.returncode == -9, done.stderr[-2000:]
    config = supervised_config(tmp_path / "cache")
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "train/lo')  # killed while it wrote
    train(config, tmp_path / "killed", resume=True)
    train(config, tmp_path / "whole")
    killed, whole = (
        [
            {name: value for name, value in line.items() if "second" not in name and "waiting" not in name}
            for line in read_metrics(tmp_path / name / "metrics.jsonl")
        ]
        for name in ("killed", "whole")
    )
    assert killed == whole
    assert [line["step"] for line in whole if "train/loss" in line] == [1, 2, 3, 4]
    states = [
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("killed", "whole")
    ]
    for part in ("model", "average"):
        for name, value in states[1][part].items():
            assert torch.equal(states[0][part][name], value), name
