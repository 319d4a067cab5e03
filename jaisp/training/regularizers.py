# Licensed under a 3-clause BSD style license - see LICENSE
"""
What keeps embeddings of different objects apart; all are written from the papers' formulas.

Each takes embeddings of active slots, shape (K, d), behind the projector's batch norm, and returns a scalar.
"""

import math

import torch
from torch.nn import functional

__all__ = ["REGULARIZERS", "no_regularizer", "sigreg", "vicreg", "visreg"]


def _directions(embeddings, n_slices, generator):
    """Random unit vectors, shape (d, n_slices)."""
    directions = torch.randn(embeddings.shape[1], n_slices, device=embeddings.device, generator=generator)
    return functional.normalize(directions, dim=0)


def sigreg(embeddings, generator=None, *, n_slices=256, n_knots=17):
    """
    Sketched isotropic Gaussian regularisation (LeJEPA, arXiv:2511.08544).

    The Epps-Pulley distance of random one-dimensional projections from the standard normal.

    Parameters
    ----------
    embeddings : Tensor, shape (K, d)
    generator : `torch.Generator`, optional
        For the directions.
    n_slices, n_knots : int
        Number of directions, and of points of the characteristic function.
    """
    projections = embeddings @ _directions(embeddings, n_slices, generator)
    knots = torch.linspace(0, 3, n_knots, device=embeddings.device)
    phases = projections[..., None] * knots
    gaussian = torch.exp(-0.5 * knots**2)
    distance2 = (phases.cos().mean(0) - gaussian) ** 2 + phases.sin().mean(0) ** 2
    return torch.trapezoid(distance2 * gaussian, knots).mean() * len(embeddings)


def vicreg(embeddings, *, covariance_weight=0.04):
    """
    Variance and covariance terms of VICReg (arXiv:2105.04906), in units of the former.

    Parameters
    ----------
    embeddings : Tensor, shape (K, d)
    covariance_weight : float
        Of the paper's weights, 1 / 25.
    """
    centred = embeddings - embeddings.mean(0)
    covariance = centred.T @ centred / (len(embeddings) - 1)
    spread = (covariance.diagonal() + 1e-4).sqrt()
    squares = covariance.square()
    off_diagonal = (squares.sum() - squares.diagonal().sum()) / embeddings.shape[1]
    return (1 - spread).relu().mean() + covariance_weight * off_diagonal


def visreg(embeddings, generator=None, *, n_slices=256):
    """
    Variance and sketching terms of VISReg (arXiv:2606.02572), equally weighted.

    The scale is held by each coordinate's standard deviation; the shape, with the scale divided out, by the
    squared Wasserstein distance of random one-dimensional projections from the standard normal.

    Parameters
    ----------
    embeddings : Tensor, shape (K, d)
    generator : `torch.Generator`, optional
        For the directions.
    n_slices : int
        Number of directions.
    """
    n = len(embeddings)
    centred = embeddings - embeddings.mean(0)
    spread = (centred.square().mean(0) + 1e-4).sqrt()
    projections = (centred / spread.detach()) @ _directions(embeddings, n_slices, generator)
    levels = (torch.arange(n, device=embeddings.device) + 0.5) / n
    quantiles = math.sqrt(2) * torch.erfinv(2 * levels - 1)
    shape = (projections.sort(dim=0).values - quantiles[:, None]).square().mean()
    return (1 - spread).square().mean() + shape


def no_regularizer(embeddings):
    """Zero."""
    return embeddings.sum() * 0


#: By their names in ``[loss] regularizer_kind``.
REGULARIZERS = {"sigreg": sigreg, "vicreg": vicreg, "visreg": visreg, "none": no_regularizer}
