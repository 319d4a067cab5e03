# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.wcs import WCS

from jaisp.image import SurveyImage


def sky(x, y=None):
    """Positions in arcsec east and north of a point at declination -30."""
    x = np.asarray(x, float)
    y = np.zeros_like(x) if y is None else np.asarray(y, float)
    return SkyCoord(50 + x / 3600 / np.cos(np.radians(-30)), -30 + y / 3600, unit="deg")


def truth_table(x, snr, **columns):
    return QTable({"sky_centroid": sky(x), "snr": np.asarray(snr, float), **columns})


def gaussian(size, fwhm):
    """Gaussian PSF image of sum 1; ``fwhm`` in pixels."""
    axis = np.arange(size) - size // 2
    psf = np.exp(-4 * np.log(2) * (axis**2 + axis[:, None] ** 2) / fwhm**2)
    return psf / psf.sum()


def tangent(scale, size, *, turn=0.0):
    """Tangent-plane WCS of a square image; ``scale`` in arcsec, ``turn`` in degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 50.0, -30.0
    wcs.wcs.crpix = (size + 1) / 2, (size + 1) / 2
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = scale / 3600 * np.array([[-c, s], [s, c]])
    return wcs


def star_field(survey, bands, places, flux, *, size, scale, turn=0.0, seed=0):
    """Survey image of stars of one ``flux`` (nJy) in all bands, with noise of 1 nJy per pixel."""
    rng = np.random.default_rng(seed)
    wcs = tangent(scale, size, turn=turn)
    x, y = wcs.world_to_pixel(places)
    axis = np.arange(size)
    data, psf = {}, {}
    for band, fwhm in bands.items():
        sigma = fwhm / scale / 2.3548
        profile = [np.exp(-((axis - p[:, None]) ** 2) / (2 * sigma**2)) for p in (y, x)]
        image = np.einsum("i,iy,ix->yx", np.asarray(flux) / (2 * np.pi * sigma**2), *profile)
        data[band] = (image + rng.normal(size=image.shape)).astype(np.float32)
        psf[band] = gaussian(25, fwhm / scale)
    ones = {band: np.ones((size, size), np.float32) for band in bands}
    return SurveyImage(data, wcs, survey=survey, variance=ones, psf=psf)
