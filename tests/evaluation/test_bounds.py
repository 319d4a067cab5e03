# Licensed under a 3-clause BSD style license - see LICENSE
"""The Cramer-Rao bound against closed forms and against what a fit reaches."""

import numpy as np
import pytest
from scipy.optimize import least_squares

from jaisp.evaluation import BandModel, blended_snr, cramer_rao


def gaussian(sigma, half=24):
    axis = np.arange(-half, half + 1)
    profile = np.exp(-0.5 * (axis / sigma) ** 2)
    return np.outer(profile, profile) / profile.sum() ** 2


def point(flux):
    flux = np.atleast_2d(flux)
    return (
        [(flux, np.zeros(len(flux)), 0)],
        np.zeros(len(flux)),
        np.zeros(len(flux)),
        np.ones(len(flux), bool),
    )


SCALE = 0.1
NORTH_UP = np.eye(2) / SCALE


def test_a_gaussian_point_in_white_noise():
    """Closed form: flux 2 sqrt(pi) s noise, position sqrt(2) s / (S/N)."""
    s, noise, flux = 2.5, 3.0, 900.0
    bounds = cramer_rao([BandModel(gaussian(s), noise, NORTH_UP)], *point([[flux]]))
    flux_error = 2 * np.sqrt(np.pi) * s * noise
    assert bounds.flux[0, 0] == pytest.approx(flux_error, rel=1e-3)
    for value in (bounds.x, bounds.y):
        assert value[0] == pytest.approx(np.sqrt(2) * s * SCALE * flux_error / flux, rel=1e-3)


def test_bands_add_their_information_whatever_their_orientation():
    s, flux = 2.5, 900.0
    turn = np.deg2rad(33)
    turned = np.array([[-np.cos(turn), np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / SCALE
    one = cramer_rao([BandModel(gaussian(s), 3.0, NORTH_UP)], *point([[flux]]))
    two = cramer_rao(
        [BandModel(gaussian(s), 3.0, NORTH_UP), BandModel(gaussian(s), 3.0, turned)], *point([[flux, flux]])
    )
    assert two.x[0] == pytest.approx(one.x[0] / np.sqrt(2), rel=1e-3)
    np.testing.assert_allclose(two.flux[0], one.flux[0, 0], rtol=1e-3)


def test_an_elongated_galaxy_is_worse_known_along_its_length_in_any_frame():
    flux, radius = np.full((2, 1), 2000.0), np.array([0.5, 0.5])
    e1, e2 = np.array([0.4, -0.4]), np.zeros(2)
    turned = np.array([[0.0, 1.0], [1.0, 0.0]]) / SCALE
    results = [
        cramer_rao([BandModel(gaussian(1.5), 3.0, frame)], [(flux, radius, 0)], e1, e2, np.zeros(2, bool))
        for frame in (NORTH_UP, turned)
    ]
    for bounds in results:
        assert bounds.x[0] > 1.3 * bounds.y[0]
        assert bounds.x[0] == pytest.approx(bounds.y[1], rel=0.01)
    np.testing.assert_allclose(results[0].x, results[1].x, rtol=0.01)
    point_flux = cramer_rao([BandModel(gaussian(1.5), 3.0, NORTH_UP)], *point(flux)).flux
    assert (results[0].flux > 1.5 * point_flux).all()


def test_noise_of_the_source_and_noise_through_a_kernel():
    s, flux = 2.5, 900.0
    plain = cramer_rao([BandModel(gaussian(s), 3.0, NORTH_UP)], *point([[flux]]))
    grainy = cramer_rao([BandModel(gaussian(s), 3.0, NORTH_UP, grain=0.1)], *point([[flux]]))
    assert grainy.flux[0, 0] > 1.1 * plain.flux[0, 0]
    # Signal and noise through one kernel: as before both went through it.
    kernel = (0.1, 0.8, 0.1)
    response = 0.8 + 0.2 * np.cos(2 * np.pi * np.fft.fftfreq(49))
    psf = np.fft.fft2(gaussian(s)) * response * response[:, None]
    smooth = cramer_rao([BandModel(np.fft.ifft2(psf).real, 3.0, NORTH_UP, kernel=kernel)], *point([[flux]]))
    assert smooth.flux[0, 0] == pytest.approx(plain.flux[0, 0], rel=2e-3)
    assert smooth.x[0] == pytest.approx(plain.x[0], rel=2e-3)


def test_a_fit_by_least_squares_reaches_the_bound():
    """Scatter of the maximum-likelihood position of a point over noise realisations."""
    from scipy.optimize import least_squares

    rng = np.random.default_rng(4)
    s, noise, flux, n = 2.0, 3.0, 600.0, 33
    axis = np.arange(n) - n // 2

    def model(p):
        gx, gy = (np.exp(-0.5 * ((axis - c) / s) ** 2) for c in p[:2])
        return p[2] * np.outer(gy, gx) / (2 * np.pi * s**2)

    found = np.array(
        [
            least_squares(lambda p, d=d: (model(p) - d).ravel() / noise, [0, 0, flux]).x
            for d in model([0, 0, flux]) + noise * rng.normal(size=(150, n, n))
        ]
    )
    bounds = cramer_rao([BandModel(gaussian(s), noise, NORTH_UP)], *point([[flux]]))
    assert found[:, :2].std() * SCALE == pytest.approx(bounds.x[0], rel=0.15)
    assert found[:, 2].std() == pytest.approx(bounds.flux[0, 0], rel=0.2)


def two(separation, *, fluxes=(2000.0, 90000.0), radius=0.0, s=2.5, noise=3.0, **options):
    """S/N of a faint point beside another source, at a distance in arcsec."""
    n = len(fluxes)
    return blended_snr(
        [BandModel(gaussian(s), noise, NORTH_UP, **options)],
        [(np.array(fluxes)[:, None], np.array([0.0, radius]), 0)],
        np.zeros(n),
        np.zeros(n),
        np.array([True, radius == 0]),
        np.array([0.0, separation]),
        np.zeros(n),
        sources=[0],
    )[0]


def test_of_a_source_that_stands_alone_all_is_left():
    """Closed form: flux / (2 sqrt(pi) s noise)."""
    alone = 2000.0 / (2 * np.sqrt(np.pi) * 2.5 * 3.0)
    assert two(1.9, s=1.0) == pytest.approx(2000.0 / (2 * np.sqrt(np.pi) * 3.0), rel=1e-3)
    assert two(5.0) == pytest.approx(alone, rel=1e-3)
    assert two(0.01) < 0.02 * alone


@pytest.mark.parametrize("separation", [0.3, 0.5, 0.8])
def test_what_a_neighbour_leaves_is_what_a_fit_without_the_source_cannot_explain(separation):
    s, noise = 2.5, 3.0
    axis = np.arange(-32, 32)

    def image(flux, x, y):
        profile = np.exp(-0.5 * ((axis - x) ** 2 + (axis[:, None] - y) ** 2) / s**2)
        return flux * profile / (2 * np.pi * s**2)

    sky = image(2000.0, 0, 0) + image(90000.0, separation / SCALE, 0)
    fit = least_squares(
        lambda p: ((image(*p) - sky) / noise).ravel(), [90000.0, separation / SCALE, 0.0], x_scale=[900, 1, 1]
    )
    assert two(separation) == pytest.approx(np.sqrt(2 * fit.cost), rel=0.03)


def test_less_is_left_beside_a_galaxy_and_in_the_noise_of_its_light():
    galaxy = two(0.5, radius=0.3)
    assert two(0.5, radius=0.3, grain=0.5) < 0.9 * galaxy
    assert 0 < galaxy < 0.9 * two(0.5)
    assert galaxy < two(1.0, radius=0.3) < two(1.5, radius=0.3)


def test_neighbours_beyond_reach_and_one_by_one():
    fluxes = (2000.0, 5000.0, 5000.0)
    x = np.array([0.0, 0.4, -3.0])
    arguments = [BandModel(gaussian(2.5), 3.0, NORTH_UP)], [(np.array(fluxes)[:, None], np.zeros(3), 0)]
    rest = np.zeros(3), np.zeros(3), np.ones(3, bool), x, np.zeros(3)
    found = blended_snr(*arguments, *rest)
    assert found.shape == (3,)
    assert found[0] == pytest.approx(blended_snr(*arguments, *rest, sources=[0], most=1)[0])
    assert found[2] == pytest.approx(5000.0 / (2 * np.sqrt(np.pi) * 2.5 * 3.0), rel=1e-3)
    assert len(blended_snr(*arguments, *rest, sources=[])) == 0
