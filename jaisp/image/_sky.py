# Licensed under a 3-clause BSD style license - see LICENSE
"""Telling sky from sources: the statistics that noise, background and PSF share."""

from bisect import bisect_right
from itertools import pairwise

import numpy as np
from scipy import ndimage
from scipy.signal import fftconvolve
from scipy.special import log_ndtr

__all__ = [
    "FWHM_PER_SD",
    "data_box",
    "matched_filter",
    "psf_sd",
    "sample_windows",
    "sky_statistics",
    "smooth_level",
    "source_mask",
    "windows",
]

# Fewer independent pieces of sky than this, and the mask was too greedy.
_LEAST_PIECES = 25
# More values than these tell nothing more.
_ENOUGH = 100_000
_SLOWEST = 1 / 16  # share of a step
FWHM_PER_SD = 2 * np.sqrt(2 * np.log(2))

# A Gaussian of which only what lies below mean + alpha * sd is left: the ratio
# (limit - mean of the rest)^2 / variance of the rest, and that variance, as functions of alpha.
_ALPHA = np.linspace(-3, 6, 1801)
_HAZARD = np.exp(-0.5 * _ALPHA**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(_ALPHA))
_REST_VARIANCE = 1 - _ALPHA * _HAZARD - _HAZARD**2
_RATIO = (_ALPHA + _HAZARD) ** 2 / _REST_VARIANCE
_TABLE = tuple(column.tolist() for column in (_RATIO, _ALPHA, _REST_VARIANCE))


def sky_statistics(values, *, cut=0.5):
    """
    Mode and standard deviation of the sky among values that sources pull up.

    A Gaussian is fitted by its moments to the values below ``mode + cut * sd``, where sources hardly reach.

    Parameters
    ----------
    values : array
        Values; those that are not finite are left out.
    cut : float, optional
        How far above the mode values are believed, in standard deviations.

    Returns
    -------
    mode, sd : float
        ``(0, 0)`` for no values.
    """
    values = np.asarray(values, float).ravel()
    values = values[np.isfinite(values)]
    values = np.sort(values[:: values.size // _ENOUGH + 1])
    if values.size < 8:
        return (float(np.median(values)), float(np.std(values))) if values.size else (0.0, 0.0)
    # About the median and in units of the scatter: neither a pedestal nor a unit must cost digits.
    middle = values[values.size // 2]
    scale = (middle - values[int(0.159 * values.size)]) or 1.0
    values = (values - middle) / scale
    mode, sd = 0.0, -values[int(0.159 * values.size)]
    pace, step = 0.5, 0.0
    total, squares = np.cumsum(values), np.cumsum(values**2)
    for _ in range(50):
        limit = mode + cut * sd
        # Between values the sums are interpolated: else a rounding would decide where the steps lead.
        k = int(values.searchsorted(limit, side="right"))
        part = float((limit - values[k - 1]) / (values[k] - values[k - 1])) if 0 < k < values.size else 0.0
        count = k + part
        if count < 4:
            break
        last = min(k, values.size - 1)
        mean = float(total[k - 1] + part * (total[last] - total[k - 1])) / count
        variance = float(squares[k - 1] + part * (squares[last] - squares[k - 1])) / count - mean**2
        if not variance > 0:
            break
        alpha, rest_variance = _truncated((limit - mean) ** 2 / variance)
        new_sd = (variance / rest_variance) ** 0.5
        new_mode = limit - alpha * new_sd
        settled = abs(new_mode - mode) < 1e-4 * sd and abs(new_sd - sd) < 1e-4 * sd
        # Not the whole step, and less of it where it goes to and fro: it might for ever between two values.
        before, step = step, new_mode - mode
        if step * before < 0:
            pace = max(pace / 2, _SLOWEST)
        mode, sd = mode + pace * step, sd + pace * (new_sd - sd)
        if settled:
            break
    return float(middle + scale * mode), float(scale * sd)


def _truncated(ratio):
    """``alpha`` and the variance of what is left, by the ratio: `numpy.interp`, but quick for one number."""
    ratios, *columns = _TABLE
    k = min(max(bisect_right(ratios, ratio), 1), len(ratios) - 1)
    part = min(max((ratio - ratios[k - 1]) / (ratios[k] - ratios[k - 1]), 0.0), 1.0)
    return (column[k - 1] + part * (column[k] - column[k - 1]) for column in columns)


def psf_sd(psf):
    """Standard deviation in pixels of the Gaussian that has the noise-equivalent area of ``psf``."""
    psf = np.asarray(psf, float)
    return float(max(psf.sum() / np.sqrt(4 * np.pi * np.sum(psf**2)), 0.5))


def smooth_level(data, weight, sd):
    """Weighted Gaussian mean of the data and its signal-to-noise ratio, both 0 where there is no weight."""
    kwargs = {"mode": "constant", "truncate": 3.0}
    total = ndimage.gaussian_filter(data * weight, sd, **kwargs)
    norm = ndimage.gaussian_filter(weight, sd, **kwargs)
    # The square of a Gaussian is a Gaussian, narrower by sqrt(2) and of sum 1 / (4 pi sd^2).
    squared = ndimage.gaussian_filter(weight, sd / np.sqrt(2), **kwargs) / (4 * np.pi * sd**2)
    some = norm > 1e-3 * norm.max() if norm.size else norm > 0
    level = np.divide(total, norm, out=np.zeros_like(total), where=some)
    snr = np.divide(
        total, np.sqrt(np.maximum(squared, 0)), out=np.zeros_like(total), where=some & (squared > 0)
    )
    return level, snr


def matched_filter(data, variance, mask, kernel):
    """Signal-to-noise ratio of a source of the kernel's shape, NaN where half of it would be masked."""
    weight = np.where(mask, 0, 1 / variance).astype(float)
    flipped = np.asarray(kernel, float)[::-1, ::-1]
    total = fftconvolve(np.where(mask, 0, data) * weight, flipped, mode="same")
    # Of the data, which bright stars may dominate, every digit counts; of smooth maps float32 holds enough.
    squared = (flipped**2).astype(np.float32)
    norm = fftconvolve(weight.astype(np.float32), squared, mode="same")
    covered = fftconvolve((~mask).astype(np.float32), squared, mode="same") > 0.5 * squared.sum()
    snr = np.full(data.shape, np.nan)
    good = covered & ~mask & (norm > 0)
    snr[good] = total[good] / np.sqrt(norm[good])
    return snr


def source_mask(data, variance, mask, sd, *, seed=4.0, extent=1.5):
    """
    Pixels that hold light of sources, from compact cores to wide wings.

    Parameters
    ----------
    data, variance : 2-D array
        Image and its variance.
    mask : 2-D bool array
        True where bad.
    sd : float
        Standard deviation of the PSF in pixels.
    seed, extent : float, optional
        A source has a pixel above ``seed`` and reaches as far as ``extent`` times the noise of the smoothed
        image.

    Returns
    -------
    sources : 2-D bool array
    """
    weight = np.where(mask, 0, 1 / variance).astype(np.float32)
    # Without its level, or the signal-to-noise ratio of plain sky would fall towards masks and edges.
    level, _ = sky_statistics(data[~mask])
    data = np.where(mask, 0, data - level).astype(np.float32)
    maps = []
    for factor in (1, 2, 4):
        # A smoothing length that is a large part of the image would leave nothing to compare with.
        if factor > 1 and 25 * factor * sd > min(data.shape):
            break
        maps.append(_coarse_snr(data, weight, factor, sd))
    for levels, reach in ((maps, extent), (maps[:1], extent), (maps[:1], 0.6 * seed)):
        found = _above(levels, mask, sd, seed, reach)
        if np.count_nonzero(~mask & ~found) > _LEAST_PIECES * 4 * np.pi * sd**2:
            break
    return found


def _coarse_snr(data, weight, factor, sd):
    """Signal-to-noise ratio of the image smoothed by ``factor * sd``, worked out on pixels as much larger."""
    if factor == 1:
        return smooth_level(data, weight, sd)[1]
    pad = [(0, -length % factor) for length in data.shape]
    padded = [np.pad(image, pad) for image in (data * weight, weight)]
    steps = [(a, b) for a in range(factor) for b in range(factor)]
    blocks = [sum(image[a::factor, b::factor] for a, b in steps) for image in padded]
    mean = np.divide(blocks[0], blocks[1], out=np.zeros_like(blocks[0]), where=blocks[1] > 0)
    snr = smooth_level(mean, blocks[1], sd)[1]
    snr = np.repeat(np.repeat(snr, factor, axis=0), factor, axis=1)
    return snr[: data.shape[0], : data.shape[1]]


def _above(maps, mask, sd, seed, extent):
    """Pixels of connected regions of the signal-to-noise maps above ``extent`` that reach ``seed``."""
    found = np.zeros(mask.shape, bool)
    cross = ndimage.generate_binary_structure(2, 1)
    # Twice: the noise of the first round still holds the light of the brightest sources.
    for _ in range(2):
        new, least = np.zeros(mask.shape, bool), 0.0
        for snr in maps:
            free = ~mask & ~found
            mode, noise = sky_statistics(snr[free] if free.sum() > 50 else snr[~mask])
            # Smoothing wider never lowers the noise of sky; few pieces of it may pretend so.
            least = noise = max(noise, least)
            if noise > 0:
                snr = (snr - mode) / noise
                label, count = ndimage.label(snr > extent, structure=cross)
                reaches = np.zeros(count + 1, bool)
                reaches[label[snr > seed]] = True
                new |= reaches[label]
        found = ndimage.binary_dilation(new, structure=cross, iterations=int(np.ceil(sd)))
    return found


def windows(shape, size):
    """Slices of windows of about ``size`` pixels that cover an image."""
    edges = []
    for length in shape:
        cuts = np.linspace(0, length, max(1, round(length / size)) + 1).astype(int)
        edges.append([slice(int(a), int(b)) for a, b in pairwise(cuts)])
    return [(y, x) for y in edges[0] for x in edges[1]]


def data_box(mask):
    """Slices of the smallest box around the pixels that are not masked; of all pixels, if all are."""
    box = []
    for axis in (1, 0):
        used = np.flatnonzero(~mask.all(axis=axis))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, mask.shape[1 - axis]))
    return tuple(box)


def sample_windows(mask, size, most):
    """At most ``most`` windows of about ``size`` pixels, spread over where an image has data."""
    boxes = windows(mask.shape, size)
    free = np.array([np.count_nonzero(~mask[box]) for box in boxes])
    full = np.flatnonzero(free >= 0.25 * free.max())
    chosen = full[np.unique(np.linspace(0, len(full) - 1, most).round().astype(int))]
    return [boxes[k] for k in chosen]
