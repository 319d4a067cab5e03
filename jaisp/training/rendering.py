# Licensed under a 3-clause BSD style license - see LICENSE
"""
Slots as sources that must explain both images: PSF-convolved discs with solved fluxes.

The fluxes of all slots in a band are a linear least-squares problem (variable projection). At its solution
the misfit does not change with the fluxes, so that its gradient by positions and shapes needs none through
the solver.
"""

from dataclasses import dataclass

import torch

from jaisp.scene import render_stamps
from jaisp.training.proposals import best_spectrum

__all__ = ["Explanation", "explain"]

_STAMPS = {"rubin": (32, 0.2), "euclid": (64, 0.1)}  # pixels, arcsec: 6.4 arcsec both
_LARGEST_RADIUS = 1.0  # arcsec, what the stamps hold
_MODEL_ERROR = 0.05  # discs are not what galaxies are: relative error of a pixel's model
_RIDGE = 1e-3


@dataclass
class Explanation:
    """
    How the chosen slots of a tile explain it.

    Attributes
    ----------
    misfit : Tensor, scalar
        Mean squared residual over valid pixels and bands, in units of the noise; differentiable.
    flux : Tensor, shape (n, 10)
        Solved fluxes in nJy; zero in missing bands.
    significance : dict of Tensor, shape (n,)
        For each view, in sigma: by how much the fit needs the slot, given all more active slots and, for
        those that survive this, all other survivors.
    """

    misfit: torch.Tensor
    flux: torch.Tensor
    significance: dict


def explain(tile, x, y, half_light_radius, e1, e2, *, survive=3.0):
    """
    Fit a tile by slots at given places.

    Parameters
    ----------
    tile : dict of Tensor
        One tile, without a batch axis: see `~jaisp.models.TILE_KEYS`.
    x, y : Tensor, shape (n,)
        In 0.1 arcsec pixels, the most active slot first.
    half_light_radius, e1, e2 : Tensor, shape (n,)
        Intrinsic, arcsec; ellipticity.
    survive : float
        Significance given the more active slots, below which a slot is left out of the second look.

    Returns
    -------
    `Explanation`
    """
    # Each component may be up to 1, but no ellipse is flatter than a line.
    shrink = 0.95 / torch.sqrt(e1**2 + e2**2 + 1e-12).clamp_min(1.0)
    shapes = (half_light_radius.clamp_max(_LARGEST_RADIUS), shrink * e1, shrink * e2)
    squares, n_pixels, flux, gram, projected = 0.0, 0, [], [], []
    for survey, (size, scale) in _STAMPS.items():
        data, valid = tile[f"{survey}_snr"].float(), tile[f"{survey}_valid"]
        noise = tile[f"{survey}_noise"].float()
        place = (x, y) if survey == "euclid" else ((x - 0.5) / 2, (y - 0.5) / 2)
        stamps, index, inside = _stamps(tile[f"{survey}_psf"].float(), *place, *shapes, size, scale, data)
        # In units of the noise, as the data are; zero for a missing band, where nothing is valid.
        stamps = stamps / noise.clamp_min(1e-9)[:, None, None] * (noise > 0)[:, None, None]
        weight = valid / (1 + (_MODEL_ERROR * data.clamp_min(0)) ** 2)
        with torch.no_grad():
            matrix = _scatter(stamps.detach(), index, inside, data)  # (bands, n, pixels)
            weighted = matrix * weight.flatten(1)[:, None]
            one_gram = weighted @ matrix.transpose(1, 2)
            one_projected = (weighted @ data.flatten(1)[..., None])[..., 0]
            one_flux = _solve(one_gram, one_projected)
        gram.append(one_gram)
        projected.append(one_projected)
        flux.append(one_flux.T)
        model = _add_up(stamps * one_flux.T[:, :, None, None], index, inside, data)
        squares = squares + (weight * (data - model).square()).sum()
        n_pixels = n_pixels + valid.sum()
    gram, projected = torch.cat(gram), torch.cat(projected)
    return Explanation(
        misfit=squares / n_pixels.clamp_min(1),
        flux=torch.cat(flux, dim=1),
        significance=_significance(gram, projected, survive),
    )


def _stamps(psf, x, y, radius, e1, e2, size, scale, data):
    """Stamps of unit flux, the flat index of their pixels in the image, and which of these are inside."""
    height, width = data.shape[-2:]
    left, low = x.detach().round().long(), y.detach().round().long()
    stamps = render_stamps(psf, x - left, y - low, radius, e1, e2, size=size, pixel_scale=scale)
    steps = torch.arange(size, device=x.device) - size // 2
    column, row = left[:, None] + steps, low[:, None] + steps
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    index = row.clamp(0, height - 1)[:, :, None] * width + column.clamp(0, width - 1)[:, None]
    return stamps, index, inside


def _scatter(stamps, index, inside, data):
    """Each stamp in an image of its own: (bands, n, pixels)."""
    n, bands = stamps.shape[:2]
    out = stamps.new_zeros(n, bands, data[0].numel())
    where = index.flatten(1)[:, None].expand(-1, bands, -1)
    # Pixels outside are clamped onto the edge: add, for a pixel inside may have the same index.
    return out.scatter_add_(2, where, (stamps * inside[:, None]).flatten(2)).transpose(0, 1)


def _add_up(stamps, index, inside, data):
    """Sum of all stamps: an image like ``data``."""
    values = (stamps * inside[:, None]).transpose(0, 1).flatten(1)
    return data.new_zeros(len(data), data[0].numel()).index_add(1, index.flatten(), values).view_as(data)


def _regular(gram):
    """Gram matrices that can be inverted: slots that coincide share their flux; missing bands have none."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    return gram + torch.diag_embed(_RIDGE * diagonal + 1e-12 + 1.0 * (diagonal <= 0))


def _solve(gram, projected):
    return torch.cholesky_solve(projected[..., None], torch.linalg.cholesky(_regular(gram)))[..., 0]


@torch.no_grad()
def _significance(gram, projected, survive):
    """Significance of each slot: given those before it, and for survivors given all other survivors."""
    factor = torch.linalg.cholesky(_regular(gram))
    signal = torch.linalg.solve_triangular(factor, projected[..., None], upper=False)[..., 0].T
    present = (gram.diagonal(dim1=-2, dim2=-1) > 0).T
    root = factor.diagonal(dim1=-2, dim2=-1).T * present
    first = {view: best_spectrum(signal, root, view) for view in ("joint", "rubin", "euclid")}
    chosen = torch.nonzero(first["joint"] > survive)[:, 0]
    if not len(chosen):
        return first
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(_regular(gram[:, chosen][:, :, chosen])))
    flux = (inverse @ projected[:, chosen, None])[..., 0].T
    root = inverse.diagonal(dim1=-2, dim2=-1).T.rsqrt() * present[chosen]
    for view, values in first.items():
        second = best_spectrum(flux * root, root, view)
        values[chosen] = torch.minimum(values[chosen], second)
    return first
