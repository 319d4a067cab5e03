# Licensed under a 3-clause BSD style license - see LICENSE
"""Reading Rubin images, and images of other ground surveys in the same bands."""

from jaisp.exceptions import ImageError
from jaisp.image.mask_bits import BAD_MASK_PLANES, INVALID, flagged, plane_mask
from jaisp.image.units import factor_of, stated_counts
from jaisp.io._load import Rules, read_survey
from jaisp.io._mer import images_only, is_mer, mer_companions
from jaisp.io.companions import psf_beside
from jaisp.surveys import RUBIN

__all__ = ["BAD_MASK_PLANES", "read_rubin"]

_HSC_ZERO_POINT = 27.0


def read_rubin(files, *, bands=None, psf=None, zero_point=None):
    """
    Read Rubin images in any of the bands u, g, r, i, z, y.

    Parameters
    ----------
    files : path, sequence of paths, or mapping of band to path
        FITS files: one for each band in the layout of the LSST pipelines (``IMAGE``, ``MASK``,
        ``VARIANCE``, optionally ``PSF``), one with several bands (``<BAND>_FLUX`` and so on, of which the
        ground-based ones are taken), or a cube of bands. ``"i=file.fits"`` names the band of a file that
        does not tell it, ``"g,r,i=cube.fits"`` those of a cube.
    bands : sequence of str, optional
        Bands to read; or, where files do not tell, the band of each image in order. A band may also be
        chosen by the name it has in the file, e.g. ``"HSC_G"``.
    psf : path, array, sequence or mapping, optional
        PSF image for each band, in the order of the files or by band. Looked for in the file and as
        ``<file>_psf.fits`` beside it where not given.
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
        If something had to be assumed: the bands of a cube, or the unit of the pixels (nJy in the LSST
        layout, unless it says counts; zero point 27.0, that of HSC, elsewhere); if its calibration varies
        over the image, of which the mean is used; or if HDUs that look like planes of an image, or a PSF file
        beside it, cannot be used.

    Notes
    -----
    Pixels of the mask planes BAD, SAT, CR, EDGE, NO_DATA, UNMASKEDNAN and SENSOR_EDGE (in DP2 SATURATED,
    COSMIC_RAY and DETECTION_EDGE) are masked, by the bits that the ``MP_`` cards of the file give, or its
    ``MSKN`` and ``MSKM`` cards.
    """
    rules = Rules(
        _companions, _default_factor, _bad_bits, _assume_bands, spare_flags=lambda plane: is_mer(plane.path)
    )
    files = images_only(files, ("psf",))
    return read_survey(files, RUBIN, rules, bands=bands, psf=psf, zero_point=zero_point)


def _companions(plane):
    """PSF file beside a band's file; RMS, FLAG and PSF beside a mosaic of MER."""
    return mer_companions(plane.path) if is_mer(plane.path) else psf_beside(plane.path)


def _default_factor(plane, notes):
    """Factor to nJy where the file states no zero point, and no unit but counts."""
    counts = stated_counts(plane.get)
    if "variance" in plane.hdus and "mask" in plane.hdus:
        if counts:
            raise ImageError(
                f"{plane.path}: unit {counts!r} needs a zero point, and its header has none; "
                "give zero_point= (--rubin-zero-point), or MAGZERO in the header"
            )
        notes.append(f"{plane.path}: no BUNIT and no zero point; nJy assumed (else give zero_point=)")
        return 1.0, "assumed nJy"
    unit = f"BUNIT {counts!r}" if counts else "no BUNIT"
    notes.append(f"{plane.path}: {unit} and no zero point; {_HSC_ZERO_POINT} assumed (else give zero_point=)")
    return factor_of(_HSC_ZERO_POINT), f"assumed zero point {_HSC_ZERO_POINT}"


def _bad_bits(bits, header, plane, notes):
    """Pixels of which a bit is set that makes them useless."""
    if is_mer(plane.path):
        return flagged(bits, (INVALID,))
    bad, assumed = plane_mask(bits, header, plane.path)
    if assumed:
        notes.append(f"{plane.path}: its mask has no MP_ cards; the numbers of DP1 assumed")
    return bad


def _assume_bands(planes, notes):
    """Bands of a cube that says none: grizy or ugrizy."""
    if len(planes) not in (5, 6) or any(plane.count != len(planes) or plane.label for plane in planes):
        return None
    bands = RUBIN.band_names[-len(planes) :]
    notes.append(
        f"{planes[0].path}: a cube that does not say its bands; {', '.join(bands)} assumed (else give bands=)"
    )
    return bands
