# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from jaisp.scene import DE_VAUCOULEURS, EXPONENTIAL, half_light_factor
from jaisp.scene.profiles import tabulated_transforms


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


@pytest.mark.parametrize("size", [0.5, 1.0])
def test_half_light_radius_of_bulge_and_disc(size):
    shares = np.array([0.0, 0.2, 0.7, 1.0])
    radius = half_light_factor(shares, size)
    inside = (1 - shares) * gammainc(2, gammaincinv(2, 0.5) * radius)
    inside += shares * gammainc(8, gammaincinv(8, 0.5) * (radius / size) ** 0.25)
    np.testing.assert_allclose(inside, 0.5, atol=1e-3)
    assert radius[[0, -1]] == pytest.approx([1, size], abs=1e-3)


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
