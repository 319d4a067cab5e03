# Licensed under a 3-clause BSD style license - see LICENSE
"""Columns of the catalogue: one registry makes the descriptions and UCDs of every file and of the guide."""

from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Column as PlainColumn
from astropy.table import MaskedColumn, QTable, Table
from astropy.utils.masked import Masked
from astropy.wcs import WCS

from jaisp.exceptions import ConfigError
from jaisp.surveys import EUCLID, RUBIN, column_prefix

__all__ = [
    "COLUMNS",
    "Column",
    "arcsec",
    "describe_columns",
    "refuse_taken_names",
    "split_coordinates",
    "stored_wcs",
    "unite_coordinates",
    "values",
    "with_nan",
]


@dataclass(frozen=True)
class Column:
    """
    One column of the catalogue.

    Parameters
    ----------
    name : str
        Name of the column.
    description : str
        What it holds, in one line.
    ucd : str
        Unified content descriptor (IVOA UCD1+), by which TOPCAT and other tools know what it is; ``""`` where
        there is none.
    masked : bool
        Whether it has no value where an object has none, as opposed to NaN or 0.
    unit : str
        Unit, ``""`` where there is none.
    """

    name: str
    description: str
    ucd: str = ""
    masked: bool = False
    unit: str = ""


# Regions of the spectrum as UCD1+ names them.
_SPECTRUM = {
    "u": "em.opt.U",
    "g": "em.opt.B",
    "r": "em.opt.R",
    "i": "em.opt.I",
    "z": "em.opt.I",
    "y": "em.opt.I",
    "VIS": "em.opt",
    "Y": "em.IR.NIR",
    "J": "em.IR.J",
    "H": "em.IR.H",
}


def _columns():
    yield Column("id", "number of the object, in order of its activity", "meta.id;meta.main")
    yield Column("sky_centroid", "position in the reference frame (ICRS)", "pos.eq;meta.main")
    yield Column(
        "ra_err", "1 sigma along right ascension, times cos(dec)", "stat.error;pos.eq.ra", unit="mas"
    )
    yield Column("dec_err", "1 sigma along declination", "stat.error;pos.eq.dec", unit="mas")
    yield Column(
        "x_centroid", "position on the reference image, 0-based", "pos.cartesian.x;instr.det", unit="pix"
    )
    yield Column(
        "y_centroid", "position on the reference image, 0-based", "pos.cartesian.y;instr.det", unit="pix"
    )
    yield Column("activity", "calibrated probability that the object is real", "stat.probability")
    for survey in (RUBIN, EUCLID):
        own = f"of the object's slot from {survey.label} alone"
        yield Column(f"{survey.name}_activity", f"activity {own}", "stat.probability")
        yield Column(f"{survey.name}_sky_centroid", f"position {own} (ICRS)", "pos.eq", True)
        yield Column(f"{survey.name}_slot", f"number {own} within its tile", "meta.id.part", True)
    yield Column("tile", "tile in which the object was found", "meta.id.part", True)
    yield Column(
        "match_similarity", "cosine of the embeddings of the two surveys' slots", "stat.correlation", True
    )
    yield Column("match_probability", "that the slots of both surveys are one object", "stat.probability")
    yield Column("separation", "between the slots of the two surveys", "pos.angDistance", True, unit="mas")
    for survey in (RUBIN, EUCLID):
        for band in survey.band_names:
            prefix, where = column_prefix(survey, band), _SPECTRUM[band]
            text = f"total deblended flux density in {survey.label} {band}"
            yield Column(
                f"{prefix}_flux",
                f"{text}, NaN where not measurable",
                f"phot.flux.density;{where}",
                unit="nJy",
            )
            yield Column(
                f"{prefix}_flux_err",
                f"1 sigma of the {text}",
                f"stat.error;phot.flux.density;{where}",
                unit="nJy",
            )
    yield Column(
        "half_light_radius", "intrinsic, of the circle of the same area", "phys.angSize;src", unit="arcsec"
    )
    yield Column(
        "semimajor_axis", "intrinsic, of the half-light ellipse", "phys.angSize.smajAxis", unit="arcsec"
    )
    yield Column(
        "semiminor_axis", "intrinsic, of the half-light ellipse", "phys.angSize.sminAxis", unit="arcsec"
    )
    yield Column(
        "orientation",
        "of the major axis, from +x of the reference image towards +y",
        "pos.posAng",
        unit="deg",
    )
    yield Column("bulge_fraction", "share of a de Vaucouleurs profile, the rest is a disc", "")
    yield Column(
        "sersic_index",
        "Sersic index of the disc; 1 (exponential) where it cannot be told, and for points",
        "",
    )
    yield Column("star_probability", "that the object is a point source", "src.class.starGalaxy")
    yield Column("blend_id", "group of objects whose light overlaps", "meta.id.assoc")
    yield Column("n_blended", "number of objects in the group", "meta.number;src")
    yield Column(
        "rubin_blended_fraction",
        "share of the light at the object's place in Rubin that is its neighbours'",
        "",
    )
    yield Column("rubin_unrecognized_blend", "one Rubin slot faces several Euclid objects", "meta.code")
    yield Column("embedding", "place on the manifold of objects, a unit vector", "")
    yield Column("flags", "sum of the bits of jaisp.catalog.FLAGS", "meta.code.qual")


#: Every column, in the order of the catalogue.
COLUMNS = tuple(_columns())
_BY_NAME = {column.name: column for column in COLUMNS}
_COORDINATES = [name for name in _BY_NAME if name.endswith("sky_centroid")]
_AXES = {"ra": ("right ascension", "pos.eq.ra"), "dec": ("declination", "pos.eq.dec")}


def describe_columns(table):
    """Give the columns of a catalogue their ``info.description`` and ``info.meta["ucd"]``, in place."""
    for name in set(table.colnames) & set(_BY_NAME):
        info, column = table[name].info, _BY_NAME[name]
        info.description = column.description
        if column.ucd:
            info.meta = {**(info.meta or {}), "ucd": column.ucd}


def refuse_taken_names(table):
    """Refuse a table with a column of a name that `split_coordinates` gives to one of its coordinates."""
    for name in table.colnames:
        for axis in _AXES if isinstance(table[name], SkyCoord) else ():
            taken = f"{name.removesuffix('sky_centroid')}{axis}"
            if taken in table.colnames:
                raise ConfigError(
                    f"the table has a column {taken!r}, as which {name} is to be written; rename it"
                )


def split_coordinates(table):
    """
    Return a plain table in which each column of coordinates is two columns of degrees.

    ``sky_centroid`` becomes ``ra`` and ``dec``, ``rubin_sky_centroid`` ``rubin_ra`` and ``rubin_dec``. Masks,
    units, descriptions and UCDs go along; `unite_coordinates` is the way back.
    """
    plain = Table(table[[name for name in table.colnames if not isinstance(table[name], SkyCoord)]])
    flat = Table(meta=table.meta)
    for name in table.colnames:
        if name in plain.colnames:
            flat[name] = plain[name]
            continue
        sky, prefix = table[name].icrs, name.removesuffix("sky_centroid")
        for axis, (word, ucd) in _AXES.items():
            column = _degrees(getattr(sky, axis))
            text = _BY_NAME[name].description if name in _BY_NAME else name
            column.description = f"{word}: {text}"
            column.meta["ucd"] = ucd if prefix else f"{ucd};meta.main"
            flat[f"{prefix}{axis}"] = column
    return flat


def _degrees(angle):
    if isinstance(angle, Masked):
        return MaskedColumn(angle.unmasked.to_value(u.deg), mask=angle.mask, unit=u.deg)
    return PlainColumn(angle.to_value(u.deg), unit=u.deg)


def unite_coordinates(flat):
    """
    Return the catalogue whose coordinates `split_coordinates` split, as a `~astropy.table.QTable`.

    Columns of another name, as ``gaia_ra``, stay as they are: they may be masked, or in another unit.
    """
    table = QTable(meta=flat.meta)
    of = {
        f"{name.removesuffix('sky_centroid')}{axis}": (name, axis) for name in _COORDINATES for axis in _AXES
    }
    for name in flat.colnames:
        whole, axis = of.get(name, ("", ""))
        prefix = whole.removesuffix("sky_centroid")
        if not whole or not all(f"{prefix}{part}" in flat.colnames for part in _AXES):
            table[name] = with_nan(flat[name], name)
        elif axis == "ra":
            ra, dec = (_angle(flat[f"{prefix}{part}"], _BY_NAME[whole]) for part in _AXES)
            table[whole] = SkyCoord(ra, dec, frame="icrs")
    describe_columns(table)
    return table


def _angle(column, known):
    values = np.asarray(np.ma.getdata(column), float)
    if not isinstance(column, MaskedColumn) or not known.masked:
        return values * u.deg
    return Masked(np.where(column.mask, 0, values) * u.deg, mask=column.mask)


def with_nan(column, name):
    """Give a column its NaN back where a format masks them, and a mask where it has one, and only there."""
    known = _BY_NAME.get(name)
    if known is not None and known.masked and isinstance(column, PlainColumn):
        return MaskedColumn(column)
    if known is None or known.masked or not isinstance(column, MaskedColumn):
        return column
    if column.dtype.kind == "f":
        return column.filled(np.nan)
    return column if np.any(column.mask) else PlainColumn(column)


def stored_wcs(table):
    """
    WCS of a catalogue's grid from its metadata, None where they have none.

    Raises
    ------
    ConfigError
        If the catalogue was joined from several, whose grids are mixed in its metadata.
    """
    grid = table.meta.get("grid")
    if not isinstance(grid, dict) or "wcs" not in grid:
        return None
    if len(grid.get("shape", (0, 0))) != 2:
        raise ConfigError(
            "this catalogue was joined from several, whose grids its metadata mix up; "
            "use the parts, or give the joined table metadata of its own"
        )
    return WCS(grid["wcs"])


def values(column, unit=None):
    """Return a column as a plain float array, NaN where masked."""
    mask = getattr(column, "mask", False)
    column = getattr(column, "unmasked", column)
    data = column.to_value(unit) if isinstance(column, u.Quantity) else np.ma.getdata(column)
    return np.where(mask, np.nan, np.asarray(data, float))


def arcsec(angle, name):
    """Return an angle, or a column of them, as plain floats in arcsec, NaN where masked."""
    # Columns of a plain Table are no Quantities, but have units too.
    unit = getattr(angle, "unit", None)
    try:
        factor = u.Unit(unit or "").to(u.arcsec)
    except u.UnitConversionError:
        given = f"in {str(unit)!r}" if str(unit or "") else "without a unit"
        raise ConfigError(f"{name} is {given}; allowed: an angle, e.g. in u.arcsec") from None
    return factor * values(angle, unit)
