# Licensed under a 3-clause BSD style license - see LICENSE
"""Images under measurement, what is left of them, and the stamps of sources on them."""

import numpy as np
import torch
from scipy.ndimage import binary_fill_holes

from jaisp.catalog.offsets import OffsetField
from jaisp.image import psf_fwhm, resize_psf
from jaisp.scene import psf_transform, render_derivatives, stamp_size
from jaisp.surveys import EUCLID, RUBIN

__all__ = [
    "BATCH",
    "BULGE_SIZE",
    "N_SHAPE",
    "POINT",
    "Plane",
    "encircled_energy",
    "light_beyond",
    "make_planes",
    "overlap",
]

N_SHAPE = 7  # x, y, log radius, e1, e2, bulge fraction, log Sersic index of the disc
# Half-light radius of a bulge in units of its disc's: the median of the simulated galaxies.
BULGE_SIZE = 0.5
POINT = -6.0  # log radius below which a source is a point
# Widths in pixels for the equations; wider than that sources are only drawn.
_STAMPS = (24, 32, 48, 64, 96, 128)
_WIDEST = (192, 256, 384)
BATCH = 64  # sources drawn at a time
# Of the radius that holds all but 0.5 % of the light, what suffices for sources up to a joint S/N.
_SHARE = ((30.0, 0.7), (300.0, 1.0), (np.inf, 2.0))
# Wings of PSFs beyond their images: powers of the radius, and the largest share of the light.
_SHALLOWEST, _STEEPEST, _MOST_BEYOND = 3.5, 5.0, 0.1
# The image of VIS ends where only light bent at the edges of the telescope is left, which falls with r**-3.
_DIFFRACTION = {"VIS": 3.0}
_BLOCK = 8  # pixels; a block around a source lies within its stamp
_BACKGROUND = 0.03  # prior on a local residual background, in units of the pixel noise


class Plane:
    """
    Images of bands with stamps in common, their PSFs, and where sources fall on them.

    Attributes
    ----------
    shape, corner : tuple of int
        Size and first pixel (y, x) of the part of the images that has data.
    residual, weight : ndarray of float32, shape (bands, ny + 2 pad, nx + 2 pad)
        That part less the sources drawn so far (nJy), and inverse variances, 0 where there is no good pixel;
        with a margin, so that every stamp that shows some of it lies inside.
    """

    def __init__(self, image, survey, bands, offset):
        first = 0 if survey is RUBIN else len(RUBIN.bands)
        self.survey = survey.name
        self.channels = [first + survey.index(band) for band in bands]
        self.binning = 2 if survey is RUBIN else 1
        self.scale = EUCLID.pixel_scale * self.binning
        self.offset = offset if survey is RUBIN else OffsetField()
        here = image.data_box(bands)
        self.corner = tuple(piece.start for piece in here)
        self.shape = tuple(piece.stop - piece.start for piece in here)
        self.largest = self.pad = max(_STAMPS)
        self.wide = min(_WIDEST)
        self.residual = np.zeros((len(bands), *(side + 2 * self.pad for side in self.shape)), np.float32)
        self.weight = np.zeros_like(self.residual)
        inside = np.s_[self.pad : -self.pad, self.pad : -self.pad]
        self.typical = np.zeros(len(bands))
        self._images = []
        for k, band in enumerate(bands):
            self.residual[k][inside] = image.sky_subtracted(band)[here]
            weight = 1 / image.source_variance(band)[here]
            good = np.isfinite(weight) & (weight > 0)
            self.weight[k][inside] = np.where(good, weight, 0)
            self.typical[k] = np.median(weight[good]) if good.any() else 0.0
            self._images.append(_without_holes(good))
        widest = max(image.psf[band].shape[0] for band in bands)
        psfs = [
            resize_psf(image.psf[band], widest) * encircled_energy(image.psf[band], band) for band in bands
        ]
        self.psf = torch.from_numpy(np.stack(psfs).astype(np.float32))
        self.fwhm = max(psf_fwhm(image.psf[band]) for band in bands) * self.scale
        self._transforms = {}
        # What is subtracted from the residual: corner, stamps and light of each source, and where it stood.
        self._drawn = {}

    def stamp_sizes(self, radius, e1, e2, snr):
        """Widths in pixels in which sources of a radius (arcsec), ellipticity and joint S/N are drawn."""
        share = np.select([snr < most for most, _ in _SHARE], [value for _, value in _SHARE])
        radius, e1, e2, share = (torch.from_numpy(np.asarray(v, float)) for v in (radius, e1, e2, share))
        sizes = stamp_size(
            share * radius,
            e1,
            e2,
            psf_fwhm=share * self.fwhm,
            pixel_scale=self.scale,
            sizes=_STAMPS + _WIDEST,
        ).numpy()
        # Neighbours feel the wings of what is this bright, as far as the PSF image tells of them.
        whole = next((size for size in _STAMPS + _WIDEST if size >= self.psf.shape[-1]), _WIDEST[-1])
        return np.where(snr < _SHARE[-2][0], sizes, np.maximum(sizes, whole))

    def _place(self, state):
        """Positions y, x in pixels of the part that has data."""
        x, y = (at - shift for at, shift in zip(state.T[:2], self.offset(*state.T[:2]), strict=True))
        if self.binning == 2:
            x, y = (x - 0.5) / 2, (y - 0.5) / 2
        return y - self.corner[0], x - self.corner[1]

    def shows(self, state):
        """Whether stamps of the sources may hold a pixel that has data; farther ones would only be drawn."""
        half = self.largest / 2
        inside = [
            (at > -half) & (at < side - 1 + half)
            for at, side in zip(self._place(state), self.shape, strict=True)
        ]
        return np.logical_and(*inside)

    def has_image(self, state):
        """Whether bands have an image where the sources are, shape (n, bands): masked holes in it count."""
        y, x = (np.round(at).astype(int) // _BLOCK for at in self._place(state))
        ny, nx = self._images[0].shape
        inside = (y >= 0) & (y < ny) & (x >= 0) & (x < nx)
        y, x = np.where(inside, y, 0), np.where(inside, x, 0)
        return np.stack([inside & image[y, x] for image in self._images], axis=-1)

    def stamps(self, state, size, parameters):
        """Corner pixels y, x (n, 2) and templates with derivatives (n, bands, 1 + parameters, size, size)."""
        if size not in self._transforms:
            self._transforms[size] = psf_transform(self.psf, size, dealias=True)
        y, x = self._place(state)
        middle = np.round(y), np.round(x)
        radius = np.where(state[:, 2] > POINT, np.exp(state[:, 2]), 0.0)
        arguments = (x - middle[1], y - middle[0], radius, state[:, 3], state[:, 4])
        values = render_derivatives(
            self._transforms[size],
            *(torch.from_numpy(np.asarray(value, np.float32)) for value in arguments),
            size=size,
            pixel_scale=self.scale,
            parameters=parameters,
            bulge_fraction=torch.from_numpy(state[:, 5].astype(np.float32)),
            bulge_size=BULGE_SIZE,
            sersic_index=torch.from_numpy(np.exp(state[:, 6]).astype(np.float32)),
        )
        if self.binning == 2 and parameters:
            values[:, :, 1:3] *= 0.5  # per pixel of the 0.1 arcsec grid
        return np.stack(middle, axis=-1).astype(int) - size // 2 + self.pad, values

    def draw(self, source, corner, stamp, light):
        """
        Subtract a source anew: its stamp (bands, size, size) and its fluxes (bands,).

        Half precision is enough for the stamp: what is subtracted is what is added again.
        """
        self.relight(source, np.zeros(len(self.channels)))
        slices = []
        for low, side in zip(corner, self.residual.shape[1:], strict=True):
            first, last = max(low, 0), min(low + stamp.shape[-1], side)
            slices.append((slice(first, last), slice(first - low, last - low)))
        (rows, stamp_rows), (columns, stamp_columns) = slices
        self._drawn[source] = (
            (slice(None), rows, columns),
            # A copy: a view would keep those alive that were drawn with it.
            stamp[:, stamp_rows, stamp_columns].clone(),
            np.zeros(len(self.channels)),
        )
        self.relight(source, light)

    def relight(self, source, light):
        """Change the fluxes with which a source is subtracted."""
        if source not in self._drawn:
            return
        where, stamp, old = self._drawn[source]
        change = (light - old).astype(np.float32)
        if change.any():
            # By torch, which reads half precision several times as fast as numpy.
            left, factor = torch.from_numpy(self.residual[where]), torch.from_numpy(change)
            left.addcmul_(stamp.float(), factor[:, None, None], value=-1)
            old += change

    def equations(self, corners, values):
        """
        Normal equations of sources, each by itself, a local background projected out.

        Parameters
        ----------
        corners, values
            From `stamps`.

        Returns
        -------
        design : torch.Tensor, shape (n, bands, rows, size, size)
            Templates less their mean over the good pixels.
        normal : ndarray, shape (n, bands, rows, rows)
        coverage : ndarray, shape (n, bands)
            Share of the (squared) light on good pixels.
        """
        n, bands, rows, size, _ = values.shape
        weight = np.stack([self.weight[:, y : y + size, x : x + size] for y, x in corners])
        weight = torch.from_numpy(weight).reshape(n, bands, 1, -1)
        design = values.reshape(n, bands, rows, -1)
        light = design[:, :, 0].square()
        coverage = (light * (weight[:, :, 0] > 0)).sum(-1) / light.sum(-1)
        total = (
            weight.sum(-1, keepdim=True)
            + torch.from_numpy(self.typical / _BACKGROUND**2).float()[None, :, None, None]
        )
        design = design - (design * weight).sum(-1, keepdim=True) / total.clamp(min=1e-30)
        normal = (design * weight) @ design.transpose(-1, -2)
        return (
            design.reshape(n, bands, rows, size, size),
            normal.double().numpy(),
            coverage.double().numpy(),
        )

    def cut(self, values):
        """The middle of stamps, as wide as the widest in the equations."""
        edge = (values.shape[-1] - self.largest) // 2
        return values[..., edge:-edge, edge:-edge].contiguous()

    def chi_square(self, low, high):
        """Chi-square of what is left in a box (corners y, x) but a local background, less its good pixels."""
        box = np.s_[:, low[0] : high[0], low[1] : high[1]]
        residual, weight = self.residual[box], self.weight[box]
        weighted = residual * weight
        total = weight.sum((1, 2), dtype=float) + self.typical / _BACKGROUND**2
        background = weighted.sum((1, 2), dtype=float) ** 2 / np.maximum(total, 1e-30)
        return float((residual * weighted).sum(dtype=float) - background.sum() - np.count_nonzero(weight))

    def slope(self, corner, design):
        """What the residual holds of the templates of a source, (bands, rows)."""
        bands, rows, size, _ = design.shape
        where = np.s_[:, corner[0] : corner[0] + size, corner[1] : corner[1] + size]
        window = torch.from_numpy((self.residual[where] * self.weight[where]).reshape(bands, -1, 1))
        return (design.reshape(bands, rows, -1) @ window)[..., 0].numpy()

    def cross_products(self, first, second):
        """
        Products of the templates of two sources over the pixels that they share.

        Parameters
        ----------
        first, second : tuple
            Corner, and design (bands, rows, size, size) of each.

        Returns
        -------
        ndarray, shape (bands, rows of the first, rows of the second), or None
            None where no pixel is shared.
        """
        (corner, left), (other, right) = first, second
        where = overlap(corner, other, left.shape[-1], right.shape[-1])
        if where is None:
            return None
        (y, x), (height, width) = corner, left[where[0]].shape[-2:]
        y, x = y + where[0][1].start, x + where[0][2].start
        weight = torch.from_numpy(self.weight[:, None, y : y + height, x : x + width])
        left, right = (left[where[0]] * weight).flatten(-2), right[where[1]].flatten(-2)
        return (left @ right.transpose(-1, -2)).double().numpy()


def _without_holes(good):
    """Blocks of pixels where there is an image: those with good pixels, and those that such surround."""
    padded = np.pad(good, [(0, -side % _BLOCK) for side in good.shape])
    ny, nx = (side // _BLOCK for side in padded.shape)
    return binary_fill_holes(padded.reshape(ny, _BLOCK, nx, _BLOCK).any(axis=(1, 3)))


def encircled_energy(psf, band):
    """Share of a band's light that falls on its PSF image, whose sum is 1; see `light_beyond`."""
    return 1 / (1 + light_beyond(psf, slope=_DIFFRACTION.get(band)))


def light_beyond(psf, *, slope=None):
    """
    Light of a PSF beyond the edges of its image, relative to that inside: an aperture correction.

    PSF images are normalised to one, but real wings go on. They are continued as a power law of the radius.

    Parameters
    ----------
    psf : ndarray, shape (k, k)
        Odd square image.
    slope : float, optional
        Power of the radius where theory gives it. It holds for images that do not fall off much more
        steeply, as tapered ones do. By default that between two rings, each as wide as half the area left
        to it; not less than 3.5, since between two diffraction rings it may come out too small.

    Returns
    -------
    float
        0 where the wings drown in noise, 0.1 at the most.
    """
    half = psf.shape[0] // 2
    if half < 2:
        return 0.0  # too small to have rings
    steps = np.arange(-half, half + 1)
    radius = np.hypot(steps[:, None], steps)
    rings = [(radius > low * half) & (radius <= high * half) for low, high in ((0.5, 0.71), (0.71, 1.0))]
    inner, outer = (float(psf[ring].mean()) for ring in rings)
    if not inner > outer > 0:
        return 0.0
    at_inner, at_outer = (np.exp(np.log(radius[ring]).mean()) for ring in rings)
    own = np.log(inner / outer) / np.log(at_outer / at_inner)
    if slope is None or own > _STEEPEST:
        slope = max(own, _SHALLOWEST)
        light = outer * at_outer**slope
    else:
        wings = rings[0] | rings[1]
        light = float((psf[wings] * radius[wings] ** slope).mean())
    # The image's edge is a square: a circle of the same area is as good for what lies beyond it.
    edge = (2 * half + 1) / np.sqrt(np.pi)
    beyond = 2 * np.pi * light * edge ** (2 - slope) / (slope - 2)
    return float(min(beyond / psf.sum(), _MOST_BEYOND))


def overlap(first, second, size_first, size_second):
    """Slices of two stamps where they overlap, from their corners, or None."""
    slices = []
    for a, b in zip(first, second, strict=True):
        low, high = max(a, b), min(a + size_first, b + size_second)
        if low >= high:
            return None
        slices.append((slice(low - a, high - a), slice(low - b, high - b)))
    (y_first, y_second), (x_first, x_second) = slices
    return (..., y_first, x_first), (..., y_second, x_second)


def make_planes(pair, offset):
    """Rubin; VIS, whose PSF is undersampled and needs more work; and NISP."""
    planes = []
    for image, survey in ((pair.rubin, RUBIN), (pair.euclid, EUCLID)):
        if image is None:
            continue
        sharp = [band for band in image.bands if band == "VIS"]
        rest = [band for band in image.bands if band != "VIS"]
        planes += [Plane(image, survey, bands, offset) for bands in (sharp, rest) if bands]
    return planes
