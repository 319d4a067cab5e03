# Licensed under a 3-clause BSD style license - see LICENSE
"""Measurement against scenes drawn by GalSim."""

from dataclasses import replace

import numpy as np
import pytest

from jaisp.catalog import Sources, measure
from jaisp.catalog._groups import cut_blends, find_blends
from jaisp.catalog._solver import Solver
from jaisp.io import align

from .helpers import draw

pytest.importorskip("galsim")

N = 300


def make_sources(xy, radius, rng, scatter=0.4):
    n = len(xy)
    return Sources(
        x=xy[:, 0] + rng.normal(0, scatter, n),
        y=xy[:, 1] + rng.normal(0, scatter, n),
        position_err=np.full(n, scatter),
        half_light_radius=np.maximum(radius * rng.uniform(0.8, 1.2, n), 0.02),
        e1=np.zeros(n),
        e2=np.zeros(n),
        is_point=radius == 0,
    )


def make_field(seed, offset):
    """A grid of well separated stars and discs, seen by both surveys with an offset in pixels."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(30, 280, 48.0), np.arange(30, 280, 48.0))
    xy = np.stack([x.ravel(), y.ravel()], axis=-1) + rng.uniform(-3, 3, (x.size, 2))
    radius = np.where(np.arange(len(xy)) % 2, 0.0, 0.35)
    flux = rng.uniform(300, 1500, len(xy))
    sources = [(*position, f, r) for position, f, r in zip(xy, flux, radius, strict=True)]
    pair = align(
        draw("rubin", ["g", "i"], sources, N // 2, rng, sigma=4.0, offset=offset),
        draw("euclid", ["VIS", "H"], sources, N, rng, sigma=1.5),
    )
    return pair, xy, flux, radius, offset, rng


@pytest.fixture(scope="module")
def field():
    return make_field(3, (0.4, -0.2))


def test_positions_fluxes_and_their_errors(field):
    pair, xy, flux, radius, offset, rng = field
    result = measure(pair, make_sources(xy, radius, rng))
    found, error = np.array(result.offset(N / 2, N / 2)), np.array(result.offset.uncertainty(N / 2, N / 2))
    assert result.offset.n_matches > 10
    assert -found == pytest.approx(offset, abs=4 * error.max())
    assert error.max() < 0.1
    assert result.refined.all()
    assert not result.failed.any()
    pulls = np.concatenate([(result.x - xy[:, 0]) / result.x_err, (result.y - xy[:, 1]) / result.y_err])
    assert 0.7 < pulls.std() < 1.4
    assert np.abs(pulls.mean()) < 0.4
    for channel in (1, 3, 6, 9):
        pulls = (result.flux[:, channel] - flux) / result.flux_err[:, channel]
        assert 0.6 < pulls.std() < 1.5
        assert np.median(result.flux[:, channel] / flux) == pytest.approx(1, abs=0.03)
    missing = [0, 2, 4, 5, 7, 8]
    assert np.isnan(result.flux[:, missing]).all()
    assert np.isnan(result.coverage[:, missing]).all()
    galaxy = radius > 0
    assert np.median(result.half_light_radius[galaxy]) == pytest.approx(0.35, rel=0.1)
    assert (result.half_light_radius[~galaxy] == 0).all()


def test_errors_are_one_sigma():
    """Of 216 sources in six noise fields: the scatter of their pulls is known to 5 %, of positions to 3 %."""
    positions, fluxes = [], []
    for seed in range(6):
        pair, xy, flux, radius, _, rng = make_field([3, seed], (0.0, 0.0))
        result = measure(pair, make_sources(xy, radius, rng))
        for found, true, error in ((result.x, xy[:, 0], result.x_err), (result.y, xy[:, 1], result.y_err)):
            positions.append((found - true) / error)
        bands = [1, 3, 6, 9]
        fluxes.append((result.flux[:, bands] - flux[:, None]) / result.flux_err[:, bands])
    fluxes = np.concatenate(fluxes)
    assert np.std(positions) == pytest.approx(1, abs=0.1)
    assert np.std(fluxes, axis=0) == pytest.approx(np.ones(4), abs=0.15)
    assert np.mean(fluxes, axis=0) == pytest.approx(np.zeros(4), abs=0.2)


def test_neighbours_share_their_light_rightly():
    rng = np.random.default_rng(5)
    truth = [(100.0, 100.0, 900.0, 0.0), (106.0, 102.0, 400.0, 0.0), (200.0, 60.0, 500.0, 0.0)]
    pair = align(
        draw("rubin", ["i"], truth, 120, rng, sigma=2.0), draw("euclid", ["VIS"], truth, 240, rng, sigma=0.7)
    )
    xy = np.array(truth)[:, :2]
    result = measure(pair, make_sources(xy, np.zeros(3), rng, scatter=0.2))
    assert result.n_group.tolist() == [2, 2, 1]
    assert result.group[0] == result.group[1] != result.group[2]
    for channel in (3, 6):
        assert result.flux[:, channel] == pytest.approx(np.array(truth)[:, 2], rel=0.08)
    # Blended by Rubin, the fluxes of the two are less certain than that of the third.
    assert result.flux_err[1, 3] > result.flux_err[2, 3]


@pytest.mark.parametrize("refine", [False, True])
def test_neighbours_of_a_bright_star_do_not_count_its_wings(refine):
    """The star is drawn as far as its PSF image tells, once it is known how bright it is."""
    pulls = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        truth = [(100.0, 100.0, 1e7, 0.0), (116.0, 108.0, 300.0, 0.0), (72.0, 103.0, 300.0, 0.0)]
        pair = align(euclid=draw("euclid", ["VIS"], truth, 200, rng, sigma=0.7, psf_side=121))
        sources = make_sources(np.array(truth)[:, :2], np.zeros(3), rng, scatter=0.0)
        result = measure(pair, sources, refine=refine)
        pulls.append((result.flux[1:, 6] - 300) / result.flux_err[1:, 6])
    assert np.abs(np.mean(pulls, axis=0)).max() < 1.5
    assert np.std(pulls, axis=0).max() < 2.0


def test_two_sources_on_one_spot_go_back_to_where_they_were_seen(monkeypatch):
    rng = np.random.default_rng(9)
    truth = [(100.0, 100.0, 3000.0, 0.5)]
    pair = align(euclid=draw("euclid", ["VIS"], truth, 200, rng, sigma=0.7))
    twice = make_sources(np.array([[97.0, 100.0], [103.0, 100.0]]), np.full(2, 0.4), rng, scatter=0.0)
    twice.position_err[:] = 2.0  # free to go where the light is

    def together(self, state, groups, free=None):
        new = step(self, state, groups, free)
        if free is not None:
            new[:, :2] = [[99.9, 100.0], [100.1, 100.0]]
        return new

    step = Solver.step
    monkeypatch.setattr(Solver, "step", together)
    result = measure(pair, twice)
    assert result.failed.all()
    np.testing.assert_array_equal(result.x, twice.x)
    assert np.isfinite(result.flux_err[:, 6]).all()


def test_masked_source_has_no_flux_in_that_band():
    rng = np.random.default_rng(6)
    truth = [(60.0, 60.0, 900.0, 0.0), (150.0, 150.0, 900.0, 0.0)]
    euclid = draw("euclid", ["VIS", "H"], truth, 200, rng)
    euclid.mask["H"][130:170, 130:170] = True
    result = measure(align(euclid=euclid), make_sources(np.array(truth)[:, :2], np.zeros(2), rng))
    assert np.isnan(result.flux[1, 9])
    assert result.coverage[1, 9] < 0.2
    assert result.flux[0, 9] == pytest.approx(900, rel=0.1)
    assert result.flux[1, 6] == pytest.approx(900, rel=0.1)


def test_where_an_image_ends_its_band_is_missing():
    """Beyond its pixels there is no image; a masked hole in it, however large, is not that."""
    rng = np.random.default_rng(9)
    truth = [(60.0, 200.0, 900.0, 0.0), (200.0, 60.0, 900.0, 0.0), (200.0, 200.0, 900.0, 0.0)]
    euclid = draw("euclid", ["VIS", "Y", "H"], truth, 300, rng)
    euclid.mask["Y"][:, 130:] = True
    euclid.mask["H"][:130, 130:270] = True
    euclid.mask["H"][:8] = False
    rubin = draw("rubin", ["i"], truth, 150, rng)
    rubin.mask["i"][:, 15:] = True  # the largest stamps of the others do not reach it
    result = measure(align(rubin, euclid), make_sources(np.array(truth)[:, :2], np.zeros(3), rng))
    channels = [3, 6, 7, 9]
    assert np.isnan(result.coverage[:, channels]).tolist() == [
        [True, False, False, False],
        [True, False, True, False],
        [True, False, True, False],
    ]
    assert result.coverage[1, 9] == 0
    assert np.isnan(result.flux[:, channels]).tolist() == [
        [True, False, False, False],
        [True, False, True, True],
        [True, False, True, False],
    ]


def test_own_photon_noise_is_not_a_mask():
    """A bright star's pixels are noisier than the sky's, and as good."""
    rng = np.random.default_rng(16)
    truth = [(60.0, 60.0, 90000.0, 0.0), (150.0, 150.0, 900.0, 0.0)]
    euclid = draw("euclid", ["VIS", "H"], truth, 200, rng)
    for variance, data in zip(euclid.variance.values(), euclid.data.values(), strict=True):
        variance += np.maximum(data, 0) / 5
    result = measure(align(euclid=euclid), make_sources(np.array(truth)[:, :2], np.zeros(2), rng))
    np.testing.assert_array_less(0.99, result.coverage[:, [6, 9]])
    np.testing.assert_allclose(result.flux[0, [6, 9]], 90000, rtol=0.03)


def test_errors_of_fluxes_where_refinement_failed(monkeypatch):
    """Those at the network's position and shape, and how far off the fit would have them."""
    rng = np.random.default_rng(12)
    pair = align(euclid=draw("euclid", ["VIS"], [(100.0, 100.0, 900.0, 0.5)], 200, rng))
    sources = make_sources(np.array([[100.0, 100.0]]), np.array([0.5]), rng)
    fitted = measure(pair, sources)
    monkeypatch.setattr("jaisp.catalog.measurement._FARTHEST", -1.0)
    failed, never = (measure(pair, sources, refine=refine) for refine in (True, False))
    assert failed.failed.all()
    assert failed.flux[0, 6] == pytest.approx(never.flux[0, 6], rel=0.01)
    away = abs(fitted.flux - never.flux)[0, 6]
    # The last step of the fit shows only in what is kept.
    assert np.sqrt(failed.flux_err**2 - never.flux_err**2)[0, 6] == pytest.approx(away, rel=0.2)
    assert away > never.flux_err[0, 6]


def test_large_sources_do_not_fit_into_the_largest_stamp():
    """The first needs 111 pixels and has the stamp of 128; the second needs more than that."""
    rng = np.random.default_rng(11)
    euclid = draw("euclid", ["VIS"], [(150.0, 150.0, 900.0, 1.6)], 300, rng)
    sources = make_sources(np.array([[150.0, 150.0]] * 2), np.array([1.6, 4.0]), rng)
    sources.half_light_radius[:] = 1.6, 4.0
    assert measure(align(euclid=euclid), sources, refine=False).large.tolist() == [False, True]


def test_fluxes_of_a_blend_too_large_to_be_fitted_as_a_whole():
    """What its pieces would leave in each other's light is solved for together at the end."""
    rng = np.random.default_rng(12)
    grid = 60 + 6.0 * np.arange(8)
    xy = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2) + rng.uniform(-1, 1, (64, 2))
    flux = 10 ** rng.uniform(2, 3.5, 64)
    truth = [(*place, light, 0.0) for place, light in zip(xy, flux, strict=True)]
    pair = align(draw("rubin", ["i"], truth, 110, rng, sigma=3.0, psf_side=95))
    sources = make_sources(xy, np.zeros(64), rng, scatter=0.0)
    sources.position_err[:] = 0.1
    for refine in (False, True):
        result = measure(pair, sources, refine=refine)
        pulls = (result.flux[:, 3] - flux) / result.flux_err[:, 3]
        assert pulls.std() < 1.3
        assert not result.negative.any()


@pytest.mark.parametrize("start", [2.2, 3.0])
def test_a_galaxy_larger_than_the_stamps_is_fitted_with_its_own_derivatives(start):
    """Those of a narrower stamp, into which the light beyond comes in again, made the fit go to and fro."""
    galsim = pytest.importorskip("galsim")
    rng = np.random.default_rng(1)
    euclid = draw("euclid", ["VIS"], [], 300, rng, sigma=2.2)
    psf = galsim.Moffat(beta=3.5, fwhm=0.35)
    disc = galsim.Convolve(galsim.Exponential(half_light_radius=3.0, flux=20000.0), psf)
    euclid.data["VIS"] += disc.drawImage(nx=300, ny=300, scale=0.1, center=galsim.PositionD(151, 151)).array
    sources = make_sources(np.array([[150.0, 150.0]]), np.array([start]), rng, scatter=0.0)
    sources.position_err[:] = 0.3
    sources.half_light_radius[:] = start
    result = measure(align(euclid=euclid), sources).with_model_errors(np.array([False]))
    assert result.flux[0, 6] == pytest.approx(20000, rel=0.12)
    assert result.half_light_radius[0] == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("index", [0.5, 1.5, 2.5])
def test_profiles_of_galaxies_larger_than_the_stamps(index):
    """With the index held fits gave 1.7 times the light of the first, and .76 and .59 of the others'."""
    galsim = pytest.importorskip("galsim")
    rng = np.random.default_rng(4)
    euclid = draw("euclid", ["VIS"], [], 400, rng)
    psf = galsim.Moffat(beta=3.5, fwhm=0.35)
    galaxy = galsim.Convolve(galsim.Sersic(index, half_light_radius=3.0, flux=20000.0), psf)
    euclid.data["VIS"] += galaxy.drawImage(nx=400, ny=400, scale=0.1).array
    sources = make_sources(np.array([[199.5, 199.5]]), np.array([2.6]), rng, scatter=0.0)
    sources.position_err[:] = 0.3
    sources.half_light_radius[:] = 2.6
    result = measure(align(euclid=euclid), sources).with_model_errors(np.array([False]))
    assert result.flux[0, 6] == pytest.approx(20000, rel=0.2)
    assert abs(result.flux[0, 6] - 20000) < 3 * result.flux_err[0, 6]
    assert result.sersic_index[0] == pytest.approx(index, rel=0.2)


@pytest.mark.parametrize(("index", "radius"), [(0.6, 0.3), (1.0, 0.8), (2.5, 0.8), (4.0, 0.3), (6.0, 0.3)])
def test_galaxies_of_any_profile_and_a_star_beside_them(index, radius):
    """A sum of two profiles of given sizes has not enough wings: 13 % of the flux were lost at 2.5."""
    galsim = pytest.importorskip("galsim")
    rng = np.random.default_rng(2)
    euclid = draw("euclid", ["VIS"], [], 300, rng, sigma=2.2)
    psf = galsim.Moffat(beta=3.5, fwhm=0.35)
    galaxy = galsim.Sersic(index, half_light_radius=radius, flux=10000).shear(
        q=0.7, beta=0.5 * galsim.radians
    )
    scene = galsim.Convolve(galaxy, psf) + psf.withFlux(500).shift(1.6, 1.2)
    euclid.data["VIS"] += scene.drawImage(nx=300, ny=300, scale=0.1, center=galsim.PositionD(151, 151)).array
    sources = make_sources(
        np.array([[150.0, 150.0], [166.0, 162.0]]), np.array([radius, 0]), rng, scatter=0.2
    )
    result = measure(align(euclid=euclid), sources).with_model_errors(sources.is_point)
    assert result.flux[0, 6] == pytest.approx(10000, rel=0.045)
    assert result.half_light_radius[0] == pytest.approx(radius, rel=0.1)
    assert result.flux[1, 6] == pytest.approx(500, abs=3 * result.flux_err[1, 6])
    if index <= 1:
        assert result.sersic_index[0] == pytest.approx(index, rel=0.1)


def test_points_may_be_told_by_numbers():
    sources = make_sources(
        np.array([[50.0, 50.0], [20.0, 20.0]]), np.array([0.0, 0.4]), np.random.default_rng(1)
    )
    numbers = replace(sources, is_point=sources.is_point.astype(np.int64))
    assert numbers.is_point.dtype == bool
    assert (~numbers.is_point).tolist() == [False, True]


def test_nothing_to_measure():
    rng = np.random.default_rng(7)
    pair = align(euclid=draw("euclid", ["VIS"], [], 100, rng))
    result = measure(pair, make_sources(np.zeros((0, 2)), np.zeros(0), rng))
    assert result.flux.shape == (0, 10)
    assert result.significance().shape == (0,)


def test_large_blends_are_cut_into_pieces():
    rng = np.random.default_rng(8)
    x, y = (axis.ravel() + rng.uniform(-1, 1, 100) for axis in np.meshgrid(*[np.arange(10) * 6.0] * 2))
    label, blends = find_blends(x, y, np.zeros(100), reach=8.0)
    assert label.max() == 0
    assert len(blends) == 1
    groups = cut_blends(blends, np.stack([x, y], axis=-1), 24)
    assert max(len(group) for group in groups) <= 24
    assert sorted(np.concatenate(groups)) == list(range(100))
