# Licensed under a 3-clause BSD style license - see LICENSE
"""
Galaxy light profiles as mixtures of circular Gaussians.

A Gaussian stays a Gaussian in Fourier space, so that a mixture is sheared, shifted and convolved with any
point-spread function by a product. The idea and the number of components of the de Vaucouleurs mixture follow
Hogg & Lang (2013, PASP 125, 719); the coefficients are our own, because theirs stop at 4 or 8 half-light
radii. They minimise the squared residual of ``r**2 I(r)`` over the logarithm of the radius together with the
residual of the enclosed flux, from a non-negative least-squares start. The flux that is misplaced radially
(the integral of the absolute residual) is 0.12 % for the exponential and 0.9 % for the de Vaucouleurs
profile, before any PSF; the enclosed flux is right within 0.025 % and 0.13 % at every radius.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from scipy.special import gammainc, gammaincinv

__all__ = ["DE_VAUCOULEURS", "EXPONENTIAL", "Profile", "half_light_factor", "tabulated_transforms"]

_NODES = 2048
# Of u: below, the parabola of the first node holds; above, nothing is left.
_LOG_RANGE = (np.log(1e-6), np.log(2e3))


@dataclass(frozen=True)
class Profile:
    """
    A circular light profile of unit flux and unit half-light radius, as a sum of Gaussians.

    Parameters
    ----------
    name : str
        Name of the profile.
    amplitude : tuple of float
        Flux of each Gaussian; they add up to 1.
    sigma : tuple of float
        Standard deviation of each Gaussian, in half-light radii.
    """

    name: str
    amplitude: tuple
    sigma: tuple

    def scaled(self, factor):
        """Return the same profile with another half-light radius, in units of this one's."""
        return replace(self, sigma=tuple(factor * sigma for sigma in self.sigma))

    def transform(self, u):
        """
        Fourier transform and its derivative.

        Parameters
        ----------
        u : torch.Tensor
            Squared product of the half-light radius and the (sheared) spatial frequency in cycles.

        Returns
        -------
        value, derivative : torch.Tensor
            The transform ``sum_k a_k exp(-2 pi**2 sigma_k**2 u)``, which is 1 at 0, and its derivative by
            ``u``; both of the shape of ``u``.
        """
        value = torch.zeros_like(u)
        derivative = torch.zeros_like(u)
        for amplitude, sigma in zip(self.amplitude, self.sigma, strict=True):
            rate = -2 * torch.pi**2 * sigma**2
            term = amplitude * torch.exp(rate * u)
            value = value + term
            derivative = derivative + rate * term
        return value, derivative


def _normalised(name, amplitude, sigma):
    total = sum(amplitude)
    return Profile(name, tuple(value / total for value in amplitude), sigma)


EXPONENTIAL = _normalised(
    "exponential",
    (0.0068224, 0.0418642, 0.1527047, 0.3368677, 0.3590379, 0.1027031),
    (0.124046, 0.267228, 0.474605, 0.769153, 1.18199, 1.776329),
)

DE_VAUCOULEURS = _normalised(
    "de Vaucouleurs",
    (
        0.0110333,
        0.0319038,
        0.0678889,
        0.1155692,
        0.1628111,
        0.1909641,
        0.1836268,
        0.1387309,
        0.0749055,
        0.0225665,
    ),
    (0.018769, 0.053277, 0.120284, 0.245217, 0.473254, 0.8879, 1.652527, 3.116809, 6.154079, 13.785901),
)


@cache
def _growth(bulge_size):
    """Shares of bulge, and the half-light radius of bulge and disc at each, by the curve of growth."""
    radius = np.linspace(0.02, 2.0, 4000) * max(1.0, bulge_size)
    disc = gammainc(2, gammaincinv(2, 0.5) * radius)
    bulge = gammainc(8, gammaincinv(8, 0.5) * (radius / bulge_size) ** 0.25)
    shares = np.linspace(0, 1, 101)
    return shares, np.array([np.interp(0.5, (1 - share) * disc + share * bulge, radius) for share in shares])


def half_light_factor(bulge_fraction, bulge_size):
    """
    Half-light radius of a galaxy in units of its disc's.

    Parameters
    ----------
    bulge_fraction : array
        Share of the de Vaucouleurs profile in the flux.
    bulge_size : float
        Half-light radius of the de Vaucouleurs profile in units of the exponential one's.

    Returns
    -------
    ndarray
        1 for a disc, ``bulge_size`` for a bulge; right to 1e-3.
    """
    return np.interp(bulge_fraction, *_growth(bulge_size))


@cache
def _table(bulge_size, dtype, device):
    """Nodes equally spaced in log u: u, then value, slope and half the curvature of both profiles."""
    u = np.geomspace(*np.exp(_LOG_RANGE), _NODES)
    columns = [u]
    for profile in (EXPONENTIAL, DE_VAUCOULEURS.scaled(bulge_size)):
        rate = -2 * np.pi**2 * np.square(profile.sigma)
        terms = np.array(profile.amplitude) * np.exp(rate * u[:, None])
        columns += [(terms * rate**power).sum(1) / (1 + power // 2) for power in range(3)]
    table = np.stack(columns, axis=-1)
    table[-1, 1:] = 0
    return torch.as_tensor(table, dtype=dtype, device=device)


def tabulated_transforms(u, bulge_size=1.0):
    """
    Fourier transforms of both profiles and their derivatives from a table: not differentiable.

    Exact to 1e-7, slopes to 1e-5 of them.

    Parameters
    ----------
    u : torch.Tensor
        As for `Profile.transform`.
    bulge_size : float
        Half-light radius of the de Vaucouleurs profile in units of the exponential one's.

    Returns
    -------
    exponential, exponential_slope, de_vaucouleurs, de_vaucouleurs_slope : torch.Tensor
        Each of the shape of ``u``.
    """
    low, high = _LOG_RANGE
    nodes_per_unit = (_NODES - 1) / (high - low)
    place = torch.log(u.clamp(min=1e-6)).mul_(nodes_per_unit).add_(0.5 - low * nodes_per_unit)
    rows = _table(bulge_size, u.dtype, u.device).index_select(
        0, place.clamp_(max=_NODES - 1).to(torch.int32).flatten()
    )
    rows = rows.reshape(*u.shape, 7)
    step = u - rows[..., 0]
    found = []
    for value, slope, bend in (rows[..., 1:4].unbind(-1), rows[..., 4:7].unbind(-1)):
        bent = bend * step
        found += [(slope + bent).mul_(step).add_(value), slope + 2 * bent]
    return found
