# Licensed under a 3-clause BSD style license - see LICENSE
"""Normal equations of blends: fluxes linearly, positions and shapes by Gauss-Newton or checked steps."""

from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import torch

from jaisp.catalog._planes import BATCH, N_SHAPE, POINT
from jaisp.catalog.offsets import fit_offsets
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["Solver"]

_CHUNK = 4e6  # pixels of stamps with derivatives that are held in memory
_MAX_STEP = np.array([1.0, 1.0, 0.3, 0.15, 0.15, 0.3, 0.3])
_SURVEYS = (RUBIN.name, EUCLID.name)
_OFFSET_ERROR = 0.5  # pixels: sources worse than this in either survey say nothing of the offset
_OFFSET_FLOOR = 0.05  # pixels: sources differ by more than noise, their bands show other shapes
_N_CHANNELS = len(RUBIN.bands) + len(EUCLID.bands)
# A plane's derivatives are drawn if it holds this share of what is known of a position, or shows a source
# brighter than this: else profiles that no galaxy has are fitted to one survey and fail in the other.
_TELLING, _TELLING_SNR = 0.03, 25.0
_NEGATIVE = 5.0  # sigma below 0 that no source's flux is by chance
_SEEN = 0.1  # share of the light on good pixels below which a band has no flux
# Checked steps: chi-square by which a worse place is not worse, the gain below which a fit has ended; the
# damping after the first step that is undone, and the factor by which it grows and falls.
_WORSE, _GAIN = 1.0, 1.0
_DAMPING, _DAMPING_STEP = 0.3, 10.0


def _without_negative(normal, light, flux, negative):
    """Fluxes (channels, sources), anew where some would be negative: 0 for these, the light to the others."""
    flux = np.where(negative, 0.0, flux)
    for channel in np.flatnonzero(negative.any(axis=1)):
        others = np.flatnonzero(~negative[channel])
        flux[channel, others] = np.linalg.solve(
            normal[channel][np.ix_(others, others)], light[channel, others]
        )
    return flux


@dataclass
class _Place:
    """The best place yet of a group whose steps are checked, and the equations there."""

    objective: float
    layout: tuple
    boxes: list
    where: tuple
    parameters: np.ndarray
    hessian: np.ndarray
    gradient: np.ndarray
    damping: float


def _box(sources, drawn):
    """Corners of the box that holds the stamps of sources on a plane, or None."""
    shown = [(np.array(drawn[k][0]), drawn[k][1].shape[-1]) for k in sources if k in drawn]
    if not shown:
        return None
    return np.min([low for low, _ in shown], axis=0), np.max([low + size for low, size in shown], axis=0)


class Solver:
    """
    Normal equations of blends over all planes.

    Parameters
    ----------
    planes : list of Plane
    start, prior : ndarray, shape (n, 7)
        x, y, log radius, e1, e2, bulge fraction and log Sersic index of the disc to begin with, and the
        inverse variances that hold them there.

    Attributes
    ----------
    checked : ndarray of bool, shape (n,)
        Sources whose steps are those of Levenberg and Marquardt: what made chi-square grow is undone, and
        tried again with more damping. Set by the caller; stamps of these sources do not shrink.
    settled : set of tuple
        Groups with such sources in which a step more gains nothing.
    """

    def __init__(self, planes, *, start, prior):
        self.planes, self.start, self.prior = planes, start, prior
        n = len(start)
        self.channels = np.array([channel for plane in planes for channel in plane.channels], int)
        self.flux, self.coverage = np.zeros((n, _N_CHANNELS)), np.full((n, _N_CHANNELS), np.nan)
        self.flux_variance = np.full((n, _N_CHANNELS), np.nan)
        self.shape_variance = np.zeros((n, _N_CHANNELS))
        self.negative = np.zeros((n, _N_CHANNELS), bool)
        self.variance = np.full((n, N_SHAPE), np.inf)
        self.xy_covariance = np.zeros(n)
        # Of each source alone in its group: curvature and slope of each survey's likelihood by x and y.
        self.pull = {plane.survey: np.zeros((n, 2, 2)) for plane in planes}
        self.drawn_at = [np.full((n, N_SHAPE + 3), np.nan) for _ in planes]
        self.checked, self.settled, self._best = np.zeros(n, bool), set(), {}
        self.sizes = [np.zeros(n, int) for _ in planes]
        self.choose_sizes(start)

    @property
    def snr(self):
        """Joint S/N of each source over all bands."""
        ratio = np.nan_to_num(self.flux / np.sqrt(self.flux_variance))
        return np.sqrt((np.maximum(ratio, 0) ** 2).sum(axis=1))

    def choose_sizes(self, state):
        """Choose by what is known the sizes of stamps, and the planes that tell of positions and shapes."""
        radius = np.where(state[:, 2] > POINT, np.exp(state[:, 2]), 0.0)
        ratio = np.maximum(np.nan_to_num(self.flux / np.sqrt(self.flux_variance)), 0)
        snr = [np.sqrt((ratio[:, plane.channels] ** 2).sum(axis=1)) for plane in self.planes]
        sizes = [
            plane.stamp_sizes(radius, state[:, 3], state[:, 4], one)
            for plane, one in zip(self.planes, snr, strict=True)
        ]
        # So that chi-squares can be compared over the same pixels.
        self.sizes = [
            np.where(self.checked, np.maximum(old, new), new)
            for old, new in zip(self.sizes, sizes, strict=True)
        ]
        knows = [
            one**2 / (plane.fwhm**2 + (2 * radius) ** 2) for plane, one in zip(self.planes, snr, strict=True)
        ]
        self.tells = [
            (one >= _TELLING * sum(knows)) | (ratio > _TELLING_SNR)
            for one, ratio in zip(knows, snr, strict=True)
        ]

    def step(self, state, groups, free=None):
        """
        Solve the fluxes of groups, and take one Gauss-Newton step of their free parameters.

        Parameters
        ----------
        state : ndarray, shape (n, 7)
            x, y, log radius, e1, e2, bulge fraction, log Sersic index.
        groups : list of ndarray of int
            Sources to be solved together.
        free : ndarray of int, shape (n,), optional
            How many of the parameters may move, in this order; none by default.

        Returns
        -------
        ndarray, shape (n, 7)
            The state after the step; its variances are in ``variance``.
        """
        new = state.copy()
        free = np.zeros(len(state), int) if free is None else free
        pixels = (1 + free) * sum(
            len(plane.channels) * np.minimum(sizes, plane.largest) ** 2
            for plane, sizes in zip(self.planes, self.sizes, strict=True)
        )
        # The brightest first, then the largest: the rest sees what they leave, and like are drawn with like.
        brightness, chunk, size = self.snr, [], 0
        groups = sorted(groups, key=lambda group: (-brightness[group].max(), -pixels[group].max()))
        for number, group in enumerate(groups, 1):
            chunk.append(group)
            size += pixels[group].sum()
            if size >= _CHUNK or number == len(groups):
                self._solve_chunk(chunk, state, free, new)
                chunk, size = [], 0
        return new

    def _solve_chunk(self, groups, state, free, new):
        members = np.concatenate(groups)
        rows = 1 + free[members]
        normal = np.zeros((len(members), len(self.channels), rows.max(), rows.max()))
        stamps, band = [], 0
        for plane, sizes, tells, drawn_at in zip(
            self.planes, self.sizes, self.tells, self.drawn_at, strict=True
        ):
            bands = slice(band, band + len(plane.channels))
            drawn_rows = np.where(tells[members], rows, 1)
            stamps.append(
                self._own_blocks(
                    plane, sizes[members], drawn_at, members, drawn_rows, state, normal[:, bands]
                )
            )
            band = bands.stop
        number = dict(zip(members, range(len(members)), strict=True))
        if not self.flux[members].any():
            light = [self._brightness(normal[k], source, stamps) for source, k in number.items()]
            groups = sorted(groups, key=lambda group: -max(light[number[k]] for k in group))
        for group in groups:
            part = [number[k] for k in group]
            equations = self._solve_fluxes(group, rows[part], normal[part], stamps)
            for plane in self.planes:
                for source in group:
                    plane.relight(source, self.flux[source, plane.channels])
            if rows[part].sum() > len(group):
                self._move(group, rows[part], *equations, stamps, state, new)

    def _slope(self, source, rows, stamps):
        """What the residuals hold of a source's templates, (channels, rows)."""
        slope, band = np.zeros((len(self.channels), rows)), 0
        for plane, drawn in zip(self.planes, stamps, strict=True):
            if source in drawn:
                found = plane.slope(*drawn[source])
                slope[band : band + len(found), : found.shape[1]] = found
            band += len(plane.channels)
        return slope

    def _brightness(self, normal, source, stamps):
        """Squared joint S/N of a source if no neighbour had a share in its light."""
        light = np.maximum(self._slope(source, normal.shape[-1], stamps)[:, 0], 0)
        return (light**2 / np.maximum(normal[:, 0, 0], 1e-30)).sum()

    def _own_blocks(self, plane, sizes, drawn_at, members, rows, state, normal):
        """Fill in the equations of each source by itself; the stamps of those that the plane shows."""
        batches = []
        shown = plane.shows(state[members])
        self.coverage[np.ix_(members[~shown], plane.channels)] = np.nan
        place = np.column_stack([state[members], *plane.offset(*state[members, :2].T), sizes])
        moved = (place != drawn_at[members]).any(axis=1)
        for size, n_rows in np.unique(np.stack([sizes, rows], axis=-1)[shown], axis=0):
            chosen = np.flatnonzero(shown & (sizes == size) & (rows == n_rows))
            is_wide = size > plane.largest
            at_a_time = 1 if is_wide else BATCH
            for part in np.array_split(chosen, -(-len(chosen) // at_a_time)):
                sources = state[members[part]]
                corners, values = plane.stamps(sources, int(size), 0 if is_wide else int(n_rows) - 1)
                fresh = np.flatnonzero(moved[part])
                for k, stamp in zip(fresh, values[fresh, :, 0].half(), strict=True):
                    source = members[part[k]]
                    plane.draw(source, corners[k], stamp, self.flux[source, plane.channels])
                if is_wide:
                    # Cut from what is drawn: of a narrower stamp the light beyond it would come in again.
                    corners, values = corners + (int(size) - plane.largest) // 2, plane.cut(values)
                    if n_rows > 1:
                        # Derivatives only lead to the best place, which the light's own stamp decides on.
                        slopes = plane.stamps(sources, plane.wide, int(n_rows) - 1)[1]
                        values = torch.cat([values, plane.cut(slopes)[:, :, 1:]], dim=2)
                batches.append((part, corners, values))
        drawn_at[members] = place
        stamps = {}
        while batches:
            part, corners, values = batches.pop()
            design, block, coverage = plane.equations(corners, values)
            normal[part, :, : block.shape[-1], : block.shape[-1]] = block
            missing = (coverage == 0) & ~plane.has_image(state[members[part]])
            self.coverage[np.ix_(members[part], plane.channels)] = np.where(missing, np.nan, coverage)
            for k, source in enumerate(members[part]):
                stamps[source] = corners[k], design[k]
        return stamps

    def _assemble(self, group, rows, normal, stamps):
        """Equations of a group, (channels, rows, rows) and (channels, rows)."""
        if len(group) == 1:
            return normal[0, :, : rows[0], : rows[0]], self._slope(group[0], rows[0], stamps)
        first = np.concatenate([[0], np.cumsum(rows)])
        total = np.zeros((len(self.channels), first[-1], first[-1]))
        right = np.zeros((len(self.channels), first[-1]))
        span = [slice(a, b) for a, b in pairwise(first)]
        for k, source in enumerate(group):
            total[:, span[k], span[k]] = normal[k, :, : rows[k], : rows[k]]
            right[:, span[k]] = self._slope(source, rows[k], stamps)
        for j, k in combinations(range(len(group)), 2):
            band = 0
            for plane, drawn in zip(self.planes, stamps, strict=True):
                bands = slice(band, band + len(plane.channels))
                one, other = drawn.get(group[j]), drawn.get(group[k])
                block = plane.cross_products(one, other) if one and other else None
                if block is not None:
                    rows_j, rows_k = (
                        slice(at, at + n) for at, n in zip(first[[j, k]], block.shape[1:], strict=True)
                    )
                    total[bands, rows_j, rows_k] = block
                    total[bands, rows_k, rows_j] = block.swapaxes(-1, -2)
                band = bands.stop
        return total, right

    def _solve_fluxes(self, group, rows, normal, stamps):
        """
        Solve for the fluxes of a group: those known so far, and what the residual still holds.

        Returns
        -------
        normal, slope
            Equations of the group.
        inverse : ndarray, shape (channels, sources, sources)
            Covariance of the fluxes.
        change : ndarray, shape (channels, sources)
            New less old fluxes.
        """
        normal, slope = self._assemble(group, rows, normal, stamps)
        first = np.cumsum(rows) - rows
        at = np.ix_(group, self.channels)
        old, seen = self.flux[at].T, self.coverage[at].T > _SEEN
        a = normal[:, first][:, :, first]
        diagonal = np.einsum("cii->ci", a)
        ridge = np.where(seen, 1e-4 * np.maximum(diagonal, 1e-30), 1e30)
        held = a + ridge[..., None] * np.eye(len(group))
        inverse, light = np.linalg.inv(held), np.einsum("cij,cj->ci", a, old) + slope[:, first]
        variance = np.einsum("cii->ci", inverse)
        flux = np.where(seen, np.einsum("cij,cj->ci", inverse, light), 0.0)
        negative = flux < -_NEGATIVE * np.sqrt(variance)
        if negative.any():
            flux = _without_negative(held, light, flux, negative)
        self.flux[at], self.negative[at] = flux.T, negative.T
        self.flux_variance[at] = np.where(seen, variance, np.nan).T
        return normal, slope, inverse, flux - old

    def _move(self, group, rows, normal, slope, inverse, change, stamps, state, new):
        """Take a step of the free parameters of a group whose fluxes are solved."""
        first = np.cumsum(rows) - rows
        shape = np.delete(np.arange(rows.sum()), first)
        at = np.ix_(group, self.channels)
        # Eliminate the fluxes: variable projection, to first order.
        owner = np.repeat(np.arange(len(group)), rows - 1)
        scale = self.flux[at].T[:, owner]
        mixed = normal[:, shape][:, :, first]
        coupling = mixed * scale[:, :, None]
        response = inverse @ coupling.swapaxes(-1, -2)
        curvature = normal[:, shape][:, :, shape] * scale[:, :, None] * scale[:, None, :]
        curvature -= coupling @ response
        slope = scale * (slope[:, shape] - np.einsum("cij,cj->ci", mixed, change))
        if len(group) == 1:
            self._keep_pull(group[0], curvature, slope)
        where = group[owner], np.concatenate([np.arange(count - 1) for count in rows])
        hessian = curvature.sum(axis=0) + np.diag(self.prior[where])
        gradient = slope.sum(axis=0) - self.prior[where] * (state[where] - self.start[where])
        here = _Place(0.0, (tuple(rows),), [], where, state[where], hessian, gradient, 0.0)
        if self.checked[group].any():
            here = self._better(group, here, stamps)
        damped = here.hessian + here.damping * np.diag(np.diag(here.hessian))
        try:
            covariance, step = np.linalg.inv(here.hessian), np.linalg.solve(damped, here.gradient)
        except np.linalg.LinAlgError:
            return
        limit = _MAX_STEP[where[1]]
        step = np.clip(step, -limit, limit)
        new[where] = here.parameters + step
        gain = 2 * here.gradient @ step - step @ here.hessian @ step
        if self.checked[group].any() and abs(gain) < _GAIN:
            self.settled.add(tuple(group))
        self.variance[where] = np.diag(covariance)
        at_x = np.flatnonzero(where[1] == 0)
        self.xy_covariance[where[0][at_x]] = covariance[at_x, at_x + 1]
        # What the uncertainty of positions and shapes adds to that of the fluxes.
        self.shape_variance[at] = np.einsum("cij,jk,cik->ci", response, covariance, response).T

    def _better(self, group, here, stamps):
        """Where to step from: here, or the best place yet, with more damping, if it fitted better there."""
        checked, key = group[self.checked[group]], tuple(group)
        here.layout += tuple(
            min(int(sizes[k]), plane.largest)
            for plane, sizes in zip(self.planes, self.sizes, strict=True)
            for k in checked
        )
        best = self._best.get(key)
        comparable = best is not None and best.layout == here.layout
        here.boxes = best.boxes if comparable else [_box(checked, drawn) for drawn in stamps]
        shift = here.parameters - self.start[here.where]
        here.objective = (self.prior[here.where] * shift**2).sum()
        for plane, box in zip(self.planes, here.boxes, strict=True):
            here.objective += plane.chi_square(*box) if box else 0.0
        if comparable:
            if not here.objective <= best.objective + _WORSE:
                best.damping = max(_DAMPING_STEP * best.damping, _DAMPING)
                return best
            here.damping = best.damping / _DAMPING_STEP if best.damping > _DAMPING / _DAMPING_STEP else 0.0
        self._best[key] = here
        return here

    def without_open_ends(self, state):
        """Put groups that still need damping at their best places, in place: the next was not tried."""
        for best in self._best.values():
            if best.damping:
                state[best.where] = best.parameters

    def _keep_pull(self, source, curvature, slope):
        n_rubin = np.searchsorted(self.channels, len(RUBIN.bands))
        for survey, pull in self.pull.items():
            chosen = np.s_[:n_rubin] if survey == RUBIN.name else np.s_[n_rubin:]
            pull[source, 0] = np.einsum("cii->ci", curvature[chosen])[:, :2].sum(axis=0)
            pull[source, 1] = slope[chosen, :2].sum(axis=0)

    def update_offset(self, state):
        """
        Move Rubin to where the sources that stand alone want it, seen from Euclid.

        Parameters
        ----------
        state : ndarray, shape (n, 7)
            That of the last step.
        """
        if len(self.pull) < 2:
            return
        (h_rubin, g_rubin), (h_euclid, g_euclid) = (np.moveaxis(self.pull[name], 1, 0) for name in _SURVEYS)
        sharp = (np.minimum(h_rubin, h_euclid) > 1 / _OFFSET_ERROR**2).all(axis=1)
        h_rubin, g_rubin, h_euclid, g_euclid = (v[sharp] for v in (h_rubin, g_rubin, h_euclid, g_euclid))
        shift = g_euclid / h_euclid - g_rubin / h_rubin
        error = np.sqrt(1 / h_rubin + 1 / h_euclid + _OFFSET_FLOOR**2)
        x, y = state[sharp, :2].T
        for plane in self.planes:
            if plane.survey == RUBIN.name:
                old = np.stack(plane.offset(x, y), axis=-1)
                found = fit_offsets(x, y, *(old + shift).T, *error.T)
                plane.offset = found if found.n_matches else plane.offset
