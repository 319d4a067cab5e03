# Licensed under a 3-clause BSD style license - see LICENSE
"""Pixels that hold no measurement although no mask tells of them: gaps of zeros, and saturated cores."""

import numpy as np
from scipy import ndimage

__all__ = ["gaps", "saturated_pixels"]

# Pixels on either side of the middle that tell whether values repeat.
_REPEATS = 50_000
# Connected pixels that share a saturated image's maximum, and its distance from the sky in the sky's scatter.
_PLATEAU, _FAR = 4, 50.0
_SAMPLE = 100_000  # pixels that tell that scatter


def gaps(data, zero, *, stated):
    """
    Pixels of exactly 0 that are places without data.

    Noisy floating-point sky is never exactly 0. Where values repeat, as in counts and in images that were
    quantised for compression, 0 is one of them, and only areas larger than chance makes them are gaps.
    Noiseless images have no gaps.

    Parameters
    ----------
    data : 2-D array
        Image.
    zero : 2-D bool array
        Where it is exactly 0, at least in one pixel.
    stated : bool
        Whether the image comes with its noise, so that it may itself be noiseless.

    Returns
    -------
    2-D bool array
    """
    values = data[~zero & np.isfinite(data)]
    if values.size == 0:
        return zero
    if stated and np.mean(values < 0) <= 0.01:
        return np.zeros_like(zero)
    # Neighbours in a row: compression quantises each row by itself.
    middle = values.size // 2
    sample = values[max(0, middle - _REPEATS) : middle + _REPEATS]
    levels = np.unique(sample)
    if len(levels) > 0.98 * len(sample) or (len(levels) > 1 and levels[0] > 2 * (levels[1] - levels[0])):
        return zero
    # So many zeros together, in a square or in a line, are not to be expected once in a hundred images.
    count = np.log(100 * zero.size) / np.log(zero.size / np.count_nonzero(zero))
    # Resampled pixels go in pairs.
    side, line = (2 * int(np.ceil(n)) + 1 for n in (np.sqrt(count), count))
    areas = zero.view(np.uint8)
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
