# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
import torch
from scipy.special import gammainc, gammaincinv

from jaisp.scene import DE_VAUCOULEURS, EXPONENTIAL


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
