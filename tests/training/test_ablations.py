# Licensed under a 3-clause BSD style license - see LICENSE
"""``benchmarks/ablations.py``: the smallest runs go all the way, and its own objectives do what they say."""

import csv
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("ablations")


@pytest.fixture(scope="module")
def objectives(script):
    return importlib.import_module("ablation_objectives")


def test_tiny_runs_write_table_and_figure_and_are_not_run_twice(script, tmp_path):
    pytest.importorskip("matplotlib")
    options = ["--tiny", "-o", str(tmp_path), "--seeds", "0"]
    script.main([*options, "--only", "mode B", "SIGReg", "first idea"])
    finding, agreeing = (
        list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines()))
        for name in ("finding", "agreeing")
    )
    assert [row["variant"] for row in finding] == ["mode B", "first idea"]
    assert [row["variant"] for row in agreeing] == ["first idea", "SIGReg, matched by both"]
    assert finding[0]["F1"]
    assert not agreeing[0]["top-1"]
    # All slots of the first idea are objects, on noise too, and each is much the same in every image.
    assert float(finding[1]["active on noise"]) == 100
    assert float(agreeing[0]["spread"]) < 0.3
    assert (tmp_path / "ablations.png").stat().st_size > 10_000
    judged = tmp_path / "runs" / "label_mode_B_0" / "judged.json"
    before = judged.stat().st_mtime_ns
    script.main([*options, "--only", "nothing"])
    assert judged.stat().st_mtime_ns == before
    assert len((tmp_path / "agreeing.csv").read_text().splitlines()) == 3


def test_configurations_of_all_variants_are_valid(script, tmp_path):
    for variant in script.VARIANTS:
        config = script.configuration(variant, 0, script.FULL, tmp_path, None)
        assert config.optimizer.steps >= 60
    assert len({(one.group, one.name) for one in script.VARIANTS}) == len(script.VARIANTS)
    names = {one.name for one in script.VARIANTS}
    assert all(one.start in names for one in script.VARIANTS if one.start)


def test_drawn_batches_are_kept(objectives, tmp_path):
    class Counting:
        drawn = 0

        def __getitem__(self, number):
            self.drawn += 1
            return {"rubin": torch.full((2,), number + 0.25)}, {"x": torch.tensor([1 / 3])}

    source = Counting()
    batches = objectives.Drawn(source, tmp_path / "batches")
    first, again = batches[3], batches[3]
    assert source.drawn == 1
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert again[0]["rubin"].tolist() == [3.25, 3.25]
    assert again[1]["x"].item() == pytest.approx(1 / 3, rel=1e-6)


def test_ungated_matching_reaches_across_the_tile(objectives):
    output = {
        "position": torch.tensor([[[10.0, 10.0], [200.0, 200.0], [100.0, 100.0]]]),
        "activity_logit": torch.zeros(1, 3),
    }
    truth = {"x": torch.tensor([[220.0, 60.0, 0.0]]), "y": torch.tensor([[150.0, 10.0, 0.0]])}
    slot, source = objectives.match_anywhere(output, truth, snr=torch.tensor([[9.0, 9.0, 0.0]]))
    assert slot.tolist() == [[0, 0], [0, 1]]
    assert source.tolist() == [[0, 0], [1, 0]]


def test_learned_queries_hold_no_place_and_tell_slots_apart(script, objectives):
    model = objectives.LearnedModel(script.TrainingConfig().model.tiny()).eval()
    features = {
        "tokens": torch.randn(2, 64, 32),
        "token_positions": torch.rand(2, 64, 2) * 12.8,
        "heat": torch.zeros(2, 128, 128),
    }
    output = model.decode(features)[-1]
    assert output["valid"].all()
    assert output["position"].shape == (2, 100, 2)
    assert output["slots"].std(dim=1).mean() > 0.1


def test_gauges_of_constant_slots(script):
    gauges = importlib.import_module("ablation_gauges")
    rng = np.random.default_rng(0)
    constant = rng.standard_normal((1, 20, 8))
    constant = np.repeat(constant / np.linalg.norm(constant, axis=-1, keepdims=True), 4, axis=0)
    active = np.ones((4, 20), bool)
    assert gauges.cosine((constant, active), (constant, active), shift=1) == pytest.approx(1)
    assert np.isnan(gauges.cosine((constant, active & False), (constant, active)))
