# Licensed under a 3-clause BSD style license - see LICENSE
"""
Bands of one image brought onto another pixel grid: shifted, added up, or interpolated.

Interpolation is `reproject.reproject_interp` with cubic splines, the one method of reproject that neither
broadens the PSF nor loses flux. Measured on stars of FWHM 0.70 arcsec in pixels of 0.2, turned by 23 degrees
(FWHM with both pixels 0.713, noise of a matched filter relative to that of independent pixels):

=================  ===================  ===========  =====
method             flux                 FWHM         noise
=================  ===================  ===========  =====
bilinear           0.9999 +- 0.0006     0.739        0.975
cubic spline       1.0000 +- 0.00001    0.713        1.009
adaptive, Hann     1.0000 +- 0.0003     0.734        0.982
exact              1.0000 +- 0.00001    0.739        0.974
=================  ===================  ===========  =====

What reproject leaves to its caller is done here: bad pixels are filled before and masked after, surface
brightness is turned into flux per pixel, and a coarser target is averaged over its pixels.
"""

import numpy as np
from scipy import ndimage

from jaisp.io.grid import can_rescale, local_jacobian, outline, rescaled, shifted, transform

__all__ = ["Planes", "add_up", "fill_bad", "move", "oversampling", "reproject_image"]

# A target pixel is bad if more than this part of its interpolation weight lies on the pixels of holes.
_BAD_WEIGHT = 0.1
# A bad pixel stands alone if this many of its 8 neighbours are good: over it the image is continued well, and
# only this part of the weight must be good. With 10 % of the pixels bad at random (stars of FWHM 0.7 arcsec,
# pixels of 0.2), 8 % of the target is masked, fluxes are unbiased to 0.2 % and their pulls 0.98 to 1.00.
_GOOD_NEIGHBOURS, _LEAST_GOOD = 6, 0.5
# Not on peaks of bright sources, which rise by more than this times the noise above their neighbours: there
# what is filled in would be off by more than half the noise.
_STEEP = 3.0
# Side of the blocks, in samples: bounds the memory whatever the size of the image.
_BLOCK = 512
# Splines of one block need this many pixels around it (their tail falls by 0.27 a pixel).
_MARGIN = 16
# Rings of pixels filled from their neighbours around a hole, and sweeps that smooth the inner two.
_RINGS, _SWEEPS = 4, 12
_TINY = 1e-30


class Planes:
    """
    Data, variance and mask of the bands of one survey on one grid, masked throughout to begin with.

    Parameters
    ----------
    bands : sequence of str
        Names of the bands.
    shape : tuple of int
        Shape (ny, nx).
    """

    def __init__(self, bands, shape):
        self.shape = shape
        self.data = {band: np.zeros(shape, np.float32) for band in bands}
        self.variance = {band: np.ones(shape, np.float32) for band in bands}
        self.mask = {band: np.ones(shape, bool) for band in bands}


def move(image, x0, y0, shape):
    """
    Cut or pad an image by whole pixels.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`
        The image.
    x0, y0 : int
        Its pixel that becomes pixel (0, 0); may be negative.
    shape : tuple of int
        Shape of the result.

    Returns
    -------
    Planes
    """
    planes = Planes(image.bands, shape)
    here, there = _common(image.shape, x0, y0, shape)
    for band in image.bands:
        planes.data[band][there] = image.data[band][here]
        planes.variance[band][there] = image.variance[band][here]
        planes.mask[band][there] = image.mask[band][here]
    return planes


def add_up(image, x0, y0, shape):
    """
    Add 2 x 2 pixels into one; the first pair begins at pixel (x0, y0), which may be negative.

    Parameters and returns as `move`; ``shape`` is that of the result. A pixel is bad if one of its four is.
    """
    fine = move(image, x0, y0, (2 * shape[0], 2 * shape[1]))
    planes = Planes(image.bands, shape)
    for band in image.bands:
        data, variance, mask = (
            plane[band].reshape(shape[0], 2, shape[1], 2) for plane in (fine.data, fine.variance, fine.mask)
        )
        planes.data[band][:] = data.sum(axis=(1, 3))
        planes.variance[band][:] = variance.sum(axis=(1, 3))
        planes.mask[band][:] = mask.any(axis=(1, 3))
    return planes


def _common(old_shape, x0, y0, new_shape):
    """Slices of the old and the new array where they overlap."""
    here, there = [], []
    for start, old, new in ((y0, old_shape[0], new_shape[0]), (x0, old_shape[1], new_shape[1])):
        low, high = max(start, 0), max(min(start + new, old), max(start, 0))
        here.append(slice(low, high))
        there.append(slice(low - start, high - start))
    return tuple(here), tuple(there)


def oversampling(jacobian):
    """Samples per target pixel and axis that keep a coarser target from losing flux between its pixels."""
    step = np.sqrt(abs(np.linalg.det(jacobian)))
    return 1 if step < 1.4 else int(np.ceil(step))


def reproject_image(image, wcs, shape, *, oversample=1):
    """
    Interpolate all bands of an image onto another grid.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`
        The image.
    wcs : `~astropy.wcs.WCS`
        WCS of the target.
    shape : tuple of int
        Shape (ny, nx) of the target.
    oversample : int
        Samples per target pixel and axis; their mean is taken.

    Returns
    -------
    Planes
        ``variance`` is that of independent pixels that give the same noise of summed flux. The scatter of
        single pixels is less, because interpolation correlates them.
    """
    planes = Planes(image.bands, shape)
    step = max(_BLOCK // oversample, 1)
    for y0 in range(0, shape[0], step):
        for x0 in range(0, shape[1], step):
            size = min(step, shape[0] - y0), min(step, shape[1] - x0)
            block = shifted(wcs, x0, y0, size)
            cut = _source_window(image, block, size)
            if cut is not None:
                _reproject_block(
                    image, cut, block, size, oversample, planes, np.s_[y0 : y0 + size[0], x0 : x0 + size[1]]
                )
    return planes


def _source_window(image, block, size):
    """Slices of the image that a block of the target needs, or None."""
    if not can_rescale(image.wcs):
        return np.s_[: image.shape[0], : image.shape[1]]
    x, y = transform(block, image.wcs, *outline(size, n=9).T)
    if not np.all(np.isfinite(x + y)):
        return None
    window = []
    for values, n in ((y, image.shape[0]), (x, image.shape[1])):
        low, high = int(np.floor(values.min())) - _MARGIN, int(np.ceil(values.max())) + _MARGIN + 1
        if low + _MARGIN >= n or high - _MARGIN <= 0:
            return None
        window.append(slice(max(low, 0), min(high, n)))
    return tuple(window)


def _reproject_block(image, cut, block, size, oversample, planes, where):
    """Interpolate one block of the target into ``planes``."""
    from reproject import reproject_interp  # imports dask, which takes half a second

    source = shifted(image.wcs, cut[1].start or 0, cut[0].start or 0)
    good = [~image.mask[band][cut] for band in image.bands]
    data = [fill_bad(image.data[band][cut], ok) for band, ok in zip(image.bands, good, strict=True)]
    # The variance of what is not used may be anything.
    variance = [image.variance[band][cut] * ok for band, ok in zip(image.bands, good, strict=True)]
    alone = [_alone(*each) for each in zip(good, data, variance, strict=True)]
    fine = rescaled(block, oversample)
    fine_size = size[0] * oversample, size[1] * oversample

    def interpolate(stack, order):
        stack = np.asarray(stack, np.float32)
        values = reproject_interp(
            (stack, source),
            fine,
            shape_out=(len(stack), *fine_size),
            order=order,
            roundtrip_coords=False,
            return_footprint=False,
        )
        return values.reshape(-1, size[0], oversample, size[1], oversample).mean(axis=(2, 4))

    data = interpolate(data, 3)
    variance, weight, filled = np.split(interpolate(variance + good + alone, 1), 3)
    # From values per pixel of the image to values per pixel of the target.
    area = _area_ratio(block, image.wcs, size)
    ok = (weight + filled > 1 - _BAD_WEIGHT) & (weight > _LEAST_GOOD) & np.isfinite(data)
    # The mean variance of the good pixels, larger as fewer of them tell.
    variance /= np.where(ok, weight * (1 - filled), 1)
    for k, band in enumerate(image.bands):
        values = data[k] * area
        # Exactly 0 is how images mark gaps; a noiseless sky must not become one.
        values[values == 0] = _TINY
        planes.data[band][where] = np.where(ok[k], values, 0)
        planes.variance[band][where] = np.where(ok[k], variance[k] * area, 1)
        planes.mask[band][where] = ~ok[k]


def _alone(good, filled, variance):
    """Bad pixels of which most neighbours are good, and that are on no peak; ``variance`` is 0 where bad."""
    if good.all():
        return ~good
    square = np.ones((3, 3))
    near, level, noise = (
        ndimage.convolve(plane.astype(float), square, mode="constant") for plane in (good, filled, variance)
    )
    steep = np.abs(filled - level / 9) > _STEEP * np.sqrt(noise / np.maximum(near, 1))
    return ~good & (near >= _GOOD_NEIGHBOURS) & ~steep


def _area_ratio(block, wcs, size):
    """Area of the target's pixels in pixels of the image, bilinear between the corners of the block."""
    x, y = np.meshgrid([0, size[1] - 1], [0, size[0] - 1])
    corners = np.abs(np.linalg.det(local_jacobian(block, wcs, x, y)))
    t, s = np.linspace(0, 1, size[1]), np.linspace(0, 1, size[0])[:, None]
    lower = corners[0, 0] * (1 - t) + corners[0, 1] * t
    upper = corners[1, 0] * (1 - t) + corners[1, 1] * t
    return lower * (1 - s) + upper * s


def fill_bad(data, good):
    """
    Replace bad pixels by a smooth continuation of their neighbours, so that splines do not ring around them.

    Parameters
    ----------
    data : 2-D array
        Pixels; bad ones may hold anything, NaN too.
    good : 2-D bool array
        True where ``data`` can be trusted.

    Returns
    -------
    filled : 2-D array
        ``data`` itself where nothing is bad. Holes further than a few pixels from good ones are at the
        median.
    """
    if good.all():
        return data
    if not good.any():
        return np.zeros_like(data)
    filled = np.where(good, data, np.median(data[good]))
    known, rim = good.copy(), np.zeros_like(good)
    square = np.ones((3, 3), bool)
    # Ring by ring, the mean of the known neighbours ...
    for ring in range(_RINGS):
        new = ndimage.binary_dilation(known, square) & ~known
        y, x = np.nonzero(new)
        if len(y) == 0:
            break
        weight, values = (np.pad(plane, 1) for plane in (known, filled))
        weights = [weight[y + dy, x + dx] for dy in range(3) for dx in range(3)]
        near = [values[y + dy, x + dx] for dy in range(3) for dx in range(3)]
        filled[y, x] = np.sum(np.multiply(weights, near), axis=0) / np.sum(weights, axis=0)
        known |= new
        if ring < 2:
            rim |= new
    # ... then the smoothest surface through the good pixels: a mean would cut the peaks of stars.
    y, x = np.nonzero(rim)
    padded = np.pad(filled, 2, mode="reflect" if min(data.shape) > 2 else "edge")
    for _ in range(_SWEEPS):
        at = {(dy, dx): padded[y + 2 + dy, x + 2 + dx] for dy, dx in _BIHARMONIC}
        smooth = sum(weight * at[offset] for offset, weight in _BIHARMONIC.items()) / 20
        padded[y + 2, x + 2] += 0.5 * (smooth - padded[y + 2, x + 2])
    return padded[2:-2, 2:-2]


_BIHARMONIC = {
    **dict.fromkeys(((0, 1), (0, -1), (1, 0), (-1, 0)), 8),
    **dict.fromkeys(((1, 1), (1, -1), (-1, 1), (-1, -1)), -2),
    **dict.fromkeys(((0, 2), (0, -2), (2, 0), (-2, 0)), -1),
}
