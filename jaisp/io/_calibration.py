# Licensed under a 3-clause BSD style license - see LICENSE
"""From the numbers in a file to nJy: units, zero points, and the tables of the LSST pipelines."""

from astropy.io import fits

from jaisp.image._units import factor_of, header_factor, zero_point_card

__all__ = ["zero_point_factor"]


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
    factor, source = header_factor(plane.get, str(plane))
    if factor is not None:
        return factor, source
    for hdu in hdus:
        # Before MAGZERO, which in old HSC headers is for one second of exposure.
        if isinstance(hdu, fits.BinTableHDU) and "calibrationMean" in hdu.columns.names:
            return float(hdu.data["calibrationMean"][0]), "PhotoCalib"
    return zero_point_card(plane.get, str(plane))
