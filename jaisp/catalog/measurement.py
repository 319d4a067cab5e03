# Licensed under a 3-clause BSD style license - see LICENSE
"""
The likelihood measures what the network found: fluxes of all bands, positions and shapes, with errors.

Sources are Gaussian-mixture discs or points under the real PSFs. Each blend is solved as a whole: fluxes
linearly, positions and shapes by damped Gauss-Newton steps that are shared over all bands of both surveys.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from jaisp.catalog._groups import find_groups
from jaisp.image import psf_fwhm, resize_psf
from jaisp.scene import psf_transform, render_derivatives, stamp_size
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["Measurement", "Sources", "measure"]

_CHUNK = 192  # sources whose stamps are held in memory
_N_SHAPE = 6  # x, y, log radius, e1, e2, bulge fraction
_POINT = -6.0  # log radius below which a source is a point
_STAMPS = {"rubin": (24, 32, 48, 64, 96), "euclid": (32, 48, 64, 96, 128)}
_REFINE_SNR = 6.0  # below this the network's position is kept: a fit would follow the noise
_SHAPE_SNR = 12.0
_BULGE_SNR = 25.0
_MAX_STEP = np.array([1.0, 1.0, 0.3, 0.15, 0.15, 0.3])
_BACKGROUND = 0.1  # prior on a local residual background, in units of the pixel noise
_BULGE_MEAN = 0.2
_FARTHEST = 4.0  # pixels that a fit may move a source from where the network saw it
# Set on the calibration skies of benchmarks/calibrate.py, so that pulls scatter by about one.
_ERROR_SCALE = 1.25
_FLUX_FLOOR = (0.02, 0.06)  # of points and of galaxies, relative
_POSITION_FLOOR = (0.01, 0.05)  # pixels
_SURVEYS = (RUBIN.name, EUCLID.name)
_OFFSET_ERROR = 0.5  # pixels: sources worse than this in either survey say nothing of the offset
_OFFSET_FLOOR = 0.1  # pixels: sources differ by more than noise, their bands show other shapes
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
    offset : tuple of float
        Rubin minus Euclid positions that the pixels ask for, pixels of the 0.1 arcsec grid.
    offset_err : float
        Its 1 sigma per axis; 0 where it was not measured.
    n_offset : int
        Sources on which it rests.
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
    offset: tuple
    offset_err: float
    n_offset: int

    def with_model_errors(self, is_point):
        """
        Return a measurement whose errors include what the profiles cannot describe.

        Real galaxies are not the sum of two smooth profiles, and faint neighbours go unseen: the errors of
        the fit are scaled, and a share of the flux and a length are added in quadrature.

        Parameters
        ----------
        is_point : ndarray of bool, shape (n,)
            Point sources have no profile to be wrong about, but a PSF.
        """
        share = np.where(is_point, *_FLUX_FLOOR)[:, None]
        floor = np.where(is_point, *_POSITION_FLOOR)
        return replace(
            self,
            x_err=np.hypot(_ERROR_SCALE * self.x_err, floor),
            y_err=np.hypot(_ERROR_SCALE * self.y_err, floor),
            flux_err=np.hypot(_ERROR_SCALE * self.flux_err, share * self.flux),
        )

    def significance(self, survey=None):
        """Joint S/N of each source: square root of the chi-square that leaving it out would cost."""
        bands = {None: slice(None), "rubin": slice(0, 6), "euclid": slice(6, 10)}[survey]
        ratio = np.nan_to_num(self.flux[:, bands] / self.flux_err[:, bands])
        return np.sqrt((np.maximum(ratio, 0) ** 2).sum(axis=1))


class _Plane:
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
        radius = np.where(state[:, 2] > _POINT, np.exp(state[:, 2]), 0.0)
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
        for parameters in (0, _N_SHAPE):
            for size in np.unique(sizes):
                chosen = np.flatnonzero((sizes == size) & (moving == bool(parameters)))
                for part in np.array_split(chosen, len(chosen) // 64 + 1):
                    if not len(part):
                        continue
                    corner, stamps = self.stamps(state[part], int(size), parameters)
                    for k, source in enumerate(part):
                        corners[source], values[source] = corner[k], stamps[k]
        return corners, values


def _make_planes(pair, offset):
    """Rubin; VIS, whose PSF is undersampled and needs more work; and NISP."""
    planes = []
    for image, survey in ((pair.rubin, RUBIN), (pair.euclid, EUCLID)):
        if image is None:
            continue
        sharp = [band for band in image.bands if band == "VIS"]
        rest = [band for band in image.bands if band != "VIS"]
        planes += [_Plane(image, survey, bands, offset) for bands in (sharp, rest) if bands]
    return planes


def _clip(corner, size, shape):
    """Slices of a stamp's part inside an image, in the image and in the stamp."""
    x0, y0 = corner
    a, b = max(0, -x0), min(size, shape[1] - x0)
    c, d = max(0, -y0), min(size, shape[0] - y0)
    if a >= b or c >= d:
        return None
    return np.s_[y0 + c : y0 + d, x0 + a : x0 + b], np.s_[c:d, a:b]


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
        self.flux, self.coverage = np.zeros((n, 10)), np.full((n, 10), np.nan)
        self.flux_variance, self.shape_variance = np.full((n, 10), np.nan), np.zeros((n, 10))
        # Of each source alone in its group: curvature and slope of each survey's likelihood by x and y.
        self.pull = {plane.survey: np.zeros((n, 2, 2)) for plane in planes}
        radius = np.where(sources.is_point, 0.0, np.exp(start[:, 2]))
        arguments = [torch.from_numpy(np.asarray(v, np.float64)) for v in (radius, start[:, 3], start[:, 4])]
        self.sizes = [
            stamp_size(*arguments, psf_fwhm=plane.fwhm, pixel_scale=plane.scale, sizes=plane.sizes).numpy()
            for plane in planes
        ]

    @property
    def snr(self):
        """Joint S/N of each source over all bands."""
        ratio = np.nan_to_num(self.flux / np.sqrt(self.flux_variance))
        return np.sqrt((np.maximum(ratio, 0) ** 2).sum(axis=1))

    def step(self, state, free):
        """
        Solve the fluxes of every group, and take one Gauss-Newton step of the free parameters.

        Parameters
        ----------
        state : ndarray, shape (n, 6)
            x, y, log radius, e1, e2, bulge fraction.
        free : ndarray of bool, shape (n, 6)
            Parameters that may move.

        Returns
        -------
        state : ndarray, shape (n, 6)
        variance : ndarray, shape (n, 6)
            Of the free parameters, inf elsewhere.
        """
        residuals = [plane.data.copy() for plane in self.planes]
        still = np.zeros_like(free)
        for part in np.array_split(np.arange(len(state)), len(state) // _CHUNK + 1):
            for (corners, values), plane, residual in zip(
                self._render(state, still, part), self.planes, residuals, strict=True
            ):
                for k in part:
                    where = _clip(corners[k], values[k].shape[-1], plane.shape)
                    if where is not None:
                        light = self.flux[k, plane.channels].astype(np.float32)[:, None, None]
                        residual[(slice(None), *where[0])] -= light * values[k][(slice(None), 0, *where[1])]
        new, variance = state.copy(), np.full(state.shape, np.inf)
        for values in self.pull.values():
            values[:] = 0
        # Stamps with derivatives are large: only those of a few groups are held at a time.
        pending = []
        for number, members in enumerate(self.groups, 1):
            pending.append(members)
            if sum(map(len, pending)) >= _CHUNK or number == len(self.groups):
                rendered = self._render(state, free, np.concatenate(pending))
                for group in pending:
                    self._solve_group(group, rendered, residuals, state, free, new, variance)
                pending = []
        return new, variance

    def _render(self, state, free, part):
        """Corners and stamps of some sources on every plane, as dictionaries by source."""
        rendered = []
        for plane, sizes in zip(self.planes, self.sizes, strict=True):
            corners, values = plane.render(state[part], sizes[part], free[part])
            rendered.append((dict(zip(part, corners, strict=True)), dict(zip(part, values, strict=True))))
        return rendered

    def _solve_group(self, members, rendered, residuals, state, free, new, variance):
        # Rows of the design: each source's template, then its derivatives if it may move.
        count = np.where(free[members].any(axis=1), 1 + _N_SHAPE, 1)
        first = np.concatenate([[0], np.cumsum(count)[:-1]])
        shape = np.setdiff1d(np.arange(count.sum()), first)
        owner = np.repeat(np.arange(len(members)), count - 1)
        moving = free[members][count > 1].reshape(-1)
        hessian, gradient = np.zeros((len(shape), len(shape))), np.zeros(len(shape))
        couplings = []
        for plane, (corners, values), residual in zip(self.planes, rendered, residuals, strict=True):
            box = _group_box(corners, values, members, plane.shape)
            for k, channel in enumerate(plane.channels):
                self.flux_variance[members, channel] = np.nan
                if box is None or not plane.weight[k, box[0] : box[1], box[2] : box[3]].any():
                    self.flux[members, channel], self.coverage[members, channel] = 0.0, 0.0
                    continue
                normal, right = self._equations(
                    plane, k, channel, members, corners, values, residual, box, count
                )
                inverse, flux = self._fluxes(normal, right, first, plane, k, channel, members, values)
                if not len(shape):
                    continue
                # Eliminate the fluxes: variable projection, to first order.
                scale = flux[owner]
                coupling = normal[shape][:, first] * scale[:, None]
                curvature = normal[shape][:, shape] * np.outer(scale, scale) - coupling @ inverse @ coupling.T
                slope = scale * (right[shape] - normal[shape][:, first] @ flux)
                hessian += curvature
                gradient += slope
                if len(members) == 1:
                    self.pull[plane.survey][members[0], 0] += np.diag(curvature)[:2]
                    self.pull[plane.survey][members[0], 1] += slope[:2]
                couplings.append((channel, inverse @ coupling.T[:, moving]))
        if not moving.any():
            return
        chosen = members[count > 1]
        hessian += np.diag(self.prior[chosen].reshape(-1))
        gradient -= (self.prior[chosen] * (state[chosen] - self.start[chosen])).reshape(-1)
        try:
            covariance = np.linalg.inv(hessian[moving][:, moving])
        except np.linalg.LinAlgError:
            return
        step, spread = np.zeros(len(shape)), np.full(len(shape), np.inf)
        step[moving] = covariance @ gradient[moving]
        spread[moving] = np.diag(covariance)
        new[chosen] = state[chosen] + np.clip(step.reshape(-1, _N_SHAPE), -_MAX_STEP, _MAX_STEP)
        variance[chosen] = spread.reshape(-1, _N_SHAPE)
        # What the uncertainty of positions and shapes adds to that of the fluxes.
        for channel, slope in couplings:
            self.shape_variance[members, channel] = np.einsum("ij,jk,ik->i", slope, covariance, slope)

    def update_offset(self):
        """
        Move Rubin to where the sources that stand alone want it, seen from Euclid.

        Returns
        -------
        error, n : float, int
            1 sigma of the offset per axis, pixels, and how many sources it rests on.
        """
        if len(self.pull) < 2:
            return 0.0, 0
        (h_rubin, g_rubin), (h_euclid, g_euclid) = (np.moveaxis(self.pull[name], 1, 0) for name in _SURVEYS)
        sharp = (np.minimum(h_rubin, h_euclid) > 1 / _OFFSET_ERROR**2).all(axis=1)
        if sharp.sum() < 5:
            return 0.0, int(sharp.sum())
        h_rubin, g_rubin, h_euclid, g_euclid = (v[sharp] for v in (h_rubin, g_rubin, h_euclid, g_euclid))
        shift = g_rubin / h_rubin - g_euclid / h_euclid
        weight = 1 / (1 / h_rubin + 1 / h_euclid + _OFFSET_FLOOR**2)
        centre = np.median(shift, axis=0)
        for _ in range(5):  # Cauchy weights: unrecognised blends pull by much more than their errors
            robust = weight / (1 + (shift - centre) ** 2 * weight / 4)
            centre = (robust * shift).sum(axis=0) / robust.sum(axis=0)
        for plane in self.planes:
            if plane.survey == "rubin":
                plane.offset += centre
        return float(np.sqrt(1 / robust.sum(axis=0)).max()), int(sharp.sum())

    def _equations(self, plane, k, channel, members, corners, values, residual, box, count):
        """Normal equations of a group in one band, a local background marginalised."""
        y0, y1, x0, x1 = box
        weight = plane.weight[k, y0:y1, x0:x1]
        design = np.zeros((count.sum(), y1 - y0, x1 - x0), np.float32)
        data = residual[k, y0:y1, x0:x1].copy()
        row = 0
        for source, rows in zip(members, count, strict=True):
            stamps, (left, bottom) = values[source][k], corners[source]
            where = _clip((left - x0, bottom - y0), stamps.shape[-1], data.shape)
            if where is not None:
                design[(slice(row, row + rows), *where[0])] = stamps[(slice(None), *where[1])]
                data[where[0]] += self.flux[source, channel] * stamps[0][where[1]]
            row += rows
        flat = design.reshape(len(design), -1)
        weighted = flat * weight.reshape(-1)
        normal = (weighted @ flat.T).astype(float)
        right = (weighted @ data.reshape(-1)).astype(float)
        ones = weighted.sum(axis=1).astype(float)
        total = float(weight.sum()) + plane.typical[k] / _BACKGROUND**2
        normal -= np.outer(ones, ones) / total
        right -= ones * float((weight * data).sum()) / total
        return normal, right

    def _fluxes(self, normal, right, first, plane, k, channel, members, values):
        """Solve and keep the fluxes of a group in one band; inverse of their equations, and fluxes."""
        a = normal[first][:, first]
        diagonal = np.diag(a)
        complete = np.array([np.square(values[source][k, 0]).sum() for source in members]) * plane.typical[k]
        coverage = diagonal / np.maximum(complete, 1e-30)
        seen = coverage > 0.1
        inverse = np.linalg.inv(a + np.diag(np.where(seen, 1e-4 * np.maximum(diagonal, 1e-30), 1e30)))
        flux = np.where(seen, inverse @ right[first], 0.0)
        self.flux[members, channel] = flux
        self.flux_variance[members, channel] = np.where(seen, np.diag(inverse), np.nan)
        self.coverage[members, channel] = np.minimum(coverage, 1.0)
        return inverse, flux


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
        Rubin minus Euclid positions to begin with, pixels of the 0.1 arcsec grid; refined too.

    Returns
    -------
    `Measurement`
    """
    n = len(sources)
    planes = _make_planes(pair, offset)
    radius = np.clip(sources.half_light_radius, 0.02, _LARGEST_RADIUS)
    is_galaxy = ~sources.is_point
    norm = np.maximum(np.hypot(sources.e1, sources.e2) / 0.8, 1.0)
    state = np.zeros((n, _N_SHAPE))
    state[:, 0], state[:, 1] = sources.x, sources.y
    state[:, 2] = np.where(is_galaxy, np.log(radius), 1.5 * _POINT)
    state[:, 3], state[:, 4] = is_galaxy * sources.e1 / norm, is_galaxy * sources.e2 / norm
    state[:, 5] = is_galaxy * _BULGE_MEAN
    start = state.copy()
    prior = np.tile(1 / np.array([1.0, 1.0, 0.4, 0.2, 0.2, 0.3]) ** 2, (n, 1))
    prior[:, :2] = (1 / np.clip(2 * sources.position_err, 0.5, 2.0) ** 2)[:, None]
    reach = max((plane.fwhm for plane in planes), default=0.5) / EUCLID.pixel_scale
    label, groups = find_groups(
        state[:, 0], state[:, 1], radius * is_galaxy / EUCLID.pixel_scale, reach=reach
    )
    solver = _Solver(planes, sources, groups, start=start, prior=prior)
    fixed = np.zeros((n, _N_SHAPE), bool)
    free = fixed.copy()
    variance = np.full((n, _N_SHAPE), np.inf)
    failed = np.zeros(n, bool)
    offset_error, n_offset = 0.0, 0
    # Twice: neighbours in other groups are only subtracted once their fluxes are known.
    for _ in range(2):
        solver.step(state, fixed)
    if refine and n:
        snr = solver.snr
        free[:, :2] = (snr > _REFINE_SNR)[:, None]
        free[:, 2:5] = ((snr > _SHAPE_SNR) & is_galaxy)[:, None]
        free[:, 5] = (snr > _BULGE_SNR) & is_galaxy
        for _ in range(iterations):
            state, variance = solver.step(state, free)
            offset_error, n_offset = solver.update_offset()
            state[:, 2] = np.minimum(state[:, 2], np.log(_LARGEST_RADIUS))
            state[:, 2] = np.maximum(state[:, 2], np.where(is_galaxy, np.log(0.02), 1.5 * _POINT))
            state[:, 3:5] /= np.maximum(np.hypot(state[:, 3], state[:, 4]) / 0.85, 1.0)[:, None]
            state[:, 5] = np.clip(state[:, 5], 0.0, 1.0)
        failed = np.hypot(*(state[:, :2] - start[:, :2]).T) > _FARTHEST
        state[failed] = start[failed]
        solver.step(state, fixed)
    moved = free[:, 0] & ~failed
    error = np.where(moved[:, None] & np.isfinite(variance[:, :2]), np.sqrt(variance[:, :2]), np.nan)
    fallback = np.maximum(sources.position_err, 0.02)[:, None]
    error = np.where(np.isfinite(error), error, fallback)
    flux_err = np.sqrt(solver.flux_variance + solver.shape_variance)
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
        flux=np.where(np.isfinite(flux_err), solver.flux, np.nan),
        flux_err=flux_err,
        coverage=solver.coverage,
        group=label + 1,
        n_group=counts[label] if n else np.zeros(0, int),
        refined=moved,
        failed=failed,
        clipped=np.any(largest, axis=0) if largest else np.zeros(n, bool),
        offset=tuple(float(v) for v in (planes[0].offset if planes else (0.0, 0.0))),
        offset_err=offset_error,
        n_offset=n_offset,
    )
