# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from jaisp.scene import DE_VAUCOULEURS, EXPONENTIAL, half_light_factor
from jaisp.scene.profiles import sersic_transforms, tabulated_transforms


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
def test_table_equals_the_sums(size):
    u = torch.cat([torch.zeros(1), torch.logspace(-8, 3.2, 5000)]).double()
    found = tabulated_transforms(u, size)
    expected = [*EXPONENTIAL.transform(u), *DE_VAUCOULEURS.scaled(size).transform(u)]
    torch.testing.assert_close(found[0], expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found[2], expected[2], atol=1e-6, rtol=0)
    # Slopes as they enter the derivative by the logarithm of the radius.
    for slope, true in ((found[1], expected[1]), (found[3], expected[3])):
        torch.testing.assert_close(u * slope, u * true, atol=2e-5, rtol=0)
    assert tabulated_transforms(torch.tensor([1e9]))[0] == 0


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
    value, slope, by_index = sersic_transforms(
        torch.from_numpy(np.tile(u, (6, 1))), torch.from_numpy(index), by_index=True
    )
    np.testing.assert_allclose(value, expected, atol=2e-5)
    assert sersic_transforms(torch.from_numpy(u)[None], torch.tensor([2.0]))[2] is None
    for n, found in zip(index[1:-1], by_index[1:-1], strict=True):
        step = 0.05  # GalSim is exact to 1e-5
        more, less = (galsim_transform(n * np.exp(sign * step), u) for sign in (1, -1))
        np.testing.assert_allclose(found, (more - less) / (2 * step), atol=3e-4)
    # Slopes as they enter the derivative by the logarithm of the radius, beside a closed form.
    k2 = (2 * np.pi / 1.6783469900166605) ** 2 * u
    np.testing.assert_allclose(u * slope[2].numpy(), -1.5 * k2 * (1 + k2) ** -2.5, atol=3e-5)


def test_sersic_transforms_have_gradients():
    u = torch.logspace(-4, 2, 30, dtype=torch.float64, requires_grad=True)
    value, slope, _ = sersic_transforms(u[None], torch.tensor([2.2], dtype=torch.float64))
    (expected,) = torch.autograd.grad(value.sum(), u)
    torch.testing.assert_close(slope[0], expected)
