# Licensed under a 3-clause BSD style license - see LICENSE
"""Normal equations of blends: fluxes linearly, positions and shapes by damped Gauss-Newton steps."""

import numpy as np
import torch

from jaisp.catalog._planes import N_SHAPE, clip_stamp, group_box
from jaisp.scene import stamp_size
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["Solver"]

_CHUNK = 192  # sources whose stamps with derivatives are held in memory
_MAX_STEP = np.array([1.0, 1.0, 0.3, 0.15, 0.15, 0.3])
_BACKGROUND = 0.1  # prior on a local residual background, in units of the pixel noise
_SURVEYS = (RUBIN.name, EUCLID.name)
_OFFSET_ERROR = 0.5  # pixels: sources worse than this in either survey say nothing of the offset
_OFFSET_FLOOR = 0.1  # pixels: sources differ by more than noise, their bands show other shapes


class Solver:
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

        # Plain stamps are kept, and drawn again only where a source (or Rubin's frame) has moved.
        self.plain = [({}, {}) for _ in planes]
        self.drawn_at = [np.full((n, N_SHAPE + 2), np.nan) for _ in planes]

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
        self._refresh(state)
        residuals = [plane.data.copy() for plane in self.planes]
        for plane, residual, (corners, values) in zip(self.planes, residuals, self.plain, strict=True):
            for k in np.flatnonzero(self.flux[:, plane.channels].any(axis=1)):
                where = clip_stamp(corners[k], values[k].shape[-1], plane.shape)
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
                rendered = self._with_derivatives(state, free, np.concatenate(pending))
                for group in pending:
                    self._solve_group(group, rendered, residuals, state, free, new, variance)
                pending = []
        return new, variance

    def _refresh(self, state):
        """Draw the plain stamps of the sources that moved since they were drawn."""
        for plane, sizes, drawn_at, (corners, values) in zip(
            self.planes, self.sizes, self.drawn_at, self.plain, strict=True
        ):
            place = np.hstack([state, np.broadcast_to(plane.offset, (len(state), 2))])
            moved = np.flatnonzero((place != drawn_at).any(axis=1))
            for part in np.array_split(moved, len(moved) // _CHUNK + 1):
                fixed = np.zeros((len(part), N_SHAPE), bool)
                for k, corner, stamps in zip(
                    part, *plane.render(state[part], sizes[part], fixed), strict=True
                ):
                    corners[k], values[k] = corner, stamps.copy()
            drawn_at[moved] = place[moved]

    def _with_derivatives(self, state, free, part):
        """Corners and stamps of some sources on every plane; with derivatives where they may move."""
        moving = part[free[part].any(axis=1)]
        rendered = []
        for plane, sizes, (corners, values) in zip(self.planes, self.sizes, self.plain, strict=True):
            fresh = plane.render(state[moving], sizes[moving], free[moving])[1]
            rendered.append((corners, {k: values[k] for k in part} | dict(zip(moving, fresh, strict=True))))
        return rendered

    def _solve_group(self, members, rendered, residuals, state, free, new, variance):
        # Rows of the design: each source's template, then its derivatives if it may move.
        count = np.where(free[members].any(axis=1), 1 + N_SHAPE, 1)
        first = np.concatenate([[0], np.cumsum(count)[:-1]])
        shape = np.setdiff1d(np.arange(count.sum()), first)
        owner = np.repeat(np.arange(len(members)), count - 1)
        moving = free[members][count > 1].reshape(-1)
        hessian, gradient = np.zeros((len(shape), len(shape))), np.zeros(len(shape))
        couplings = []
        for plane, (corners, values), residual in zip(self.planes, rendered, residuals, strict=True):
            box = group_box(corners, values, members, plane.shape)
            for k, channel in enumerate(plane.channels):
                self.flux_variance[members, channel] = np.nan
                if box is None or not plane.weight[k, box[0] : box[1], box[2] : box[3]].any():
                    self.flux[members, channel], self.coverage[members, channel] = 0.0, 0.0
                    continue
                normal, right = self._equations(
                    plane, k, channel, members, corners, values, residual, box, count
                )
                inverse, flux = self._fluxes(
                    normal, right, first, plane, k, channel, members, corners, values
                )
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
        new[chosen] = state[chosen] + np.clip(step.reshape(-1, N_SHAPE), -_MAX_STEP, _MAX_STEP)
        variance[chosen] = spread.reshape(-1, N_SHAPE)
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
            where = clip_stamp((left - x0, bottom - y0), stamps.shape[-1], data.shape)
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

    def _fluxes(self, normal, right, first, plane, k, channel, members, corners, values):
        """Solve and keep the fluxes of a group in one band; inverse of their equations, and fluxes."""
        a = normal[first][:, first]
        diagonal = np.diag(a)
        coverage = np.array([_covered(plane, k, corners[source], values[source][k, 0]) for source in members])
        seen = coverage > 0.1
        inverse = np.linalg.inv(a + np.diag(np.where(seen, 1e-4 * np.maximum(diagonal, 1e-30), 1e30)))
        flux = np.where(seen, inverse @ right[first], 0.0)
        self.flux[members, channel] = flux
        self.flux_variance[members, channel] = np.where(seen, np.diag(inverse), np.nan)
        self.coverage[members, channel] = coverage
        return inverse, flux


def _covered(plane, k, corner, template):
    """Share of a template's power that falls on good pixels, however large their noise is."""
    power, where = np.square(template), clip_stamp(corner, template.shape[-1], plane.shape)
    if where is None:
        return 0.0
    return float((power[where[1]] * (plane.weight[(k, *where[0])] > 0)).sum() / power.sum())
