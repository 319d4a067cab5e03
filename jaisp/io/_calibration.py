# Licensed under a 3-clause BSD style license - see LICENSE
"""From the numbers in a file to nJy: units and zero points."""

import re
import warnings

import astropy.units as u
import numpy as np
from astropy.io import fits

from jaisp.exceptions import ImageError
from jaisp.image._inputs import AB_ZERO_POINT

__all__ = ["factor_of", "stated_counts", "zero_point_factor"]

_ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "MAGZP", "ZEROPOINT", "ZEROPNT", "PHOTZP", "ABZP", "ZP")
_COUNTS = re.compile(
    r"^(adu|dn|counts?|ct|e-?|electrons?|photons?|ph|none|unknown|1)?"
    r"([ /*.]*(s|sec|second)s?(\*\*-1|\^-1|-1)?)?$",
    re.IGNORECASE,
)
_FLUX_UNITS = {
    "nanojansky": "nJy",
    "njansky": "nJy",
    "microjansky": "uJy",
    "nanomaggy": "nmgy",
    "nanomaggies": "nmgy",
}


def zero_point_factor(plane, hdus, *, given=None):
    """
    Factor from the units of a plane to nJy.

    Parameters
    ----------
    plane : Plane
        Image.
    hdus : `~astropy.io.fits.HDUList`
        Open file that holds it.
    given : float, optional
        AB zero point that the user gives; it counts before the header.

    Returns
    -------
    factor : float or None
        None where neither the user nor the file tells.
    source : str
        What told.
    """
    if given is not None:
        return factor_of(given), "zero_point"
    unit = plane.get("BUNIT")
    if unit is not None:
        factor = _unit_factor(str(unit), plane)
        if factor is not None:
            return factor, f"BUNIT {str(unit).strip()}"
    if (flux := plane.get("FLUXMAG0")) is not None and float(flux) > 0:
        return factor_of(2.5 * np.log10(float(flux))), "FLUXMAG0"
    for hdu in hdus:
        # Before MAGZERO, which in old HSC headers is for one second of exposure.
        if isinstance(hdu, fits.BinTableHDU) and "calibrationMean" in hdu.columns.names:
            return float(hdu.data["calibrationMean"][0]), "PhotoCalib"
    for key in _ZERO_POINT_KEYS:
        value = plane.get(key)
        if isinstance(value, (int, float)) and np.isfinite(value):
            return factor_of(value), key
    return None, ""


def factor_of(zero_point):
    """Factor to nJy from units of which one is of AB magnitude ``zero_point``."""
    return 10 ** ((AB_ZERO_POINT - float(zero_point)) / 2.5)


def stated_counts(plane):
    """BUNIT of a plane as the file has it if it says something, which can only be counts; else None."""
    unit = str(plane.get("BUNIT") or "").strip()
    return None if unit.lower() in ("", "none", "unknown", "1") else unit


def _unit_factor(text, plane):
    """Factor to nJy of a BUNIT, None for counts, which need a zero point."""
    text = text.strip()
    name = _FLUX_UNITS.get(text.lower(), text)
    if name == "nmgy":
        return factor_of(22.5)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", u.UnitsWarning)
            unit = u.Unit(name)
        return unit.to(u.nJy)
    except (ValueError, TypeError, u.UnitConversionError):
        pass
    if _COUNTS.match(text):
        return None
    raise ImageError(
        f"{plane}: unit {text!r} is not a flux density per pixel; allowed: nJy, uJy, Jy, AB, nanomaggy, "
        "or counts with a zero point (zero_point= or MAGZERO)"
    )
