# Licensed under a 3-clause BSD style license - see LICENSE
"""Catalogues survive each format whole; a failed write leaves nothing."""

import re

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, QTable, vstack
from astropy.utils.masked import Masked

from jaisp.catalog import FLAGS, Catalog, decode_flags, flag_value, read_catalog, write_catalog
from jaisp.exceptions import ConfigError, FileError
from jaisp.files import atomic_path


def require(suffix):
    """Skip a test of a format whose packages are not there."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("pandas")


@pytest.fixture
def table():
    mask = np.array([False, True, False])
    ra, dec = (Masked(np.array([10.0, 0.0, 12.0]) * u.deg, mask=mask) for _ in range(2))
    table = QTable()
    table["id"] = [1, 2, 3]
    table["sky_centroid"] = SkyCoord([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], unit="deg")
    table["rubin_sky_centroid"] = SkyCoord(ra, dec)
    table["separation"] = Masked([1.0, 0.0, 3.0] * u.mas, mask=mask)
    table["rubin_slot"] = MaskedColumn([4, 0, 6], mask=mask)
    table["euclid_vis_flux"] = [1.0, np.nan, 3.0] * u.nJy
    table["rubin_unrecognized_blend"] = [True, False, True]
    table["embedding"] = np.arange(12, dtype=np.float32).reshape(3, 4)
    table.meta = {"versions": {"jaisp": "0.1"}, "bands": ["VIS", "H"], "threshold": 0.5}
    return table


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "parquet"])
def test_round_trip(table, tmp_path, suffix):
    require(suffix)
    path = tmp_path / f"catalog.{suffix}"
    write_catalog(table, path)
    again = read_catalog(path)
    assert again.colnames == table.colnames
    assert again.meta == table.meta
    assert again["euclid_vis_flux"].unit == u.nJy
    np.testing.assert_array_equal(again["euclid_vis_flux"].value, table["euclid_vis_flux"].value)
    np.testing.assert_array_equal(again["embedding"], table["embedding"])
    assert again["embedding"].dtype.newbyteorder("=") == np.float32
    assert again["sky_centroid"].separation(table["sky_centroid"]).max() < 1e-9 * u.deg
    for name in ("separation", "rubin_slot"):
        np.testing.assert_array_equal(again[name].mask, [False, True, False])
    np.testing.assert_array_equal(again["rubin_sky_centroid"].ra.mask, [False, True, False])
    np.testing.assert_array_equal(again["rubin_unrecognized_blend"], table["rubin_unrecognized_blend"])
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_parquet_has_no_values_under_masks(table, tmp_path):
    """Other readers would take them for values: a slot at the first pixel, a separation of zero."""
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    write_catalog(table, tmp_path / "catalog.parquet")
    frame = pandas.read_parquet(tmp_path / "catalog.parquet")
    for name in ("separation", "rubin_sky_centroid.ra", "rubin_sky_centroid.dec"):
        assert np.isnan(frame[name]).tolist() == [False, True, False]
    assert frame["rubin_slot"].tolist() == [4, -1, 6]
    # The caller's table stays as it was.
    assert table["separation"].unmasked.value.tolist() == [1, 0, 3]


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "parquet", "vot"])
def test_columns_that_may_be_masked_are_so_where_nothing_is(table, tmp_path, suffix):
    """``~table["rubin_slot"].mask`` is how a user asks for objects that both surveys see."""
    require(suffix)
    write_catalog(table[::2], tmp_path / f"catalog.{suffix}")
    again = read_catalog(tmp_path / f"catalog.{suffix}")
    assert again["rubin_slot"].mask.tolist() == [False, False]


def test_files_of_images_are_not_replaced(table, tmp_path):
    path = tmp_path / "psf.fits"
    fits.writeto(path, np.ones((9, 9)))
    with pytest.raises(FileError, match="it holds images; choose another name"):
        write_catalog(table, path)
    write_catalog(table, tmp_path / "catalog.fits")
    write_catalog(table[:1], tmp_path / "catalog.fits")
    assert len(read_catalog(tmp_path / "catalog.fits")) == 1


# Of damaged files astropy warns, and leaves them open.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["fits", "ecsv", "vot", "parquet"])
def test_damaged_files_are_refused_in_one_line(table, tmp_path, suffix):
    require(suffix)
    path = tmp_path / f"catalog.{suffix}"
    write_catalog(table, path)
    whole = path.read_bytes()
    rng, refused = np.random.default_rng(1), []
    for _ in range(12):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=len(whole) // 50):
            damaged[place] ^= 0x55
        path.write_bytes(damaged)
        try:
            read_catalog(path)  # pixels may be damaged without anyone's notice
        except FileError as error:
            refused.append(str(error))
    for text in refused:
        assert re.fullmatch(".* is not a catalogue that jaisp can read: .+", text)
    assert refused


def test_metadata_that_is_none_is_refused(table, tmp_path):
    path = tmp_path / "catalog.fits"
    write_catalog(table, path)
    with fits.open(path, mode="update") as hdus:
        hdus[1].header["JAISP_META"] = "[1, 2"
    with pytest.raises(FileError, match="is not a catalogue that jaisp can read"):
        read_catalog(path)


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with atomic_path(tmp_path / "a.txt") as first, atomic_path(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("1")
        second.write_text("2")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.filterwarnings("error")
def test_fits_keeps_nested_metadata_through_write_itself(table, tmp_path):
    # What a user calls: no warning that metadata are left out, and slices are catalogues too.
    Catalog(table)[1:].write(tmp_path / "catalog.fits")
    back = read_catalog(tmp_path / "catalog.fits")
    assert isinstance(back, Catalog)
    assert back.meta == table.meta
    assert back["id"].tolist() == [2, 3]
    assert isinstance(back["sky_centroid"], SkyCoord)
    with pytest.raises(OSError, match="already exists"):
        back.write(tmp_path / "catalog.fits")


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "vot"])
@pytest.mark.parametrize("shift", range(4))
def test_metadata_may_be_any_text(table, tmp_path, suffix, shift):
    table.meta["notes"] = "x" * shift + "fields 'a' / 'b' & 'c', \\ \"d\" of O'Brien's / Noël's\n" * 10
    write_catalog(table, tmp_path / f"catalog.{suffix}")
    assert read_catalog(tmp_path / f"catalog.{suffix}").meta == table.meta


def test_text_that_fits_cannot_hold_is_refused_in_one_line(table, tmp_path):
    table = table.copy()
    table["name"] = MaskedColumn(["na\u00efve"] * len(table), mask=[False, True, False])
    with pytest.raises(FileError, match="FITS holds ASCII text only, not that of column 'name'"):
        write_catalog(table, tmp_path / "catalog.fits")
    assert not list(tmp_path.iterdir())
    write_catalog(table, tmp_path / "catalog.ecsv")
    assert read_catalog(tmp_path / "catalog.ecsv")["name"][0] == "na\u00efve"


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "vot"])
def test_nan_is_not_masked(table, tmp_path, suffix):
    table["rubin_blended_fraction"] = [0.25, np.nan, 0.0]
    table["rubin_blended_fraction"].info.description = "share"
    table["match_similarity"] = MaskedColumn([0.5, 0.0, 0.25], mask=[False, True, False])
    write_catalog(table, tmp_path / f"catalog.{suffix}")
    again = read_catalog(tmp_path / f"catalog.{suffix}")
    assert not isinstance(again["rubin_blended_fraction"], MaskedColumn)
    assert "share" in again["rubin_blended_fraction"].info.description
    np.testing.assert_array_equal(again["rubin_blended_fraction"], [0.25, np.nan, 0.0])
    np.testing.assert_array_equal(again["match_similarity"].mask, [False, True, False])


@pytest.mark.parametrize("suffix", ["fits", "ecsv"])
def test_empty_catalogue(table, tmp_path, suffix):
    write_catalog(table[:0], tmp_path / f"catalog.{suffix}")
    again = read_catalog(tmp_path / f"catalog.{suffix}")
    assert len(again) == 0
    assert again.colnames == table.colnames
    assert again["embedding"].shape == (0, 4)
    # Of many patches one may be empty.
    assert len(vstack([table, again], metadata_conflicts="silent")) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("catalog.csv", "unknown suffix '.csv'; allowed: .fits, .ecsv, .parquet, .vot, .xml"),
        ("nowhere/catalog.fits", "does not exist; make it first"),
    ],
)
def test_bad_output(table, tmp_path, name, text):
    with pytest.raises(FileError, match=text):
        write_catalog(table, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_existing_file_is_kept_if_asked(table, tmp_path):
    path = tmp_path / "catalog.fits"
    path.write_text("mine")
    with pytest.raises(FileError, match="exists"):
        write_catalog(table, path, overwrite=False)
    assert path.read_text() == "mine"
    write_catalog(table, path)
    assert len(read_catalog(path)) == 3


def test_failed_write_leaves_nothing(table, tmp_path, monkeypatch):
    def fail(self, path, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(QTable, "write", fail)
    with pytest.raises(FileError, match="No space left on device"):
        write_catalog(table, tmp_path / "catalog.fits")
    assert not list(tmp_path.iterdir())


def test_reading_what_is_not_there(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        read_catalog(tmp_path / "none.fits")
    (tmp_path / "bad.fits").write_text("no")
    with pytest.raises(FileError, match="is not a catalogue"):
        read_catalog(tmp_path / "bad.fits")


def test_flags_are_distinct_bits_and_decode():
    values = [flag.value for flag in FLAGS]
    assert len(set(values)) == len(values)
    assert all(value & (value - 1) == 0 for value in values)
    assert decode_flags(flag_value("blended") | flag_value("edge")) == ["edge", "blended"]
    assert decode_flags(np.array([0, flag_value("edge")])) == [[], ["edge"]]
    with pytest.raises(ConfigError, match=r"unknown flag 'blendet' .did you mean 'blended'"):
        flag_value("blendet")
