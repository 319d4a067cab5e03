# Licensed under a 3-clause BSD style license - see LICENSE
"""Catalogues on disk, without loss: masks, units, sky positions, embeddings and nested metadata."""

import io
import json
import os
import warnings
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits, registry
from astropy.table import MaskedColumn, QTable
from astropy.units import UnitsWarning
from astropy.utils.masked import Masked

from jaisp.catalog._votable import read_votable, write_votable
from jaisp.catalog.columns import split_coordinates, with_nan
from jaisp.exceptions import FileError, MissingDependencyError
from jaisp.files import atomic_path

__all__ = ["FORMATS", "Catalog", "check_output", "plain", "read_catalog", "write_catalog"]

#: File suffixes, and the astropy formats behind them.
FORMATS = {
    ".fits": "fits",
    ".ecsv": "ascii.ecsv",
    ".parquet": "parquet",
    ".vot": "votable",
    ".xml": "votable",
}
_META_KEY, _SHAPE_KEY = "jaisp_meta", "shape"


class Catalog(QTable):
    """
    A `~astropy.table.QTable` whose nested metadata ``write`` keeps in FITS too; `read_catalog` reads it.

    What `make_catalog` returns. `write_catalog` adds descriptions for other tools, and writes whole or not
    at all.
    """


def _write_fits(table, *args, **options):
    """Writer of `Catalog`: header cards hold no nested values, so they go into one long string as JSON."""
    flat = QTable(table, copy=False)
    # astropy loses its way in a long card with quotes and slashes.
    text = json.dumps(plain(dict(table.meta))).replace("'", "\\u0027")
    flat.meta = {_META_KEY.upper(): text}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fits.verify.VerifyWarning)
        try:
            flat.write(*args, format="fits", **options)
        except UnicodeEncodeError:
            wide = [name for name in flat.colnames if _has_wide_text(flat[name])]
            raise FileError(
                f"FITS holds ASCII text only, not that of column {', '.join(map(repr, wide))}; "
                "write .ecsv, .parquet or .vot"
            ) from None


def _has_wide_text(column):
    if getattr(column, "dtype", np.dtype(float)).kind != "U":
        return False
    return not all(map(str.isascii, np.ma.getdata(column).ravel().tolist()))


registry.register_writer("fits", Catalog, _write_fits)


def check_output(path):
    """
    Make sure that a catalogue can be written to ``path``, before hours are spent on it.

    Returns
    -------
    `pathlib.Path`

    Raises
    ------
    `~jaisp.exceptions.FileError`
        Unknown suffix, missing or unwritable folder, or a file that holds images.
    `~jaisp.exceptions.MissingDependencyError`
        Parquet without pyarrow and pandas.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise FileError(
            f"cannot write {str(path)!r}: unknown suffix {path.suffix!r}; allowed: {', '.join(FORMATS)}"
        )
    if not path.parent.is_dir():
        raise FileError(
            f"cannot write {str(path)!r}: folder {str(path.parent)!r} does not exist; make it first"
        )
    if path.is_dir():
        raise FileError(f"cannot write {str(path)!r}: it is a folder")
    if not os.access(path.parent, os.W_OK):
        raise FileError(f"cannot write {str(path)!r}: folder {str(path.parent)!r} is not writable")
    if path.suffix.lower() == ".fits" and _holds_images(path):
        raise FileError(f"cannot write {str(path)!r}: it holds images; choose another name")
    if path.suffix.lower() == ".parquet":
        try:
            import pandas  # noqa: F401, ICN001
            import pyarrow  # noqa: F401, ICN001
        except ImportError:
            raise MissingDependencyError(
                "Parquet needs pyarrow and pandas: pip install 'jaisp[parquet]'"
            ) from None
    return path


def _holds_images(path):
    """Whether a file, if there is one, holds images: PSF and RMS files lie where catalogues are made."""
    try:
        with fits.open(path) as hdus:
            return any(hdu.is_image and hdu.header.get("NAXIS") for hdu in hdus)
    except (OSError, ValueError, fits.VerifyError):
        return False  # no file, or none that is worth keeping


def plain(value):
    """Return metadata as what JSON and YAML can hold."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def write_catalog(table, path, *, overwrite=True):
    """
    Write a catalogue; the file appears whole or not at all.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        From `make_catalog`.
    path : path-like
        ``.fits``, ``.ecsv``, ``.parquet``, ``.vot`` or ``.xml``. In a VOTable the coordinates are columns
        ``ra`` and ``dec``, in degrees.
    overwrite : bool
        Whether an existing file may be replaced.
    """
    path = check_output(path)
    if path.exists() and not overwrite:
        raise FileError(f"{str(path)!r} exists; choose another name, or allow overwriting")
    table = Catalog(table, copy=False)
    table.meta = plain(dict(table.meta))
    suffix = path.suffix.lower()
    if suffix == ".ecsv" and not len(table):
        # ECSV cannot read back an empty column of vectors: it becomes one of numbers that knows their shape.
        for name in [name for name in table.colnames if len(table[name].shape) > 1]:
            shape, table[name] = table[name].shape[1:], table[name].reshape(0)
            table[name].info.meta = {**(table[name].info.meta or {}), _SHAPE_KEY: list(shape)}
    try:
        with atomic_path(path) as partial:
            if FORMATS[suffix] == "votable":
                write_votable(table, partial)
            else:
                flat = _without_values_under_masks(table) if suffix == ".parquet" else table
                flat.write(partial, format=FORMATS[suffix], overwrite=True)
            if suffix == ".fits":
                _describe_fits(table, partial)
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def _without_values_under_masks(table):
    """
    NaN, or -1 for numbers of slots, where a value is masked: Parquet holds masks as columns of their own.

    Who reads it without jaisp would take what lies under a mask for values.
    """
    table = table.copy(copy_data=False)
    for name in table.colnames:
        column = table[name]
        if isinstance(column, SkyCoord) and np.any(getattr(column, "mask", False)):
            angles = (
                Masked(np.where(column.mask, np.nan, angle.unmasked.value) * angle.unit, mask=column.mask)
                for angle in (column.ra, column.dec)
            )
            table[name] = SkyCoord(*angles, frame=column.frame.name)
        elif isinstance(column, Masked) and column.dtype.kind == "f":
            table[name] = Masked(np.where(column.mask, np.nan, column.unmasked), mask=column.mask)
        elif isinstance(column, MaskedColumn) and column.dtype.kind in "fi":
            kept = column.mask
            table[name] = MaskedColumn(
                np.where(kept, np.nan if column.dtype.kind == "f" else -1, np.ma.getdata(column)),
                mask=kept,
                dtype=column.dtype,
            )
        else:
            continue
        table[name].info = column.info
    return table


def _describe_fits(table, path):
    """Add the cards from which TOPCAT and other tools read descriptions and UCDs."""
    flat = split_coordinates(table[:0])
    # In memory: to make room in the file astropy would leave one of its own if the disk is full.
    with fits.open(path, memmap=False) as hdus:
        header = hdus[1].header
        # In FITS the coordinates are named by astropy: sky_centroid.ra and sky_centroid.dec.
        for number, column in enumerate(hdus[1].columns, 1):
            base, _, axis = column.name.partition(".")
            name = f"{base.removesuffix('sky_centroid')}{axis}" if axis else base
            if name in flat.colnames and flat[name].description:
                header[f"TCOMM{number}"] = flat[name].description
                header[f"TUCD{number}"] = flat[name].meta.get("ucd", "")
        whole = io.BytesIO()
        hdus.writeto(whole)
    path.write_bytes(whole.getbuffer())


def read_catalog(path):
    """
    Read a catalogue that `write_catalog`, or ``write`` of a `Catalog`, wrote.

    Returns
    -------
    `Catalog`
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise FileError(
            f"cannot read {str(path)!r}: unknown suffix {suffix!r}; allowed: {', '.join(FORMATS)}"
        )
    if not path.is_file():
        raise FileError(f"catalogue {str(path)!r} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnitsWarning)
            if FORMATS[suffix] == "votable":
                return Catalog(read_votable(path), copy=False)
            table = Catalog(QTable.read(path, format=FORMATS[suffix]), copy=False)
        stored = table.meta.pop(_META_KEY.upper(), None)
        if stored is not None:
            table.meta = dict(json.loads(stored))
    except Exception as error:  # readers of damaged files raise nearly anything
        what = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{str(path)!r} is not a catalogue that jaisp can read: {what}") from None
    for name in table.colnames:
        if shape := (table[name].info.meta or {}).pop(_SHAPE_KEY, None):
            table[name] = table[name].reshape(0, *shape)
        # FITS masks the NaN of columns that have a mask nowhere else.
        table[name] = with_nan(table[name], name)
    return table
