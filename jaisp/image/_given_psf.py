# Licensed under a 3-clause BSD style license - see LICENSE
"""A PSF image as it is given: mended where that can be done, and what is doubtful of it."""

import numpy as np

from jaisp.image.inputs import parse_psf
from jaisp.image.psf import centre_psf, psf_extent, psf_pedestal
from jaisp.image.psf_pixels import on_pixels

__all__ = ["given_psf"]

# Light that a PSF image may lack, more where it is so many FWHM wide that its core tells of the wings.
_MOST_LOST, _MOST_LOST_NARROW = 0.03, 0.005
_NARROW, _TOO_NARROW = 5.0, 4.0  # FWHM
_WIDTHS = (0.5, 2.0)  # FWHM of a PSF, in that of the survey, beyond which its pixels may be others
_MOST_PEDESTAL = 0.1  # light in a level beneath a PSF; in real ones up to half as much seems to be there
_MOST_ADDED = 0.1  # light that the measurement adds at most for what lies beyond


def given_psf(value, survey, band, pixel_scale):
    """
    Check the PSF image of a band.

    Parameters
    ----------
    value : array or image HDU
        On the image's pixels, or on those that an HDU states.
    survey : `~jaisp.surveys.Survey`
    band : str
    pixel_scale : float
        Of the image, in arcsec.

    Returns
    -------
    psf : 2-D float32 array
        Square, odd-sized, centred, of sum 1.
    findings : list of tuple
        What was found, what was done, and whether numbers are in doubt, as in `Finding`.

    Raises
    ------
    ImageError
        For a PSF that cannot be mended.
    """
    where, findings = f"{survey.label} {band}", []
    psf = parse_psf(value, where)
    total = float(np.nansum(psf))
    if hasattr(value, "header"):
        psf = on_pixels(psf, value.header, pixel_scale, where)
    psf, offset = centre_psf(psf, where=f"{where} PSF")
    if abs(total - 1) > 1e-3:
        findings.append((f"PSF summed to {total:.4g}", "normalised to 1", False))
    if any(offset):
        off = "PSF centred ({:.2f}, {:.2f}) px off its middle".format(*offset)
        findings.append((off, "moved to the middle", False))
    width, lost = psf_extent(psf)
    if width < _TOO_NARROW or lost > (_MOST_LOST_NARROW if width < _NARROW else _MOST_LOST):
        small = f"PSF image of {psf.shape[0]} px is only {width:.1f} FWHM wide"
        off = f"fluxes may be off by up to {100 * max(lost, _MOST_ADDED):.0f} %; give a larger one"
        findings.append((small, off, lost > _MOST_ADDED))
    fwhm, usual = psf.shape[0] / width * pixel_scale, survey.band(band).psf_fwhm
    if not _WIDTHS[0] * usual < fwhm < _WIDTHS[1] * usual:
        wide = f"PSF of {fwhm:.2g} arcsec FWHM, where {survey.label} has {usual:.2g}"
        off = f"if it is not on pixels of {pixel_scale:.3g} arcsec, fluxes are wrong: resample it"
        findings.append((wide, off, True))
    # At the edge of a narrower image diffraction rings pass for a level.
    if width > _NARROW and abs(edge := psf_pedestal(psf)) > _MOST_PEDESTAL:
        level = f"PSF has a level beneath it that adds up to {100 * edge:.0f} % of its light"
        findings.append((level, "fluxes may be off by as much; take its background out", True))
    return psf, findings
