# Licensed under a 3-clause BSD style license - see LICENSE
"""Pixels that hold no measurement although no mask tells of them: gaps, saturated cores, cosmic rays."""

import numpy as np
from scipy import ndimage

from jaisp.image._sky import sky_statistics

__all__ = ["gaps", "repeated_value", "saturated_pixels", "sharp_pixels"]

# Pixels on either side of the middle that tell whether values repeat.
_REPEATS = 50_000
# Connected pixels that share a saturated image's maximum, and its distance from the sky in the sky's scatter.
_PLATEAU, _FAR = 4, 50.0
_SAMPLE = 100_000  # pixels that tell that scatter, or which value repeats
# Share of an image's pixels that begin a row, or column, of so many of one value: it may be padding.
_OFTEN, _ROW = 0.01, 8
# A pixel this far above the sky (in its scatter) is no light through the telescope if a pair of opposite
# neighbours holds less than a third of what the PSF would give it, by a margin for noise: 2 sigma of a pair.
_BRIGHT, _SHARPER, _MARGIN = 10.0, 3.0, 1.5
_PAIRS = ((0, 1), (1, 0), (1, 1), (1, -1))  # y, x
_CORE = 0.01  # of a PSF's peak: fainter pixels of its image may be noise
_LEAST_NOISE = 0.3  # in units of a variance that is given: noiseless images are sharp where stamps end
_ROUNDS = 5  # that peel wide events


def repeated_value(data, good):
    """
    Value other than 0 that fills so many rows of pixels that it may be padding, else 0.

    Of the highest value `saturated_pixels` tells; in a quantised sky values repeat, but not in long rows.

    Parameters are those of `saturated_pixels`.
    """
    step = data.size // _SAMPLE + 1
    top = np.max(data, where=good, initial=-np.inf)
    best = 0, 0.0
    for image, known in ((data[::step], good[::step]), (data.T[::step], good.T[::step])):
        if image.shape[1] < _ROW:
            continue
        equal = image[:, 1:] == image[:, :-1]
        rows = np.lib.stride_tricks.sliding_window_view(equal, _ROW - 1, axis=1).all(axis=-1)
        start = image[:, : 1 - _ROW]
        found = start[rows & known[:, : 1 - _ROW] & (start != 0) & (start != top)]
        levels, counts = np.unique(found, return_counts=True)
        if counts.max(initial=0) > _OFTEN * image.size:
            best = max(best, (int(counts.max()), float(levels[counts.argmax()])))
    return best[1]


def gaps(data, same, *, stated, value=0.0):
    """
    Pixels of exactly one value, such as 0, that are places without data.

    Noisy floating-point sky is never exactly the same. Where values repeat, as in counts and in images that
    were quantised for compression, it is one of them, and only areas larger than chance makes them are gaps.
    Noiseless images have no gaps.

    Parameters
    ----------
    data : 2-D array
        Image.
    same : 2-D bool array
        Where it is exactly that value, at least in one pixel.
    stated : bool
        Whether the image comes with its noise, so that it may itself be noiseless.
    value : float, optional
        The value.

    Returns
    -------
    2-D bool array
    """
    values = data[~same & np.isfinite(data)]
    values -= np.float32(value)
    if values.size == 0:
        return same
    # Light upon nothing thins out down to nothing; a sky with noise keeps its distance, or is on both sides.
    if stated and np.mean(values < 0) <= 0.01 and np.percentile(values, 1) < 0.5 * np.median(values):
        return np.zeros_like(same)
    # Neighbours in a row: compression quantises each row by itself.
    middle = values.size // 2
    sample = values[max(0, middle - _REPEATS) : middle + _REPEATS]
    levels = np.unique(sample)
    if len(levels) > 0.98 * len(sample) or (len(levels) > 1 and levels[0] > 2 * (levels[1] - levels[0])):
        return same
    # So many of them together, in a square or in a line, are not to be expected once in a hundred images.
    count = np.log(100 * same.size) / np.log(same.size / np.count_nonzero(same))
    # Resampled pixels go in pairs.
    side, line = (2 * int(np.ceil(n)) + 1 for n in (np.sqrt(count), count))
    areas = same.view(np.uint8)
    opened = [
        ndimage.grey_opening(areas, size, mode="constant") for size in ((side, side), (1, line), (line, 1))
    ]
    return np.any(opened, axis=0)


def saturated_pixels(data, good):
    """
    Highest value of the good pixels, and where it is one at which the image is clipped.

    In noise a maximum is one pixel: where connected ones share it, far above the sky, the light went beyond.

    Parameters
    ----------
    data : 2-D array
        Image.
    good : 2-D bool array
        Pixels that count.

    Returns
    -------
    top : float
    saturated : 2-D bool array
    """
    top = np.max(data, where=good, initial=-np.inf)
    highest = good & (data == top)
    if np.count_nonzero(highest) < _PLATEAU:
        return top, np.zeros_like(good)
    values = data[good]
    low, middle = np.percentile(values[:: max(values.size // _SAMPLE, 1)], [16, 50])
    far = middle > low and top - middle > _FAR * (middle - low)
    connected = np.bincount(ndimage.label(highest)[0].ravel())[1:].max() >= _PLATEAU
    return top, highest & (far and connected)


def sharp_pixels(data, variance, good, psfs):
    """
    Pixels that are brighter than light through the telescope can be beside such neighbours.

    Those of cosmic rays and hot pixels, by the test of the SDSS and Rubin pipelines: each pair of opposite
    neighbours has at least a certain share of the light of the pixel between them, which the PSF tells.

    Parameters
    ----------
    data : 2-D array
        Image.
    variance : 2-D array or None
        Its variance, of which the scale does not matter unless there is less noise than a third of it.
    good : 2-D bool array
        Pixels that count.
    psfs : sequence of 2-D array
        Odd square images of the PSFs that it may have: the sharper counts.

    Returns
    -------
    2-D bool array
    """
    snr = data if variance is None else data / np.sqrt(variance)
    mode, sd = sky_statistics(snr[good])
    sd = max(sd, 0.0 if variance is None else _LEAST_NOISE)
    sharp = np.zeros(np.add(data.shape, 2), bool)
    if not sd > 0:
        return sharp[1:-1, 1:-1]
    known = np.pad(good, 1)
    snr = np.pad(np.where(good, (snr - mode) / sd, 0), 1)
    least = np.min([_pair_shares(psf) for psf in psfs], axis=0) / _SHARPER
    y, x = np.nonzero(known & (snr > _BRIGHT))
    for _ in range(_ROUNDS):
        found = np.zeros(len(y), bool)
        for (i, j), share in zip(_PAIRS, least, strict=True):
            pair = known[y + i, x + j] & known[y - i, x - j]
            mean = (snr[y + i, x + j] + snr[y - i, x - j]) / 2
            found |= pair & (mean + _MARGIN < share * snr[y, x])
        if not found.any():
            break
        sharp[y[found], x[found]] = True
        snr[y[found], x[found]] = 0  # what is next to it is looked at without it
        y, x = y[~found], x[~found]
    return sharp[1:-1, 1:-1]


def _pair_shares(psf):
    """Least share of a pixel's light that the mean of opposite neighbours has, for each direction."""
    psf = np.pad(np.asarray(psf, float), 1)
    y, x = np.nonzero(psf > _CORE * psf.max())
    means = ((psf[y + i, x + j] + psf[y - i, x - j]) / 2 for i, j in _PAIRS)
    return [max(float((mean / psf[y, x]).min()), 0.0) for mean in means]
