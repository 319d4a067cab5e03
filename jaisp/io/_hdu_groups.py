# Licensed under a 3-clause BSD style license - see LICENSE
"""Which HDUs of a file belong together: the images in it, each with its variance, mask and PSF."""

import re
from collections import Counter

from astropy.io import fits

from jaisp.io._bands import BAND_KEYS, band_of_label, survey_of_label

__all__ = ["group_hdus", "left_over"]

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


def group_hdus(hdus):
    """
    List the images of a file.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        Open file.

    Returns
    -------
    list of (label, kinds)
        Name of the image's band as its HDUs say it, or None, and a dictionary from the kind of plane
        (``image``, ``variance``, ``rms``, ``weight``, ``mask``, ``psf``) to the number of the HDU.
    """
    groups, loose = _by_name(hdus)
    vague = {key: groups.pop(key) for key in _images(groups) if key[0] and not survey_of_label(key[0])}
    if not _images(groups):
        # Without a name, and without a WCS beside an image that has it, it is a preview or a PSF.
        with_wcs = [number for number in loose if "CTYPE1" in hdus[number].header]
        _add_loose(hdus, groups, with_wcs or ([] if vague else loose))
    # MODEL_IMAGE or BKG_FLUX, whose name tells no band, is none beside an image of that band.
    known = {_band_of(hdus, key[0], groups[key]) for key in _images(groups)}
    groups |= {key: kinds for key, kinds in vague.items() if _band_of(hdus, None, kinds) not in known}
    _join(hdus, groups)
    return _labelled(hdus, groups)


def left_over(hdus, groups):
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


def _sizes(hdus):
    """Size of each HDU that holds an image, by its number."""
    sizes = {}
    for number, hdu in enumerate(hdus):
        if isinstance(hdu, (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)):
            axes = [hdu.header.get(f"NAXIS{axis}", 0) for axis in range(1, hdu.header.get("NAXIS", 0) + 1)]
            if len(axes) >= 2 and all(axes):
                sizes[number] = tuple(axes[:2])
    return sizes


def _by_name(hdus):
    """Planes of which the name tells the kind, by what else it tells; and the HDUs without such a name."""
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
    return groups, loose


def _add_loose(hdus, groups, loose):
    """Add images without a name: PRIMARY, as a rule, with named planes beside it, or one for each band."""
    if not loose:
        return
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


def _labelled(hdus, groups):
    """Images by their labels, if need be those of their own headers."""
    found = [(key[0], groups[key]) for key in _images(groups)]
    nameless = [kinds for label, kinds in found if label is None]
    if len(nameless) < 2:
        return found
    named = [(_own_band(hdus[kinds["image"]]), kinds) for kinds in nameless]
    if not any(band for band, _ in named):
        named = named[:1]  # of several that do not say their bands the first counts
    return [(label, kinds) for label, kinds in found if label is not None] + named


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
