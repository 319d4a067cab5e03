# Licensed under a 3-clause BSD style license - see LICENSE
"""Which image is which band, and which are wanted."""

import contextlib
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from jaisp.exceptions import BandError, JaispWarning
from jaisp.io._bands import BAND_KEYS, band_of_file, band_of_label, says_lower_y, survey_of_label
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["resolve_bands"]

# What cards of filters hold where they say none: words, or the number of a place in a wheel.
_NO_FILTER = re.compile(r"none|null|clear\w*|open|empty|unknown|n/?a|[^a-z]*", re.IGNORECASE)


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
        Bands wanted, by the survey's name or as the file names them; or, where the files do not tell, the
        band of each image in order, which those that tell must agree with.

    Returns
    -------
    dict
        Band to plane.
    """
    if bands is not None:
        given = bands
        bands = [bands] if isinstance(bands, str) else list(bands) if isinstance(bands, Iterable) else []
        if not bands:
            raise BandError(
                f"bands={given!r} names no band; allowed: a list of {', '.join(survey.band_names)}"
            )
    alone = Counter(plane.path for plane in planes)
    foreign = {}
    for plane in planes:
        if plane.asked is not None:
            plane.band = survey.band(plane.asked).name
            continue
        labels = _labels(plane)
        if labels[:1] == ["Y"] and _is_rubins(plane, planes, survey, bands):
            labels = ["y"]
        plane.band = next((band for label in labels if (band := band_of_label(label, survey))), None)
        if plane.band is None:
            said = next(((label, other) for label in labels if (other := survey_of_label(label))), None)
            if said:
                foreign[id(plane)] = said
            elif alone[plane.path] == 1 and not set(labels) - {plane.label}:
                # Of a name that could mean two bands the user who gives bands need not hear.
                with contextlib.suppress(BandError) if bands is not None else contextlib.nullcontext():
                    plane.band = band_of_file(plane.path, survey)
    for plane in planes:
        # The other survey's bands in a cutout are passed over; a whole file of them is a mistake.
        if id(plane) in foreign and not any(other.band for other in planes if other.path == plane.path):
            said, other = foreign[id(plane)]
            raise BandError(
                f"{plane.path}: holds {other.label} band {said} and no {survey.label} band; "
                f"read it with read_{other.name}"
                + (f", or if it is Rubin's y, give y={Path(plane.path).name}" if said == "Y" else "")
            )
    # So is an image whose name is no band of either survey; one without a name must be resolved.
    unknown = [
        plane
        for plane in planes
        if plane.band is None and id(plane) not in foreign and (not plane.label or alone[plane.path] == 1)
    ]
    inside = [plane for plane in planes if plane.band or plane in unknown]
    if unknown and bands is not None and len(bands) == len(inside):
        for plane, band in zip(inside, bands, strict=True):
            if plane in unknown:
                plane.band = survey.band(band).name
            elif str(band).lower() not in (plane.band.lower(), str(plane.label).lower()):
                raise BandError(
                    f"{plane}: is of band {plane.band}, but bands= has {band!r} in its place; give bands= in "
                    f"the order of the images, or {band}=FILE"
                )
        bands = None
    elif unknown:
        _raise_unknown(unknown[0], survey)
    chosen = [plane for plane in planes if plane.band]
    if not chosen:
        names = ", ".join(str(plane.label) for plane in planes)
        raise BandError(
            f"{planes[0].path}: no {survey.label} band among {names}; allowed: {', '.join(survey.band_names)}"
        )
    for path, wanted in {plane.path: plane.wanted for plane in chosen if plane.wanted}.items():
        kept = _select([plane for plane in chosen if plane.path == path], survey, wanted)
        chosen = [plane for plane in chosen if plane.path != path or plane in kept]
    if bands is not None:
        chosen = _select(chosen, survey, bands)
    resolved = {}
    for plane in chosen:
        if plane.band in resolved:
            first = resolved[plane.band]
            raise BandError(
                f"{survey.label} band {plane.band} given twice: {first} and {plane}; "
                "give it once, or choose with bands="
            )
        resolved[plane.band] = plane
    return resolved


def _labels(plane):
    """What a file says the band of an image is, the most particular first."""
    if plane.count > 1 and not plane.label:
        return []
    labels = [plane.label] if plane.label else []
    if not labels or survey_of_label(plane.label) is None:
        labels += _filters(plane)
    return labels


def _filters(plane):
    """What the headers of an image say its filter is."""
    values = [plane.get(key) for key in BAND_KEYS]
    return [value for value in values if value is not None and not _NO_FILTER.fullmatch(str(value).strip())]


def _is_rubins(plane, planes, survey, bands):
    """
    Whether an image named Y, which is NISP's by itself, is Rubin's y.

    Names of HDUs have no case: astropy writes ``Y`` for ``y``. The other images of the file tell, or the user
    who asks for ``y``.
    """
    labels = [label for other in planes if other.path == plane.path for label in _labels(other)[:1]]
    others = set(labels) - {"Y"}
    rubin, euclid = (any(band_of_label(label, one) for label in others) for one in (RUBIN, EUCLID))
    if rubin != euclid:
        return rubin
    if survey != RUBIN:
        return False
    wanted = plane.wanted if plane.wanted is not None else bands
    if wanted is not None:
        return "y" in wanted
    if not rubin:
        return says_lower_y(plane.path)
    held = ",".join(
        band for band in RUBIN.band_names if any(band_of_label(name, RUBIN) == band for name in others)
    )
    hint = f"for Rubin's y give {held},y={Path(plane.path).name}"
    if labels.count("Y") > 1:
        raise BandError(f"{plane}: more than one image is named Y; {hint}")
    # As in cutouts with ground bands.
    warnings.warn(JaispWarning(f"{plane}: is named Y, taken for NISP's; {hint}"), stacklevel=2)
    return False


def _select(planes, survey, bands):
    """Planes whose band or label is among ``bands``."""
    chosen = []
    for band in bands:
        by_label = [plane for plane in planes if plane.label and plane.label.lower() == str(band).lower()]
        found = by_label or [plane for plane in planes if plane.band == band]
        if not found:
            survey.band(band)
            held = ", ".join(dict.fromkeys(plane.band for plane in planes))
            raise BandError(
                f"band {band!r} is not in the {survey.label} files given; they hold {held}; "
                f"for a file whose name misleads give {band}=FILE"
            )
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
    said = next((f": FILTER is {value!r}" for value in _filters(plane)), " from header or file name")
    raise BandError(
        f"{plane.path}: cannot tell its {survey.label} band{said}; "
        f"give bands=[...] or {survey.band_names[0]}={Path(plane.path).name}; allowed: {names}"
    )
