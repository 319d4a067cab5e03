# Licensed under a 3-clause BSD style license - see LICENSE
"""The equations of the measurement against dense algebra and closed forms."""

import numpy as np
import pytest

from jaisp.catalog._planes import POINT, encircled_energy, light_beyond, make_planes, overlap
from jaisp.catalog._solver import Solver, _without_negative
from jaisp.catalog.offsets import OffsetField
from jaisp.image import moffat_psf
from jaisp.io import align

from .helpers import draw

pytest.importorskip("galsim")


@pytest.mark.parametrize(("beta", "size"), [(1.75, 41), (2.0, 61), (2.5, 33)])
def test_light_beyond_the_image_of_a_psf(beta, size):
    fwhm = 4.0
    psf = moffat_psf(fwhm, size, beta=beta).astype(float)
    alpha = fwhm / 2 / np.sqrt(2 ** (1 / beta) - 1)
    # A circle of the image's area; a Moffat profile holds 1 - (1 + r**2 / alpha**2)**(1 - beta) inside r.
    outside = (1 + size**2 / np.pi / alpha**2) ** (1 - beta)
    assert light_beyond(psf) == pytest.approx(outside / (1 - outside), rel=0.35, abs=0.002)


@pytest.mark.parametrize("obscuration", [0.3, 0.38])
def test_light_beyond_the_image_of_a_diffraction_pattern(obscuration):
    """As VIS hands it out, 2.1 arcsec wide; real ones that are not normalised miss 2.7 to 5.8 per cent."""
    galsim = pytest.importorskip("galsim")
    optics = galsim.Airy(lam=715, diam=1.2, obscuration=obscuration)
    whole = galsim.Convolve(optics, galsim.Gaussian(sigma=0.06), galsim.Pixel(0.1))
    image = whole.drawImage(nx=321, ny=321, scale=0.1, method="no_pixel").array.astype(float)
    psf = image[150:171, 150:171]
    expected = 1 / psf.sum() - 1
    assert light_beyond(psf / psf.sum(), slope=3.0) == pytest.approx(expected, rel=0.15)
    assert encircled_energy(psf / psf.sum(), "VIS") == pytest.approx(psf.sum(), abs=0.006)


def test_tapered_wings_end_where_the_image_does():
    steps = np.hypot(*np.indices((33, 33)) - 16)
    psf = moffat_psf(3.0, 33, beta=2.5) * np.clip((15 - steps) / 4, 0, 1)
    assert light_beyond(psf / psf.sum(), slope=3.0) < 0.005


def test_an_image_without_rings_tells_nothing_of_what_is_beyond():
    assert light_beyond(moffat_psf(4.0, 3)) == light_beyond(np.ones((1, 1))) == 0


def test_no_light_beyond_a_gaussian_or_noise():
    assert light_beyond(moffat_psf(4.0, 41, beta=60.0)) < 1e-4
    noisy = moffat_psf(4.0, 41, beta=60.0) + np.random.default_rng(0).normal(0, 1e-4, (41, 41))
    assert light_beyond(noisy) <= 0.1


def _scene(rng, *, sigma=1.0):
    truth = [(60.0, 61.0, 900.0, 0.3), (66.0, 63.0, 400.0, 0.0), (120.0, 60.0, 600.0, 0.4)]
    pair = align(
        draw("rubin", ["g", "i"], truth, 90, rng, sigma=sigma),
        draw("euclid", ["VIS"], truth, 180, rng, sigma=sigma),
    )
    state = np.zeros((3, 7))
    state[:, :2] = np.array(truth)[:, :2]
    state[:, 2] = [np.log(0.3), 1.5 * POINT, np.log(0.4)]
    return pair, state, [np.array([0, 1]), np.array([2])]


def test_fluxes_of_a_blend_are_the_least_squares_ones():
    """The sums by source and by pair solve what a dense design matrix solves."""
    pair, state, groups = _scene(np.random.default_rng(1))
    planes = make_planes(pair, OffsetField())
    data = planes[0].residual.copy()
    solver = Solver(planes, start=state, prior=np.ones_like(state))
    for _ in range(3):  # the groups see each other's light
        solver.step(state, groups)
    plane, channel = planes[0], 3
    templates = []
    for k in range(3):
        canvas = np.zeros(data.shape[1:])
        ((y, x),), values = plane.stamps(state[[k]], int(solver.sizes[0][k]), 0)
        size = values.shape[-1]
        canvas[y : y + size, x : x + size] = values[0, 1, 0].numpy()
        templates.append(canvas.ravel())
    design = np.array(templates)
    expected = np.linalg.lstsq(design.T, data[1].ravel().astype(float), rcond=None)[0]
    error = np.sqrt(solver.flux_variance[:, channel])
    # Not to the last digit: the solver takes a local background out as well.
    np.testing.assert_array_less(np.abs(solver.flux[:, channel] - expected), 0.5 * error)


def test_no_flux_is_far_below_zero():
    """Of a small and a large row on one galaxy one would get more than all, the other less than nothing."""
    rng = np.random.default_rng(4)
    pair = align(euclid=draw("euclid", ["VIS"], [(90.0, 90.0, 3000.0, 0.2)], 180, rng, sigma=0.3))
    state = np.zeros((2, 7))
    state[:, :2], state[:, 2] = 90.0, np.log([0.3, 0.6])
    solver = Solver(make_planes(pair, OffsetField()), start=state, prior=np.ones_like(state))
    for _ in range(3):
        solver.step(state, [np.array([0, 1])])
    assert solver.negative[:, 6].tolist() == [False, True]
    assert solver.flux[1, 6] == 0
    alone = Solver(make_planes(pair, OffsetField()), start=state[:1], prior=np.ones((1, 7)))
    for _ in range(3):
        alone.step(state[:1], [np.array([0])])
    assert solver.flux[0, 6] == pytest.approx(alone.flux[0, 6], rel=0.01)
    assert not alone.negative.any()


def test_fluxes_that_would_be_negative_are_zero_and_leave_the_rest():
    normal = np.array([[[4.0, 3.0], [3.0, 4.0]], [[4.0, 3.0], [3.0, 4.0]]])
    light = np.array([[8.0, 0.0], [8.0, 7.0]])
    flux = np.linalg.solve(normal, light[..., None])[..., 0]
    negative = flux < -1
    found = _without_negative(normal, light, flux, negative)
    np.testing.assert_allclose(found[0], [2.0, 0.0])
    np.testing.assert_allclose(found[1], flux[1])


def test_residual_is_the_image_less_what_was_drawn():
    pair, state, groups = _scene(np.random.default_rng(2), sigma=0.01)
    planes = make_planes(pair, OffsetField())
    before = [np.square(plane.residual).sum() for plane in planes]
    images = [plane.residual.copy() for plane in planes]
    solver = Solver(planes, start=state, prior=np.ones_like(state))
    for _ in range(2):
        solver.step(state, groups)
    for plane, power in zip(planes, before, strict=True):
        assert np.square(plane.residual).sum() < 1e-3 * power
    moved = state + np.array([0.3, -0.2, 0, 0, 0, 0, 0])
    solver.step(moved, groups)
    solver.step(state, groups)
    for plane, image in zip(planes, images, strict=True):
        for source in range(3):
            plane.relight(source, np.zeros(len(plane.channels)))
        np.testing.assert_allclose(plane.residual, image, atol=1e-3)


def test_newton_steps_find_positions_and_shapes():
    pair, state, groups = _scene(np.random.default_rng(3), sigma=0.05)
    start = state.copy()
    start[:, :2] += [[0.4, -0.3], [-0.3, 0.2], [0.3, 0.4]]
    start[[0, 2], 2] += 0.2
    solver = Solver(make_planes(pair, OffsetField()), start=start, prior=np.full_like(state, 1e-6))
    now = start
    for _ in range(6):
        now = solver.step(now, groups, np.array([5, 2, 5]))
    np.testing.assert_allclose(now[:, :2], state[:, :2], atol=0.02)
    np.testing.assert_allclose(np.exp(now[[0, 2], 2]), [0.3, 0.4], rtol=0.02)
    np.testing.assert_allclose(now[:, 3:5], 0, atol=0.02)
    np.testing.assert_allclose(solver.flux[:, 6], [900, 400, 600], rtol=0.02)


def test_where_stamps_overlap():
    first, second = overlap((0, 0), (3, -2), 10, 6)
    a, b = np.zeros((10, 10)), np.arange(36).reshape(6, 6)
    a[first] = b[second]
    assert a[3, 0] == b[0, 2]
    assert (a > 0).sum() == 6 * 4
    assert overlap((0, 0), (10, 0), 10, 6) is None
