# Licensed under a 3-clause BSD style license - see LICENSE
"""Slowly varying quantities on a mesh of cells: their statistics, and back to pixels."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from jaisp.image._sky import sample_windows, sky_statistics, smooth_level, source_mask

__all__ = ["Mesh", "measure_mesh"]

# A mesh cell is believed if this part of it is free of sources.
_LEAST_SKY = 0.15
# Sky values kept for the statistics of the whole image.
_SAMPLE = 400_000
_SURFACE_POINTS = 40_000
_LEAST_KEPT = 0.2  # share of the values near the mode below which it is not that of the sky


@dataclass
class Mesh:
    """
    Sky statistics of an image in cells.

    Parameters
    ----------
    surface : dict
        Polynomial surface that was taken out first: powers of y and x, which run from -1 to 1, to
        coefficients.
    level, level_err, sd, sd_err : 2-D array
        Mode above the surface and pixel standard deviation of the sky in each cell and their errors, NaN
        where the cell has no sky.
    shape : tuple
        Shape of the image.
    whole : dict
        ``level``, ``level_err``, ``sd`` and ``source_level`` (the level at which a source is one sigma) of
        the image.
    """

    surface: dict
    level: np.ndarray
    level_err: np.ndarray
    sd: np.ndarray
    sd_err: np.ndarray
    shape: tuple
    whole: dict

    def varies(self, values, errors, centre):
        """Part of the scatter of ``values`` about ``centre`` that ``errors`` leave: 0 if not significant."""
        good = np.isfinite(values) & (errors > 0)
        count = np.count_nonzero(good)
        if count < 2:
            return 0.0
        chi2 = np.sum(((values[good] - centre) / errors[good]) ** 2)
        if chi2 < count + 4 * np.sqrt(2 * count):
            return 0.0
        return float(1 - count / chi2)

    def surface_pixels(self):
        """Return the surface as a float32 image."""
        return _surface_image(self.surface, self.shape, tuple(slice(0, length) for length in self.shape))

    def to_pixels(self, values):
        """Interpolate cell values to the pixels; cells without a value take that of their neighbours."""
        values = _fill(values)
        if min(values.shape) >= 3:
            values = ndimage.median_filter(values, size=3, mode="nearest")
        if values.size == 1:
            return np.full(self.shape, values.flat[0], np.float32)
        axes, where = [], []
        for count, length in zip(values.shape, self.shape, strict=True):
            centres = (np.arange(count) + 0.5) * length / count - 0.5
            axes.append(centres if count > 1 else np.array([0.0, 1.0]))
            where.append(
                np.clip(np.arange(length), centres[0], centres[-1]) if count > 1 else np.zeros(length)
            )
        for axis in (0, 1):
            if values.shape[axis] == 1:
                values = np.repeat(values, 2, axis=axis)
        degree = [min(3, count - 1) for count in values.shape]
        spline = RectBivariateSpline(*axes, values, kx=degree[0], ky=degree[1])
        # Splines overshoot beside jumps; the sky of a cell never lies outside its neighbours' values.
        return np.clip(spline(*where), values.min(), values.max()).astype(np.float32)


def _fill(values):
    """Fill NaN cells with the Gaussian mean of the cells about them, wider and wider."""
    good = np.isfinite(values)
    if good.all():
        return values
    filled, width = np.where(good, values, 0.0), 0.7
    known = good.astype(float)
    while True:
        norm = ndimage.gaussian_filter(known, width, mode="constant")
        mean = ndimage.gaussian_filter(filled * known, width, mode="constant")
        reached = norm > 1e-3
        if reached.all() or width > 10 * max(values.shape):
            mean = np.divide(mean, norm, out=np.full_like(mean, np.mean(values[good])), where=norm > 0)
            return np.where(good, values, mean)
        width *= 2


def _piece(sd):
    """Pixels in one independent piece of a smoothed image; correlated pixels make it half as large again."""
    return 1.5 * 4 * np.pi * sd**2


def _part(variance, box):
    """Variance in a box, where it may be one number for the whole image."""
    if np.ndim(variance):
        return variance[box]
    return np.full([piece.stop - piece.start for piece in box], variance, np.float32)


def _smooth(image, spread, bad, sd):
    """Smoothed level and signal-to-noise ratio of an image with masked pixels."""
    weight = np.where(bad, 0, 1 / spread).astype(np.float32)
    return smooth_level(np.where(bad, 0, image).astype(np.float32), weight, sd)


def _terms(order):
    """Powers of y and x in a polynomial surface, without the constant."""
    return [(i, total - i) for total in range(1, order + 1) for i in range(total + 1)]


def _surface_image(surface, shape, box):
    """Pixels of a polynomial surface inside a box."""
    y, x = (
        2 * np.arange(piece.start, piece.stop) / max(length - 1, 1) - 1
        for piece, length in zip(box, shape, strict=True)
    )
    image = np.zeros((len(y), len(x)), np.float32)
    for (i, j), coefficient in surface.items():
        image += np.float32(coefficient) * np.outer(y**i, x**j).astype(np.float32)
    return image


def _fit_surface(data, variance, mask, sd, order):
    """
    Fit a smooth surface to the sky; empty unless significant.

    It comes before any source is masked: on a slope, no one threshold could tell sky from sources. Pixels
    well above the surface are left out, again and again.
    """
    shape = data.shape
    rows, columns, values = [], [], []
    step = max(1, int(sd))
    boxes = sample_windows(mask, 512, 16)
    step = max(step, int(np.sqrt(sum(mask[box].size for box in boxes) / _SURFACE_POINTS)))
    for box in boxes:
        level, _ = _smooth(data[box], _part(variance, box), mask[box], sd)
        good = ~mask[box][::step, ::step]
        y, x = np.mgrid[box[0].start : box[0].stop : step, box[1].start : box[1].stop : step]
        rows.append(y[good])
        columns.append(x[good])
        values.append(level[::step, ::step][good])
    values = np.concatenate(values).astype(float)
    u, v = (
        2 * np.concatenate(parts) / max(length - 1, 1) - 1
        for parts, length in zip((rows, columns), shape, strict=True)
    )
    powers = _terms(order)
    terms = np.stack([np.ones(values.size)] + [u**i * v**j for i, j in powers], axis=1)
    fit = np.zeros(terms.shape[1])
    for _ in range(30):
        rest = values - terms @ fit
        mode, spread = sky_statistics(rest)
        kept = (rest < mode + spread) & (rest > mode - 3 * spread)
        steep = np.mean(kept) < _LEAST_KEPT
        if steep:  # its lower end passes for the mode of a slope: all but the brightest sixth instead
            low, high = np.percentile(rest, (2, 84))
            kept = (rest <= high) & (rest >= low)
        if np.count_nonzero(kept) < 20 or not spread > 0:
            return {}
        change = np.linalg.lstsq(terms[kept], rest[kept], rcond=None)[0]
        fit += change
        if not steep and np.abs(terms[kept] @ change).max() < 0.02 * spread:
            break
    pieces = np.count_nonzero(kept) * step**2 / max(_piece(sd), step**2)
    if np.var(terms[kept, 1:] @ fit[1:]) * pieces < 12 * len(powers) * spread**2:
        return {}
    return dict(zip(powers, fit[1:].tolist(), strict=True))


def measure_mesh(data, variance, mask, sd, *, cell):
    """
    Measure the sky of an image in cells.

    Parameters
    ----------
    data : 2-D array
        Image.
    variance : 2-D array or float
        Its variance; only its variation over the image matters.
    mask : 2-D bool array
        True where bad.
    sd : float
        Standard deviation of the PSF in pixels.
    cell : float
        Side of a cell in pixels; halved for images that would have one cell only.

    Returns
    -------
    Mesh
    """
    shape = data.shape
    counts = [max(2 if length > 40 * sd else 1, round(length / cell)) for length in shape]
    edges = [
        np.linspace(0, length, count + 1).astype(int) for length, count in zip(shape, counts, strict=True)
    ]
    level, deviation, free = (np.full(counts, np.nan) for _ in range(3))
    # A cubic where the image is large enough to tell it from galaxies, else a plane.
    surface = _fit_surface(data, variance, mask, sd, 3 if min(shape) >= 6 * cell else 1)
    samples, per_block = [], 16
    stride = max(1, int(np.sqrt(data.size / _SAMPLE)))
    # Block by block: the smoothed images of a whole survey tile would not fit into memory.
    for i in range(0, counts[0], per_block):
        for j in range(0, counts[1], per_block):
            rows, columns = edges[0][i : i + per_block + 1], edges[1][j : j + per_block + 1]
            box = tuple(
                slice(max(0, int(cuts[0] - cell)), min(length, int(cuts[-1] + cell)))
                for cuts, length in zip((rows, columns), shape, strict=True)
            )
            image = data[box] - _surface_image(surface, shape, box)
            spread = _part(variance, box)
            bad = mask[box] | source_mask(image, spread, mask[box], sd)
            smooth = _smooth(image, spread, mask[box], sd)[0]
            rows, columns = rows - box[0].start, columns - box[1].start
            inner = slice(rows[0], rows[-1], stride), slice(columns[0], columns[-1], stride)
            samples.append(smooth[inner][~bad[inner]])
            for a in range(len(rows) - 1):
                for b in range(len(columns) - 1):
                    part = slice(rows[a], rows[a + 1]), slice(columns[b], columns[b + 1])
                    sky = ~bad[part]
                    if sky.mean() < _LEAST_SKY:
                        continue
                    free[i + a, j + b] = np.count_nonzero(sky)
                    level[i + a, j + b], _ = sky_statistics(smooth[part][sky])
                    _, deviation[i + a, j + b] = sky_statistics(image[part][sky])
    whole_level, smooth_sd = sky_statistics(np.concatenate(samples))
    area = _piece(sd)
    pieces = np.maximum(free / area, 1)
    whole_pieces = max(np.nansum(free) / area, 1)
    sky = np.isfinite(deviation)
    whole = {
        "level": whole_level,
        "level_err": 1.5 * smooth_sd / np.sqrt(whole_pieces),
        "source_level": smooth_sd,
        "sd": float(np.median(deviation[sky])) if sky.any() else float("nan"),
    }
    return Mesh(
        surface,
        level,
        1.5 * smooth_sd / np.sqrt(pieces),
        deviation,
        deviation / np.sqrt(pieces),
        shape,
        whole,
    )
