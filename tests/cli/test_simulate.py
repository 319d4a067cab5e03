# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp simulate``, and that ``jaisp catalog`` reads what it writes."""

import re

import numpy as np
import pytest
from astropy.table import QTable

from jaisp.catalog import read_catalog
from jaisp.cli import main

pytest.importorskip("galsim")
SMALL = ["--size", "0.2", "--seed", "3"]


@pytest.mark.parametrize("layout", ["single", "mer", "cutout"])
def test_catalog_reads_what_simulate_writes(layout, workplace, weights, contents, capsys):
    assert main(["simulate", "-o", "fields", *SMALL, "--layout", layout, "--rotation", "20"]) == 0
    assert capsys.readouterr().out == "fields/field_000\n"
    folder = workplace / "fields" / "field_000"
    euclid = {"single": "euclid_*.fits", "mer": "EUC_MER_BGSUB-MOSAIC-*.fits", "cutout": "euclid_cutout.fits"}
    files = {"rubin": sorted(folder.glob("rubin_*.fits")), "euclid": sorted(folder.glob(euclid[layout]))}
    assert len(files["rubin"]) == 6
    truth = QTable.read(folder / "truth.fits")
    assert np.all(truth["snr"] > 0)

    arguments = [str(item) for name, paths in files.items() for item in (f"--{name}", *paths)]
    assert main(["catalog", *arguments, "-o", "out.fits", "--weights", weights, "--activity", "0"]) == 0
    table = read_catalog("out.fits")
    bands = {re.sub("_flux$", "", name) for name in table.colnames if name.endswith("_flux")}
    assert set(table.meta["bands"]) == bands
    assert len(bands) == 10


def test_several_fields(workplace, contents, capsys):
    assert (
        main(["simulate", "-o", "fields", *SMALL, "--n-tiles", "2", "--depth", "dp1", "--psf", "moffat"]) == 0
    )
    assert capsys.readouterr().out == "fields/field_000\nfields/field_001\n"
    first, second = (
        QTable.read(workplace / "fields" / name / "truth.fits") for name in ("field_000", "field_001")
    )
    assert first.meta["DEPTH" if "DEPTH" in first.meta else "depth"] == "dp1"
    assert len(first) != len(second) or np.any(first["x"] != second["x"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--depth", "ten"], "depth is 'ten'; allowed: ten_year"),
        (["--psf", "gauss"], "psf is 'gauss'; allowed: kolmogorov"),
        (["--galaxies", "x"], "galaxies is 'x'; allowed: sersic"),
        (["--layout", "x"], "layout is 'x'; allowed: single"),
        (["--seed", "-1"], "seed is -1; give a whole number of at least 0"),
        (["--size", "0"], "size_arcmin is 0.0; allowed"),
        (["--rotation", "nan"], "rotation is nan; give an angle in degrees"),
        (["-o", "no/fields"], "folder '.*no' does not exist; make it first"),
    ],
)
def test_refusals(options, text, workplace, contents, capsys):
    assert main(["simulate", "-o", "fields", *options]) == 2
    assert re.match(rf"jaisp: error: .*{text}", capsys.readouterr().err)
    assert contents() == []
