# Licensed under a 3-clause BSD style license - see LICENSE
"""Small survey files with a few bright sources, in the surveys' own layouts."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS

SKY = 53.0, -28.0
SIDE = 9.6  # arcsec
SOURCES = np.random.default_rng(5).uniform(-3.6, 3.6, (6, 2))  # arcsec east and north of the middle


def header(scale, size, *, centre=SKY):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = centre
    wcs.wcs.crpix = (size + 1) / 2, (size + 1) / 2
    wcs.wcs.cdelt = -scale / 3600, scale / 3600
    return wcs.to_header()


def sky(scale, size, *, flux, noise, fwhm, seed):
    """Gaussian sources of ``flux`` nJy on white noise."""
    rng = np.random.default_rng(seed)
    sigma = fwhm / 2.355 / scale
    x = np.arange(size) - (size - 1) / 2
    image = rng.normal(0, noise, (size, size))
    for east, north in SOURCES:
        profile = np.exp(-((x + east / scale) ** 2 + (x[:, None] - north / scale) ** 2) / 2 / sigma**2)
        image += flux * profile / (2 * np.pi * sigma**2)
    return image.astype(np.float32)


def psf(scale, fwhm, size=21):
    x = np.arange(size) - size // 2
    image = np.exp(-(x**2 + x[:, None] ** 2) / 2 / (fwhm / 2.355 / scale) ** 2)
    return (image / image.sum()).astype(np.float32)


def write_rubin(path, band, **changes):
    """One band of a Rubin coadd; ``changes`` replaces HDUs' data or the ``header`` or ``unit``."""
    scale, size = 0.2, round(SIDE / 0.2)
    parts = {
        "image": sky(scale, size, flux=400, noise=2.0, fwhm=0.8, seed=1),
        "mask": np.zeros((size, size), np.int32),
        "variance": np.full((size, size), 4.0, np.float32),
        "psf": psf(scale, 0.8),
        "header": header(scale, size),
        "unit": "nJy",
    } | changes
    primary = fits.PrimaryHDU()
    primary.header["BAND"] = band
    image = fits.ImageHDU(parts["image"], parts["header"], name="IMAGE")
    image.header["BUNIT"] = parts["unit"]
    mask = fits.ImageHDU(parts["mask"], parts["header"], name="MASK")
    mask.header["MP_BAD"], mask.header["HIERARCH MP_NO_DATA"] = 0, 8
    hdus = [primary, image, mask, fits.ImageHDU(parts["variance"], parts["header"], name="VARIANCE")]
    fits.HDUList([*hdus, fits.ImageHDU(parts["psf"], name="PSF")]).writeto(path)
    return str(path)


def write_euclid(path, band, **changes):
    """One band of a Euclid MER mosaic with its RMS and PSF in the same file."""
    scale, size = 0.1, round(SIDE / 0.1)
    zero_point = 24.6 if band == "VIS" else 29.8
    unit = 10 ** ((31.4 - zero_point) / 2.5)  # nJy
    parts = {
        "image": sky(scale, size, flux=400, noise=2.0, fwhm=0.25, seed=2),
        "rms": np.full((size, size), 2.0, np.float32),
        "psf": psf(scale, 0.25),
        "header": header(scale, size),
    } | changes
    primary = fits.PrimaryHDU(parts["image"] / np.float32(unit), parts["header"])
    primary.header["MAGZERO"], primary.header["FILTER"] = zero_point, band
    rms = fits.ImageHDU(parts["rms"] / np.float32(unit), parts["header"], name="RMS")
    fits.HDUList([primary, rms, fits.ImageHDU(parts["psf"], name="PSF")]).writeto(path)
    return str(path)
