# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp demo`` with the bundled weights on the bundled pair."""

import re
import sys
from importlib.resources import files

from astropy.table import QTable

from jaisp.catalog import COLUMNS, read_catalog
from jaisp.cli import main


def numbers(line):
    return [int(value) for value in re.findall(r"\d+$|\d+(?=\s+\d+$)", line)]


def test_demo(workplace, contents, capsys):
    assert main(["demo", "--device", "cpu"]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert contents() == [
        "jaisp-demo",
        "jaisp-demo/catalog.ecsv",
        "jaisp-demo/catalog.fits",
        "jaisp-demo/catalog.png",
        "jaisp-demo/crossmatch.png",
        "jaisp-demo/cutouts.png",
        "jaisp-demo/report.html",
    ]
    first, second = (read_catalog(f"jaisp-demo/catalog.{suffix}") for suffix in ("fits", "ecsv"))
    assert first.colnames == second.colnames
    assert first.colnames == [column.name for column in COLUMNS]
    for column in COLUMNS:
        info = first[column.name].info
        assert info.description == column.description
        if column.name.endswith("sky_centroid"):
            continue
        assert str(info.unit or "") == column.unit, column.name
        assert column.masked == hasattr(first[column.name], "mask"), column.name
    lines = out.splitlines()
    bright, found = numbers(next(line for line in lines if "joint S/N above 30" in line))
    (false,) = numbers(next(line for line in lines if "no true source" in line))
    assert found > 0.8 * bright
    assert false < 0.15 * len(first)


def test_without_matplotlib(workplace, contents, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", "-o", "here"]) == 0
    assert "pip install 'jaisp[plot]'" in capsys.readouterr().out
    assert contents() == ["here", "here/catalog.ecsv", "here/catalog.fits"]


def test_the_pair_is_small_and_has_its_truth():
    folder = files("jaisp") / "data" / "demo"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1.5e6
    truth = QTable.read(folder / "truth.fits")
    assert (truth["snr"] > 5).sum() > 50
