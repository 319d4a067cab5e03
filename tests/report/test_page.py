# Licensed under a 3-clause BSD style license - see LICENSE
"""The page is one file, holds what the table says, and refuses what it cannot show."""

import base64
import io
import json
import re
import sys

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable

from jaisp.catalog import write_catalog
from jaisp.cli import main
from jaisp.exceptions import ConfigError, FileError, MissingDependencyError
from jaisp.report import make_report, write_report


def contents(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1]
    )


def picture(url):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_nothing_comes_from_elsewhere(table, pair):
    page = make_report(table, pair)
    assert "{{" not in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert not re.findall(r"https?://|@import|fetch\(|XMLHttpRequest", page)


def test_numbers_are_those_of_the_table(table):
    data = contents(make_report(table))
    columns = {column["key"]: column["values"] for column in data["columns"]}
    assert columns["id"] == list(range(1, 13))
    np.testing.assert_allclose(columns["ra"], table["sky_centroid"].ra.deg, atol=1e-6)
    assert columns["separation"][3] is None
    assert columns["seen"][2:4] == ["Rubin + Euclid", "Rubin"]
    assert columns["flags"][3] == "rubin_only"
    assert columns["mag_VIS"][2] is None
    np.testing.assert_allclose(columns["mag_VIS"][0], 31.4 - 2.5 * np.log10(100), atol=0.005)
    vis = next(band for band in data["bands"] if band["name"] == "VIS")
    assert vis["flux"][2] is None
    assert vis["src"] is None
    assert data["layers"] == []
    assert data["summary"]["counts"]["Rubin only"] == 3
    assert data["summary"]["offset"]["n_sources"] == 9
    assert [near[0] for near in data["neighbours"][:4]] == [1, 0, 3, 2]


def test_objects_lie_on_their_light(table, pair):
    """In the pictures as the browser gets them, at the places that the page is told."""
    data = contents(make_report(table, pair))
    code = picture(next(band["src"] for band in data["bands"] if band["name"] == "VIS"))
    assert code.shape == (data["ny"], data["nx"])
    colour = picture(data["layers"][0]["src"])
    for x, y in zip(data["x"][:6], data["y"][:6], strict=True):
        row, column = data["ny"] - 1 - round(y), round(x)
        near = np.s_[row - 2 : row + 3, column - 2 : column + 3]
        assert code[near].max() > np.median(code[code > 20]) + 30
        assert colour[near][..., :3].max() > 120
        assert colour[row, column, 3] == 255
    assert colour[2, 2, 3] == 0  # Euclid does not cover the corner
    assert sum(band["src"] is not None for band in data["bands"]) == 4


def test_without_a_grid_north_is_up(table):
    bare = table.copy()
    bare.meta = {}
    data = contents(make_report(bare))
    assert data["north"] == [[0, 1], [-1, 0]]
    dec = table["sky_centroid"].dec.arcsec
    np.testing.assert_allclose(np.subtract(data["y"], data["y"][0]), (dec - dec[0]) / 0.1, atol=0.1)


def test_only_the_most_active(table):
    data = contents(make_report(table, max_objects=5))
    assert len(data["x"]) == 5
    assert (data["summary"]["n"], data["summary"]["shown"]) == (12, 5)


def test_titles_and_names_cannot_break_the_page(table):
    named = table.copy()
    named.meta["weights"] = {"name": "</script><script>alert(1)</script>", "sha256": ""}
    page = make_report(named, title="<b>bold</b>")
    assert "alert(1)</script>" not in page
    assert "<h1>&lt;b&gt;" in page
    assert contents(page)["summary"]["facts"]["weights"].startswith("</script>")


def test_empty_catalogue(table, pair):
    for images in (None, pair):
        assert contents(make_report(table[:0], images))["x"] == []


def test_refusals(table, pair, tmp_path, monkeypatch):
    with pytest.raises(
        ConfigError, match=r"lacks sky_centroid, ra_err, dec_err \.\.\.; give a catalogue of jaisp"
    ):
        make_report(QTable({"id": [1]}))
    with pytest.raises(FileError, match=r"unknown suffix '\.txt'; allowed: \.html"):
        write_report(table, tmp_path / "report.txt")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'jaisp\[plot\]'"):
        make_report(table, pair)


def test_command(table, tmp_path, capsys):
    write_catalog(table, tmp_path / "catalog.ecsv")
    assert main(["report", str(tmp_path / "catalog.ecsv"), "-o", str(tmp_path / "report.html")]) == 0
    assert "12 objects" in capsys.readouterr().out
    assert contents((tmp_path / "report.html").read_text())["summary"]["n"] == 12
    assert main(["report", str(tmp_path / "none.fits"), "-o", str(tmp_path / "other.html")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "other.html").exists()


def test_command_takes_what_images_do_not_say(table, pair, tmp_path, capsys):
    write_catalog(table, tmp_path / "catalog.ecsv")
    header = pair.rubin.wcs.to_header()
    header["BUNIT"] = "adu"
    fits.writeto(tmp_path / "g.fits", pair.rubin.data["g"], header)
    command = ["report", str(tmp_path / "catalog.ecsv"), "-o", str(tmp_path / "report.html")]
    command += ["--rubin", f"g={tmp_path / 'g.fits'}"]
    assert main(command) == 0
    assert "zero point; 27.0 assumed" in capsys.readouterr().err
    assert main([*command, "--rubin-zero-point", "31.4"]) == 0
    assert "assumed" not in capsys.readouterr().err
