# Licensed under a 3-clause BSD style license - see LICENSE
"""
Fourier transforms of PSF images, also of those that their pixels undersample.

A PSF whose light varies within a pixel (Euclid VIS: FWHM 0.16-0.2" on pixels of 0.1") folds its high
spatial frequencies onto low ones. Shifting such an image by part of a pixel as if it were band-limited errs
by several per cent of the flux. Here the folded transform is shared out among its aliases in proportion to a
smooth model of the transform, a stretched exponential with an ellipticity times the response of a square
pixel, which is fitted to it. For Gaussian PSFs this is exact; for optical ones it leaves a fifth of the error
or less.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import least_squares

from jaisp.exceptions import ImageError

__all__ = ["PSFTransform", "psf_transform"]

_FIT_SIZE = 32  # pixels: width at which the smooth model is fitted, for all sizes
# Transform at half a cycle per pixel, relative to that at 0, above which a PSF counts as undersampled.
_UNDERSAMPLED = 0.004
# Largest value of an alias, relative to the flux, below which it is left where the pixels folded it.
_NEGLIGIBLE = 0.002


@dataclass(frozen=True)
class PSFTransform:
    """
    Fourier transforms of PSF images, centred on the origin.

    Parameters
    ----------
    size : int
        Width in pixels of the stamps that can be rendered with it.
    aliases : tuple of (bool, bool, torch.Tensor or None, torch.Tensor)
        For each alias, whether it lies one cycle per pixel away along y and along x; the indices of the bands
        that have it, None for all; and their transforms there, of shape (..., bands, size, size // 2 + 1).
        The first is (False, False) for all bands; well-sampled PSFs have no other.
    """

    size: int
    aliases: tuple

    def frequencies(self, along_y, along_x, like):
        """Frequencies in cycles per pixel along y and x of an alias, as tensors like ``like``."""
        ky = torch.fft.fftfreq(self.size, dtype=like.dtype, device=like.device)
        kx = torch.fft.rfftfreq(self.size, dtype=like.dtype, device=like.device)
        if along_y:
            ky = torch.where(ky < 0, ky + 1, ky - 1)
        return ky, kx - 1 if along_x else kx


def psf_transform(psf, size, *, dealias=False):
    """
    Fourier transform of PSF images.

    Parameters
    ----------
    psf : torch.Tensor, shape (..., bands, k, k)
        Odd square images centred on their middle pixel. What lies beyond ``size`` is cut off.
    size : int
        Width of the stamps in pixels.
    dealias : bool, optional
        Whether to share out the transform of undersampled PSFs among its aliases (not differentiable by the
        PSF). Well-sampled PSFs are the same either way.

    Returns
    -------
    PSFTransform
    """
    if psf.ndim < 3 or psf.shape[-1] != psf.shape[-2] or psf.shape[-1] % 2 == 0:
        raise ImageError(
            f"PSF of shape {tuple(psf.shape)}; allowed: (bands, k, k) with odd k, centred on the middle pixel"
        )
    folded = _folded(psf, size)
    single = PSFTransform(size, ((False, False, None, folded),))
    if not dealias:
        return single
    # Relative to the flux, along the edge of the frequencies that the pixels can hold.
    edge = torch.maximum(folded[..., size // 2, :].abs().amax(-1), folded[..., -1].abs().amax(-1))
    edge = edge / folded[..., 0, 0].abs()
    bands = torch.nonzero((edge > _UNDERSAMPLED).reshape(-1, edge.shape[-1]).any(0))[:, 0]
    if not len(bands):
        return single
    folded_bands = folded[..., bands, :, :]
    corners = [(y, x) for y in (False, True) for x in (False, True)]
    frequencies = [single.frequencies(y, x, psf) for y, x in corners]
    flat = psf[..., bands, :, :].detach().reshape(-1, *psf.shape[-2:]).cpu().numpy().astype(float)
    shares = np.stack([_shares(_decline(one.tobytes(), len(one)), frequencies) for one in flat], axis=1)
    shares = torch.as_tensor(shares, dtype=psf.dtype, device=psf.device)
    parts = [folded_bands * share.reshape(folded_bands.shape) for share in shares]
    flux = folded_bands[..., :1, :1].abs()
    others = [
        (along_y, along_x, bands, part)
        for (along_y, along_x), part in zip(corners[1:], parts[1:], strict=True)
        if (part.abs() > _NEGLIGIBLE * flux).any()
    ]
    central = folded.clone()
    central[..., bands, :, :] = folded_bands - sum(part for *_, part in others)
    return PSFTransform(size, ((False, False, None, central), *others))


def _folded(psf, size):
    """Transform of PSF images padded or cut to a size, their middle pixel on the origin."""
    width, largest = psf.shape[-1], size - 1 + size % 2
    if width > largest:
        cut = (width - largest) // 2
        psf = psf[..., cut : width - cut, cut : width - cut]
        width = largest
    padded = torch.nn.functional.pad(psf, (0, size - width, 0, size - width))
    padded = torch.roll(padded, shifts=(-(width // 2), -(width // 2)), dims=(-2, -1))
    return torch.fft.rfft2(padded)


def _model(parameters, grids):
    """Smooth model of a transform at each alias, shape (aliases, ky, kx)."""
    scale, power, e1, e2 = parameters
    terms = []
    for ky, kx in grids:
        k2 = (1 + e1) * kx**2 + (1 - e1) * ky**2 + 2 * e2 * kx * ky
        decline = np.exp(-((np.maximum(k2, 1e-12) * np.exp(scale)) ** (np.exp(power) / 2)))
        terms.append(decline * np.sinc(kx) * np.sinc(ky))
    return np.stack(terms)


def _grids(frequencies):
    return [
        (ky.cpu().numpy()[:, None].astype(float), kx.cpu().numpy().astype(float)) for ky, kx in frequencies
    ]


@lru_cache(maxsize=64)
def _decline(pixels, width):
    """Parameters of the smooth model fitted to the folded transform of a PSF image, given as bytes."""
    psf = torch.frombuffer(bytearray(pixels), dtype=torch.float64).reshape(width, width)
    folded = _folded(psf, _FIT_SIZE).numpy()
    single = PSFTransform(_FIT_SIZE, ())
    grids = _grids([single.frequencies(y, x, psf) for y in (False, True) for x in (False, True)])

    def misfit(parameters):
        return (_model(parameters, grids).sum(0) - folded.real / folded[0, 0].real).ravel()

    bounds = ([-3, -1, -0.5, -0.5], [6, 1.5, 0.5, 0.5])
    return tuple(least_squares(misfit, [2.0, 0.5, 0.0, 0.0], bounds=bounds, max_nfev=50).x)


def _shares(parameters, frequencies):
    """Share of each alias in a folded transform, shape (aliases, size, size // 2 + 1)."""
    terms = _model(parameters, _grids(frequencies))
    return terms / np.maximum(terms.sum(0), 1e-12)
