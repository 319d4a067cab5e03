# Licensed under a 3-clause BSD style license - see LICENSE
"""Reading FITS files of either survey: opening, finding a band's planes, calibrating them to nJy."""

import contextlib
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS, FITSFixedWarning

from jaisp.exceptions import BandError, FileError, ImageError, WCSError
from jaisp.io._bands import band_of_file, band_of_label, survey_of_label

__all__ = [
    "Plane",
    "find_planes",
    "header_wcs",
    "open_fits",
    "resolve_bands",
    "split_prefix",
    "zero_point_factor",
]

AB_ZERO_POINT = 31.4  # of 1 nJy
_KINDS = {
    "image": ("FLUX", "SCI", "SCIENCE", "IMAGE", "BGSUB", "DATA"),
    "variance": ("VARIANCE", "VAR"),
    "rms": ("RMS", "ERR", "ERROR", "SIGMA"),
    "weight": ("WEIGHT", "IVAR"),
    "mask": ("MASK", "FLAG", "FLAGS", "FLG", "DQ"),
    "psf": ("PSF",),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_PLANE_NAME = re.compile(rf"^(?:(?P<band>.+?)[-_. ])?(?P<kind>{'|'.join(_KIND_OF)})$", re.IGNORECASE)
_BAND_KEYS = (
    "BAND",
    "LSST BUTLER DATAID BAND",
    "FILTER",
    "LSST BUTLER DATAID PHYSICAL_FILTER",
    "FILTER1",
    "FILTER01",
)
_ZERO_POINT_KEYS = ("MAGZERO", "MAGZPT", "MAGZP", "ZEROPOINT", "ZEROPNT", "PHOTZP", "ABZP", "ZP")
_COUNTS = re.compile(
    r"^(adu|dn|counts?|ct|e-?|electrons?|photons?|ph|none|unknown|1)?([ /*.]*(s|sec|second)s?(\*\*-1|\^-1|-1)?)?$",
    re.IGNORECASE,
)
_FLUX_UNITS = {
    "nanojansky": "nJy",
    "njansky": "nJy",
    "microjansky": "uJy",
    "nanomaggy": "nmgy",
    "nanomaggies": "nmgy",
}


@dataclass(eq=False)
class Plane:
    """
    One band's image in a file, and what lies beside it.

    Parameters
    ----------
    path : str
        File.
    label : str or None
        Name of the band as the HDU names say it.
    hdus : dict
        Kind of plane (``image``, ``variance``, ``rms``, ``weight``, ``mask``, ``psf``) to HDU index.
    headers : list of `~astropy.io.fits.Header`
        Headers that describe it, the most particular first.
    index : int or None
        Plane of a cube.
    count : int
        Planes in that cube.
    asked : str or None
        Band that the user put in front of the name of a file that does not tell it.
    wanted : list of str or None
        Bands that the user put in front of the name of a file that does.
    band : str or None
        Band of the survey, once it is resolved.
    order : int
        Place among all the images given.
    """

    path: str
    label: str | None
    hdus: dict
    headers: list = field(repr=False)
    index: int | None = None
    count: int = 1
    asked: str | None = None
    wanted: list | None = None
    band: str | None = None
    order: int = 0

    def __str__(self):
        return f"{self.path}[{self.hdus['image']}]" if self.label else self.path

    def get(self, key):
        """Value of the first header that has ``key``, else None."""
        for header in self.headers:
            value = header.get(key)
            if value is not None and value != "":
                return value
        return None


@contextlib.contextmanager
def open_fits(path):
    """Open a FITS file for reading, turning what may go wrong into one-line errors."""
    if not Path(path).exists():
        raise FileError(f"{path}: no such file")
    if Path(path).is_dir():
        raise FileError(f"{path}: is a folder; give FITS files")
    hdus = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", message=".*truncated.*", category=AstropyUserWarning)
            hdus = fits.open(path, memmap=True, lazy_load_hdus=False)
    except AstropyUserWarning:
        raise FileError(f"{path}: the file is truncated; copy or download it again") from None
    except PermissionError:
        raise FileError(f"{path}: no permission to read it") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        what = "truncated" if "truncated" in str(error).lower() else "not a readable FITS file"
        raise FileError(f"{path}: {what} ({_one_line(error)})") from None
    try:
        with hdus:
            yield hdus
    except (OSError, ValueError, TypeError, EOFError) as error:
        if isinstance(error, (FileError, BandError, ImageError, WCSError)):
            raise
        raise FileError(f"{path}: cannot be read to its end ({_one_line(error)})") from None


def _one_line(error):
    return " ".join(str(error).split())[:120] or type(error).__name__


def split_prefix(name):
    """Split ``"VIS=file.fits"`` into bands and file; the bands are None where no such prefix is given."""
    text = os.fspath(name)
    prefix, mark, rest = text.partition("=")
    if mark and rest and not Path(text).exists() and "/" not in prefix and "." not in prefix:
        return [word for word in prefix.split(",") if word], rest
    return None, text


def find_planes(hdus, path, asked=None):
    """
    List the images of a file, each with its variance, mask and PSF.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        Open file.
    path : str
        Its name.
    asked : list of str, optional
        Bands that the user named for this file, in order.

    Returns
    -------
    list of Plane
    """
    groups, loose = {}, []
    for number, hdu in enumerate(hdus):
        if not isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)):
            continue
        axes = [hdu.header.get(f"NAXIS{axis}", 0) for axis in range(1, hdu.header.get("NAXIS", 0) + 1)]
        if len(axes) < 2 or not all(axes):
            continue
        label, kind = _name_of(hdu)
        if kind is None:
            loose.append(number)
        else:
            groups.setdefault(label, {}).setdefault(kind, number)
    if loose and not any("image" in kinds for kinds in groups.values()):
        # An image without a name: PRIMARY, as a rule, with named planes beside it that carry no band.
        labels = [label for label in groups if label is None]
        groups.setdefault(labels[0] if labels else None, {})["image"] = loose[0]
    primary = hdus[0].header
    planes = []
    for label, kinds in groups.items():
        if "image" not in kinds:
            continue
        hdu = hdus[kinds["image"]]
        headers = [hdu.header] if kinds["image"] == 0 else [hdu.header, primary]
        axes = [hdu.header[f"NAXIS{axis}"] for axis in range(hdu.header["NAXIS"], 0, -1)]
        while len(axes) > 2 and axes[0] == 1:
            axes = axes[1:]
        if len(axes) == 2:
            planes.append(Plane(path, label, kinds, headers))
        elif len(axes) == 3:
            planes += [Plane(path, label, kinds, headers, index, axes[0]) for index in range(axes[0])]
        else:
            raise ImageError(
                f"{path}: image has {len(axes)} dimensions; allowed: 2, or 3 for a cube of bands"
            )
    if not planes:
        names = ", ".join(hdu.name or "unnamed" for hdu in hdus)
        raise ImageError(
            f"{path}: holds no image (HDUs: {names}); give a file with IMAGE, SCI or <BAND>_FLUX HDUs"
        )
    if asked is not None:
        if all(plane.label is None for plane in planes):
            if len(asked) != len(planes):
                raise BandError(
                    f"{path}: {len(asked)} bands named for {len(planes)} images: {', '.join(asked)}"
                )
            for plane, band in zip(planes, asked, strict=True):
                plane.asked = band
        else:
            for plane in planes:
                plane.wanted = asked
    return planes


def _name_of(hdu):
    """Band label and kind of plane that the name of an HDU tells; kind None if it has no telling name."""
    header = hdu.header
    for key in ("EXTNAME", "EXTTYPE"):
        name = str(header.get(key, "")).strip()
        if match := _PLANE_NAME.match(name):
            return match["band"], _KIND_OF[match["kind"].upper()]
        if name and survey_of_label(name):
            return name, "image"
    return None, None


def resolve_bands(planes, survey, bands=None):
    """
    Find the band of every plane, and choose those that are wanted.

    Parameters
    ----------
    planes : list of Plane
        Images found in all files.
    survey : Survey
        Survey that is read.
    bands : sequence of str, optional
        Bands wanted, by the survey's name or as the file names them; or, where the files do not tell, the band of each
        image in order.

    Returns
    -------
    dict
        Band to plane.
    """
    bands = [bands] if isinstance(bands, str) else None if bands is None else list(bands)
    foreign = []
    for plane in planes:
        if plane.asked is not None:
            plane.band = survey.band(plane.asked).name
            continue
        labels = (
            [plane.label]
            if plane.label
            else [plane.get(key) for key in _BAND_KEYS]
            if plane.count == 1
            else []
        )
        labels = [label for label in labels if label]
        plane.band = next((band for label in labels if (band := band_of_label(label, survey))), None)
        if plane.band is None and (other := next(filter(None, map(survey_of_label, labels)), None)):
            foreign.append((plane, other))
        elif plane.band is None and not plane.label and plane.count == 1:
            plane.band = band_of_file(plane.path, survey)
    # An image with a name that is no band of either survey is passed over; one without any name must be resolved.
    strangers = [plane for plane, _ in foreign]
    unknown = [plane for plane in planes if plane.band is None and not plane.label and plane not in strangers]
    if unknown and bands is not None and len(bands) == len(planes):
        for plane, band in zip(planes, bands, strict=True):
            plane.band = survey.band(band).name
        bands = None
    elif unknown:
        _raise_unknown(unknown[0], survey)
    chosen = [plane for plane in planes if plane.band]
    if not chosen:
        if foreign:
            plane, other = foreign[0]
            raise BandError(
                f"{plane.path}: holds {other.label} band {plane.label or plane.get('FILTER') or plane.get('BAND')} "
                f"and no {survey.label} band; read it with read_{other.name}"
            )
        names = ", ".join(str(plane.label) for plane in planes)
        raise BandError(
            f"{planes[0].path}: no {survey.label} band among {names}; allowed: {', '.join(survey.band_names)}"
        )
    for wanted in [plane.wanted for plane in chosen if plane.wanted is not None]:
        own = [plane for plane in chosen if plane.wanted is wanted]
        kept = _select(own, survey, wanted)
        chosen = [plane for plane in chosen if plane.wanted is not wanted or plane in kept]
    if bands is not None:
        chosen = _select(chosen, survey, bands)
    resolved = {}
    for plane in chosen:
        if plane.band in resolved:
            first = resolved[plane.band]
            raise BandError(
                f"{survey.label} band {plane.band} given twice: {first} and {plane}; give it once, or choose with bands="
            )
        resolved[plane.band] = plane
    return resolved


def _select(planes, survey, bands):
    """Planes whose band or label is among ``bands``."""
    chosen = []
    for band in bands:
        by_label = [plane for plane in planes if plane.label and plane.label.lower() == str(band).lower()]
        found = by_label or [plane for plane in planes if plane.band == band]
        if not found:
            survey.band(band)
            held = ", ".join(dict.fromkeys(plane.band for plane in planes))
            raise BandError(f"band {band!r} is not in the {survey.label} files given; they hold {held}")
        chosen += found
    return chosen


def _raise_unknown(plane, survey):
    """Tell that the band of an image cannot be known, and how to say it."""
    names = ", ".join(survey.band_names)
    if plane.count > 1:
        raise BandError(
            f"{plane.path}: a cube of {plane.count} images does not say their bands; "
            f"give bands=[...] with {plane.count} of {names}"
        )
    said = next((f"; FILTER is {value!r}" for key in _BAND_KEYS if (value := plane.get(key))), "")
    raise BandError(
        f"{plane.path}: cannot tell its {survey.label} band from header or file name{said}; "
        f"give bands=[...] or {survey.band_names[0]}={Path(plane.path).name}; allowed: {names}"
    )


def header_wcs(plane):
    """
    Celestial WCS of a plane.

    Where a header has both CD and PC cards (as MER cutouts have), CD is what counts.
    """
    for header in plane.headers:
        if "CTYPE1" not in header:
            continue
        cards = header.copy(strip=False)
        if any(re.fullmatch(r"CD\d_\d", key) for key in cards):
            for key in [key for key in cards if re.fullmatch(r"PC\d_\d|CDELT\d|CROTA\d", key)]:
                del cards[key]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FITSFixedWarning)
                warnings.simplefilter("ignore", RuntimeWarning)
                wcs = WCS(cards)
        except Exception as error:  # noqa: BLE001 - wcslib raises many kinds
            raise WCSError(f"{plane}: its WCS cannot be read ({_one_line(error)})") from None
        if wcs.has_celestial:
            return wcs.celestial
    raise WCSError(
        f"{plane}: no celestial WCS in the image's header; it needs CTYPE1, CTYPE2 such as RA---TAN, DEC--TAN"
    )


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
        f"{plane}: unit {text!r} is not a flux density per pixel; allowed: nJy, uJy, Jy, AB, nanomaggy, or counts with a "
        "zero point (zero_point= or MAGZERO)"
    )
