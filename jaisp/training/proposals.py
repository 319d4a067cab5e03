# Licensed under a 3-clause BSD style license - see LICENSE
"""Where sources may be, from the images alone: peaks of the matched filter over all bands of both surveys."""

import torch
from torch.nn import functional

from jaisp.models.inputs import VIEWS, matched_filter

__all__ = ["SPECTRA", "best_spectrum", "find_sources", "significance_map"]

#: Flux densities of the spectra that sources are looked for with: flat, blue, middle and red.
SPECTRA = torch.tensor(
    [
        (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
        (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 0.95, 1.25, 1.3, 1.35),
        (0.25, 0.35, 0.6, 0.85, 1.0, 1.1, 0.8, 1.3, 1.6, 1.9),
        (0.03, 0.08, 0.25, 0.6, 0.9, 1.1, 0.55, 1.4, 1.9, 2.5),
    ]
)
_VIEW_BANDS = {"joint": slice(0, 10), "rubin": slice(0, 6), "euclid": slice(6, 10)}
_WINDOW = 5  # pixels of 0.1 arcsec in which a proposal is the highest
_WING_WINDOW = 31  # pixels in which a peak must not be a mere ripple on a bright source
_CONTRAST = 0.03


def best_spectrum(signal, root, view="joint"):
    """
    Significance of fluxes in several bands together, for the spectrum of `SPECTRA` that suits best.

    Parameters
    ----------
    signal : Tensor, shape (..., 10)
        Flux over its error in each band.
    root : Tensor, shape (..., 10)
        One over the error of the flux, 1 / nJy; zero for a missing band.
    view : {"joint", "rubin", "euclid"}
        Whose bands count.

    Returns
    -------
    Tensor, shape (...)
        Normal of unit variance for noise and one spectrum; the largest of four here.
    """
    bands = _VIEW_BANDS[view]
    weight = SPECTRA.to(root)[:, bands] * root[..., None, bands]
    total = (weight * signal[..., None, bands]).sum(-1)
    return (total / weight.square().sum(-1).clamp_min(1e-20).sqrt()).amax(-1)


def _spectrum_maps(tiles):
    """Weighted sums of the matched-filter maps for each spectrum, and the sums of the squared weights."""
    sums, squares = {}, {}
    for survey, bands in (("rubin", slice(0, 6)), ("euclid", slice(6, 10))):
        noise, psf = tiles[f"{survey}_noise"].float(), tiles[f"{survey}_psf"].float()
        root = psf.square().sum((-2, -1)).sqrt() / noise.clamp_min(1e-9) * (noise > 0)
        weight = SPECTRA.to(root)[:, bands] * root[:, None]
        maps = matched_filter(tiles[f"{survey}_snr"].float(), psf)
        maps = torch.einsum("btk,bkhw->bthw", weight, maps)
        if survey == "rubin":
            # Two grid pixels to one of Rubin's; its PSF is wide, so that the variance stays what it is.
            maps = functional.interpolate(maps, scale_factor=2, mode="bicubic", align_corners=False)
        sums[survey], squares[survey] = maps, weight.square().sum(-1)
    return sums, squares


def significance_map(tiles, view="joint"):
    """
    Significance of a point source at each pixel of the 0.1 arcsec grid, all bands of a view together.

    Parameters
    ----------
    tiles : dict of Tensor
        See `~jaisp.models.TILE_KEYS`.
    view : {"joint", "rubin", "euclid"}

    Returns
    -------
    Tensor, shape (B, H, W)
        In sigma; conservative where bad pixels take a part of the PSF.
    """
    return _combine(*_spectrum_maps(tiles), view)


def _combine(sums, squares, view):
    surveys = ("rubin", "euclid") if view == "joint" else (view,)
    total = sum(sums[survey] for survey in surveys)
    norm = sum(squares[survey] for survey in surveys).clamp_min(1e-20).sqrt()
    return (total / norm[..., None, None]).amax(1)


@torch.no_grad()
def find_sources(tiles, *, lowest=3.0, most=200):
    """
    Peaks of the joint significance map.

    Parameters
    ----------
    tiles : dict of Tensor
        See `~jaisp.models.TILE_KEYS`.
    lowest : float
        Significance in sigma below which no peak counts.
    most : int
        Largest number of peaks of a tile.

    Returns
    -------
    dict of Tensor, shape (B, M)
        ``x``, ``y`` in 0.1 arcsec pixels, to a fraction of one, and ``snr_joint``, ``snr_rubin``,
        ``snr_euclid``: the significance there in each view; zero for padding.
    """
    parts = _spectrum_maps(tiles)
    maps = {view: _combine(*parts, view) for view in VIEWS}
    joint = maps["joint"]
    batch, height, width = joint.shape

    def highest(window):
        return functional.max_pool2d(joint[:, None], window, stride=1, padding=window // 2)[:, 0]

    peak = (joint == highest(_WINDOW)) & (joint > lowest) & (joint > _CONTRAST * highest(_WING_WINDOW))
    peak[:, (0, -1)] = peak[:, :, (0, -1)] = False
    score, index = joint.masked_fill(~peak, 0.0).flatten(1).topk(min(most, height * width), dim=1)
    longest = max(1, int((score > 0).sum(1).max()))
    score, index = score[:, :longest], index[:, :longest]
    flat = joint.flatten(1)
    found = {f"snr_{view}": maps[view].flatten(1).gather(1, index) * (score > 0) for view in VIEWS}
    for name, step, position in (("x", 1, index % width), ("y", width, index // width)):
        before = flat.gather(1, (index - step).clamp_min(0))
        after = flat.gather(1, (index + step).clamp_max(height * width - 1))
        curvature = (2 * score - before - after).clamp_min(1e-6)
        found[name] = position + (0.5 * (after - before) / curvature).clamp(-0.5, 0.5) * (score > 0)
    return found
