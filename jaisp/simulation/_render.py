# Licensed under a 3-clause BSD style license - see LICENSE
"""Galaxies as mixtures of Gaussians, drawn on an oversampled grid or evaluated in Fourier space."""

from functools import lru_cache

import numpy as np
from scipy.optimize import nnls
from scipy.special import gamma, gammainc, gammaincinv

# Everything, stars too, carries this small Gaussian (in oversampled pixels), so that sampling at
# pixel centres loses no flux; the PSFs that are given out carry it as well.
SMOOTHING = 0.6


@lru_cache
def sersic_mixture(n, terms=7):
    """
    Mixture of concentric Gaussians with the profile of a Sersic law (Hogg & Lang 2013, fitted by NNLS).

    Returns
    -------
    amplitudes, variances : ndarray
        Shares of the flux (sum 1) and variances in units of the squared half-light radius.
    """
    b = gammaincinv(2 * n, 0.5)
    outer = 0.9 if n < 2 else 2.2
    sigma = np.geomspace(0.12 if n < 2 else 0.012, outer, 4 * terms) * (2.0 if n >= 2 else 1.4)
    # Nodes at equal steps of enclosed flux, out to 8 half-light radii.
    top = gammainc(2 * n, b * 8.0 ** (1 / n))
    share = np.concatenate([np.linspace(0.002, 0.995 * top, 300), top * (1 - np.geomspace(0.005, 1e-4, 40))])
    radius = (gammaincinv(2 * n, share) / b) ** n
    growth = 1 - np.exp(-0.5 * (radius[:, None] / sigma) ** 2)
    density = np.exp(-0.5 * (radius[:, None] / sigma) ** 2) / sigma**2
    exact = b ** (2 * n) * np.exp(-b * radius ** (1 / n)) / (n * gamma(2 * n))
    # Light inside a radius, and surface brightness times radius so that the core does not rule the fit.
    matrix = np.concatenate([growth, density * (0.5 * radius**1.5)[:, None]])
    goal = np.concatenate([share / top, exact * 0.5 * radius**1.5 / top])
    amplitude, _ = nnls(matrix, goal)
    keep = amplitude > 1e-4
    return (amplitude[keep] / amplitude[keep].sum()).astype(np.float32), (sigma[keep] ** 2).astype(np.float32)


def axes(e1, e2):
    """Factors of the circularised radius along the two axes, and the cosine and sine of the angle."""
    e = min(np.hypot(e1, e2), 0.95)
    q = (1 - e) / (1 + e)
    angle = 0.5 * np.arctan2(e2, e1)
    return q**-0.5, q**0.5, np.cos(angle), np.sin(angle)


def add_galaxy(images, x, y, radius, e1, e2, flux, kind, *, reach):
    """
    Add one Sersic component to images in place.

    Parameters
    ----------
    images : ndarray, shape (bands, n, n)
        Flux per oversampled pixel.
    x, y, radius : float
        Centre and circularised half-light radius in oversampled pixels.
    e1, e2 : float
        Ellipticity.
    flux : ndarray, shape (bands,)
        Flux per band.
    kind : float
        Sersic index, 1 or 4.
    reach : float
        Half size of the stamp in oversampled pixels.
    """
    n = images.shape[-1]
    x0, x1 = max(int(x - reach), 0), min(int(x + reach) + 2, n)
    y0, y1 = max(int(y - reach), 0), min(int(y + reach) + 2, n)
    if x0 >= x1 or y0 >= y1:
        return
    amplitude, variance = sersic_mixture(kind)
    long, short, cos, sin = axes(e1, e2)
    dx = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(x)
    dy = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(y)
    u2, v2 = (cos * dx + sin * dy) ** 2, (cos * dy - sin * dx) ** 2
    stamp = np.zeros(u2.shape, np.float32)
    for a, v in zip(amplitude, variance, strict=True):
        vu = v * (radius * long) ** 2 + SMOOTHING**2
        vv = v * (radius * short) ** 2 + SMOOTHING**2
        # A narrow Gaussian needs only the middle of the stamp.
        near = int(5.5 * np.sqrt(vu)) + 2
        j0, j1 = max(int(y) - near - y0, 0), max(int(y) + near - y0, 0)
        i0, i1 = max(int(x) - near - x0, 0), max(int(x) + near - x0, 0)
        part = u2[j0:j1, i0:i1] * np.float32(-0.5 / vu)
        part -= v2[j0:j1, i0:i1] * np.float32(0.5 / vv)
        np.exp(part, out=part)
        part *= np.float32(a / (2 * np.pi * np.sqrt(vu * vv)))
        stamp[j0:j1, i0:i1] += part
    for image, value in zip(images, flux.astype(np.float32), strict=True):
        image[y0:y1, x0:x1] += value * stamp


def add_points(images, x, y, flux):
    """Add points at ``x, y`` (oversampled pixels, arrays) with ``flux`` (n, bands) to images in place."""
    n = images.shape[-1]
    offsets = np.arange(-5, 6)
    inside = (x > 6) & (x < n - 7) & (y > 6) & (y < n - 7)
    for px, py, value in zip(x[inside], y[inside], flux[inside].astype(np.float32), strict=True):
        i, j = round(px), round(py)
        gx = np.exp(-0.5 * ((i - px + offsets) / SMOOTHING) ** 2)
        gy = np.exp(-0.5 * ((j - py + offsets) / SMOOTHING) ** 2)
        # Unit sums: at this width the sampled Gaussian is off by up to 0.3 % otherwise.
        stamp = np.outer(gy / gy.sum(), gx / gx.sum()).astype(np.float32)
        images[:, j - 5 : j + 6, i - 5 : i + 6] += value[:, None, None] * stamp


def profile_reach(radius, flux, kind, floor):
    """Stamp half size in pixels: where the summed light left outside falls below ``floor`` nJy."""
    left = np.clip(floor / max(flux, 1e-9), 2e-4, 0.02)
    if kind == 1:
        growth = gammaincinv(2.0, 1 - left) / 1.678
    else:
        growth = min((gammaincinv(8.0, 1 - left) / 7.669) ** 4, 12.0)
    return radius * growth * 1.3 + 5


def polar_grid():
    """
    Points and weights that integrate over the Fourier plane.

    Returns
    -------
    fx, fy, weight : ndarray, shape (m,)
        Frequencies in cycles per arcsec on a half plane, and the area that each point stands for.
    """
    radius = np.geomspace(0.004, 9.5, 44)
    angle = (np.arange(14) + 0.5) * np.pi / 14
    fx = (radius[:, None] * np.cos(angle)).ravel()
    fy = (radius[:, None] * np.sin(angle)).ravel()
    step = np.log(radius[1] / radius[0])
    weight = np.repeat(radius**2 * step * 2 * np.pi / 14, 14)
    return fx, fy, weight


def sersic_transform(fx, fy, radius, e1, e2, kind):
    """Fourier transform (real) of a unit-flux Sersic component; frequencies in cycles per unit of radius."""
    amplitude, variance = sersic_mixture(kind)
    long, short, cos, sin = axes(e1, e2)
    u2 = (cos * fx + sin * fy) ** 2 * (radius * long) ** 2
    v2 = (cos * fy - sin * fx) ** 2 * (radius * short) ** 2
    return amplitude @ np.exp((-2 * np.pi**2 * variance)[:, None] * (u2 + v2))
