# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp train``: a run of a few steps whose weights ``jaisp catalog`` takes, and what is refused."""

import json
import re

import pytest

from jaisp.cli import main

CONFIG = """
[model]
channels = [8, 8, 8]
dim = 32
n_backbone_layers = 1
n_decoder_layers = 1

[data]
n_scenes = 4
n_validation = 2
workers = 0

[data.scenes]
size = 96
psf_sets = 1

[optimizer]
steps = 2
batch_size = 2
log_every = 1
validate_every = 2
precision = "float32"
"""


@pytest.fixture
def config(workplace):
    (workplace / "config.toml").write_text(CONFIG)
    return "config.toml"


def test_train_then_catalog(config, workplace, survey_files, capsys):
    assert main(["train", config, "--check"]) == 0
    assert capsys.readouterr().out.startswith("config.toml: one step went well; the model takes ")
    assert main(["train", config, "-o", "run"]) == 0
    assert "run/weights: model" in capsys.readouterr().out
    steps = [
        json.loads(line)["step"] for line in (workplace / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps[0] == 1
    assert steps[-1] == 2
    assert (workplace / "run" / "curves.png").is_file()
    assert {path.name for path in (workplace / "run" / "weights").iterdir()} == {
        "config.json",
        "model.safetensors",
    }

    assert main(["train", config, "-o", "run"]) == 2
    assert "already holds a run; use --resume" in capsys.readouterr().err
    assert main(["train", config, "-o", "run", "--resume"]) == 0
    catalog = ["catalog", "--euclid", *survey_files["euclid"], "-o", "out.ecsv", "--weights", "run/weights"]
    assert main([*catalog, "--activity", "0"]) == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["config.toml"], "the run needs a folder: give -o RUN"),
        (["no.toml", "-o", "run"], "cannot read 'no.toml': No such file"),
        (["words.toml", "-o", "run"], "'words.toml' is not a TOML file"),
        (["comment.toml", "-o", "run"], "'comment.toml' sets nothing.* kind = \"supervised\""),
        (["empty.toml", "--check"], "'empty.toml' sets nothing"),
        (["section.toml", "-o", "run"], r"unknown section \[optimiser\].*did you mean 'optimizer'"),
        (["key.toml", "-o", "run"], "unknown key 'stesp'.*did you mean 'steps'"),
        (["config.toml", "-o", "no/run"], "folder '.*no' does not exist; make it first"),
        (["config.toml", "-o", "config.toml"], "it is a file; give the name of a folder"),
        (["config.toml", "-o", "run", "--resume"], "has no checkpoint.pt to resume from"),
    ],
)
def test_refusals(arguments, text, config, workplace, contents, capsys):
    (workplace / "words.toml").write_text("just words")
    (workplace / "comment.toml").write_text("# to be filled in\n[model]\n[data]\n")
    (workplace / "empty.toml").write_text("")
    (workplace / "section.toml").write_text("[optimiser]\nsteps = 2")
    (workplace / "key.toml").write_text("[optimizer]\nstesp = 2")
    before = contents()
    assert main(["train", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert re.fullmatch(rf"jaisp: error: .*{text}.*\n", err), err
    assert [name for name in contents() if name != "run"] == before
