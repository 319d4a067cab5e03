# Licensed under a 3-clause BSD style license - see LICENSE
"""
PSFs from files: one image, a cube of bands, an HDU for each band, one for each cell of a coadd, or a MER
mosaic of stamps with their table.
"""

import re

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from jaisp.exceptions import BandError, ImageError
from jaisp.image.psf_pixels import on_pixels
from jaisp.io._bands import band_of_label
from jaisp.surveys import SURVEYS

__all__ = ["read_psf"]

_STAMPS = 9  # nearest stamps that are averaged
_LARGEST_SINGLE = 400  # pixels: a larger image beside a table is a mosaic of stamps


def read_psf(hdus, plane, wcs, shape, *, number=None):
    """
    Read the PSF of a plane.

    Parameters
    ----------
    hdus : `~astropy.io.fits.HDUList`
        Open file that holds it.
    plane : Plane
        Image that it belongs to.
    wcs : `~astropy.wcs.WCS`
        WCS of the image, by which the nearest stamps of a mosaic are found, and its pixels.
    shape : tuple
        Shape of the image.
    number : int, optional
        HDU; looked for by name where not given.

    Returns
    -------
    psf : 2-D float array
        As it is in the file, or resampled where it states other pixels than the image has; of a mosaic of
        stamps, the mean of the nearest; of the cells of a coadd, the one in the middle of the image.
    """
    where = hdus.filename()
    hdu = hdus[_find(hdus, plane) if number is None else number]
    table = next((other for other in hdus if isinstance(other, fits.BinTableHDU) and _columns(other)), None)
    if not hdu.shape:
        raise ImageError(f"{where}: its PSF HDU holds no image")
    if len(hdu.shape) == 2 and table is not None and max(hdu.shape) > _LARGEST_SINGLE:
        return _mean_stamp(hdu, table, wcs, shape, where)
    array = np.asarray(hdu.data, dtype=float)
    if array.ndim == 4:
        array = _cell(array, where, same_file=number is not None)
    elif array.ndim == 3:
        if len(array) > 1 and (plane.index is None or plane.count != len(array)):
            raise ImageError(
                f"{where}: holds {len(array)} PSFs and does not say which is of band {plane.band}; "
                "give one image for each band, e.g. psf={band: image}"
            )
        array = array[plane.index if len(array) > 1 else 0]
    return on_pixels(array, hdu.header, _scale(wcs), where)


def _cell(cells, where, *, same_file):
    """PSF of the cell nearest to the middle of those that an image covers; of another file's, their mean."""
    there = np.argwhere(np.isfinite(cells).all(axis=(2, 3)))
    if len(there) == 0:
        raise ImageError(f"{where}: none of its {cells[..., 0, 0].size} cells has a PSF without gaps")
    if not same_file:
        return _mean(cells[tuple(there.T)])
    middle = (np.array(cells.shape[:2]) - 1) / 2
    return cells[tuple(there[np.argmin(np.hypot(*(there - middle).T))])]


def _scale(wcs):
    """Pixel scale in arcsec."""
    return float(np.sqrt(np.prod(proj_plane_pixel_scales(wcs)))) * 3600


def _find(hdus, plane):
    """Number of the HDU that holds the PSF of a plane in a file of PSFs."""
    images = [number for number, hdu in enumerate(hdus) if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2]
    if not images:
        raise ImageError(f"{hdus.filename()}: holds no PSF image")
    labelled = {}
    for number in images:
        name = hdus[number].name.upper()
        label = re.sub(r"^PSF[-_. ]|[-_. ]PSF$", "", name)
        if plane.label and label == plane.label.upper():
            return number
        for survey in SURVEYS.values():
            if (band := band_of_label(label, survey)) is not None:
                labelled.setdefault((survey.name, band), number)
    if not labelled:
        named = [number for number in images if hdus[number].name.upper() == "PSF"]
        return (named or images)[0]
    for (_, band), number in labelled.items():
        if band == plane.band:
            return number
    # Rubin's y in the upper case of HDU names, if no other band of NISP is there.
    if plane.band == "y" and [key for key in labelled if key[0] == "euclid"] == [("euclid", "Y")]:
        return labelled["euclid", "Y"]
    raise BandError(f"{hdus.filename()}: holds no PSF of band {plane.band}")


def _columns(table):
    """Names of the columns that say where the stamps lie in their mosaic, or None."""
    names = {name.lower(): name for name in table.columns.names}
    for pair in (("x_center", "y_center"), ("x", "y")):
        if all(name in names for name in pair):
            return tuple(names[name] for name in pair)
    return None


def _mean_stamp(hdu, table, wcs, shape, where):
    """Mean of the stamps nearest to the middle of the image."""
    x, y = (np.asarray(table.data[name], float) - 1 for name in _columns(table))  # FITS pixels count from 1
    size = int(hdu.header.get("STMPSIZE", 21))
    size -= 1 - size % 2
    sky_x, sky_y = x, y
    names = {name.lower(): name for name in table.columns.names}
    if "x_center" in names and "x" in names:
        # Catalogue PSFs are packed; where on the sky they belong is told by other columns.
        sky_x, sky_y = (np.asarray(table.data[names[name]], float) - 1 for name in ("x", "y"))
    middle = ((hdu.shape[1] - 1) / 2, (hdu.shape[0] - 1) / 2)
    if "CTYPE1" in hdu.header:
        sky = wcs.pixel_to_world_values((shape[1] - 1) / 2, (shape[0] - 1) / 2)
        middle = WCS(hdu.header).celestial.world_to_pixel_values(*sky)
    stamps = []
    for k in np.argsort(np.hypot(sky_x - middle[0], sky_y - middle[1])):
        stamp = _cut(hdu, round(x[k]), round(y[k]), size)
        if stamp is not None:
            stamps.append(stamp)
        if len(stamps) == _STAMPS:
            break
    if not stamps:
        raise ImageError(f"{where}: none of its {len(x)} PSF stamps of {size} px can be cut out")
    return _mean(stamps)


def _cut(hdu, x, y, size):
    """Stamp about the brightest pixel next to (x, y), or None where it is empty or cut by the edge."""
    half = size // 2
    if min(x, y) < half + 1 or x + half + 2 > hdu.shape[1] or y + half + 2 > hdu.shape[0]:
        return None
    around = np.asarray(hdu.section[y - half - 1 : y + half + 2, x - half - 1 : x + half + 2], float)
    if not np.all(np.isfinite(around)) or not around.sum() > 0:
        return None
    # Whether places count from 0 or 1 is not written anywhere: the peak tells.
    near = around[half : half + 3, half : half + 3]
    dy, dx = np.unravel_index(np.argmax(near), near.shape)
    return around[dy : dy + size, dx : dx + size]


def _mean(stamps):
    """Mean of normalised stamps."""
    stamps = [stamp / stamp.sum() for stamp in stamps if np.all(np.isfinite(stamp)) and stamp.sum() > 0]
    return np.mean(stamps, axis=0) if stamps else np.zeros((1, 1))
