# Licensed under a 3-clause BSD style license - see LICENSE
"""Where sources may be, from the images alone: peaks of the matched filter over all bands of both surveys."""

import torch
from torch.nn import functional

from jaisp.models.inputs import VIEWS, matched_filter
from jaisp.models.layers import distances

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
_SAME = 4.0  # pixels: nearer peaks of both maps are one source
_WINDOW = 5  # pixels of 0.1 arcsec in which a proposal is the highest
_WING_WINDOW = 61  # pixels in which a peak must not be a mere ripple on a bright source
_CONTRAST = 0.02
_DIP_REACH = 15.0  # pixels within which a brighter peak may swallow a fainter one
_DIP = 3.0, 0.2  # how far the map must fall between them: in sigma, and as a part of the fainter
_BOX = 32  # pixels: halos and scattered light are smooth beyond 3.2 arcsec


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


def _background(maps):
    """Medians of boxes, interpolated: what a map of (B, H, W) has left of halos."""
    height, width = maps.shape[-2:]
    # Whole boxes, lest the last pixels be left out and the rest be stretched over them.
    whole = functional.pad(maps[:, None], (0, -width % _BOX, 0, -height % _BOX), mode="replicate")
    rows, columns = (n // _BOX for n in whole.shape[-2:])
    boxes = functional.unfold(whole, _BOX, stride=_BOX).median(1).values.view(-1, 1, rows, columns)
    return functional.interpolate(boxes, scale_factor=_BOX, mode="bilinear")[:, 0, :height, :width]


@torch.no_grad()
def find_sources(tiles, *, lowest=3.0, most=200):
    """
    Peaks of the significance maps: those of Euclid, sharp, and those of both surveys that are not near one.

    Parameters
    ----------
    tiles : dict of Tensor
        See `~jaisp.models.TILE_KEYS`.
    lowest : float
        Significance in sigma below which no peak counts.
    most : int
        Largest number of peaks of a tile and map.

    Returns
    -------
    dict of Tensor, shape (B, M)
        ``x``, ``y`` in 0.1 arcsec pixels, to a fraction of one, and ``snr_joint``, ``snr_rubin``,
        ``snr_euclid``: the significance there in each view; zero for padding.
    """
    sums, squares = _spectrum_maps(tiles)
    maps = {view: _combine(sums, squares, view) for view in VIEWS}
    sharp, deep = (_peaks(maps[view] - _background(maps[view]), lowest, most) for view in ("euclid", "joint"))
    distance = distances(deep["place"], sharp["place"]) + 1e9 * (sharp["score"] <= 0)[:, None]
    deep["score"] = deep["score"] * (distance.amin(-1) > _SAME)
    place = torch.cat([sharp["place"], deep["place"]], dim=1)
    score = torch.cat([sharp["score"], deep["score"]], dim=1)
    order = score.argsort(dim=1, descending=True)[:, : max(1, int((score > 0).sum(1).max()))]
    place, score = place.gather(1, order[..., None].expand(-1, -1, 2)), score.gather(1, order)
    index = place[..., 1].round().long() * sums["euclid"].shape[-1] + place[..., 0].round().long()
    found = {f"snr_{view}": maps[view].flatten(1).gather(1, index) * (score > 0) for view in VIEWS}
    return {"x": place[..., 0], "y": place[..., 1], **found}


def _peaks(maps, lowest, most):
    """Positions (B, M, 2) and heights (B, M; zero for padding) of the maxima that stand for themselves."""
    width = maps.shape[-1]

    def highest(window):
        rows = functional.max_pool2d(maps[:, None], (window, 1), stride=1, padding=(window // 2, 0))
        return functional.max_pool2d(rows, (1, window), stride=1, padding=(0, window // 2))[:, 0]

    peak = (maps == highest(_WINDOW)) & (maps > lowest) & (maps > _CONTRAST * highest(_WING_WINDOW))
    peak[:, (0, -1)] = peak[:, :, (0, -1)] = False
    flat = maps.flatten(1)
    score, index = maps.masked_fill(~peak, 0.0).flatten(1).topk(min(most, flat.shape[1]), dim=1)
    place = torch.stack([index % width, index // width], dim=-1).float()
    score = score * _separate(maps, place, score)
    for axis, step in enumerate((1, width)):
        before = flat.gather(1, (index - step).clamp_min(0))
        after = flat.gather(1, (index + step).clamp_max(flat.shape[1] - 1))
        curvature = (2 * flat.gather(1, index) - before - after).clamp_min(1e-6)
        place[..., axis] += (0.5 * (after - before) / curvature).clamp(-0.49, 0.49)
    return {"place": place, "score": score}


def _separate(maps, place, score):
    """Which peaks (B, M), highest first, the map falls around before it rises to a higher one."""
    near = (distances(place, place) < _DIP_REACH).tril(-1) & (score > 0)[..., None]
    tile, faint, bright = torch.nonzero(near, as_tuple=True)
    steps = torch.linspace(0, 1, 13, device=maps.device)[:, None]
    start, end = place[tile, faint, None], place[tile, bright, None]
    line = (start + (end - start) * steps).round().long()
    lowest = maps.flatten(1)[tile[:, None], line[..., 1] * maps.shape[-1] + line[..., 0]].amin(1)
    fall = torch.full_like(score, torch.inf).view(-1)
    fall.scatter_reduce_(0, tile * score.shape[1] + faint, score[tile, faint] - lowest, "amin")
    return fall.view_as(score) >= (_DIP[1] * score).clamp_min(_DIP[0])
