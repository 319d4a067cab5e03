# Licensed under a 3-clause BSD style license - see LICENSE
"""Noise measured from the pixels: per pixel, from pixel to pixel, and of a source."""

from dataclasses import dataclass, field

import numpy as np
from scipy.signal import fftconvolve

from jaisp.image._mesh import measure_mesh
from jaisp.image._sky import FWHM_PER_SD, matched_filter, psf_sd, sample_windows, sky_statistics, source_mask
from jaisp.image.background import CELL
from jaisp.surveys import AB_ZERO_POINT

__all__ = ["Noise", "measure_noise", "measure_variance"]

_SCALE_LIMITS = (0.3, 8.0)
# Size of a typical faint galaxy: noise that is correlated from pixel to pixel must be right for galaxies too.
_SOURCE_FWHM = 0.6  # arcsec
_WINDOW, _MOST_WINDOWS = 600, 4  # 1.4 million pixels tell the noise of a source to 1 %
_LAGS = 3
_STATED_PIECES = 5


@dataclass(frozen=True)
class Noise:
    """
    Noise of one band.

    Parameters
    ----------
    pixel_sd : float
        Median of the square root of the variance, nJy per pixel.
    correlation : 2-D float array (7, 7)
        Correlation of the sky's pixels against lag in y and x, 1 in the middle.
    scale : float
        Noise of a source over what the variance says if pixels were independent.
    depth : float
        AB magnitude of a point source at 5 sigma.
    stated : bool
        Whether the variance was given, not measured.
    """

    pixel_sd: float
    correlation: np.ndarray = field(repr=False)
    scale: float
    depth: float
    stated: bool


def measure_variance(data, mask, psf, *, pixel_scale):
    """
    Measure the variance of the sky's pixels.

    Parameters
    ----------
    data : 2-D array
        Image in nJy.
    mask : 2-D bool array
        True where bad.
    psf : 2-D array
        PSF of the image, or one like it.
    pixel_scale : float
        In arcsec.

    Returns
    -------
    variance : 2-D float32 array
        In nJy2, without the photon noise of sources; constant unless it varies significantly over the image.
    """
    mesh = measure_mesh(data, 1.0, mask, psf_sd(psf), cell=CELL / pixel_scale)
    sd = mesh.whole["sd"]
    values = data[~mask]
    if not sd > 0:
        _, sd = sky_statistics(values)
    # A noiseless image has no variance to find; nothing may be divided by zero.
    floor = max(1e-6 * float(np.max(np.abs(values))), 1e-12)
    if not sd > floor:
        return np.full(data.shape, floor**2, np.float32)
    part = mesh.varies(mesh.sd, mesh.sd_err, sd)
    if part == 0:
        return np.full(data.shape, sd**2, np.float32)
    return np.maximum(mesh.to_pixels(sd + part * (mesh.sd - sd)), 0.1 * sd) ** 2


def measure_noise(data, variance, mask, psf, *, pixel_scale, stated=True):
    """
    Measure the noise of one band from its sky.

    Parameters
    ----------
    data, variance : 2-D array
        Sky-subtracted image in nJy and its variance.
    mask : 2-D bool array
        True where bad.
    psf : 2-D array
        PSF that sums to 1.
    pixel_scale : float
        In arcsec.
    stated : bool, optional
        Whether the variance was given.

    Returns
    -------
    noise : Noise
        The noise of a source is measured as the scatter, below and just above its mode, of the
        signal-to-noise ratio of a matched filter over the sky. The filter is the PSF widened to a typical
        faint galaxy.
    finding : tuple or None
        What was found and done, where the measured noise could not be believed, and whether numbers are in
        doubt.
    """
    sd = psf_sd(psf)
    width = _SOURCE_FWHM / FWHM_PER_SD / pixel_scale
    kernel = fftconvolve(np.pad(np.asarray(psf, float), 4), _gaussian(width))
    sources_snr, points_snr, products, free = [], [], 0.0, 0
    for box in sample_windows(mask, _WINDOW, _MOST_WINDOWS):
        image, spread, bad = data[box], variance[box], mask[box]
        if bad.all():
            continue
        sky = ~bad & ~source_mask(image, spread, bad, sd)
        sources_snr.append(matched_filter(image, spread, bad, kernel)[sky])
        points_snr.append(matched_filter(image, spread, bad, psf)[sky])
        if not sky.any():
            continue
        products = products + _lag_products(image / np.sqrt(spread), sky)
        free += np.count_nonzero(sky)
    pixel_sd = float(np.sqrt(np.median(variance[~mask])))
    correlation = _correlation(products)
    scale, point_scale, finding = 1.0, 1.0, None
    pieces = free / (4 * np.pi * (sd**2 + width**2))
    if pieces < 8:
        finding = (
            "too little sky to measure the noise of a source",
            "the variance is believed as it is",
            False,
        )
    else:
        # Sources are masked, so that more of the distribution may be used: the more, the less sky there is.
        cut = 1.0 if pieces > 200 else 2.0
        found = sky_statistics(np.concatenate(sources_snr), cut=cut)[1]
        point = sky_statistics(np.concatenate(points_snr), cut=cut)[1]
        if stated:
            # A variance that was given counts as much as a few pieces of sky that agree with it.
            weight = pieces / (pieces + _STATED_PIECES)
            found, point = found**weight, point**weight
        scale, point_scale = (float(np.clip(value, *_SCALE_LIMITS)) for value in (found, point))
        if scale != found:
            finding = (
                f"the noise of a source is {found:.3g} times what the variance says",
                f"limited to {scale:g} times; check the variance and its unit",
                True,
            )
    flux_sd = point_scale * pixel_sd / np.sqrt(np.sum(np.asarray(psf, float) ** 2))
    depth = float(AB_ZERO_POINT - 2.5 * np.log10(5 * flux_sd))
    return Noise(pixel_sd, correlation, scale, depth, stated), finding


def _gaussian(sd):
    """Gaussian of sum 1 in an odd square image."""
    half = int(np.ceil(3.5 * sd))
    profile = np.exp(-0.5 * (np.arange(-half, half + 1) / max(sd, 1e-3)) ** 2)
    return np.outer(profile, profile) / profile.sum() ** 2


def _lag_products(values, sky):
    """Sums over pairs of sky pixels at each lag: of products, and of pairs."""
    mode, spread = sky_statistics(values[sky])
    # Clipped, so that what light of sources is left does not decide.
    deviation = np.where(sky, np.clip(values - mode, -4 * spread, 4 * spread), 0)
    sums = np.zeros((2, 2 * _LAGS + 1, 2 * _LAGS + 1))
    ny, nx = values.shape
    for dy in range(min(_LAGS + 1, ny)):
        for dx in range(-_LAGS, _LAGS + 1):
            if abs(dx) >= nx:
                continue
            one = slice(dy, ny), slice(max(dx, 0), nx + min(dx, 0))
            two = slice(0, ny - dy), slice(max(-dx, 0), nx - max(dx, 0))
            pair = np.sum(deviation[one] * deviation[two]), np.sum(sky[one] & sky[two])
            sums[:, _LAGS + dy, _LAGS + dx] = sums[:, _LAGS - dy, _LAGS - dx] = pair
    return sums


def _correlation(products):
    """Correlation against lag from sums of products and pairs; white if there is nothing to measure."""
    white = np.zeros((2 * _LAGS + 1, 2 * _LAGS + 1))
    white[_LAGS, _LAGS] = 1
    if np.ndim(products) == 0 or not products[0, _LAGS, _LAGS] > 0:
        return white
    covariance = np.divide(*products, out=np.zeros_like(products[0]), where=products[1] > 20)
    return np.clip(covariance / covariance[_LAGS, _LAGS], -1, 1) if covariance[_LAGS, _LAGS] > 0 else white
