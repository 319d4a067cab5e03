# Licensed under a 3-clause BSD style license - see LICENSE
"""From the numbers of an image to nJy: units and zero points, as objects and headers state them."""

import re
import warnings

import astropy.units as u
import numpy as np

from jaisp.exceptions import ImageError
from jaisp.surveys import AB_ZERO_POINT

__all__ = [
    "NJY",
    "checked_factor",
    "factor_of",
    "flux_factor",
    "header_factor",
    "number_card",
    "stated_counts",
    "to_njy",
    "zero_point_card",
]

NJY = u.nJy
_NANOMAGGY = 22.5
_ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "MAGZP", "ZEROPOINT", "ZEROPNT", "PHOTZP", "ABZP", "ZP")
_COUNTS = re.compile(
    r"^(adu|dn|counts?|cts?|cps|e-?|electrons?|photons?|ph|none|unknown|1)?"
    r"([ /*.]*(s|sec|second|pix|pixel)s?(\*\*-1|\^-1|-1)?){0,2}$",
    re.IGNORECASE,
)
_PER_SECOND = re.compile(r"^cps|[ /*.](s|sec|second)s?\b", re.IGNORECASE)
# As people write them; not mJy, which without its case may be MJy.
_SPELLINGS = {
    "jy": "Jy",
    "njy": "nJy",
    "ujy": "uJy",
    "nanojansky": "nJy",
    "njansky": "nJy",
    "nanojy": "nJy",
    "microjy": "uJy",
    "microjansky": "uJy",
    "nanomaggy": "nmgy",
    "nanomaggies": "nmgy",
    "nmgy": "nmgy",
}
_LARGEST_ZERO_POINT = 60
_ALLOWED = "flux density per pixel that converts to nJy (nJy, uJy, Jy, AB, ...)"
_ALLOWED_IN_FILES = "nJy, uJy, Jy, AB, nanomaggy, or counts with a zero point (zero_point= or MAGZERO)"


def factor_of(zero_point):
    """Factor to nJy from units of which one is of AB magnitude ``zero_point``."""
    return 10 ** ((AB_ZERO_POINT - float(zero_point)) / 2.5)


def checked_factor(zero_point, what):
    """`factor_of` what a user or a file gives as ``what``, refusing what is no AB magnitude."""
    try:
        number = float(zero_point)
    except (TypeError, ValueError):
        number = np.nan
    if not abs(number) <= _LARGEST_ZERO_POINT:
        limits = f"{-_LARGEST_ZERO_POINT} to {_LARGEST_ZERO_POINT}"
        raise ImageError(f"{what} is {zero_point!r}; allowed: an AB magnitude, {limits}")
    return factor_of(number)


def flux_factor(unit, power=1):
    """
    Factor to nJy of a unit that is one of flux density once it is raised to ``power``; None for others.

    "Per pixel" may be said or not.
    """
    scale = 1.0
    if isinstance(unit, str):
        word, rest = re.match(r"\s*([A-Za-z]*)(.*)", unit, re.DOTALL).groups()
        word = _SPELLINGS.get(word.lower(), word)
        if word == "nmgy":
            word, scale = "nJy", factor_of(_NANOMAGGY)
        unit = word + rest
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", u.UnitsWarning)
            unit = u.Unit(unit) ** power
    except (ValueError, TypeError):
        return None
    if isinstance(unit, u.UnitBase):  # magnitudes are none
        for per_pixel in (unit, unit * u.pix):
            if per_pixel.is_equivalent(NJY):
                return scale * per_pixel.to(NJY)
    return None


def to_njy(unit, where):
    """Return the factor from ``unit`` to nJy, or raise `~jaisp.exceptions.ImageError`."""
    factor = flux_factor(unit)
    if factor is not None:
        return factor
    hint = ""
    try:
        bases = u.Unit(unit).bases
        if u.sr.physical_type in {base.physical_type for base in bases}:
            hint = "; this is a surface brightness: multiply by the solid angle of a pixel first"
    except (ValueError, TypeError, AttributeError):
        pass
    raise ImageError(
        f"{where}: unit {str(unit)!r} is not a flux density; allowed: {_ALLOWED}{hint}"
    ) from None


def stated_counts(get):
    """What a header has as BUNIT if it says something, which is no flux density; else None."""
    unit = _unit_of(get)
    return None if unit.lower() in ("", "none", "unknown", "1") else unit


def header_factor(get, where):
    """
    Factor to nJy that the unit of a header states, or its flux of magnitude zero.

    Parameters
    ----------
    get : callable
        Value of a card, or None.
    where : str
        Name of the image, for messages.

    Returns
    -------
    factor : float or None
        None where the header states none, or counts, which need a zero point: see `zero_point_card`.
    source : str
        What told.
    """
    if unit := _unit_of(get):
        if (factor := flux_factor(unit)) is not None:
            return factor, f"BUNIT {unit}"
        if not _COUNTS.match(unit):
            raise ImageError(
                f"{where}: unit {unit!r} is not a flux density per pixel; allowed: {_ALLOWED_IN_FILES}"
            )
    if (flux := number_card(get, "FLUXMAG0", where)) is not None and flux > 0:
        return checked_factor(2.5 * float(np.log10(flux)), f"{where}: zero point by FLUXMAG0"), "FLUXMAG0"
    return None, ""


def zero_point_card(get, where):
    """Factor to nJy that the zero point of a header states, with the card that told, or ``(None, "")``."""
    for key in _ZERO_POINT_KEYS:
        if (value := number_card(get, key, where)) is not None:
            return checked_factor(value, f"{where}: {key} of its header"), key
    # As HST states it, of counts per second: erg/s/cm2/Angstrom of one, and the pivot wavelength in Angstrom.
    flam, plam = (number_card(get, key, where) or 0 for key in ("PHOTFLAM", "PHOTPLAM"))
    if flam > 0 and plam > 0 and ((unit := _unit_of(get)) == "" or _PER_SECOND.search(unit)):
        zero_point = float(-2.5 * np.log10(flam) - 5 * np.log10(plam)) - 2.408
        return checked_factor(zero_point, f"{where}: zero point by PHOTFLAM and PHOTPLAM"), "PHOTFLAM"
    return None, ""


def _unit_of(get):
    unit = get("BUNIT")
    return unit.strip() if isinstance(unit, str) else ""


def number_card(get, key, where):
    """Return a card's number, also where it stands in quotes, or None if there is no such card."""
    value = get(key)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = np.nan
    if not np.isfinite(number):
        raise ImageError(f"{where}: {key} of its header is {value!r}; allowed: a number")
    return number
