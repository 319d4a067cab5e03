# Licensed under a 3-clause BSD style license - see LICENSE
"""FITS files of either survey: opening them, and finding the images in them with what lies beside."""

import contextlib
import os
import re
import warnings
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from astropy.io import fits
from astropy.wcs import WCS

from jaisp.exceptions import BandError, FileError, ImageError, JaispError, WCSError
from jaisp.image.inputs import header_wcs
from jaisp.io._hdu_groups import group_hdus, left_over

__all__ = ["Plane", "find_planes", "open_fits", "plane_wcs", "split_prefix"]


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
    groups = group_hdus(hdus)
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
    left = left_over(hdus, groups)
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


def plane_wcs(plane, hdus):
    """Celestial WCS of a plane, from the header of its image or of PRIMARY."""
    for header in plane.headers:
        if (wcs := header_wcs(header, str(plane), hdus)) is not None:
            return wcs
    raise WCSError(
        f"{plane}: no celestial WCS in its header; it needs CTYPE1, CTYPE2 like RA---TAN, DEC--TAN"
    )
