# Licensed under a 3-clause BSD style license - see LICENSE
"""Images under measurement, and the stamps of sources on them."""

import numpy as np
import torch

from jaisp.image import psf_fwhm, resize_psf
from jaisp.scene import psf_transform, render_derivatives
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["N_SHAPE", "POINT", "Plane", "clip_stamp", "group_box", "make_planes"]

N_SHAPE = 6  # x, y, log radius, e1, e2, bulge fraction
POINT = -6.0  # log radius below which a source is a point
_STAMPS = {"rubin": (24, 32, 48, 64, 96), "euclid": (32, 48, 64, 96, 128)}


class Plane:
    """Images of bands with stamps in common, their PSFs, and where sources fall on them."""

    def __init__(self, image, survey, bands, offset):
        first = 0 if survey is RUBIN else len(RUBIN.bands)
        self.survey = survey.name
        self.channels = [first + survey.index(band) for band in bands]
        self.binning = 2 if survey is RUBIN else 1
        self.scale = EUCLID.pixel_scale * self.binning
        self.offset = np.array(offset if survey is RUBIN else (0.0, 0.0))
        self.shape = image.shape
        self.data = np.stack([image.sky_subtracted(band) for band in bands])
        with np.errstate(divide="ignore"):
            self.weight = np.stack([1 / image.source_variance(band) for band in bands])
        self.weight[~np.isfinite(self.weight)] = 0
        self.typical = [float(np.median(w[w > 0])) if (w > 0).any() else 0.0 for w in self.weight]
        self.sizes = _STAMPS[survey.name]
        widest = max(image.psf[band].shape[0] for band in bands)
        psf = torch.from_numpy(np.stack([resize_psf(image.psf[band], widest) for band in bands]))
        self.transforms = {size: psf_transform(psf, size, dealias=True) for size in self.sizes}
        self.fwhm = max(psf_fwhm(image.psf[band]) for band in bands) * self.scale

    def pixel(self, x, y):
        """Positions on the 0.1 arcsec grid as pixels of this plane."""
        x, y = x + self.offset[0], y + self.offset[1]
        return ((x - 0.5) / 2, (y - 0.5) / 2) if self.binning == 2 else (x, y)

    def stamps(self, state, size, parameters):
        """Corner pixels (n, 2) and templates with derivatives (n, bands, 1 + parameters, size, size)."""
        x, y = self.pixel(state[:, 0], state[:, 1])
        left, bottom = np.round(x).astype(int), np.round(y).astype(int)
        radius = np.where(state[:, 2] > POINT, np.exp(state[:, 2]), 0.0)
        arguments = (x - left, y - bottom, radius, state[:, 3], state[:, 4])
        values = render_derivatives(
            self.transforms[size],
            *(torch.from_numpy(np.asarray(value, np.float32)) for value in arguments),
            size=size,
            pixel_scale=self.scale,
            parameters=parameters,
            bulge_fraction=torch.from_numpy(state[:, 5].astype(np.float32)),
        ).numpy()
        if self.binning == 2 and parameters:
            values[:, :, 1:3] *= 0.5  # per pixel of the 0.1 arcsec grid
        return np.stack([left, bottom], axis=-1) - size // 2, values

    def render(self, state, sizes, free):
        """Stamps of all sources, as lists; with derivatives for those that have free parameters."""
        corners, values = [None] * len(state), [None] * len(state)
        moving = free.any(axis=1)
        for parameters in (0, N_SHAPE):
            for size in np.unique(sizes):
                chosen = np.flatnonzero((sizes == size) & (moving == bool(parameters)))
                for part in np.array_split(chosen, len(chosen) // 64 + 1):
                    if not len(part):
                        continue
                    corner, stamps = self.stamps(state[part], int(size), parameters)
                    for k, source in enumerate(part):
                        corners[source], values[source] = corner[k], stamps[k]
        return corners, values


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


def clip_stamp(corner, size, shape):
    """Slices of a stamp's part inside an image, in the image and in the stamp."""
    x0, y0 = corner
    a, b = max(0, -x0), min(size, shape[1] - x0)
    c, d = max(0, -y0), min(size, shape[0] - y0)
    if a >= b or c >= d:
        return None
    return np.s_[y0 + c : y0 + d, x0 + a : x0 + b], np.s_[c:d, a:b]


def group_box(corners, stamps, members, shape):
    """Bounding box ``y0, y1, x0, x1`` of the stamps of a group inside an image, or None."""
    low = np.min([corners[k] for k in members], axis=0)
    high = np.max([corners[k] + stamps[k].shape[-1] for k in members], axis=0)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, shape[::-1])
    return (y0, y1, x0, x1) if x1 > x0 and y1 > y0 else None
