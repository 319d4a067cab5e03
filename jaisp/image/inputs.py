# Licensed under a 3-clause BSD style license - see LICENSE
"""One parser for every kind of image that a user may bring: arrays, Quantity, NDData, HDUs."""

import re
import warnings
from dataclasses import dataclass

import astropy.units as u
import numpy as np
from astropy.io import fits
from astropy.nddata import NDData, VarianceUncertainty
from astropy.wcs import WCS, FITSFixedWarning
from astropy.wcs.utils import wcs_to_celestial_frame

from jaisp.exceptions import ImageError, WCSError
from jaisp.image.mask_bits import plane_mask
from jaisp.image.units import NJY, header_factor, stated_counts, to_njy, zero_point_card

__all__ = [
    "BandInput",
    "celestial_wcs",
    "check_frame",
    "grid_shift",
    "native",
    "parse_image",
    "parse_mask",
    "parse_psf",
    "parse_variance",
]

_IMAGE_HDUS = (fits.PrimaryHDU, fits.ImageHDU, fits.CompImageHDU)


@dataclass
class BandInput:
    """
    What one band's input held, in nJy, before anything was mended.

    ``factor`` made it so; ``doubt`` is what was found doubtful of its mask.
    """

    data: np.ndarray
    factor: float
    variance: np.ndarray | None = None
    mask: np.ndarray | None = None
    wcs: WCS | None = None
    psf: np.ndarray | None = None
    doubt: tuple | None = None


def native(array):
    """Return ``array`` in this machine's byte order (FITS arrays are big-endian)."""
    array = np.asarray(array)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def real_array(value, where):
    """Return ``value`` as a plain native array, refusing what is no image."""
    array = native(value)
    if array.dtype.kind not in "fiu":
        raise ImageError(f"{where}: pixels are of type {array.dtype}; allowed: real numbers")
    if array.ndim != 2:
        raise ImageError(
            f"{where}: image has {array.ndim} dimensions, shape {array.shape}; allowed: 2-D (ny, nx)"
        )
    if array.size == 0:
        raise ImageError(f"{where}: image is empty, shape {array.shape}; give at least one pixel")
    return array


def celestial_wcs(wcs, where="image"):
    """Return the celestial part of ``wcs``, or raise `~jaisp.exceptions.WCSError`."""
    if wcs is None:
        raise WCSError(f"{where}: no WCS; give wcs=astropy.wcs.WCS(header) with celestial axes (RA, Dec)")
    if isinstance(wcs, fits.Header):
        wcs = header_wcs(wcs, where)
        if wcs is None:
            raise WCSError(f"{where}: no celestial WCS in the header; it needs CTYPE1, CTYPE2 like RA---TAN")
    if not isinstance(wcs, WCS):
        raise WCSError(f"{where}: wcs is a {type(wcs).__name__}; allowed: astropy.wcs.WCS or a FITS header")
    if not wcs.has_celestial:
        axes = ", ".join(repr(str(name)) for name in wcs.wcs.ctype) or "none"
        raise WCSError(
            f"{where}: no celestial WCS (axis types {axes}); allowed: RA and Dec, e.g. RA---TAN, DEC--TAN"
        )
    wcs = wcs.celestial  # a copy
    if wcs.wcs.has_cd() and (wcs.wcs.has_pc() or wcs.wcs.has_crota()):
        # As in `header_wcs`: wcslib would go by the other one, which who changes CD does not change.
        if wcs.wcs.has_pc():
            del wcs.wcs.pc
        if wcs.wcs.has_crota():
            del wcs.wcs.crota
        wcs.wcs.set()  # makes CDELT 1
    return wcs


def grid_shift(wcs, other, shape):
    """Largest distance in pixels, over the corners of an image, between the places of one sky by two WCS."""
    ny, nx = shape
    corners = np.array([[0, nx - 1, 0, nx - 1], [0, 0, ny - 1, ny - 1]], float)
    with np.errstate(all="ignore"):
        # Through sky positions, not their numbers, which differ from frame to frame.
        there = np.array(other.world_to_pixel(wcs.pixel_to_world(*corners)))
    return np.hypot(*(there - corners)).max()


def header_wcs(header, where, hdus=None):
    """
    Celestial WCS of a FITS header, None if it has none.

    Where a header has both CD and PC cards (as MER cutouts have), CD is what counts. ``hdus`` is the open
    file, which may hold tables of distortion.
    """
    if "CTYPE1" not in header:
        return None
    cards = header.copy()
    if any(re.fullmatch(r"CD\d_\d", key) for key in cards):
        for key in [key for key in cards if re.fullmatch(r"PC\d_\d|CDELT\d|CROTA\d", key)]:
            del cards[key]
    if isinstance(system := cards.get("RADESYS"), str):
        system = system.strip().upper()
        cards["RADESYS"] = "FK5" if system == "J2000" else system
    for key, value in cards.items():
        # astropy would take 0 for it.
        if isinstance(value, str) and re.fullmatch(r"(CRVAL|CRPIX|CDELT)\d|(CD|PC)\d_\d", key):
            raise WCSError(f"{where}: {key} of its header is {value!r}; allowed: a number")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)
            warnings.simplefilter("ignore", RuntimeWarning)
            wcs = WCS(cards, hdus)
    except Exception as error:
        # wcslib raises many kinds of errors for headers that cannot be right.
        reason = " ".join(str(error).split())[:100]
        raise WCSError(f"{where}: the WCS of its header cannot be read ({reason})") from None
    if not wcs.has_celestial:
        return None
    check_frame(wcs.celestial, where)
    return wcs.celestial


def check_frame(wcs, where):
    """Refuse a celestial WCS in a frame that astropy does not know."""
    try:
        wcs_to_celestial_frame(wcs)
    except ValueError:
        axes = ", ".join(wcs.wcs.ctype)
        raise WCSError(
            f"{where}: the frame of its WCS is unknown (RADESYS {wcs.wcs.radesys!r}, axes {axes}); allowed: "
            "RADESYS ICRS, FK5 or FK4 with RA and Dec, or galactic axes"
        ) from None


def _header_factor(header, where):
    """Factor to nJy that a header states, None if it states none."""
    factor = header_factor(header.get, where)[0] or zero_point_card(header.get, where)[0]
    if factor is None and (unit := stated_counts(header.get)):
        raise ImageError(f"{where}: unit {unit!r} needs a zero point, and its header has none; give MAGZERO")
    return factor


def parse_image(value, where, *, unit=None, copy=True):
    """
    Read one band's input.

    Parameters
    ----------
    value : 2-D array, masked array, `~astropy.units.Quantity`, `~astropy.nddata.NDData` or image HDU
        Pixels, with whatever the object carries beside them.
    where : str
        Name of the band, for messages.
    unit : `~astropy.units.Unit` or str, optional
        Unit of input that states none itself; nJy by default.
    copy : bool, optional
        Whether pixels that are in nJy and float32 already are copied.

    Returns
    -------
    BandInput
    """
    variance = mask = wcs = psf = stated = factor = doubt = None
    if isinstance(value, NDData):
        stated, mask, psf, pixels = value.unit, value.mask, value.psf, value.data
        variance = _nddata_variance(value, where)
        if value.wcs is not None:
            wcs = celestial_wcs(getattr(value.wcs, "low_level_wcs", value.wcs), where)
    elif isinstance(value, _IMAGE_HDUS):
        if value.data is None:
            raise ImageError(f"{where}: HDU {value.name or 'PRIMARY'!r} holds no image; give one with pixels")
        wcs, pixels = header_wcs(value.header, where), value.data
        factor = _header_factor(value.header, where)
    else:
        stated = getattr(value, "unit", None)
        mask = np.array(value.mask) if hasattr(value, "mask") else None
        pixels = getattr(value, "unmasked", value)
        pixels = pixels.value if isinstance(pixels, u.Quantity) else np.ma.getdata(pixels)
    if factor is None:
        factor = to_njy(stated if stated is not None else (unit or NJY), where)
    data = real_array(pixels, where)
    with np.errstate(over="ignore"):  # what is too large for float32 is masked with a finding
        data = (data if factor == 1 else data * factor).astype(np.float32, copy=copy and factor == 1)
    if variance is not None:
        variance = variance * factor**2
    if mask is not None:
        mask, doubt = parse_mask(mask, where, data.shape)
    return BandInput(data, factor, variance, mask, wcs, psf, doubt)


def _nddata_variance(value, where):
    """Variance of an NDData in the square of its own unit, or None."""
    if value.uncertainty is None:
        return None
    uncertainty = value.uncertainty
    try:
        variance = uncertainty.represent_as(VarianceUncertainty)
    except (AttributeError, TypeError, ValueError):
        kind = getattr(uncertainty, "uncertainty_type", type(uncertainty).__name__)
        raise ImageError(
            f"{where}: uncertainty of type {kind!r} cannot be made a variance; allowed: std, var, ivar"
        ) from None
    array = np.asarray(variance.array, dtype=float)
    if variance.unit is not None and value.unit is not None:
        array = array * u.Unit(variance.unit).to(u.Unit(value.unit) ** 2)
    return array


def _squared_unit(header):
    """Unit that a header states, if it is the square of a flux density's; else None."""
    try:
        unit = u.Unit(header.get("BUNIT", ""))
    except (TypeError, ValueError):
        return None
    return unit if unit.is_equivalent(NJY**2) else None


def parse_variance(value, where, shape, factor):
    """Return a variance image in nJy2; a bare array is in the square of the data's unit."""
    where = f"{where} variance"
    if isinstance(value, _IMAGE_HDUS):
        unit, value = _squared_unit(value.header), value.data
        value = value if unit is None else native(value) * unit
    if isinstance(value, u.Quantity):
        try:
            value = value.to_value(NJY**2)
        except u.UnitConversionError:
            raise ImageError(f"{where}: unit {str(value.unit)!r} does not convert to nJy2") from None
    elif np.ma.isMaskedArray(value):
        value = np.ma.filled(value.astype(float), np.nan) * factor**2
    else:
        value = native(value)
        value = value if factor == 1 else value * np.float64(factor) ** 2
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "fiu":
        value = np.full(shape, value)
    array = real_array(value, where)
    if array.shape != shape:
        raise ImageError(f"{where}: shape {array.shape} differs from the image's {shape}")
    return array


def parse_mask(value, where, shape, flags=None):
    """
    Read a mask.

    Parameters
    ----------
    value : 2-D array or image HDU
        Bool or integer; the bits of an HDU count by its cards, as in files, those of an array all.
    where : str
        Name of the band, for messages.
    shape : tuple
        Shape of the image.
    flags : sequence of int, optional
        Numbers of the bits that count in an HDU without cards; those of Rubin DP1 by default.

    Returns
    -------
    mask : 2-D bool array
        True where bad.
    doubt : tuple of str or None
        What was found doubtful, and what was done.
    """
    header = None
    if isinstance(value, _IMAGE_HDUS):
        header, value = value.header, value.data
    array = np.asarray(value)
    if array.ndim == 0:
        array = np.full(shape, bool(array))
    if array.dtype.kind not in "biu":
        raise ImageError(
            f"{where} mask: pixels are of type {array.dtype}; allowed: bool (True = bad) or integer bits"
        )
    if array.shape != shape:
        raise ImageError(f"{where} mask: shape {array.shape} differs from the image's {shape}")
    if header is not None:
        mask, assumed = plane_mask(array, header, where, flags)
        return mask, ("mask has no MP_ cards", "the numbers of DP1 assumed") if assumed else None
    mask = array != 0
    if array.dtype.kind == "b" or array.max(initial=0) <= 1:
        return mask, None
    return mask, ("integer mask: every bit counts as bad", f"{100 * mask.mean():.3g} % masked")


def parse_psf(value, where):
    """Return a PSF as a plain 2-D float array, less margins of zeros all around it."""
    if isinstance(value, _IMAGE_HDUS):
        value = value.data
    value = getattr(value, "data", value) if isinstance(value, NDData) else value
    value = value.value if isinstance(value, u.Quantity) else value
    psf = real_array(value, f"{where} PSF").astype(float)
    rows, columns = (np.flatnonzero(psf.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return psf
    # Padding says nothing of wings. As much is cut on all sides, so that the middle stays where it is.
    height, width = psf.shape
    margin = min(rows[0], columns[0], height - 1 - rows[-1], width - 1 - columns[-1])
    return psf[margin : height - margin, margin : width - margin]
