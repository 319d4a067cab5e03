# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from jaisp.scene import DE_VAUCOULEURS, EXPONENTIAL, half_light_factor
from jaisp.scene.profiles import _mixture_tables, galaxy_tables, look_up


@pytest.mark.parametrize(("profile", "n", "tolerance"), [(EXPONENTIAL, 1, 3e-4), (DE_VAUCOULEURS, 4, 1.5e-3)])
def test_enclosed_flux_of_a_sersic_profile(profile, n, tolerance):
    radius = np.geomspace(0.01, 30, 200)[:, None]
    mixture = (
        np.array(profile.amplitude) * (1 - np.exp(-(radius**2) / 2 / np.array(profile.sigma) ** 2))
    ).sum(1)
    expected = gammainc(2 * n, gammaincinv(2 * n, 0.5) * radius[:, 0] ** (1 / n))
    np.testing.assert_allclose(mixture, expected, atol=tolerance)
    assert sum(profile.amplitude) == pytest.approx(1)


def test_transform_of_an_exponential_has_a_closed_form():
    k = torch.linspace(0, 2, 50, dtype=torch.float64)
    value, _ = EXPONENTIAL.transform(k**2)
    expected = (1 + (2 * np.pi * k / 1.6783469900166605) ** 2) ** -1.5
    torch.testing.assert_close(value, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("profile", [EXPONENTIAL, DE_VAUCOULEURS])
def test_derivative_of_the_transform(profile):
    u = torch.linspace(0, 3, 20, dtype=torch.float64, requires_grad=True)
    value, derivative = profile.transform(u)
    (expected,) = torch.autograd.grad(value.sum(), u)
    torch.testing.assert_close(derivative, expected)


@pytest.mark.parametrize("index", [0.5, 1.0, 2.7, 6.0])
@pytest.mark.parametrize("size", [0.5, 1.0])
def test_half_light_radius_of_bulge_and_disc(size, index):
    shares = np.array([0.0, 0.2, 0.7, 1.0])
    radius = half_light_factor(shares, size, index)
    inside = (1 - shares) * gammainc(2 * index, gammaincinv(2 * index, 0.5) * radius ** (1 / index))
    inside += shares * gammainc(8, gammaincinv(8, 0.5) * (radius / size) ** 0.25)
    np.testing.assert_allclose(inside, 0.5, atol=1e-3)
    assert radius[[0, -1]] == pytest.approx([1, size], abs=1e-3)
    assert np.isnan(half_light_factor([0.2, np.nan], size, [index, 1.0])).tolist() == [False, True]


@pytest.mark.parametrize("size", [0.5, 1.0])
def test_tables_of_mixtures_equal_the_sums(size):
    u = torch.cat([torch.zeros(1), torch.logspace(-8, 3.2, 5000)]).double()
    disc, disc_slope = EXPONENTIAL.transform(u)
    bulge, bulge_slope = DE_VAUCOULEURS.scaled(size).transform(u)
    for share in (0.0, 0.3, 1.0):
        tables = galaxy_tables(torch.tensor([share], dtype=torch.float64), size, torch.ones(1), parameters=6)
        slope, (value, by_share) = look_up(tables, u[None])
        torch.testing.assert_close(value[0], disc + share * (bulge - disc), atol=1e-6, rtol=0)
        torch.testing.assert_close(by_share[0], bulge - disc, atol=1e-6, rtol=0)
        # Slopes as they enter the derivative by the logarithm of the radius.
        true = disc_slope + share * (bulge_slope - disc_slope)
        torch.testing.assert_close(u * slope[0], u * true, atol=2e-5, rtol=0)
        assert look_up(tables, torch.tensor([[1e9]], dtype=torch.float64))[1][0] == 0


def galsim_transform(n, u):
    """By GalSim's own integrals."""
    galsim = pytest.importorskip("galsim")
    exact = galsim.GSParams(folding_threshold=1e-5, kvalue_accuracy=1e-7)
    profile = galsim.Sersic(n=n, half_light_radius=1, gsparams=exact)
    return np.array([profile.kValue(2 * np.pi * np.sqrt(one), 0).real for one in u])


def test_sersic_transforms_equal_those_of_galsim():
    index = np.array([0.5, 0.83, 1.0, 1.9, 4.0, 6.0])
    u = np.concatenate([[0.0], np.geomspace(1e-9, 500, 60)])
    expected = np.array([galsim_transform(n, u) for n in index])
    tables = galaxy_tables(torch.zeros(6, dtype=torch.float64), 1.0, torch.from_numpy(index), parameters=7)
    slope, (value, _, by_index) = look_up(tables, torch.from_numpy(np.tile(u, (6, 1))))
    np.testing.assert_allclose(value, expected, atol=2e-5)
    for n, found in zip(index[1:-1], by_index[1:-1], strict=True):
        step = 0.05  # GalSim is exact to 1e-5
        more, less = (galsim_transform(n * np.exp(sign * step), u) for sign in (1, -1))
        np.testing.assert_allclose(found, (more - less) / (2 * step), atol=3e-4)
    # Slopes as they enter the derivative by the logarithm of the radius, beside a closed form.
    k2 = (2 * np.pi / 1.6783469900166605) ** 2 * u
    np.testing.assert_allclose(u * slope[2].numpy(), -1.5 * k2 * (1 + k2) ** -2.5, atol=3e-5)


@pytest.mark.parametrize("index", [1.0, 2.2])
def test_tables_have_gradients(index):
    u = torch.logspace(-4, 2, 30, dtype=torch.float64, requires_grad=True)
    share = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    slope, (value, by_share) = look_up(
        galaxy_tables(share, 0.5, torch.tensor([index]), parameters=6), u[None]
    )
    by_u, by_bulge = torch.autograd.grad(value.sum(), (u, share))
    torch.testing.assert_close(slope[0], by_u)
    torch.testing.assert_close(by_bulge[0], by_share.sum())


def test_tables_made_in_inference_have_gradients():
    _mixture_tables.cache_clear()
    share = torch.tensor([0.3], requires_grad=True)
    with torch.inference_mode():
        galaxy_tables(share.detach(), 0.5, torch.tensor([2.0]))
    tables = galaxy_tables(share, 0.5, torch.tensor([2.0]))
    look_up(tables, torch.tensor([[1.0]]))[1][0].sum().backward()
    assert share.grad is not None
