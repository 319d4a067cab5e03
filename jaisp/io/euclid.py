# Licensed under a 3-clause BSD style license - see LICENSE
"""Reading Euclid images: MER mosaics with their companion files, cutouts, and images like them."""

import glob

import numpy as np
from astropy.wcs.utils import proj_plane_pixel_scales

from jaisp.image.mask_bits import BAD_FLAG_BITS, flag_numbers, flagged
from jaisp.image.units import factor_of, stated_counts
from jaisp.io._bands import stem
from jaisp.io._load import Rules, read_survey
from jaisp.io._mer import images_only, is_mer, mer_companions
from jaisp.io.companions import psf_beside, siblings
from jaisp.surveys import EUCLID

__all__ = ["BAD_FLAG_BITS", "read_euclid"]

_Q1_ZERO_POINTS = {"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": 29.9}
_ACS_F814W_ZERO_POINT = 25.94
_FINEST_MER = 0.09  # arcsec: finer pixels are not MER's


def read_euclid(files, *, bands=None, psf=None, zero_point=None):
    """
    Read Euclid images in any of the bands VIS, Y, J, H.

    Parameters
    ----------
    files : path, sequence of paths, or mapping of band to path
        FITS files: one for each band (image in PRIMARY; ``RMS``, ``FLAG`` and ``PSF`` in the same file or,
        by the naming of MER, in files beside it), or cutouts with several bands (``VIS_FLUX``, ``VIS_PSF``,
        ``VIS_RMS``, ...; ground-based bands in them are passed over). ``"VIS=file.fits"`` names the band of
        a file that does not tell it.
    bands : sequence of str, optional
        Bands to read; or, where files do not tell, the band of each image in order.
    psf : path, array, sequence or mapping, optional
        PSF image for each band, in the order of the files or by band.
    zero_point : float or mapping, optional
        AB zero point of the pixels, which counts before what the files say.

    Returns
    -------
    `~jaisp.image.SurveyImage`
        In nJy per pixel.

    Raises
    ------
    FileError, BandError, ImageError, WCSError
        In one line, with the name of the file.

    Warns
    -----
    JaispWarning
        If a zero point had to be assumed (that of Q1; for pixels finer than 0.09 arcsec that of ACS F814W,
        25.94), flags were disbelieved because they mark most of the image, or HDUs that look like planes of
        an image, or a PSF file beside it, cannot be used.
    """
    rules = Rules(
        _companions, _default_factor, _bad_bits, lambda planes, notes: None, spare_flags=lambda plane: True
    )
    files = images_only(files, ("rms", "flag", "psf"))
    return read_survey(files, EUCLID, rules, bands=bands, psf=psf, zero_point=zero_point)


def _companions(plane):
    """RMS, FLAG and PSF files beside an image."""
    if is_mer(plane.path):
        return mer_companions(plane.path)
    name = glob.escape(stem(plane.path))
    patterns = {"rms": f"{name}_[rR][mM][sS].fits*", "mask": f"{name}_[fF][lL][aA][gG].fits*"}
    found = {kind: siblings(plane.path, pattern) for kind, pattern in patterns.items()}
    return {kind: others for kind, others in found.items() if others} | psf_beside(plane.path)


def _default_factor(plane, notes):
    """Factor to nJy where the file states no zero point, and no unit but counts."""
    scale = 3600 * np.min(proj_plane_pixel_scales(plane.wcs))
    zero_point = _ACS_F814W_ZERO_POINT if scale < _FINEST_MER else _Q1_ZERO_POINTS[plane.band]
    unit = f"BUNIT {counts!r}" if (counts := stated_counts(plane.get)) else "no BUNIT"
    notes.append(f"{plane}: no MAGZERO and {unit}; zero point {zero_point} assumed (else give zero_point=)")
    return factor_of(zero_point), f"assumed zero point {zero_point}"


def _bad_bits(bits, header, plane, notes):
    """Pixels that the flags call invalid or saturated."""
    return flagged(bits, flag_numbers(plane.band))
