# Licensed under a 3-clause BSD style license - see LICENSE
"""From planes of FITS files to a `~jaisp.image.SurveyImage`: what both readers share."""

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from jaisp.exceptions import BandError, ImageError, JaispError, JaispWarning, WCSError
from jaisp.image import SurveyImage, centre_psf
from jaisp.image.inputs import grid_shift, header_wcs
from jaisp.io._calibration import uncertainty_factor, zero_point_factor
from jaisp.io._fits import find_planes, open_fits, plane_wcs
from jaisp.io._psf_file import read_psf
from jaisp.io._resolve import resolve_bands
from jaisp.surveys import get_survey

_SENTINEL = 1e20
_MOST_FLAGGED = 0.5
_ANOTHER_PLACE = 0.5  # pixels

__all__ = ["Rules", "read_survey"]


@dataclass
class Rules:
    """
    What differs between the readers, as functions; what they assume they append to ``notes``, which become
    warnings.

    Parameters
    ----------
    companions : callable
        ``companions(plane)``: paths of files that may belong to a plane, the likeliest first, by kind
        (``rms``, ``mask``, ``psf``).
    default_factor : callable
        ``default_factor(plane, notes)``: factor to nJy of a file that states no zero point, and a word on it.
    bad_bits : callable
        ``bad_bits(bits, header, plane, notes)``: bool array from integer mask bits.
    assume_bands : callable
        ``assume_bands(planes, notes)``: bands of a cube that says none, or None.
    spare_flags : callable
        ``spare_flags(plane)``: whether flags that mark most of an image are disbelieved.
    """

    companions: callable
    default_factor: callable
    bad_bits: callable
    assume_bands: callable
    spare_flags: callable


def read_survey(files, survey, rules, *, bands=None, psf=None, zero_point=None):
    """Read ``(path, bands named)`` pairs of one survey; `~jaisp.io.read_rubin` tells the other parameters."""
    survey = get_survey(survey)
    planes, notes = [], []
    for path, asked in files:
        with open_fits(path) as hdus:
            planes += find_planes(hdus, path, asked, notes)
    for order, plane in enumerate(planes):
        plane.order = order
    if bands is None and all(plane.asked is None for plane in planes):
        bands = rules.assume_bands(planes, notes)
    planes = resolve_bands(planes, survey, bands)
    planes = {band: planes[band] for band in survey.band_names if band in planes}
    zero_points = _by_band(zero_point, planes, "zero_point")
    psfs = _given_psfs(psf, planes)
    parts = {name: {} for name in ("data", "variance", "mask", "psf", "calibration")}
    wcs = {}
    loaded = {
        band: _load(plane, rules, zero_points[band], psfs.get(band), notes) for band, plane in planes.items()
    }
    planes = _with_pixels(planes, loaded, notes)
    for band in planes:
        values = loaded.pop(band)
        wcs[band] = values.pop("wcs")
        _check_grid(planes, band, values["data"].shape, wcs, parts["data"])
        for name, value in values.items():
            if value is not None:
                parts[name][band] = value
    meta = {
        "files": {band: plane.path for band, plane in planes.items()},
        "filters": {
            band: str(plane.label or plane.get("FILTER") or plane.get("BAND") or band)
            for band, plane in planes.items()
        },
        "calibration": parts.pop("calibration"),
    }
    for note in dict.fromkeys(notes):
        warnings.warn(note, JaispWarning, stacklevel=3)
    data = parts.pop("data")
    return SurveyImage(data, next(iter(wcs.values())), survey=survey, meta=meta, copy=False, **parts)


def _by_band(value, planes, what):
    """Spread a keyword given once, or as a mapping by band, over the bands."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(planes, value)
    for band in value:
        if band not in planes:
            raise BandError(f"{what} given for band {band!r}, which is not read; bands: {', '.join(planes)}")
    return {band: value.get(band) for band in planes}


def _load(plane, rules, zero_point, psf, notes):
    """Read one band: pixels in nJy, variance, mask, PSF and WCS."""
    companions = rules.companions(plane)
    with open_fits(plane.path) as hdus:
        plane.wcs = wcs = plane_wcs(plane, hdus)
        factor, source = zero_point_factor(plane, hdus, notes, given=zero_point)
        if factor is None:
            factor, source = rules.default_factor(plane, notes)
        data = _pixels(hdus, plane, "image")
        variance = None
        for kind in ("variance", "rms", "weight"):
            values, header = _beside(hdus, plane, kind, companions, data.shape)
            if values is not None:
                own = factor if zero_point is not None else uncertainty_factor(header, kind, plane, factor)
                variance = _to_variance(values, kind, own)
                break
        bits, header = _beside(hdus, plane, "mask", companions, data.shape)
        if psf is None and "psf" in plane.hdus:
            psf = read_psf(hdus, plane, wcs, data.shape, number=plane.hdus["psf"])
    if isinstance(psf, (str, os.PathLike)):
        with open_fits(os.fspath(psf)) as hdus:
            psf = read_psf(hdus, plane, wcs, data.shape)
    elif psf is None and "psf" in companions:
        psf = _found_psf(companions["psf"][0], plane, wcs, data.shape, notes)
    # Double precision ends here: in other units the numbers may be too small for single.
    with np.errstate(over="ignore"):  # what is too large is masked
        data = np.multiply(data, factor, out=data).astype(np.float32, copy=False)
    mask = None
    if bits is not None:
        if bits.dtype.kind == "f":
            bits = np.nan_to_num(bits).astype(np.int64)
        mask = rules.bad_bits(bits, header, plane, notes)
        if rules.spare_flags(plane):
            mask = _spare(plane, mask, data, variance, notes)
    return {"data": data, "variance": variance, "mask": mask, "psf": psf, "wcs": wcs, "calibration": source}


def _with_pixels(planes, loaded, notes):
    """Leave out bands without a usable pixel, with a note; of none that has one `SurveyImage` tells why."""
    usable = {band: plane for band, plane in planes.items() if _any_usable(**loaded[band])}
    if not usable:
        return planes
    notes += [
        f"{plane}: band {band} has no usable pixel; left out"
        for band, plane in planes.items()
        if band not in usable
    ]
    return usable


def _any_usable(data, variance, mask, **_):
    usable = np.isfinite(data) & (data != 0)
    if variance is not None:
        usable &= (variance > 0) & (variance < _SENTINEL)
    if mask is not None:
        usable &= ~mask
    return usable.any()


def _found_psf(path, plane, wcs, shape, notes):
    """PSF of a file that was found beside the image, or None, with a note, if it cannot be used."""
    try:
        with open_fits(path) as hdus:
            psf = read_psf(hdus, plane, wcs, shape)
        centre_psf(psf, where=path)
    except JaispError as error:
        notes.append(f"{plane}: the PSF file found beside it is not used ({error}); give psf=")
        return None
    return psf


def _pixels(hdus, plane, kind):
    """Pixels of one kind as a native copy, of floats but for the integers of masks; FITS is big-endian."""
    array = hdus[plane.hdus[kind]].data
    array = np.squeeze(array) if array.ndim > 3 else array
    if array.ndim == 3:
        array = array[plane.index if plane.index is not None and array.shape[0] == plane.count else 0]
    if array.dtype.kind in "iub" and kind == "mask":
        return array.astype(array.dtype.newbyteorder("="))
    return np.array(array, dtype=float if array.dtype.itemsize == 8 else np.float32)


def _beside(hdus, plane, kind, companions, shape):
    """Pixels of another plane of the same band and their header, from its HDU or from a companion file."""
    if kind in plane.hdus:
        array = _pixels(hdus, plane, kind)
        if array.shape != shape:
            raise ImageError(f"{plane}: {_other_shape(kind, plane, array.shape, shape)}")
        return array, hdus[plane.hdus[kind]].header
    problems = []
    for where in companions.get(kind, ()):
        with open_fits(where) as others:
            number = next(
                (i for i, hdu in enumerate(others) if hdu.header.get("NAXIS") == 2 and hdu.is_image), None
            )
            if (problem := _misfit(others, number, kind, plane, shape)) is None:
                other = type(plane)(where, None, {kind: number}, [others[number].header])
                return _pixels(others, other, kind), others[number].header.copy()
            problems.append(f"{where}: {problem}")
    if problems:
        raise ImageError(problems[0])
    return None, None


def _misfit(hdus, number, kind, plane, shape):
    """What tells that an image in a companion file is not of a plane, or None."""
    if number is None:
        return "holds no image"
    hdu = hdus[number]
    if hdu.shape != shape:
        return _other_shape(kind, plane, hdu.shape, shape)
    try:
        wcs = header_wcs(hdu.header, hdus.filename(), hdus)
    except WCSError:
        wcs = None  # it is not needed
    if wcs is not None and not (shift := grid_shift(plane.wcs, wcs, shape)) <= _ANOTHER_PLACE:
        return f"{kind} of band {plane.band} lies {shift:.3g} px off its image; put that of the image there"
    return None


def _other_shape(kind, plane, shape, image):
    return f"{kind} of band {plane.band} has shape {shape}, its image {image}"


def _to_variance(values, kind, factor):
    """Variance in nJy2 from what the file holds; what cannot be one becomes infinite or NaN, to be masked."""
    with np.errstate(all="ignore"):
        if kind == "rms":
            # A negative RMS is no RMS, though its square would do.
            variance = np.where(values > 0, (values * factor) ** 2, np.float32(np.nan))
        elif kind == "weight":
            variance = factor**2 / np.where(values > 0, values, np.float32(0))
        else:
            variance = values * factor**2
    return variance.astype(np.float32, copy=False)


def _spare(plane, mask, data, variance, notes):
    """
    Leave out a mask that would hide most of an image where the data are there.

    Flags of stacked exposures are combined by OR: one bad exposure marks a pixel of which four others are
    good.
    """
    there = np.isfinite(data) & (data != 0)
    if variance is not None:
        there &= np.isfinite(variance) & (variance > 0) & (variance < _SENTINEL)
    hidden = np.count_nonzero(mask & there) / max(np.count_nonzero(there), 1)
    if hidden <= _MOST_FLAGGED:
        return mask
    notes.append(
        f"{plane}: flags mark {hidden:.0%} of the {plane.band} pixels with data as bad; they are not used"
    )
    return None


def _check_grid(planes, band, shape, wcs, loaded):
    """Refuse a band that does not lie on the grid of the first, naming both files."""
    first = next(iter(wcs))
    if band == first:
        return
    one, other = planes[first], planes[band]
    if shape != loaded[first].shape:
        raise ImageError(
            f"{other}: band {band} has shape {shape}, band {first} of {one} has {loaded[first].shape}; "
            "all bands of one survey must lie on one grid: reproject them first"
        )
    shift = grid_shift(wcs[first], wcs[band], shape)
    if not shift <= 0.05:
        raise ImageError(
            f"{other}: the WCS of band {band} differs from that of band {first} in {one} by {shift:.3g} px; "
            "all bands of one survey must lie on one grid: reproject them first"
        )


def _given_psfs(psf, planes):
    """PSFs by band from the keyword: a path, an array or an HDU, one for each band in order or by band."""
    if psf is None:
        return {}
    if isinstance(psf, Mapping):
        return _by_band(psf, planes, "psf")
    if isinstance(psf, (str, os.PathLike)) or getattr(psf, "ndim", None) == 2 or hasattr(psf, "header"):
        return dict.fromkeys(planes, psf)
    if not isinstance(psf, Iterable):
        raise ImageError(f"psf is a {type(psf).__name__}; give a path, an array or an HDU for each band")
    psf = list(psf)
    if len(psf) != len(planes):
        raise BandError(f"psf holds {len(psf)} PSFs for {len(planes)} bands: {', '.join(planes)}")
    # In the order of the files, not of the bands.
    return dict(zip(sorted(planes, key=lambda band: planes[band].order), psf, strict=True))
