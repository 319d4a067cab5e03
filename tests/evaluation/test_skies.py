# Licensed under a 3-clause BSD style license - see LICENSE
"""Fields with truth: drawn once, the same for everyone, apart from one another; bad input in one line."""

import numpy as np
import pytest
from astropy.table import QTable

from jaisp.evaluation import DEPTHS, KINDS, SPLITS, Folders, Skies, read_field
from jaisp.exceptions import ConfigError, FileError

SIZE = 0.2  # arcmin, the smallest


@pytest.fixture
def drawn(monkeypatch):
    """Stands in for the simulation: what it was asked for, and files that `read_field` can tell apart."""
    calls = []

    def simulate(folder, *, n_tiles, seed, **options):
        calls.append({"seed": seed, **options})
        place = folder if hasattr(folder, "mkdir") else __import__("pathlib").Path(folder)
        (place / "field_000").mkdir(parents=True)
        QTable({"snr": np.array([float(seed)])}).write(place / "field_000" / "truth.fits")

    monkeypatch.setattr("jaisp.simulation.simulate", simulate)
    return calls


def test_a_field_is_drawn_once_and_read_anew(tmp_path):
    pytest.importorskip("galsim")
    skies = Skies(tmp_path, "validation", "ten_year", "plain", 1, SIZE)
    first = next(iter(skies))
    (path,) = skies.paths()
    changed = (path / "truth.fits").stat().st_mtime_ns
    again = next(iter(skies))
    assert (path / "truth.fits").stat().st_mtime_ns == changed
    assert first.rubin is not again.rubin
    np.testing.assert_array_equal(first.euclid.data["VIS"], again.euclid.data["VIS"])
    assert first.rubin.bands == tuple("ugrizy")
    assert first.euclid.bands == ("VIS", "Y", "J", "H")
    # The same images from another folder: nothing but the seed decides.
    other = next(iter(Skies(tmp_path / "other", "validation", "ten_year", "plain", 1, SIZE)))
    np.testing.assert_array_equal(first.rubin.data["i"], other.rubin.data["i"])

    part = read_field(path, bands=("i", "VIS"))
    assert (part.rubin.bands, part.euclid.bands) == (("i",), ("VIS",))
    alone = read_field(path, surveys="euclid")
    assert alone.rubin is None
    assert len(alone.truth) == len(first.truth)
    (field,) = Folders([path], bands=("VIS",))
    assert field.rubin is None
    assert len(Folders([path, path])) == 2


def test_no_two_skies_have_one_seed(tmp_path, drawn):
    for split in SPLITS:
        for depth in DEPTHS:
            for kind in KINDS:
                for seed in (0, 1):
                    list(Skies(tmp_path, split, depth, kind, 3, SIZE, seed=seed).paths())
    seeds = [call["seed"] for call in drawn]
    assert len(seeds) == len(SPLITS) * len(DEPTHS) * len(KINDS) * 2 * 3
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) > 1_000_000  # training and `jaisp simulate` count from 0


def test_fields_alternate(tmp_path, drawn):
    list(Skies(tmp_path, "test", "dp1", "hard", 6, SIZE).paths())
    assert len({call["psf"] for call in drawn}) == 3
    assert len({call["rotation"] for call in drawn}) == 6
    assert {call["galaxies"] for call in drawn} == {"knots", "sersic"}
    assert {call["bright_stars"] for call in drawn} == {True, False}
    assert {call["depth"] for call in drawn} == {"dp1"}
    drawn.clear()
    list(Skies(tmp_path, "test", "dp1", "plain", 6, SIZE).paths())
    assert not any(call["bright_stars"] for call in drawn)


def test_an_interrupted_drawing_leaves_no_field(tmp_path, monkeypatch):
    def fail(folder, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaisp.simulation.simulate", fail)
    with pytest.raises(KeyboardInterrupt):
        list(Skies(tmp_path, "test", "dp1", "plain", 1, SIZE).paths())
    assert not [path for path in tmp_path.rglob("*") if path.is_file() or "part" in path.name]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"split": "tests"},
            r"unknown split 'tests' of a sky \(did you mean 'test'\?\); allowed: calibration",
        ),
        ({"depth": "dp2"}, "unknown depth 'dp2' of a sky .*allowed: ten_year, dp1, deep"),
        ({"kind": "easy"}, "unknown kind 'easy' of a sky.*allowed: plain, hard"),
        ({"seed": 100}, "seed of a sky is 100; allowed: 0 to 99"),
        ({"seed": -1}, "seed of a sky is -1; allowed: 0 to 99"),
        ({"size": 0.1}, "size of a sky is 0.1 arcmin; allowed: 0.2 to 20 arcmin"),
        ({"n_fields": 0}, "n_fields of a sky is 0; allowed: 1 to 100"),
    ],
)
def test_bad_skies(tmp_path, values, text):
    good = {"split": "test", "depth": "dp1", "kind": "plain", "n_fields": 1, "size": SIZE}
    with pytest.raises(ConfigError, match=text):
        Skies(tmp_path, **(good | values))
    assert not list(tmp_path.iterdir())


def test_a_folder_without_truth(tmp_path):
    with pytest.raises(FileError, match=r"has no truth.fits; give folders that 'jaisp simulate' wrote"):
        read_field(tmp_path)
