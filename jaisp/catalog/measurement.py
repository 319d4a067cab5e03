# Licensed under a 3-clause BSD style license - see LICENSE
"""
The likelihood measures what the network found: fluxes of all bands, positions and shapes, with errors.

Sources are points, or discs of any Sersic index with de Vaucouleurs bulges, under the real PSFs. Each blend
is solved as a whole: fluxes linearly, positions and shapes by Gauss-Newton steps that are shared over all
bands of both surveys; those of wide galaxies are checked and damped (Levenberg and Marquardt).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from jaisp.catalog._groups import cut_blends, find_blends
from jaisp.catalog._planes import BULGE_SIZE, N_SHAPE, POINT, make_planes
from jaisp.catalog._solver import Solver
from jaisp.catalog.offsets import OffsetField
from jaisp.scene import SERSIC_INDICES, half_light_factor
from jaisp.surveys import EUCLID

__all__ = ["Measurement", "Sources", "measure"]

_REFINE_SNR = 6.0  # below this the network's position is kept: a fit would follow the noise
_SHAPE_SNR = 12.0
_PROFILE_SNR = 25.0
# Galaxies wider than this part of the largest stamp: plain steps go to and fro between wings and sky.
_WIDE = 8.0
_MOST_STEPS = 12  # of fits of wide galaxies, which few steps do not bring to an end
_BULGE_MEAN = 0.2
# 1 sigma of what is known beforehand of log radius, e1, e2, bulge fraction, log Sersic index.
_PRIOR = (0.4, 0.2, 0.2, 0.3, 0.8)
_OFFSET_STEPS = 2  # first steps after which the offset between the surveys is refined
_CONVERGED = 0.1  # in units of the errors: sources that move less stay where they are
_FARTHEST = 3.0  # pixels that a fit may move a source from where the network saw it
_ONE_SPOT = 1.2  # pixels: nearer than this a fit has moved two sources together
# In log radius: sources that grow by more are fitted to light that is not theirs. On the calibration skies
# such fits end with 2.5 times the true radius, where the network was right to 10 %; bright ones are exempt.
_MOST_GROWTH, _EXEMPT_SNR = 0.8, 150.0
# Of points and of galaxies, so that pulls of sources that stand alone on the calibration skies of
# benchmarks/measurement.py scatter by about one.
_ERROR_SCALE = (1.0, 1.15)
_FLUX_FLOOR = (0.015, 0.035)  # relative
_POSITION_FLOOR = (0.006, 0.04)  # pixels
# Members of a blend that are solved together: where positions and shapes are free, and where only fluxes are.
_MOST_TOGETHER, _MOST_FLUXES = 64, 200
_SMALLEST_RADIUS, _LARGEST_RADIUS = 0.02, 6.0  # arcsec


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

    def __post_init__(self):
        for name, values in vars(self).items():
            setattr(self, name, np.asarray(values, bool if name == "is_point" else float))

    def __len__(self):
        return len(self.x)

    def select(self, index):
        """Return the sources of an index or a mask."""
        return Sources(**{name: values[index] for name, values in vars(self).items()})


@dataclass
class Measurement:
    """
    Result of `measure`; errors are 1 sigma, marginalised over the neighbours.

    Attributes
    ----------
    x, y, x_err, y_err : ndarray, shape (n,)
        Pixels of the 0.1 arcsec grid.
    xy_covariance : ndarray, shape (n,)
        Of the errors of x and y, square pixels.
    half_light_radius, e1, e2 : ndarray, shape (n,)
        Intrinsic shape; radius in arcsec.
    bulge_fraction : ndarray, shape (n,)
        Share of a de Vaucouleurs profile in the flux.
    sersic_index : ndarray, shape (n,)
        Of the disc, which is the rest.
    flux, flux_err : ndarray, shape (n, 10)
        nJy, Rubin ugrizy then Euclid VIS, Y, J, H; NaN where a band is missing or masked.
    coverage : ndarray, shape (n, 10)
        Share of the light that falls on good pixels; NaN where the band is missing or its image ends.
    group, n_group : ndarray of int, shape (n,)
        Number of the blend (from 1) and its members.
    refined : ndarray of bool, shape (n,)
        Whether position (and shape) come from the likelihood.
    failed : ndarray of bool, shape (n,)
        Refinement ran away and was undone.
    large : ndarray of bool, shape (n,)
        Larger than the largest stamp.
    negative : ndarray of bool, shape (n,)
        A band asked for a flux below -5 sigma, which was set to 0.
    offset : `~jaisp.catalog.OffsetField`
        Euclid minus Rubin positions that the pixels ask for.
    """

    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    xy_covariance: np.ndarray
    half_light_radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    bulge_fraction: np.ndarray
    sersic_index: np.ndarray
    flux: np.ndarray
    flux_err: np.ndarray
    coverage: np.ndarray
    group: np.ndarray
    n_group: np.ndarray
    refined: np.ndarray
    failed: np.ndarray
    large: np.ndarray
    negative: np.ndarray
    offset: OffsetField

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
        scale, floor = np.where(is_point, *_ERROR_SCALE), np.where(is_point, *_POSITION_FLOOR)
        share = np.where(is_point, *_FLUX_FLOOR)[:, None]
        return replace(
            self,
            x_err=np.hypot(scale * self.x_err, floor),
            y_err=np.hypot(scale * self.y_err, floor),
            xy_covariance=scale**2 * self.xy_covariance,
            flux_err=np.hypot(scale[:, None] * self.flux_err, share * self.flux),
        )

    def significance(self, survey=None):
        """Joint S/N of each source: square root of the chi-square that leaving it out would cost."""
        bands = {None: slice(None), "rubin": slice(0, 6), "euclid": slice(6, 10)}[survey]
        ratio = np.nan_to_num(self.flux[:, bands] / self.flux_err[:, bands])
        return np.sqrt((np.maximum(ratio, 0) ** 2).sum(axis=1))


def _free_parameters(snr, is_galaxy, runs_away):
    """How many parameters each source's signal allows to be fitted: position, then shape, then profile."""
    free = np.where(snr > _REFINE_SNR, 2, 0)
    free[(snr > _SHAPE_SNR) & is_galaxy] = 5
    free[(snr > _PROFILE_SNR) & is_galaxy] = 7
    free[(snr > _PROFILE_SNR) & is_galaxy & runs_away] = 6
    return free


def _stretched_radius(state):
    """Half-light radius along the major axis, arcsec."""
    ellipticity = np.hypot(state[:, 3], state[:, 4])
    return np.exp(state[:, 2]) * np.sqrt((1 + ellipticity) / (1 - ellipticity))


def _limit(state, is_galaxy):
    """Keep shapes within bounds, in place."""
    state[:, 2] = np.clip(
        state[:, 2], np.where(is_galaxy, np.log(_SMALLEST_RADIUS), 1.5 * POINT), np.log(_LARGEST_RADIUS)
    )
    state[:, 3:5] /= np.maximum(np.hypot(state[:, 3], state[:, 4]) / 0.85, 1.0)[:, None]
    state[:, 5] = np.clip(state[:, 5], 0.0, 1.0)
    state[:, 6] = np.clip(state[:, 6], *np.log(SERSIC_INDICES))


def measure(pair, sources, *, refine=True, iterations=5, offset=None):
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
        Gauss-Newton steps; wide galaxies may take up to twelve, each of them checked. Without ``refine`` 0 is
        a first look: of bright sources the wings are left out.
    offset : `~jaisp.catalog.OffsetField`, optional
        Euclid minus Rubin positions to begin with; refined too. None by default.

    Returns
    -------
    `Measurement`
    """
    n = len(sources)
    planes = make_planes(pair, offset or OffsetField())
    disc = half_light_factor(_BULGE_MEAN, BULGE_SIZE)
    radius = np.clip(sources.half_light_radius / disc, _SMALLEST_RADIUS, _LARGEST_RADIUS)
    is_galaxy = ~sources.is_point
    norm = np.maximum(np.hypot(sources.e1, sources.e2) / 0.8, 1.0)
    state = np.zeros((n, N_SHAPE))
    state[:, 0], state[:, 1] = sources.x, sources.y
    state[:, 2] = np.where(is_galaxy, np.log(radius), 1.5 * POINT)
    state[:, 3], state[:, 4] = is_galaxy * sources.e1 / norm, is_galaxy * sources.e2 / norm
    state[:, 5] = is_galaxy * _BULGE_MEAN
    start = state.copy()
    prior = np.tile(1 / np.array((1.0, 1.0, *_PRIOR)) ** 2, (n, 1))
    prior[:, :2] = (1 / np.clip(2 * sources.position_err, 0.5, 2.0) ** 2)[:, None]
    reach = max((plane.fwhm for plane in planes), default=0.5) / EUCLID.pixel_scale
    label, blends = find_blends(
        state[:, 0], state[:, 1], radius * is_galaxy / EUCLID.pixel_scale, reach=reach
    )
    groups, blends = (cut_blends(blends, state[:, :2], most) for most in (_MOST_TOGETHER, _MOST_FLUXES))
    solver = Solver(planes, start=start, prior=prior)
    free, failed = np.zeros(n, int), np.zeros(n, bool)
    solver.step(state, groups)
    if not refine and iterations:
        solver.choose_sizes(state)  # until here nothing was known of the fluxes
        for _ in range(2):  # in the second, each sees what all neighbours have left it
            solver.step(state, blends)
    if refine and n:
        moving = groups
        widest = min((plane.largest * plane.scale for plane in planes), default=0.0) / _WIDE
        for iteration in range(max(iterations, _MOST_STEPS)):
            solver.choose_sizes(state)
            is_wide = is_galaxy & (_stretched_radius(state) > widest)
            grew = state[:, 2] - start[:, 2] > _MOST_GROWTH
            solver.checked |= is_wide & ~grew & (solver.snr > _PROFILE_SNR)
            if iteration < iterations:
                free = may = _free_parameters(solver.snr, is_galaxy, is_wide & ~solver.checked)
            else:
                may = np.where(solver.checked, free, 0)
            moving = [group for group in moving if may[group].any()]
            if iteration >= _OFFSET_STEPS:
                moving = [group for group in moving if tuple(group) not in solver.settled]
            if not moving:
                break
            new = solver.step(state, moving, may)
            _limit(new, is_galaxy)
            small = np.abs(new - state) < _CONVERGED * np.sqrt(solver.variance)
            before, state = state, new
            if iteration < _OFFSET_STEPS:
                solver.update_offset(before)
            else:
                moving = [group for group in moving if not small[group].all()]
        solver.without_open_ends(state)
        failed = np.hypot(*(state[:, :2] - start[:, :2]).T) > _FARTHEST
        failed |= (state[:, 2] - start[:, 2] > _MOST_GROWTH) & (solver.snr < _EXEMPT_SNR)
        failed |= ~np.isfinite(state).all(axis=1)
        # On one spot two sources share their light as noise likes it.
        places = np.where(failed[:, None], start[:, :2], state[:, :2])
        failed[cKDTree(places).query_pairs(_ONE_SPOT, output_type="ndarray").ravel()] = True
        state[failed] = start[failed]
        away = solver.flux[failed]
        solver.checked[:] = False
        solver.choose_sizes(state)
        solver.step(state, blends)
        # How much the fit that ran away would change the flux, up to all of it, is what is not known of it.
        kept = solver.flux[failed]
        solver.shape_variance[failed] = np.minimum(np.abs(away - kept), np.abs(kept)) ** 2
    moved = (free > 0) & ~failed
    variance = solver.variance[:, :2]
    known = moved & np.isfinite(variance).all(axis=1)
    fallback = np.maximum(sources.position_err, 0.02)
    error = np.where(known[:, None], np.sqrt(variance), fallback[:, None])
    flux_err = np.sqrt(solver.flux_variance + solver.shape_variance)
    counts = np.bincount(label, minlength=label.max() + 1 if n else 0)
    largest = [sizes > plane.largest for plane, sizes in zip(planes, solver.sizes, strict=True)]
    return Measurement(
        x=state[:, 0],
        y=state[:, 1],
        x_err=error[:, 0],
        y_err=error[:, 1],
        xy_covariance=np.where(known, solver.xy_covariance, 0.0),
        half_light_radius=np.where(
            sources.is_point,
            0.0,
            np.exp(state[:, 2]) * half_light_factor(state[:, 5], BULGE_SIZE, np.exp(state[:, 6])),
        ),
        e1=state[:, 3],
        e2=state[:, 4],
        bulge_fraction=state[:, 5],
        sersic_index=np.exp(state[:, 6]),
        flux=np.where(np.isfinite(flux_err), solver.flux, np.nan),
        flux_err=flux_err,
        coverage=solver.coverage,
        group=label + 1,
        n_group=counts[label] if n else np.zeros(0, int),
        refined=moved,
        failed=failed,
        large=np.any(largest, axis=0) if largest else np.zeros(n, bool),
        negative=solver.negative.any(axis=1),
        offset=next((plane.offset for plane in planes if plane.survey == "rubin"), OffsetField()),
    )
