# Licensed under a 3-clause BSD style license - see LICENSE
"""What the network sees of a tile: signal to noise, plain and matched-filtered, validity, depth, PSF size."""

import torch
from torch.nn import functional

from jaisp.surveys import EUCLID, RUBIN

__all__ = [
    "N_CONDITIONS",
    "TILE_KEYS",
    "VIEWS",
    "band_dropout",
    "crop_window",
    "matched_filter",
    "network_inputs",
]

#: Views of a tile: from both surveys, or from one alone.
VIEWS = ("joint", "rubin", "euclid")
#: Keys of a batch of tiles; each holds a tensor with the batch on its first axis.
TILE_KEYS = tuple(
    f"{survey.name}_{kind}" for survey in (RUBIN, EUCLID) for kind in ("snr", "valid", "noise", "psf")
)
N_CONDITIONS = 3 * (len(RUBIN.bands) + len(EUCLID.bands))
_SOFTENING = 3.0  # in sigma: linear below, logarithmic above
# Least and most noise that the network is told (nJy a pixel, at the scale of a source), a little beyond what
# training shows: noisier images, or ones in wrong units, then look brighter, and not like nothing ever seen.
_NOISE = {
    "rubin": ((1.2, 0.4, 0.4, 0.7, 1.6, 3.0), (26.0, 9.6, 9.6, 16.0, 33.0, 66.0)),
    "euclid": ((1.2, 2.0, 2.0, 2.0), (5.0, 25.0, 25.0, 25.0)),
}


def matched_filter(snr, psf):
    """
    Correlate signal-to-noise maps with the PSF: the significance of a point source at each pixel.

    The maps are periodic: within half a PSF of an edge it holds what is seen at the opposite one. Tiles have
    a halo, so that only the edges of images are concerned, where training shows the same.

    Parameters
    ----------
    snr : Tensor, shape (B, n_bands, H, W)
        Sky-subtracted flux over source-scale noise; zero where invalid.
    psf : Tensor, shape (B, n_bands, P, P)
        PSF images, odd P, sum 1; all zero for a missing band.

    Returns
    -------
    Tensor, shape (B, n_bands, H, W)
        Unit variance on sky of white noise.
    """
    height, width = snr.shape[-2:]
    half = psf.shape[-1] // 2
    norm = psf.square().sum((-2, -1), keepdim=True).clamp_min(1e-12).sqrt()
    kernel = functional.pad(psf / norm, (0, width - psf.shape[-1], 0, height - psf.shape[-2]))
    kernel = torch.roll(kernel, (-half, -half), dims=(-2, -1))
    spectrum = torch.fft.rfft2(snr) * torch.fft.rfft2(kernel).conj()
    return torch.fft.irfft2(spectrum, s=(height, width))


def band_dropout(tiles, keep):
    """
    Return tiles in which the bands where ``keep`` is False are missing.

    Parameters
    ----------
    tiles : dict of Tensor
        See `TILE_KEYS`.
    keep : dict of Tensor
        For each survey name, bool of shape (B, n_bands).
    """
    out = dict(tiles)
    for survey, mask in keep.items():
        image_mask = mask[:, :, None, None]
        out[f"{survey}_snr"] = tiles[f"{survey}_snr"] * image_mask
        out[f"{survey}_valid"] = tiles[f"{survey}_valid"] & image_mask
        out[f"{survey}_noise"] = tiles[f"{survey}_noise"] * mask
        out[f"{survey}_psf"] = tiles[f"{survey}_psf"] * image_mask
    return out


def crop_window(arrays, window):
    """
    Cut a part out of a batch of tiles, or out of their network inputs.

    Parameters
    ----------
    arrays : dict of Tensor
        Of `TILE_KEYS`, or from `network_inputs`.
    window : tuple of int
        ``x0, x1, y0, y1``, half open, in 0.1 arcsec pixels: even numbers.

    Returns
    -------
    dict of Tensor
        What is no image stays as it is.
    """
    out = dict(arrays)
    for survey, binning in ((RUBIN, 2), (EUCLID, 1)):
        x0, x1, y0, y1 = (edge // binning for edge in window)
        for key in (survey.name, f"{survey.name}_snr", f"{survey.name}_valid"):
            if key in arrays:
                out[key] = arrays[key][..., y0:y1, x0:x1]
    return out


def network_inputs(tiles):
    """
    Compressed image channels and conditions of a batch of tiles.

    Returns
    -------
    dict
        ``rubin`` (B, 18, H, W) and ``euclid`` (B, 12, 2H, 2W) image channels, and
        ``rubin_condition`` (B, 18), ``euclid_condition`` (B, 12).
    """
    inputs = {}
    for survey in (RUBIN, EUCLID):
        snr, valid = tiles[f"{survey.name}_snr"].float(), tiles[f"{survey.name}_valid"]
        noise, psf = tiles[f"{survey.name}_noise"].float(), tiles[f"{survey.name}_psf"].float()
        present = noise > 0
        significance = matched_filter(snr, psf)
        inputs[survey.name] = torch.cat(
            [torch.asinh(snr / _SOFTENING), torch.asinh(significance / _SOFTENING), valid.float()], dim=1
        )
        size = -0.5 * psf.square().sum((-2, -1)).clamp_min(1e-6).log()  # log of sqrt(effective area / pixel)
        least, most = (noise.new_tensor(bound) for bound in _NOISE[survey.name])
        log_noise = noise.clamp(least, most).log10()
        inputs[f"{survey.name}_condition"] = torch.cat(
            [present.float(), (log_noise - 0.7) * present, (size - 1.0) * present], dim=1
        )
    return inputs
