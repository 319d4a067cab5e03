# Licensed under a 3-clause BSD style license - see LICENSE
"""FITS files of either survey: opening them, and finding the images in them with what lies beside."""

import contextlib
import os
import re
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from astropy.io import fits
from astropy.wcs import WCS

from jaisp.exceptions import BandError, FileError, ImageError, JaispError, WCSError
from jaisp.image._inputs import header_wcs
from jaisp.io._bands import BAND_KEYS, band_of_label, survey_of_label

__all__ = ["Plane", "find_planes", "open_fits", "plane_wcs", "split_prefix"]

_KINDS = {
    "image": ("FLUX", "SCI", "SCIENCE", "IMAGE", "BGSUB", "DATA"),
    "variance": ("VARIANCE", "VAR"),
    "rms": ("RMS", "ERR", "ERROR", "SIGMA", "STD", "STDDEV", "UNCERT", "UNCERTAINTY"),
    "weight": ("WEIGHT", "WEIGHTS", "WHT", "WGT", "IVAR", "IVM", "INVVAR", "INVVARIANCE"),
    "mask": ("MASK", "MSK", "FLAG", "FLAGS", "FLG", "DQ", "BPM", "BADPIX", "QUALITY"),
    "psf": ("PSF", "PSFIMAGE", "PSF_MODEL"),
}
# What the UNCERT of a CCDData that was written holds, by its UTYPE; else standard deviations.
_UNCERTAINTIES = {"VarianceUncertainty": "variance", "InverseVariance": "weight"}
_DISTORTIONS = ("WCSDVARR", "D2IMARR")  # tables that belong to the WCS
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
# The shortest band, even none: PSF_IMAGE is a PSF, not the image of a band PSF; FLUX_ERR is of no band FLUX.
_PLANE_NAME = re.compile(
    rf"^(?:(?P<band>.+?)[-_. ])??(?:(?:{'|'.join(_KINDS['image'])})[-_. ])?"
    rf"(?P<kind>{'|'.join(_KIND_OF)})(?:[-_. ](?:IMAGE|DATA|MAP))?$",
    re.IGNORECASE,
)
_PLANE_OF_BAND = re.compile(rf"^(?P<kind>{'|'.join(_KIND_OF)})[-_. ](?P<band>.+)$", re.IGNORECASE)


@dataclass(eq=False)
class Plane:
    """
    One band's image in a file, and what lies beside it.

    Parameters
    ----------
    path : str
        File.
    label : str or None
        Name of the band as the HDU names say it; of several images that have no such names, as their own
        headers do.
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
    wcs : `~astropy.wcs.WCS` or None
        Celestial WCS, once the image is read.
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
    wcs: WCS | None = None

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
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            # Without memmap=True, which refuses scaled integers: astropy maps what can be mapped by itself.
            hdus = fits.open(path, lazy_load_hdus=False)
    except PermissionError:
        raise FileError(f"{path}: no permission to read it") from None
    except (OSError, ValueError, TypeError, KeyError, EOFError, zlib.error) as error:
        what = "truncated" if "truncated" in str(error).lower() else "not a readable FITS file"
        said = _one_line(error).split(". ")[0]
        raise FileError(f"{path}: {what} ({said}); give a FITS file, or copy or download it again") from None
    try:
        with hdus:
            doubts = any(re.search("truncated|corrupted", str(warning.message)) for warning in caught)
            if doubts or _ends_early(hdus):
                raise FileError(f"{path}: the file is truncated or corrupted; copy or download it again")
            yield hdus
    except JaispError:
        raise
    except (OSError, ValueError, TypeError, EOFError, zlib.error) as error:
        raise FileError(f"{path}: cannot be read to its end ({_one_line(error)})") from None


def _ends_early(hdus):
    """Tell whether a compressed file is cut off: astropy takes the HDUs that are whole for all there are."""
    file = hdus.fileinfo(0)["file"]
    try:
        # From where opening it has stopped, which is the end of a file that is whole.
        while file.compression and file.read(1 << 20):
            pass
    except (OSError, EOFError, zlib.error):
        return True
    return False


def _one_line(error):
    return " ".join(str(error).split())[:120] or type(error).__name__


def split_prefix(name):
    """Split ``"VIS=file.fits"`` into bands and file; the bands are None where no such prefix is given."""
    text = os.fspath(name)
    prefix, mark, rest = text.partition("=")
    if mark and rest and not Path(text).exists() and "/" not in prefix and "." not in prefix:
        return [word for word in prefix.split(",") if word], rest
    return None, text


def find_planes(hdus, path, asked=None, notes=None):
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
    notes : list of str, optional
        To append what the user should know.

    Returns
    -------
    list of Plane
    """
    primary = hdus[0].header
    planes = []
    groups = _groups(hdus)
    for label, kinds in groups:
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
    left = _left_over(hdus, groups)
    if left and notes is not None:
        names = ", ".join(f"{number} ({hdus[number].name or 'unnamed'})" for number in left)
        notes.append(
            f"{path}: not used, as nothing tells what it is or of which image: HDU {names}; "
            "names that tell: <BAND>_RMS, _VARIANCE, _WEIGHT, _MASK, _PSF"
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


def _sizes(hdus):
    """Size of each HDU that holds an image, by its number."""
    sizes = {}
    for number, hdu in enumerate(hdus):
        if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)):
            axes = [hdu.header.get(f"NAXIS{axis}", 0) for axis in range(1, hdu.header.get("NAXIS", 0) + 1)]
            if len(axes) >= 2 and all(axes):
                sizes[number] = tuple(axes[:2])
    return sizes


def _groups(hdus):
    """List the images of a file, each as its label and, by kind, the HDUs that belong to it."""
    groups, loose, seen = {}, [], Counter()
    for number in _sizes(hdus):
        hdu = hdus[number]
        label, kind = _name_of(hdu)
        if kind is None:
            loose.append(number)
            continue
        # A name that comes again, as a rule with another EXTVER, is of another image.
        name = (label, kind, hdu.name, hdu.ver)
        groups.setdefault((label, hdu.ver, seen[name]), {}).setdefault(kind, number)
        seen[name] += 1
    vague = {key: groups[key] for key in _images(groups) if key[0] and not survey_of_label(key[0])}
    # Without a name, and without a WCS beside an image that has it, it is a preview or a PSF.
    loose = [number for number in loose if "CTYPE1" in hdus[number].header] or ([] if vague else loose)
    if loose and len(vague) == len(_images(groups)):
        groups = {key: kinds for key, kinds in groups.items() if key not in vague}
        # Images without a name: PRIMARY, as a rule, with named planes beside it, or one for each band.
        bands = {}
        for number in loose:
            if band := _own_band(hdus[number]):
                bands.setdefault(band, number)
        if len(bands) > 1:
            for band, number in bands.items():
                groups.setdefault((band, 1, 0), {})["image"] = number
        else:
            only = next(iter(groups)) if len(groups) == 1 else (None, 1, 0)
            groups.setdefault(only, {})["image"] = loose[0]
    # MODEL_IMAGE or BKG_FLUX, whose name tells no band, is none beside an image of that band.
    known = {_band_of(hdus, key[0], groups[key]) for key in _images(groups) if key not in vague}
    for key, kinds in vague.items():
        groups.pop(key, None)
        if _band_of(hdus, None, kinds) not in known:
            groups[key] = kinds
    _join(hdus, groups)
    found = [(key[0], groups[key]) for key in _images(groups)]
    nameless = [kinds for label, kinds in found if label is None]
    if len(nameless) > 1:
        named = [(_own_band(hdus[kinds["image"]]), kinds) for kinds in nameless]
        if not any(band for band, _ in named):
            named = named[:1]  # of several that do not say their bands the first counts
        found = [(label, kinds) for label, kinds in found if label is not None] + named
    return found


def _images(groups):
    return [key for key, kinds in groups.items() if "image" in kinds]


def _band_of(hdus, label, kinds):
    """Band of an image by its label, its own header or PRIMARY, in lower case as names of HDUs have none."""
    labels = (label, _own_band(hdus[kinds["image"]]), _own_band(hdus[0]))
    return next((band for each in labels if each and (band := _lower_band(each))), None)


def _lower_band(label):
    survey = survey_of_label(label)
    return band_of_label(label, survey).lower() if survey else None


def _join(hdus, groups):
    """Join planes that stand without an image to the one that they belong to."""
    images = _images(groups)
    bands = {key: _band_of(hdus, key[0], groups[key]) for key in images}
    apart = {key: kinds for key, kinds in groups.items() if "image" not in kinds}
    for (label, *_), kinds in apart.items():
        # Planes that name no band, or count otherwise, belong to the one image that there is.
        possible = [key for key in images if label in (None, key[0])]
        if not possible and (band := _lower_band(label)):
            possible = [key for key in images if bands[key] in (None, band)]
        if len(possible) == 1:
            groups[possible[0]] = {**kinds, **groups[possible[0]]}
    if len(images) > 1:
        nameless = [kinds for (label, *_), kinds in apart.items() if label is None]
        for key, kinds in _after({key: groups[key]["image"] for key in images}, nameless).items():
            groups[key] = {**kinds, **groups[key]}


def _after(images, planes):
    """Planes that name no band, by the image they come after; none unless all images have the same kinds."""
    found = {key: {} for key in images}
    for number, kind in sorted((number, kind) for kinds in planes for kind, number in kinds.items()):
        before = max((key for key in images if images[key] < number), key=images.get, default=None)
        if before is None or kind in found[before]:
            return {}
        found[before][kind] = number
    return found if len({frozenset(kinds) for kinds in found.values()}) == 1 else {}


def _left_over(hdus, groups):
    """HDUs that look like planes of an image, by name or size, and of which nothing tells whose they are."""
    used = {number for _, kinds in groups for number in kinds.values()}
    sizes = _sizes(hdus)
    sizes_of_images = {sizes[kinds["image"]] for _, kinds in groups}
    left = []
    for number, size in sizes.items():
        name = hdus[number].name.upper()
        # A path, as NOISE_REALIZATIONS/0, is a part of an archive of the LSST pipelines, no such plane.
        if number in used or "/" in name or name in _DISTORTIONS:
            continue
        if size in sizes_of_images or not _KIND_OF.keys().isdisjoint(re.split("[-_. ]", name)):
            left.append(number)
    return left


def _own_band(hdu):
    """Filter name of a survey that an HDU's own header tells, or None."""
    values = (str(hdu.header.get(key, "")).strip() for key in BAND_KEYS)
    return next((value for value in values if value and survey_of_label(value)), None)


def _name_of(hdu):
    """Band label and kind of plane that the name of an HDU tells; kind None if it has no telling name."""
    header = hdu.header
    for key in ("EXTNAME", "EXTTYPE"):
        name = str(header.get(key, "")).strip()
        if name == "COMPRESSED_IMAGE":
            continue
        if match := _PLANE_NAME.match(name):
            kind = _KIND_OF[match["kind"].upper()]
            return match["band"], _UNCERTAINTIES.get(header.get("UTYPE"), kind) if kind == "rms" else kind
        if (match := _PLANE_OF_BAND.match(name)) and survey_of_label(match["band"]):
            return match["band"], _KIND_OF[match["kind"].upper()]
        if name and survey_of_label(name):
            return name, "image"
    return None, None


def plane_wcs(plane, hdus):
    """Celestial WCS of a plane, from the header of its image or of PRIMARY."""
    for header in plane.headers:
        if (wcs := header_wcs(header, str(plane), hdus)) is not None:
            return wcs
    raise WCSError(
        f"{plane}: no celestial WCS in its header; it needs CTYPE1, CTYPE2 like RA---TAN, DEC--TAN"
    )
