# Licensed under a 3-clause BSD style license - see LICENSE
"""
The likelihood measures what the network found: fluxes of all bands, positions and shapes, with errors.

Sources are Gaussian-mixture discs or points under the real PSFs. Each blend is solved as a whole: fluxes
linearly, positions and shapes by damped Gauss-Newton steps that are shared over all bands of both surveys.
"""

from dataclasses import dataclass

import numpy as np
import torch

from jaisp.catalog._groups import find_groups
from jaisp.image import psf_fwhm, resize_psf
from jaisp.scene import psf_transform, render_derivatives, stamp_size
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["Measurement", "Sources", "measure"]

_N_SHAPE = 5  # x, y, log radius, e1, e2
_STAMPS = {"rubin": (24, 32, 48, 64, 96), "euclid": (32, 48, 64, 96, 128)}
_REFINE_SNR = 6.0  # below this the network's position is kept: a fit would follow the noise
_SHAPE_SNR = 12.0
_MAX_STEP = np.array([1.0, 1.0, 0.3, 0.15, 0.15])
_BACKGROUND = 0.1  # prior on a local residual background, in units of the pixel noise
_LARGEST_RADIUS = 6.0  # arcsec


@dataclass
class Sources:
    """
    What to measure: the slots' start.

    Attributes
    ----------
    x, y : ndarray, shape (n,)
        Pixels of the 0.1 arcsec grid.
    position_err : ndarray, shape (n,)
        1 sigma as the network sees it, pixels.
    half_light_radius : ndarray, shape (n,)
        arcsec.
    e1, e2 : ndarray, shape (n,)
        Ellipticity.
    is_point : ndarray of bool, shape (n,)
        Point sources keep radius zero.
    """

    x: np.ndarray
    y: np.ndarray
    position_err: np.ndarray
    half_light_radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    is_point: np.ndarray

    def __len__(self):
        return len(self.x)


@dataclass
class Measurement:
    """
    Result of `measure`; errors are 1 sigma, marginalised over the neighbours.

    Attributes
    ----------
    x, y, x_err, y_err : ndarray, shape (n,)
        Pixels of the 0.1 arcsec grid.
    half_light_radius, e1, e2 : ndarray, shape (n,)
        Intrinsic shape; radius in arcsec.
    flux, flux_err : ndarray, shape (n, 10)
        nJy, Rubin ugrizy then Euclid VIS, Y, J, H; NaN where a band is missing or masked.
    coverage : ndarray, shape (n, 10)
        Share of the light that falls on good pixels; NaN where the band is missing.
    group, n_group : ndarray of int, shape (n,)
        Number of the blend (from 1) and its members.
    refined : ndarray of bool, shape (n,)
        Whether position (and shape) come from the likelihood.
    failed : ndarray of bool, shape (n,)
        Refinement ran away and was undone.
    clipped : ndarray of bool, shape (n,)
        Larger than the largest stamp.
    """

    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    half_light_radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    coverage: np.ndarray
    group: np.ndarray
    n_group: np.ndarray
    refined: np.ndarray
    failed: np.ndarray
    clipped: np.ndarray

    def significance(self, survey=None):
        """Joint S/N of each source: square root of the chi-square that leaving it out would cost."""
        bands = {None: slice(None), "rubin": slice(0, 6), "euclid": slice(6, 10)}[survey]
        ratio = np.nan_to_num(self.flux[:, bands] / self.flux_err[:, bands])
        return np.sqrt((np.maximum(ratio, 0) ** 2).sum(axis=1))


class _Plane:
    """One survey's images and PSFs, and the stamps of the sources on them."""

    def __init__(self, image, survey, offset):
        self.survey, self.image = survey, image
        self.first = 0 if survey is RUBIN else len(RUBIN.bands)
        self.channels = [self.first + survey.index(band) for band in image.bands]
        self.binning = 2 if survey is RUBIN else 1
        self.scale = 0.1 * self.binning
        self.offset = np.asarray(offset if survey is RUBIN else (0.0, 0.0))
        self.shape = image.shape
        self.data = np.stack([image.sky_subtracted(band) for band in image.bands])
        with np.errstate(divide="ignore"):
            self.weight = np.stack([1 / image.source_variance(band) for band in image.bands])
        self.weight[~np.isfinite(self.weight)] = 0
        self.sizes = _STAMPS[survey.name]
        widest = max(image.psf[band].shape[0] for band in image.bands)
        psf = torch.from_numpy(np.stack([resize_psf(image.psf[band], widest) for band in image.bands]))
        self.transforms = {size: psf_transform(psf, size) for size in self.sizes}
        self.fwhm = max(psf_fwhm(image.psf[band]) for band in image.bands) * self.scale

    def pixel(self, x, y):
        """Positions on the 0.1 arcsec grid as pixels of this plane."""
        x, y = x + self.offset[0], y + self.offset[1]
        return ((x - 0.5) / 2, (y - 0.5) / 2) if self.binning == 2 else (x, y)

    def stamps(self, state, index, size, parameters):
        """Corner pixels (n, 2) and templates with derivatives (n, bands, 1 + parameters, size, size)."""
        x, y = self.pixel(state[index, 0], state[index, 1])
        left, bottom = np.round(x).astype(int), np.round(y).astype(int)
        radius = np.where(state[index, 2] > -6, np.exp(state[index, 2]), 0.0)
        arguments = (x - left, y - bottom, radius, state[index, 3], state[index, 4])
        values = render_derivatives(
            self.transforms[size],
            *(torch.from_numpy(np.asarray(value, np.float32)) for value in arguments),
            size=size,
            pixel_scale=self.scale,
            parameters=parameters,
        ).numpy()
        if self.binning == 2 and parameters:
            values[:, :, 1:3] *= 0.5  # per pixel of the 0.1 arcsec grid
        return np.stack([left, bottom], axis=-1) - size // 2, values


def _clip(corner, size, shape):
    """Slices of a stamp's part inside an image, in the image and in the stamp."""
    x0, y0 = corner
    a, b = max(0, -x0), min(size, shape[1] - x0)
    c, d = max(0, -y0), min(size, shape[0] - y0)
    if a >= b or c >= d:
        return None
    return np.s_[y0 + c : y0 + d, x0 + a : x0 + b], np.s_[c:d, a:b]


def _render_all(plane, state, sizes, parameters):
    """Stamps of all sources on one plane, as lists."""
    corners, values = [None] * len(state), [None] * len(state)
    for size in np.unique(sizes):
        chosen = np.flatnonzero(sizes == size)
        for part in np.array_split(chosen, max(1, len(chosen) // 64)):
            corner, stamps = plane.stamps(state, part, int(size), parameters)
            for k, source in enumerate(part):
                corners[source], values[source] = corner[k], stamps[k]
    return corners, values


def _subtract(plane, residual, corner, stamps, flux):
    """Subtract one source's model from a residual image of all bands, in place."""
    where = _clip(corner, stamps.shape[-1], plane.shape)
    if where is not None:
        image, stamp = where
        residual[(slice(None), *image)] -= flux[:, None, None] * stamps[(slice(None), 0, *stamp)]


def _group_box(corners, stamps, members, shape):
    """Bounding box ``y0, y1, x0, x1`` of the stamps of a group inside an image, or None."""
    low = np.min([corners[k] for k in members], axis=0)
    high = np.max([corners[k] + stamps[k].shape[-1] for k in members], axis=0)
    x0, y0 = np.maximum(low, 0)
    x1, y1 = np.minimum(high, shape[::-1])
    return (y0, y1, x0, x1) if x1 > x0 and y1 > y0 else None


class _Solver:
    """Normal equations of all groups over all planes."""

    def __init__(self, planes, sources, groups, *, start, prior):
        self.planes, self.groups = planes, groups
        self.start, self.prior = start, prior
        n = len(sources)
        self.flux, self.flux_err = np.zeros((n, 10)), np.full((n, 10), np.nan)
        self.coverage = np.full((n, 10), np.nan)
        self.sizes = []
        for plane in planes:
            radius = np.where(sources.is_point, 0.0, sources.half_light_radius)
            arguments = [
                torch.from_numpy(np.asarray(v, np.float64)) for v in (radius, sources.e1, sources.e2)
            ]
            self.sizes.append(
                stamp_size(
                    *arguments, psf_fwhm=plane.fwhm, pixel_scale=plane.scale, sizes=plane.sizes
                ).numpy()
            )

    def step(self, state, *, free, refine):
        """
        Solve the fluxes of every group, and, with ``refine``, take one Gauss-Newton step.

        Parameters
        ----------
        state : ndarray, shape (n, 5)
            x, y, log radius, e1, e2.
        free : ndarray of bool, shape (n, 5)
            Parameters that may move.
        refine : bool

        Returns
        -------
        state : ndarray, shape (n, 5)
        covariance : ndarray, shape (n, 5)
            Variances of the free parameters, inf elsewhere.
        """
        parameters = _N_SHAPE if refine else 0
        rendered = [
            _render_all(plane, state, sizes, parameters)
            for plane, sizes in zip(self.planes, self.sizes, strict=True)
        ]
        residuals = []
        for plane, (corners, values) in zip(self.planes, rendered, strict=True):
            residual = plane.data.copy()
            for k in range(len(state)):
                _subtract(plane, residual, corners[k], values[k], self.flux[k, plane.channels])
            residuals.append(residual)
        new, variance = state.copy(), np.full(state.shape, np.inf)
        for members in self.groups:
            self._solve_group(members, rendered, residuals, state, free, new, variance, refine)
        return new, variance

    def _solve_group(self, members, rendered, residuals, state, free, new, variance, refine):
        m = len(members)
        n_shape = m * _N_SHAPE if refine else 0
        hessian, gradient = np.zeros((n_shape, n_shape)), np.zeros(n_shape)
        for plane, (corners, values), residual in zip(self.planes, rendered, residuals, strict=True):
            box = _group_box(corners, values, members, plane.shape)
            if box is None:
                continue
            for k, channel in enumerate(plane.channels):
                result = self._solve_band(plane, k, channel, members, corners, values, residual, box, refine)
                if result is None:
                    continue
                if refine:
                    hessian += result[0]
                    gradient += result[1]
        if refine:
            self._move(members, hessian, gradient, state, free, new, variance)

    def _solve_band(self, plane, k, channel, members, corners, values, residual, box, refine):
        """Fluxes of a group in one band; the reduced equations of its shape parameters."""
        y0, y1, x0, x1 = box
        m = len(members)
        weight = plane.weight[k, y0:y1, x0:x1]
        if not weight.any():
            for source in members:
                self.flux[source, channel] = 0.0
                self.coverage[source, channel] = 0.0
                self.flux_err[source, channel] = np.nan
            return None
        rows = values[members[0]].shape[1]
        design = np.zeros((m * rows, y1 - y0, x1 - x0), np.float32)
        data = residual[k, y0:y1, x0:x1].copy()
        for number, source in enumerate(members):
            stamps, (left, bottom) = values[source][k], corners[source]
            where = _clip((left - x0, bottom - y0), stamps.shape[-1], data.shape)
            if where is None:
                continue
            image, stamp = where
            design[(slice(number * rows, (number + 1) * rows), *image)] = stamps[(slice(None), *stamp)]
            data[image] += self.flux[source, channel] * stamps[0][stamp]
        flat = design.reshape(m * rows, -1)
        weighted = flat * weight.reshape(-1)
        normal = (weighted @ flat.T).astype(float)
        right = (weighted @ data.reshape(-1)).astype(float)
        # A local background with a narrow prior, marginalised.
        typical = np.median(weight[weight > 0])
        ones = weighted.sum(axis=1).astype(float)
        total = float(weight.sum()) + typical / _BACKGROUND**2
        normal -= np.outer(ones, ones) / total
        right -= ones * float((weight * data).sum()) / total

        light = np.arange(m) * rows
        a = normal[np.ix_(light, light)]
        everywhere = np.array([float((values[s][k, 0] ** 2).sum()) for s in members]) * typical
        diagonal = np.diag(a)
        covered = diagonal / np.maximum(everywhere, 1e-30)
        seen = covered > 0.1
        a = a + np.diag(np.where(seen, 1e-4 * np.maximum(diagonal, 1e-30), 1e30))
        inverse = np.linalg.inv(a)
        flux = inverse @ right[light]
        for number, source in enumerate(members):
            self.flux[source, channel] = flux[number] if seen[number] else 0.0
            self.flux_err[source, channel] = np.sqrt(inverse[number, number]) if seen[number] else np.nan
            self.coverage[source, channel] = min(covered[number], 1.0)
        if not refine:
            return ()
        # Eliminate the fluxes: variable projection, to first order.
        scale = np.repeat(np.where(seen, flux, 0.0), rows - 1)
        shape = np.concatenate([np.arange(1, rows) + n * rows for n in range(m)])
        b = normal[np.ix_(shape, light)] * scale[:, None]
        c = normal[np.ix_(shape, shape)] * np.outer(scale, scale)
        hessian = c - b @ inverse @ b.T
        gradient = scale * (right[shape] - normal[np.ix_(shape, light)] @ flux)
        return hessian, gradient

    def _move(self, members, hessian, gradient, state, free, new, variance):
        """One damped step of a group's free parameters, with priors."""
        moving = free[members].reshape(-1)
        if not moving.any():
            return
        precision = self.prior[members].reshape(-1)
        away = (state[members] - self.start[members]).reshape(-1)
        full = hessian + np.diag(precision)
        slope = gradient - precision * away
        full, slope = full[np.ix_(moving, moving)], slope[moving]
        try:
            covariance = np.linalg.inv(full)
        except np.linalg.LinAlgError:
            return
        step = np.zeros(moving.shape)
        step[moving] = covariance @ slope
        step = np.clip(step.reshape(-1, _N_SHAPE), -_MAX_STEP, _MAX_STEP)
        new[members] = state[members] + step
        spread = np.full(moving.shape, np.inf)
        spread[moving] = np.diag(covariance)
        variance[members] = spread.reshape(-1, _N_SHAPE)


def measure(pair, sources, *, refine=True, iterations=3, offset=(0.0, 0.0)):
    """
    Measure sources jointly on both surveys of an aligned pair.

    Parameters
    ----------
    pair : `~jaisp.io.AlignedPair`
        One survey or both.
    sources : `Sources`
        Where to begin.
    refine : bool
        Whether positions and shapes are fitted too, where the signal allows.
    iterations : int
        Gauss-Newton steps.
    offset : tuple of float
        Rubin minus Euclid positions, pixels of the 0.1 arcsec grid: where Rubin sees a source.

    Returns
    -------
    `Measurement`
    """
    n = len(sources)
    planes = [
        _Plane(image, survey, offset)
        for survey, image in ((RUBIN, pair.rubin), (EUCLID, pair.euclid))
        if image is not None
    ]
    radius = np.clip(sources.half_light_radius, 0.02, _LARGEST_RADIUS)
    log_radius = np.where(sources.is_point, -9.0, np.log(radius))
    round_ = np.where(sources.is_point, 0.0, 1.0)
    norm = np.maximum(np.hypot(sources.e1, sources.e2) / 0.8, 1.0)
    state = np.stack(
        [sources.x, sources.y, log_radius, round_ * sources.e1 / norm, round_ * sources.e2 / norm], axis=-1
    ).astype(float)
    start = state.copy()
    prior = np.tile(1 / np.array([1.0, 1.0, 0.4, 0.2, 0.2]) ** 2, (n, 1))
    prior[:, :2] = (1 / np.clip(2 * sources.position_err, 0.5, 2.0) ** 2)[:, None]
    label, groups = find_groups(
        state[:, 0],
        state[:, 1],
        radius * round_ / 0.1,
        reach=max((plane.fwhm for plane in planes), default=0.5) / 0.1,
    )
    solver = _Solver(planes, sources, groups, start=start, prior=prior)
    free = np.zeros((n, _N_SHAPE), bool)
    variance = np.full((n, _N_SHAPE), np.inf)
    failed = np.zeros(n, bool)
    # Twice: neighbours in other groups are only subtracted once their fluxes are known.
    for _ in range(2):
        solver.step(state, free=free, refine=False)
    if refine and n:
        snr = _joint_snr(solver)
        free[snr > _REFINE_SNR, :2] = True
        free[(snr > _SHAPE_SNR) & ~sources.is_point] = True
        for _ in range(iterations):
            state, variance = solver.step(state, free=free, refine=True)
            state[:, 2] = np.minimum(state[:, 2], np.log(_LARGEST_RADIUS))
            size = np.maximum(np.hypot(state[:, 3], state[:, 4]) / 0.85, 1.0)
            state[:, 3:] /= size[:, None]
        failed = np.hypot(*(state[:, :2] - start[:, :2]).T) > 4.0
        state[failed] = start[failed]
        for _ in range(2):
            solver.step(state, free=free, refine=False)
    moved = free[:, 0] & ~failed
    error = np.where(moved[:, None] & np.isfinite(variance[:, :2]), np.sqrt(variance[:, :2]), np.nan)
    fallback = np.maximum(sources.position_err, 0.02)[:, None]
    error = np.where(np.isfinite(error), error, fallback)
    missing = ~np.isfinite(solver.flux_err)
    number = np.zeros(n, int)
    for k, members in enumerate(groups):
        number[members] = k + 1
    counts = np.bincount(label, minlength=label.max() + 1 if n else 0)
    largest = [sizes >= plane.sizes[-1] for plane, sizes in zip(planes, solver.sizes, strict=True)]
    return Measurement(
        x=state[:, 0],
        y=state[:, 1],
        x_err=error[:, 0],
        y_err=error[:, 1],
        half_light_radius=np.where(sources.is_point, 0.0, np.exp(state[:, 2])),
        e1=state[:, 3],
        e2=state[:, 4],
        flux=np.where(missing, np.nan, solver.flux),
        flux_err=solver.flux_err,
        coverage=solver.coverage,
        group=label + 1,
        n_group=counts[label] if n else np.zeros(0, int),
        refined=moved,
        failed=failed,
        clipped=np.any(largest, axis=0) if largest else np.zeros(n, bool),
    )


def _joint_snr(solver):
    ratio = np.nan_to_num(solver.flux / solver.flux_err)
    return np.sqrt((np.maximum(ratio, 0) ** 2).sum(axis=1))
