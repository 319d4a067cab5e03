# Licensed under a 3-clause BSD style license - see LICENSE
"""Skies with known noise, sources and PSF; how input is refused."""

import re

import numpy as np
import pytest
from astropy.wcs import WCS
from scipy import ndimage
from scipy.signal import fftconvolve

from jaisp.exceptions import JaispError
from jaisp.image import moffat_psf


def fails(error, message, call, *args, **kwargs):
    """Check that a call fails with an error of jaisp, in one line."""
    with pytest.raises(error, match=re.escape(message)) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, JaispError)


def make_wcs(scale=0.1, crpix=(50.0, 50.0), angle=0.0):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 53.0, -28.0
    wcs.wcs.crpix = crpix
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    return wcs


def noise(rng, shape, *, blur=0.0):
    """Noise of standard deviation 1, correlated over ``blur`` pixels."""
    ny, nx = (length + 40 for length in shape)
    field = rng.normal(size=(ny, nx))
    if blur:
        field = ndimage.gaussian_filter(field, blur)
        field /= field.std()
    return field[20:-20, 20:-20]


def galaxies(rng, n, psf, *, density, pixel_scale, slope=0.75, faintest=0.3):
    """Exponential discs with N(> f) ~ f**-slope, ``density`` per arcmin2 at S/N > 5 in noise of 1."""
    count = rng.poisson(density * (n * pixel_scale / 60) ** 2 * (5 / faintest) ** slope)
    snr = np.minimum(faintest * rng.random(count) ** (-1 / slope), 2000)
    image = np.zeros((n + 128, n + 128))
    for one in snr:
        half = 30 if one > 20 else 15
        x, y = rng.uniform(64, n + 64, 2)
        column, row = int(x), int(y)
        size = max(0.3, 0.25 / pixel_scale * rng.lognormal(0, 0.4) * max(1, one / 5) ** 0.25)
        across, along = np.meshgrid(*[np.arange(-half, half + 1.0)] * 2)
        disc = np.exp(
            -1.68 * np.hypot(across - (x - column), (along - (y - row)) / rng.uniform(0.3, 1)) / size
        )
        flux = one / np.sqrt(np.sum(psf**2))
        image[row - half : row + half + 1, column - half : column + half + 1] += flux * disc / disc.sum()
    return fftconvolve(image, psf, mode="same")[64:-64, 64:-64]


def star(shape, x, y, flux, *, fwhm, beta=3.0, stretch=1.0):
    """Image of one star, integrated over the pixels."""
    half, oversample = 40, 5
    column, row = round(x), round(y)
    step = (np.arange((2 * half + 1) * oversample) + 0.5) / oversample - half - 0.5
    alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
    r2 = stretch * (step[:, None] - (y - row)) ** 2 + (step - (x - column)) ** 2 / stretch
    fine = (1 + r2 / alpha2) ** -beta
    stamp = fine.reshape(2 * half + 1, oversample, 2 * half + 1, oversample).sum((1, 3))
    image = np.zeros((shape[0] + 2 * half, shape[1] + 2 * half))
    image[row : row + 2 * half + 1, column : column + 2 * half + 1] = flux * stamp / stamp.sum()
    return image[half:-half, half:-half]


def sky(seed, n=256, *, pixel_scale=0.2, fwhm=4.0, density=0, level=0.0, blur=0.0):
    """Image, PSF, variance and mask of a field with noise of 1."""
    rng = np.random.default_rng(seed)
    psf = moffat_psf(fwhm, 2 * int(3.5 * fwhm) + 1)
    data = noise(rng, (n, n), blur=blur) + level
    if density:
        data += galaxies(rng, n, psf.astype(float), density=density, pixel_scale=pixel_scale)
    return data.astype(np.float32), psf, np.ones((n, n), np.float32), np.zeros((n, n), bool)
