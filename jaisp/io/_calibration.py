# Licensed under a 3-clause BSD style license - see LICENSE
"""From the numbers in a file to nJy: units, zero points, and the tables of the LSST pipelines."""

import numpy as np
from astropy.io import fits

from jaisp.image.units import checked_factor, flux_factor, header_factor, zero_point_card

__all__ = ["uncertainty_factor", "zero_point_factor"]

# What makes the unit of a plane of uncertainties one of flux.
_POWERS = {"rms": 1, "variance": 0.5, "weight": -0.5}


def zero_point_factor(plane, hdus, notes, *, given=None):
    """
    Factor from the units of a plane to nJy.

    Parameters
    ----------
    plane : Plane
        Image.
    hdus : `~astropy.io.fits.HDUList`
        Open file that holds it.
    notes : list of str
        What had to be assumed is appended.
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
        return checked_factor(given, f"zero_point of band {plane.band}"), "zero_point"
    factor, source = header_factor(plane.get, str(plane))
    if factor is not None:
        return factor, source
    for hdu in hdus:
        # Before MAGZERO, which in old HSC headers is for one second of exposure.
        if isinstance(hdu, fits.BinTableHDU) and "calibrationMean" in hdu.columns.names:
            if "flags" in hdu.columns.names and not np.all(hdu.data["flags"][0]):
                notes.append(f"{plane}: its PhotoCalib varies over the image; its mean is used")
            return float(hdu.data["calibrationMean"][0]), "PhotoCalib"
    return zero_point_card(plane.get, str(plane))


def uncertainty_factor(header, kind, plane, factor):
    """
    Factor to nJy of an RMS, variance or weight: its own where it states one, else that of its image.

    Parameters
    ----------
    header : `~astropy.io.fits.Header`
        Header of the plane of uncertainties.
    kind : str
        ``"rms"``, ``"variance"`` or ``"weight"``.
    plane : Plane
        Image that it belongs to.
    factor : float
        That of the image.

    Returns
    -------
    factor : float
        A card that is the same as the image's was copied with its header, and tells nothing of its own.
    """
    unit = header.get("BUNIT")
    if isinstance(unit, str):
        if unit == plane.get("BUNIT") and flux_factor(unit) is not None:
            return factor
        if (own := flux_factor(unit, _POWERS[kind])) is not None:
            return own
    own, key = zero_point_card(header.get, str(plane))
    return factor if own is None or header[key] == plane.get(key) else own
