# Licensed under a 3-clause BSD style license - see LICENSE
"""Simulated sources put into real tiles with the tile's own PSFs and noise: truth for own images."""

import numpy as np
import torch

from jaisp.scene import render_stamps
from jaisp.simulation import draw_sources

__all__ = ["inject_sources"]

_STAMPS = {"rubin": (32, 0.2), "euclid": (64, 0.1)}  # pixels, arcsec: 6.4 arcsec both
_LARGEST_RADIUS = 1.0  # arcsec, what the stamps hold
_BRIGHTEST = 1e5  # nJy, VIS 18.9: brighter ones have wings beyond the PSF images
_MARGIN = 1.0  # arcsec around the tile from which light comes in


def inject_sources(tile, rng, *, density, faint_limit=28.0, offset=0.03):
    """
    Add simulated sources to a tile.

    Parameters
    ----------
    tile : dict of ndarray
        One tile: see `jaisp.io.Tile.arrays`.
    rng : `numpy.random.Generator`
        Source of randomness.
    density : float
        Mean number of sources per square arcminute brighter than VIS 26.5.
    faint_limit : float
        VIS magnitude of the faintest source.
    offset : float
        Largest shift in arcsec per axis of the sources in Rubin against Euclid.

    Returns
    -------
    tile : dict of ndarray
        With the sources in ``rubin_snr`` and ``euclid_snr``; their photon noise is not added.
    truth : dict of ndarray
        Of the injected sources alone: as `~jaisp.simulation.draw_tile` gives it.
    """
    size = tile["euclid_snr"].shape[-1]
    side = 0.1 * size + 2 * _MARGIN
    sources = draw_sources(rng, (side / 60) ** 2, density=density, faint_limit=faint_limit, large=0.0)
    flux = sources.flux
    keep = (sources.half_light_radius < _LARGEST_RADIUS) & (flux[:, 6] < _BRIGHTEST)
    sources, flux = sources.select(keep), flux[keep]
    x, y = (10 * (place - _MARGIN) - 0.5 for place in (sources.x, sources.y))
    shift = 10 * rng.uniform(-offset, offset, 2)
    tile, band_snr = dict(tile), []
    for survey, bands in (("rubin", slice(0, 6)), ("euclid", slice(6, 10))):
        # Two grid pixels to one of Rubin's.
        place = (
            [(v + s - 0.5) / 2 for v, s in zip((x, y), shift, strict=True)] if survey == "rubin" else (x, y)
        )
        image, snr = _add(tile, survey, bands, sources, *place)
        tile[f"{survey}_snr"] = image
        band_snr.append(snr)
    band_snr = np.concatenate(band_snr, axis=1)
    truth = {
        "x": x,
        "y": y,
        "flux": flux,
        "half_light_radius": sources.half_light_radius,
        "e1": sources.e1,
        "e2": sources.e2,
        "is_star": sources.is_star,
        "band_snr": band_snr,
    }
    return tile, {
        name: values if values.dtype == bool else values.astype(np.float32) for name, values in truth.items()
    }


def _add(tile, survey, bands, sources, x, y):
    """Image of one survey with the sources, and their S/N in each of its bands."""
    image, valid = tile[f"{survey}_snr"], tile[f"{survey}_valid"]
    noise = tile[f"{survey}_noise"]
    stamps = _draw(torch.from_numpy(tile[f"{survey}_psf"]), survey, bands, sources, x, y)
    stamps *= np.where(noise > 0, 1 / np.maximum(noise, 1e-9), 0)[:, None, None]
    size, width = stamps.shape[-1], image.shape[-1]
    padded = np.pad(image, ((0, 0), (size, size), (size, size)))
    padded_valid = np.pad(valid, ((0, 0), (size, size), (size, size)))
    snr = np.zeros((len(stamps), len(noise)), np.float32)
    for number, stamp in enumerate(stamps):
        left, low = (int(np.rint(place[number])) + size - size // 2 for place in (x, y))
        if min(left, low) < 0 or max(left, low) > width + size:
            continue
        here = np.s_[:, low : low + size, left : left + size]
        stamp = stamp * padded_valid[here]
        padded[here] += stamp
        snr[number] = np.sqrt((stamp**2).sum((1, 2)))
    return padded[:, size:-size, size:-size].copy(), snr


@torch.no_grad()
def _draw(psf, survey, bands, sources, x, y):
    """Stamps in nJy, (n, bands, size, size): bulges, and discs with the light of their knots."""
    size, scale = _STAMPS[survey]
    x, y, e1, e2 = (torch.from_numpy(np.asarray(v, np.float32)) for v in (x, y, sources.e1, sources.e2))
    place = x - x.round(), y - y.round()
    total = 0
    for flux, radius, bulge in (
        (sources.bulge_flux, sources.bulge_radius, 1.0),
        (sources.disc_flux + sources.knot_flux, sources.disc_radius, 0.0),
    ):
        radius = torch.from_numpy(np.where(sources.is_star, 0, radius).astype(np.float32))
        unit = render_stamps(psf, *place, radius, e1, e2, size=size, pixel_scale=scale, bulge_fraction=bulge)
        total = total + unit * torch.from_numpy(flux[:, bands].astype(np.float32))[:, :, None, None]
    return total.numpy()
