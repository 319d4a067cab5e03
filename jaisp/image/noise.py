# Licensed under a 3-clause BSD style license - see LICENSE
"""Noise measured from the pixels: per pixel, from pixel to pixel, and of a source."""

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from scipy.signal import fftconvolve

__all__ = ["Noise", "measure_noise", "measure_variance"]

_SCALE_LIMITS = (0.3, 8.0)


@dataclass(frozen=True)
class Noise:
    """Noise of one band."""

    pixel_sd: float
    correlation: np.ndarray = field(repr=False)
    scale: float
    depth: float
    stated: bool


def _lower_sd(values):
    """Mode and standard deviation of the lower half of ``values``."""
    values = values[np.isfinite(values)]
    mode = np.median(values)
    for _ in range(20):
        sd = np.sqrt(np.mean((values[values < mode] - mode) ** 2))
        new = np.median(values[values < mode + 1.5 * sd])
        if abs(new - mode) < 1e-3 * sd:
            break
        mode = new
    return mode, sd


def measure_variance(data, mask, *, pixel_scale=0.1):
    """Variance of the sky, one value for now."""
    _, sd = _lower_sd(data[~mask])
    return np.full(data.shape, max(sd, 1e-30) ** 2, np.float32)


def snr_map(data, variance, mask, psf):
    """Matched-filter signal-to-noise ratio, NaN where masked."""
    weight = np.where(mask, 0, 1 / variance)
    numerator = fftconvolve(np.where(mask, 0, data) * weight, psf[::-1, ::-1], mode="same")
    denominator = fftconvolve(weight, psf[::-1, ::-1] ** 2, mode="same")
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = numerator / np.sqrt(np.maximum(denominator, 0))
    snr[mask | (denominator <= 0)] = np.nan
    return snr


def measure_noise(data, variance, mask, psf, *, stated=True):
    """Measure the noise of one band; returns the noise and a finding or None."""
    snr = snr_map(data, variance, mask, psf)
    mode, sd = _lower_sd(snr)
    source = ndimage.binary_dilation(np.nan_to_num(snr) > mode + 4 * sd, iterations=3)
    good = ~source & ~mask
    if good.sum() > 100:
        mode, sd = _lower_sd(snr[good])
    finding = None
    scale = float(np.clip(sd, *_SCALE_LIMITS))
    if scale != sd:
        finding = (f"noise of a source is {sd:.3g} times that of the variance", f"limited to {scale}")
    pixel_sd = float(np.median(np.sqrt(variance[~mask])))
    depth = 31.4 - 2.5 * np.log10(5 * scale * pixel_sd / np.sqrt(np.sum(psf**2)))
    correlation = np.zeros((7, 7))
    correlation[3, 3] = 1
    return Noise(pixel_sd, correlation, scale, float(depth), stated), finding
