# Licensed under a 3-clause BSD style license - see LICENSE
"""Catalogues for other programs: regions for DS9, and HATS for LSDB."""

import json
import re
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.table import Table

from jaisp.catalog.columns import refuse_taken_names, split_coordinates, stored_wcs, unite_coordinates
from jaisp.catalog.flags import flag_value
from jaisp.catalog.write import plain
from jaisp.exceptions import ConfigError, FileError, MissingDependencyError, suggest
from jaisp.files import atomic_path, whole_folder

__all__ = ["read_hats", "to_regions", "write_hats", "write_regions"]

_SMALLEST = 0.3 * u.arcsec  # semi-axis of a drawn ellipse
_FINEST = 10  # HEALPix order of the smallest partitions, 3.4 arcmin wide
_COLOURS = {"both": "green", "rubin": "red", "euclid": "cyan", "flagged": "magenta", "other": "green"}
_SUSPECT = ("edge", "masked_pixels", "flux_not_measurable", "refinement_failed", "large_source")


def _need(package, extra):
    """Import an optional package, or say how to install it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingDependencyError(
            f"this needs {package}, which is not installed; run: pip install 'jaisp[{extra}]'"
        ) from None


def to_regions(table, *, scale=2.0, color_by="survey"):
    """
    Make an ellipse on the sky for each object.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue; the WCS of its grid is in its metadata.
    scale : float
        Length of the drawn axes in units of the half-light ellipse's; no semi-axis is drawn smaller than
        0.3 arcsec.
    color_by : {"survey", "flags"}
        Green for objects that both surveys' own slots hold, red for Rubin's alone, cyan for Euclid's alone;
        or magenta for those with a flag that casts doubt on the measurement, and green for others.

    Returns
    -------
    `regions.Regions`
        Ellipses with the objects' ``id`` as text.

    Raises
    ------
    `~jaisp.exceptions.MissingDependencyError`
        If ``regions`` is not installed.
    """
    regions = _need("regions", "export")
    if color_by not in ("survey", "flags"):
        raise ConfigError(
            f"color_by={color_by!r}{suggest(color_by, ('survey', 'flags'))}; allowed: survey, flags"
        )
    wcs = stored_wcs(table)
    if wcs is None:
        raise ConfigError(
            "the catalogue's metadata hold no WCS, against which its ellipses are turned; make it anew"
        )
    centres = table["sky_centroid"]
    width, height = (
        2 * np.maximum(scale * np.nan_to_num(table[name]), _SMALLEST)
        for name in ("semimajor_axis", "semiminor_axis")
    )
    # Where north is on the grid, of all rows at once: the package's own way takes 10 ms a row.
    north = wcs.world_to_pixel(centres.directional_offset_by(0 * u.deg, 1 * u.arcsec))
    x, y = np.subtract(north, wcs.world_to_pixel(centres))
    angle = np.nan_to_num(table["orientation"]) - np.arctan2(y, x) * u.rad + 90 * u.deg
    return regions.Regions(
        [
            regions.EllipseSkyRegion(
                centres[row], width[row], height[row], angle[row],
                meta={"text": str(table["id"][row])},
                visual={"color": color},
            )
            for row, color in enumerate(_colors(table, color_by))
        ]
    )  # fmt: skip


def _colors(table, color_by):
    flags = np.asarray(table["flags"])
    if color_by == "flags":
        suspect = (flags & sum(flag_value(name) for name in _SUSPECT)) > 0
        return np.where(suspect, _COLOURS["flagged"], _COLOURS["other"])
    alone = {name: (flags & flag_value(f"{name}_only")) > 0 for name in ("rubin", "euclid")}
    return np.select(list(alone.values()), [_COLOURS[name] for name in alone], _COLOURS["both"])


def write_regions(table, path, **options):
    """
    Write the objects as DS9 regions (``.reg``), in ICRS.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    path : path-like
        File; an existing one is replaced.
    **options
        See `to_regions`.
    """
    path, found = Path(path), to_regions(table, **options)
    if path.suffix.lower() != ".reg":
        raise FileError(f"cannot write {str(path)!r}: unknown suffix {path.suffix!r}; allowed: .reg")
    try:
        with atomic_path(path) as partial:
            found.write(partial, format="ds9", overwrite=True)
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def write_hats(table, path, *, name="jaisp", rows=100_000):
    """
    Write the catalogue as a HATS collection, partitioned on the sky with margins, for LSDB.

    Coordinates become ``ra`` and ``dec`` in degrees. Masked values are null; units and metadata, for which
    HATS has no place, go into the catalogue's properties, where `read_hats` finds them.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    path : path-like
        Folder, which must not exist.
    name : str
        Name of the catalogue in LSDB.
    rows : int
        Rows of a partition at most; the smallest are 3.4 arcmin wide.

    Raises
    ------
    `~jaisp.exceptions.MissingDependencyError`
        If ``lsdb`` is not installed.
    `~jaisp.exceptions.FileError`
        If the folder exists, or cannot be written: then nothing of it is left.
    """
    lsdb = _need("lsdb", "hats")
    path = Path(path)
    if path.exists():
        raise FileError(f"cannot write {str(path)!r}: it exists; choose another name")
    if not re.fullmatch(r"[\w-]+", name):
        raise ConfigError(f"name={name!r} is no name for LSDB; allowed: letters, digits, '_' and '-'")
    if not len(table):
        raise ConfigError("the catalogue has no objects, and HATS has no place for none")
    refuse_taken_names(table)
    flat = split_coordinates(table)
    units = {column: str(flat[column].unit) for column in flat.colnames if flat[column].unit is not None}
    options = {"ra_column": "ra", "dec_column": "dec", "catalog_name": name, "highest_order": _FINEST}
    try:
        catalog = lsdb.from_dataframe(_frame(flat), partition_rows=rows, **options)
    except ValueError as error:
        raise ConfigError(f"rows={rows} is too few for a partition: {error}") from None
    record = json.dumps({"units": units, "meta": plain(dict(flat.meta))})
    try:
        with whole_folder(path, "hats.properties") as partial:
            catalog.write_catalog(
                partial, catalog_name=name, addl_hats_properties={"jaisp_record": record}, progress_bar=False
            )
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def _frame(flat):
    """The table as a frame of Arrow columns: what is masked is null, vectors are lists."""
    pandas, pyarrow = _need("pandas", "hats"), _need("pyarrow", "hats")
    columns = {}
    for name in flat.colnames:
        data = np.ma.getdata(flat[name])
        data = data.astype(data.dtype.newbyteorder("="))
        if data.ndim == 2:
            width = data.shape[1]
            array = pyarrow.ListArray.from_arrays(
                np.arange(len(data) + 1) * width, pyarrow.array(data.ravel())
            )
        else:
            array = pyarrow.array(data, mask=np.ma.getmaskarray(flat[name]), from_pandas=False)
        columns[name] = pandas.Series(array, dtype=pandas.ArrowDtype(array.type))
    return pandas.DataFrame(columns)


def read_hats(path):
    """
    Read a whole catalogue that `write_hats` wrote, in order of ``id``.

    Returns
    -------
    `~astropy.table.QTable`
    """
    lsdb = _need("lsdb", "hats")
    if not Path(path).is_dir():
        raise FileError(f"HATS catalogue {str(path)!r} does not exist")
    catalog = lsdb.open_catalog(path)
    frame = catalog.compute()
    stored = catalog.hc_structure.catalog_info.extra_dict().get("jaisp_record")
    record = json.loads(stored) if stored else {"units": {}, "meta": {}}
    flat = Table(meta=record["meta"])
    for name in frame.columns:
        array = frame[name].array
        if str(frame[name].dtype).startswith("list"):
            flat[name] = np.stack(frame[name].to_numpy())
            continue
        mask = np.asarray(array.isna())
        data = frame[name].fillna(0).to_numpy() if mask.any() else frame[name].to_numpy()
        flat[name] = np.ma.array(data, mask=mask)
        flat[name].unit = record["units"].get(name)
    flat.sort("id")
    return unite_coordinates(flat)
