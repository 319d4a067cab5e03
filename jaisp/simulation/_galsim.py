# Licensed under a 3-clause BSD style license - see LICENSE
"""What is drawn with GalSim: PSFs of other kinds than those of the training scenes, sources, stamps."""

import numpy as np
import scipy.fft as fft
from scipy.special import gammainc, gammaincinv

from jaisp.exceptions import ConfigError, MissingDependencyError, suggest
from jaisp.surveys import EUCLID, RUBIN

PSF_KINDS = ("kolmogorov", "airy", "moffat")
GALAXY_KINDS = ("sersic", "knots")
# Widths of stamps in pixels.
_STAMPS = (64, 96, 128, 192, 256, 320, 400)
# Sersic indices are rounded to these, because GalSim tabulates each new one.
_BULGE_INDICES = (2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0)
_DISC_INDICES = (0.5, 0.8, 1.0, 1.3, 1.6)


def require():
    """Return the module `galsim`, or raise `MissingDependencyError` that says how to install it."""
    try:
        import galsim
    except ImportError:
        raise MissingDependencyError(
            "simulating fields needs GalSim, which is not installed; run: pip install 'jaisp[simulate]'"
        ) from None
    return galsim


def choose(what, given, allowed):
    """Raise `ConfigError` unless ``given`` is one of ``allowed``."""
    if given not in allowed:
        raise ConfigError(f"{what} is {given!r}{suggest(given, allowed)}; allowed: {', '.join(allowed)}")


def make_psfs(rng, kind, jacobians):
    """
    Draw one PSF per band, pixel response included, finely enough for its survey's grid.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of randomness.
    kind : str
        One of `PSF_KINDS`.
    jacobians : dict
        Survey name to `galsim.JacobianWCS` from its pixels to arcsec along the Euclid pixel axes.

    Returns
    -------
    dict
        Band ``(survey, name)`` to an image of sum 1, 32" wide, centred on pixel ``n // 2``; Rubin and VIS
        twice finer than their pixels.
    """
    galsim = require()
    out = {}
    seeing = rng.uniform(0.65, 1.05)
    e, angle = rng.uniform(0, 0.04), rng.uniform(0, np.pi)
    beta = rng.uniform(2.5, 4.0)
    for band in RUBIN.bands:
        fwhm = seeing * (band.wavelength / 754.0) ** -0.25 * np.exp(rng.normal(0, 0.04))
        whole = jacobians["rubin"].toImage(_ground(kind, band, fwhm, beta, e, angle))
        out["rubin", band.name] = _drawn(galsim.Convolve(whole, galsim.Pixel(1.0)), 320, 0.5)
    optics = {
        "diam": 1.2,
        "obscuration": rng.uniform(0.32, 0.38),
        "nstruts": int(rng.choice([3, 4, 6])),
        "strut_thick": rng.uniform(0.01, 0.02),
        "strut_angle": rng.uniform(0, 120) * galsim.degrees,
    }
    nanometres = rng.normal(0, 14, 8)
    for band in EUCLID.bands:
        is_vis = band.name == "VIS"
        profile = _space(kind, band, optics, nanometres, 0.06 if is_vis else 0.10)
        whole = galsim.Convolve(profile, galsim.Pixel(0.1 if is_vis else 0.3))
        out["euclid", band.name] = _drawn(whole, 640 if is_vis else 320, 0.05 if is_vis else 0.1)
    return out


def _drawn(profile, n, scale):
    """Image of a profile with sum 1, centred on pixel n // 2."""
    image = profile.drawImage(
        nx=n, ny=n, scale=scale, method="no_pixel", offset=(0.5, 0.5), dtype=float
    ).array
    return image / image.sum()


def _ground(kind, band, fwhm, beta, e, angle):
    galsim = require()
    if kind == "moffat":
        psf = galsim.Moffat(beta=beta, fwhm=fwhm)
    elif kind == "airy":
        optics = galsim.Airy(lam=band.wavelength, diam=8.36, obscuration=0.61)
        psf = galsim.Convolve(galsim.Kolmogorov(fwhm=fwhm), optics)
    else:
        r0 = 0.976 * band.wavelength * 1e-9 / (fwhm / 206265) * 1.15
        psf = galsim.Convolve(
            galsim.VonKarman(lam=band.wavelength, r0=r0, L0=25.0),
            galsim.OpticalPSF(
                lam=band.wavelength, diam=8.36, obscuration=0.61, defocus=0.15, coma1=0.08, pad_factor=1.0
            ),
        )
    return psf.shear(g=e / 2, beta=angle * galsim.radians)


def _space(kind, band, optics, nanometres, jitter):
    galsim = require()
    if kind == "moffat":
        width = 0.13 if band.name == "VIS" else 0.30
        return galsim.Moffat(beta=3.0, fwhm=width)
    parts = []
    for factor in (0.88, 1.0, 1.12):
        wavelength = band.wavelength * factor
        if kind == "airy":
            parts.append(galsim.Airy(lam=wavelength, diam=1.2, obscuration=optics["obscuration"]))
            continue
        waves = [0.0, 0.0, 0.0, 0.0, *(nanometres / wavelength)]
        parts.append(galsim.OpticalPSF(lam=wavelength, aberrations=waves, pad_factor=1.5, **optics))
    return galsim.Convolve(galsim.Add(parts) / len(parts), galsim.Gaussian(sigma=jitter))


def make_profiles(rng, sources, kind):
    """
    Turn `~jaisp.simulation.Sources` into GalSim profiles of unit flux, one tuple per source.

    Returns
    -------
    profiles : list of tuple
        Bulge, disc and knots (or None) of each source; ``()`` for a star.
    half_light_radius : ndarray
        Circularised radius in VIS for the Sersic indices drawn, in arcsec.
    """
    galsim = require()
    n = len(sources)
    bulge_index = rng.choice(_BULGE_INDICES, n)
    disc_index = rng.choice(_DISC_INDICES, n, p=[0.1, 0.2, 0.4, 0.2, 0.1])
    counts = np.bincount(sources.knot_parent, minlength=n)
    total = sources.flux[:, 6]
    share = sources.bulge_flux[:, 6] / total
    profiles = []
    for k in range(n):
        if sources.is_star[k]:
            profiles.append(())
            continue
        shear = galsim.Shear(g1=sources.e1[k], g2=sources.e2[k])
        parts = [None, None, None]
        if sources.bulge_flux[k].any():
            parts[0] = galsim.Sersic(bulge_index[k], half_light_radius=sources.bulge_radius[k]).shear(shear)
        if sources.disc_flux[k].any():
            parts[1] = galsim.Sersic(disc_index[k], half_light_radius=sources.disc_radius[k]).shear(shear)
        if kind == "knots" and counts[k]:
            walk = galsim.RandomKnots(
                int(counts[k]) + 3,
                profile=galsim.Exponential(half_light_radius=sources.disc_radius[k]),
                rng=galsim.BaseDeviate(int(rng.integers(1, 2**31))),
            )
            parts[2] = walk.shear(shear)
        elif sources.knot_flux[k].any():
            parts[2] = parts[1]
        profiles.append(tuple(parts))
    radius = half_light(share, sources.bulge_radius, sources.disc_radius, bulge_index, disc_index)
    radius[sources.is_star] = 0.0
    return profiles, radius


def half_light(share, bulge_radius, disc_radius, bulge_index, disc_index):
    """Half-light radius of bulge + disc of any Sersic indices, by bisection on the curve of growth."""
    bulge, disc = np.maximum(bulge_radius, 1e-6), np.maximum(disc_radius, 1e-6)
    b_bulge, b_disc = gammaincinv(2 * bulge_index, 0.5), gammaincinv(2 * disc_index, 0.5)
    low, high = 0.01 * np.minimum(bulge, disc), 2 * np.maximum(bulge, disc)
    for _ in range(40):
        middle = 0.5 * (low + high)
        inside = share * gammainc(2 * bulge_index, b_bulge * (middle / bulge) ** (1 / bulge_index))
        inside += (1 - share) * gammainc(2 * disc_index, b_disc * (middle / disc) ** (1 / disc_index))
        low, high = np.where(inside < 0.5, middle, low), np.where(inside < 0.5, high, middle)
    return 0.5 * (low + high)


class Renderer:
    """
    Draws sources in several bands on one pixel grid: GalSim's profiles, convolved with PSFs in Fourier space.

    GalSim's own ``drawImage`` evaluates a profile anew for each band; here the bands of a survey share it.

    Parameters
    ----------
    psfs : list of ndarray
        PSFs as of `make_psfs`, one per band, all of the same size.
    jacobian : `galsim.JacobianWCS`
        From pixels to arcsec.
    n : int
        Width of the images in pixels.
    oversample : int
        How much finer the PSFs are than the pixels.
    """

    def __init__(self, psfs, jacobian, n, oversample):
        self.images = np.zeros((len(psfs), n, n))
        self._psfs, self._jacobian, self._fine = psfs, jacobian, oversample
        self._transfers = {}

    def _transfer(self, size):
        """Transfer functions (bands, size, size // 2 + 1) of the PSFs, cut or padded to ``size``."""
        if size not in self._transfers:
            cut = np.zeros((len(self._psfs), size, size))
            for one, psf in zip(cut, self._psfs, strict=True):
                half = min(size, len(psf)) // 2
                middle, centre = size // 2, len(psf) // 2
                one[middle - half : middle + half, middle - half : middle + half] = psf[
                    centre - half : centre + half, centre - half : centre + half
                ]
                one /= one.sum()
            self._transfers[size] = fft.rfft2(fft.ifftshift(cut, axes=(-2, -1)))
        return self._transfers[size]

    def add(self, profile, fluxes, x, y, half):
        """
        Add one source to the images.

        Parameters
        ----------
        profile : tuple
            Components of unit flux; empty for a point.
        fluxes : ndarray, shape (bands, components)
            Flux of each component; summed for a point.
        x, y : float
            0-based position in pixels.
        half : float
            Half size of the stamp in pixels.

        Returns
        -------
        ndarray, shape (bands,)
            Root of the summed squared pixels of the stamp.
        """
        width = next((size for size in _STAMPS if size >= 2 * half), _STAMPS[-1])
        size = width * self._fine
        i, j = round(x) - width // 2, round(y) - width // 2
        ky, kx = fft.fftfreq(size)[:, None], fft.rfftfreq(size)[None, :]
        phase = np.exp(-2j * np.pi * self._fine * (kx * (x - i) + ky * (y - j)))
        if profile:
            spectrum = 0
            for part, flux in zip(profile, fluxes.T, strict=True):
                if part is not None and flux.any():
                    spectrum = spectrum + flux[:, None, None] * self._profile_transform(part, size, width)
        else:
            spectrum = fluxes.sum(axis=1)[:, None, None]
        fine = fft.irfft2(spectrum * phase * self._transfer(size), (size, size))
        stamps = fine[:, :: self._fine, :: self._fine] * self._fine**2
        n = self.images.shape[-1]
        x0, x1, y0, y1 = max(i, 0), min(i + width, n), max(j, 0), min(j + width, n)
        if x0 < x1 and y0 < y1:
            self.images[:, y0:y1, x0:x1] += stamps[:, y0 - j : y1 - j, x0 - i : x1 - i]
        return np.sqrt((stamps**2).sum(axis=(1, 2)))

    def _profile_transform(self, part, size, width):
        galsim = require()
        half = size // 2
        image = galsim.ImageCD(galsim.BoundsI(0, half, -half, half))
        self._jacobian.toImage(part).drawKImage(image=image, scale=2 * np.pi / width, recenter=False)
        return fft.ifftshift(image.array[:-1], axes=0)
