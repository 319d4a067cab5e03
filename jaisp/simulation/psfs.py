# Licensed under a 3-clause BSD style license - see LICENSE
"""Point-spread functions of the two surveys for training scenes, with more variety than the sky has."""

from functools import lru_cache

import numpy as np
import scipy.fft as fft
from scipy.ndimage import map_coordinates

from jaisp.surveys import EUCLID, RUBIN

__all__ = ["PSFLibrary", "draw_rubin_psfs", "optical_psf", "psf_fwhm"]

_ARCSEC = np.pi / 180 / 3600


def frequencies(n, scale):
    """Frequencies ``fy`` (n, 1), ``fx`` (1, n//2+1) of an ``rfft2`` in cycles per arcsec."""
    return (
        fft.fftfreq(n, scale).astype(np.float32)[:, None],
        fft.rfftfreq(n, scale).astype(np.float32)[None, :],
    )


def box(n, scale, width):
    """Transfer function of a square pixel ``width`` arcsec wide on the `frequencies` grid."""
    fy, fx = frequencies(n, scale)
    return np.sinc(fy * width) * np.sinc(fx * width)


def gaussian(n, scale, sigma):
    """Transfer function of a round Gaussian of ``sigma`` arcsec on the `frequencies` grid."""
    fy, fx = frequencies(n, scale)
    return np.exp(-2 * np.pi**2 * sigma**2 * (fy**2 + fx**2))


def _axes(n, scale):
    """Offsets in arcsec from the central pixel, with the centre at index 0 (FFT order)."""
    return (fft.fftfreq(n) * n * scale).astype(np.float32)


def _moffat(n, scale, fwhm, beta, e1=0.0, e2=0.0):
    y, x = _axes(n, scale)[:, None], _axes(n, scale)[None, :]
    core = 4 * (2 ** (1 / beta) - 1) / fwhm**2
    e = 1 - e1**2 - e2**2
    # Area-preserving shear: q = (1 - |e|) / (1 + |e|).
    r2 = ((1 - e1) ** 2 + e2**2) * x**2 + ((1 + e1) ** 2 + e2**2) * y**2 - 4 * e2 * x * y
    image = (1 + core * r2 / e) ** -beta
    return image / image.sum()


def _kolmogorov(n, scale, fwhm, e1=0.0, e2=0.0):
    fy, fx = frequencies(n, scale)
    e = 1 - e1**2 - e2**2
    f2 = (((1 + e1) ** 2 + e2**2) * fx**2 + ((1 - e1) ** 2 + e2**2) * fy**2 + 4 * e2 * fx * fy) / e
    return np.exp(-3.44 * (f2 * (fwhm / 0.976) ** 2) ** (5 / 6))


def draw_rubin_psfs(rng, n, scale, *, pixel=0.2):
    """
    Draw the six Rubin PSFs of one patch of sky as transfer functions.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of randomness.
    n : int
        Size in pixels of the (periodic) image.
    scale : float
        Arcsec per pixel of that image.
    pixel : float, optional
        Width of the detector pixel in arcsec, which is part of the PSF.

    Returns
    -------
    ndarray of complex64, shape (6, n, n // 2 + 1)
        One `scipy.fft.rfft2` per band of an image whose centre is at index 0; 1 at zero frequency.
    """
    kind = rng.choice(3, p=[0.55, 0.30, 0.15])
    seeing = np.exp(rng.uniform(np.log(0.65), np.log(1.3)))
    beta = np.exp(rng.uniform(np.log(2.2), np.log(4.8)))
    e, angle = rng.uniform(0, 0.05), rng.uniform(0, 2 * np.pi)
    wing = 10 ** rng.uniform(-3, -1.5) if rng.random() < 0.6 else 0.0
    pixel_box = box(n, scale, pixel)
    halo = fft.rfft2(_moffat(n, scale, 5 * seeing, 2.0)) if wing else 0.0
    out = np.empty((len(RUBIN.bands), n, n // 2 + 1), np.complex64)
    for index, band in enumerate(RUBIN.bands):
        fwhm = seeing * (band.wavelength / 754.0) ** -0.3 * np.exp(rng.normal(0, 0.06))
        fwhm = np.sqrt(np.clip(fwhm, 0.62, 1.55) ** 2 - 0.5 * pixel**2)
        e1 = e * np.cos(angle) + rng.normal(0, 0.01)
        e2 = e * np.sin(angle) + rng.normal(0, 0.01)
        if kind == 0:
            otf = fft.rfft2(_moffat(n, scale, fwhm, beta, e1, e2))
        elif kind == 1:
            otf = _kolmogorov(n, scale, fwhm, e1, e2)
        else:
            sigma = fwhm / 2.355
            otf = 0.85 * gaussian(n, scale, 0.93 * sigma) + 0.15 * gaussian(n, scale, 2.0 * sigma)
        out[index] = ((1 - wing) * otf + wing * halo) * pixel_box
    return out


def optical_psf(
    n, scale, wavelength, *, obscuration=0.35, struts=3, strut_width=0.02, turn=0.0, aberrations=(), width=0.2
):
    """
    Diffraction PSF of a 1.2 m telescope, averaged over a band.

    Parameters
    ----------
    n : int
        Size of the image in pixels.
    scale : float
        Arcsec per pixel.
    wavelength : float
        Effective wavelength in nm.
    obscuration : float, optional
        Diameter of the secondary over that of the primary.
    struts : int, optional
        Number of struts that hold the secondary.
    strut_width : float, optional
        Width of a strut in m.
    turn : float, optional
        Angle of the first strut in radians.
    aberrations : sequence of float, optional
        Wavefront errors in nm rms: defocus, two astigmatisms, two comas, two trefoils, spherical.
    width : float, optional
        Half width of the band relative to its wavelength.

    Returns
    -------
    ndarray, shape (n, n)
        Image with sum 1 and its centre at index 0 (FFT order).
    """
    image = np.zeros((n, n), np.float32)
    for factor in (1 - 0.67 * width, 1.0, 1 + 0.67 * width):
        metres = wavelength * factor * 1e-9
        step = metres / (n * scale * _ARCSEC)
        u = ((np.arange(n) - n // 2) * step).astype(np.float32)
        x, y = u[None, :], u[:, None]
        r = np.sqrt(x**2 + y**2)
        pupil = np.clip((0.6 - r) / step + 0.5, 0, 1) - np.clip((0.6 * obscuration - r) / step + 0.5, 0, 1)
        for k in range(struts):
            angle = turn + 2 * np.pi * k / struts
            across = np.abs(x * np.sin(angle) - y * np.cos(angle))
            along = x * np.cos(angle) + y * np.sin(angle)
            pupil *= 1 - np.clip((strut_width / 2 - across) / step + 0.5, 0, 1) * (along > 0)
        field = pupil.astype(np.complex64)
        if len(aberrations):
            rho, t = r / 0.6, np.arctan2(y, x)
            modes = (
                3**0.5 * (2 * rho**2 - 1),
                6**0.5 * rho**2 * np.cos(2 * t),
                6**0.5 * rho**2 * np.sin(2 * t),
                8**0.5 * (3 * rho**3 - 2 * rho) * np.cos(t),
                8**0.5 * (3 * rho**3 - 2 * rho) * np.sin(t),
                8**0.5 * rho**3 * np.cos(3 * t),
                8**0.5 * rho**3 * np.sin(3 * t),
                5**0.5 * (6 * rho**4 - 6 * rho**2 + 1),
            )
            path = sum(c * m for c, m in zip(aberrations, modes, strict=False))
            field = pupil * np.exp((2j * np.pi * 1e-9 / metres) * path).astype(np.complex64)
        amplitude = fft.fft2(fft.ifftshift(field))
        power = amplitude.real**2 + amplitude.imag**2
        image += power / power.sum() / 3
    return image


def psf_fwhm(image, scale):
    """
    Full width at half maximum in arcsec, from the area above half the maximum.

    Parameters
    ----------
    image : ndarray
        PSF centred on the middle pixel.
    scale : float
        Arcsec per pixel.
    """
    half = min(image.shape[0] // 2 - 1, int(np.ceil(2.0 / scale)))
    fine = np.arange(-half, half + 0.01, 0.1)
    centre = image.shape[0] // 2
    crop = image[centre - half - 1 : centre + half + 2, centre - half - 1 : centre + half + 2]
    grid = np.meshgrid(fine + half + 1, fine + half + 1, indexing="ij")
    values = map_coordinates(crop.astype(float), grid, order=3, mode="nearest")
    return 2 * np.sqrt((values > values.max() / 2).sum() * 0.01 / np.pi) * scale


class PSFLibrary:
    """
    A reproducible collection of Euclid PSFs: too slow to draw anew for each scene.

    Parameters
    ----------
    seed : int, optional
        Seed of the collection.
    size : int, optional
        Number of sets of four PSFs.

    Attributes
    ----------
    vis : ndarray, shape (size, 512, 512)
        VIS PSFs at 0.05" per pixel, 0.1" pixel response included, centred on pixel 256, sum 1.
    nisp : ndarray, shape (size, 3, 256, 256)
        NISP Y, J, H at 0.1" per pixel with 0.3" pixels and their resampling included, centred on pixel 128.
    """

    def __init__(self, *, seed=0, size=32):
        self.vis = np.empty((size, 512, 512), np.float32)
        self.nisp = np.empty((size, 3, 256, 256), np.float32)
        for index, child in enumerate(np.random.SeedSequence([seed, 7]).spawn(size)):
            self._fill(index, np.random.default_rng(child))

    @staticmethod
    @lru_cache(maxsize=2)
    def shared(seed=0, size=32):
        """Return the library of this seed, built once for each process."""
        return PSFLibrary(seed=seed, size=size)

    def _fill(self, index, rng):
        plain = rng.random() < 0.15
        aberrations = rng.normal(0, 1, 8) * np.array([25, 20, 20, 15, 15, 15, 15, 8]) * rng.uniform(0.3, 1.2)
        optics = {
            "obscuration": rng.uniform(0.3, 0.4),
            "struts": int(rng.choice([3, 3, 4])),
            "strut_width": rng.uniform(0.008, 0.03),
            "turn": rng.uniform(0, 2 * np.pi),
        }
        targets = (
            rng.uniform(0.16, 0.21),
            rng.uniform(0.45, 0.55),
            rng.uniform(0.45, 0.55),
            rng.uniform(0.5, 0.6),
        )
        betas = np.exp(rng.uniform(np.log(2.3), np.log(5.0), 4))
        for k, band in enumerate(EUCLID.bands):
            n, scale = (512, 0.05) if k == 0 else (256, 0.1)
            # A resampled NISP pixel is a 0.3" box spread by bilinear weights.
            response = box(n, scale, 0.1) if k == 0 else box(n, scale, 0.3) ** 2
            if plain:
                inner = np.sqrt(max(targets[k] ** 2 - (0.1 if k == 0 else 0.36) ** 2, 0.1**2))
                otf = fft.rfft2(_moffat(n, scale, inner, betas[k])) * response
            else:
                noise = rng.normal(0, 3, 8)
                image = optical_psf(
                    n,
                    scale,
                    band.wavelength * rng.uniform(0.95, 1.05),
                    aberrations=aberrations + noise,
                    width=0.22 if k == 0 else 0.12,
                    **optics,
                )
                otf = fft.rfft2(image) * response
            start = fft.fftshift(fft.irfft2(otf, (n, n)))
            grow = targets[k] ** 2 - psf_fwhm(start, scale) ** 2
            sigma = np.sqrt(grow) / 2.355 if grow > 0 else 0.0
            image = fft.fftshift(fft.irfft2(otf * gaussian(n, scale, sigma), (n, n)))
            target = self.vis[index] if k == 0 else self.nisp[index, k - 1]
            target[:] = image / image.sum()
