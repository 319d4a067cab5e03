# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp benchmark``: end to end on one small field, and what it refuses."""

import importlib.util
import re
import sys

import numpy as np
import pytest
from astropy.table import QTable

from jaisp.cli import main

pytest.importorskip("galsim")
pytest.importorskip("sep")
pytest.importorskip("skimage")
FINDERS = [
    "DETRJEPA",
    "ObjectJEPA",
    "SEP on VIS",
    "SEP on VIS + griz",
    "SEP on VIS joined with griz",
    "matched filter",
    "photutils segmentation",
    "photutils PSF photometry",
]


def test_quick(workplace, contents, capsys):
    """All finders on one field; the skies are kept, and serve the next run."""
    assert main(["benchmark", "-o", "out", "--quick", "--device", "cpu", "--skies", "skies"]) == 0
    out, err = capsys.readouterr()
    assert not err
    names = [
        "benchmark.ecsv",
        "benchmark.md",
        "benchmark_bins.ecsv",
        "benchmark_partners.ecsv",
        "benchmark_tuning.ecsv",
        "bins.png",
        "curves.png",
    ]
    assert out.split() == [f"out/{name}" for name in names]
    assert [path for path in contents() if path.startswith("out/")] == [f"out/{name}" for name in names]

    table = QTable.read(workplace / "out" / "benchmark.ecsv")
    assert list(table["finder"]) == FINDERS
    assert (table["n_sources"] == table["n_sources"][0]).all()
    assert table["n_sources"][0] > 20
    for name in ("best_f1", "average_precision", "completeness_95", "blends_95"):
        assert ((table[name] >= 0) & (table[name] <= 1)).all()
    assert (table["best_f1"] > 0.5).all()  # a finder that looks at the wrong place finds nothing
    assert (table["best_f1_err"] > 0).all()
    assert (table["seconds"] > 0).all()
    assert "ten_year, plain, 1 field of 0.45 arcmin, seed 0" in table.meta["skies"]

    partners = QTable.read(workplace / "out" / "benchmark_partners.ecsv")
    assert set(partners["finder"]) == {
        "DETRJEPA",
        "ObjectJEPA",
        "PatchJEPA",
        "SEP on VIS + griz",
        "matched filter",
    }
    ours = partners[partners["finder"] == "DETRJEPA"][0]
    assert ours["n_pairs"] >= 5
    assert ours["separation"] > 0.4
    bins = QTable.read(workplace / "out" / "benchmark_bins.ecsv")
    assert set(bins["finder"]) == {*FINDERS, "Cramer-Rao bound"}
    text = (workplace / "out" / "benchmark.md").read_text()
    assert f"| DETRJEPA | 4 | {table['n_sources'][0]} | {table['best_f1'][0]:.3f} |" in text
    for tuned in FINDERS[2:]:
        assert len(re.findall(rf"^\| {re.escape(tuned)} \| best_f1 \| [24] \|", text, re.MULTILINE)) == 1
    assert (workplace / "out" / "curves.png").read_bytes().startswith(b"\x89PNG")
    np.testing.assert_array_equal(
        sorted(path.name for path in (workplace / "skies").rglob("*_00_0.45")),
        ["test_00_0.45", "validation_00_0.45"],
    )


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--depth", "tenyear"], r"unknown depth 'tenyear' of a sky \(did you mean 'ten_year'\?\)"),
        (["--kind", "easy"], "unknown kind 'easy' of a sky.*allowed: plain, hard"),
        (["--seed", "-1"], "seed of a sky is -1; allowed: 0 to 99"),
        (["--fields", "0"], "'0' is not a whole number of at least 1"),
        (["--fields", "500"], "n_fields of a sky is 500; allowed: 1 to 100"),
        (["--size", "0"], "size of a sky is 0.0 arcmin; allowed: 0.2 to 20 arcmin"),
        (["--size", "big"], "invalid float value: 'big'"),
        (["--weights", "nowhere"], "weights folder 'nowhere' does not exist"),
        (["-o", "no/out"], "folder '.*no' does not exist; make it first"),
        (["--skies", "no/skies"], "folder '.*no' does not exist; make it first"),
        (["--device", "gpu7"], "invalid choice: 'gpu7'"),
    ],
)
def test_refusals(options, text, workplace, contents, capsys):
    assert main(["benchmark", "-o", "out", "--quick", *options]) == 2
    err = capsys.readouterr().err
    assert re.search(rf"^jaisp( benchmark)?: error: .*{text}", err, re.MULTILINE), err
    assert "Traceback" not in err
    assert contents() == []


def test_without_an_output(workplace, capsys):
    assert main(["benchmark"]) == 2
    assert "-o/--output" in capsys.readouterr().err


def test_an_output_that_is_a_file(workplace, capsys):
    (workplace / "out").write_text("mine")
    assert main(["benchmark", "-o", "out"]) == 2
    assert "it is a file; give the name of a folder" in capsys.readouterr().err
    assert (workplace / "out").read_text() == "mine"


@pytest.mark.parametrize("module", ["galsim", "sep", "skimage"])
def test_what_is_not_installed_is_said_at_once(module, workplace, contents, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == module else find(name, *rest)
    )
    assert main(["benchmark", "-o", "out"]) == 2
    name = "scikit-image" if module == "skimage" else module
    assert re.match(rf"jaisp: error: .*{name}.*pip install 'jaisp\[benchmark\]'", capsys.readouterr().err)
    assert contents() == []


def test_without_matplotlib(workplace, contents, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["benchmark", "-o", "out"]) == 2
    assert "pip install 'jaisp[plot]'" in capsys.readouterr().err
    assert contents() == []
