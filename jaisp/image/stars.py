# Licensed under a 3-clause BSD style license - see LICENSE
"""The PSF as the stars of an image show it."""

import numpy as np
from scipy import ndimage

from jaisp.image._sky import FWHM_PER_SD, sky_statistics, smooth_level
from jaisp.image.psf import centre_psf, fit_moffat, normalize_psf, psf_fwhm

__all__ = ["estimate_psf"]

_LEAST_STARS = 5
_MOST_STARS = 60
_LEAST_SNR = 50.0
_LOCUS = 1.12  # stars lie within so much of the narrowest
_NEIGHBOUR = 0.03  # of the star's peak
_PLAUSIBLE = (0.6, 1.7)  # of the documented width
_MOST_MISFIT = 0.04  # of the peak, root mean square in the core
_LARGEST = 3000  # pixels: enough stars are in the middle of a larger image


def estimate_psf(data, variance, mask, *, fwhm, size):
    """
    Estimate the PSF from isolated, unsaturated stars.

    Stars are the narrowest of the bright sources, and as wide as one another. The PSF is the Moffat profile
    common to them, and the mean of what it leaves of them.

    Parameters
    ----------
    data, variance : 2-D array
        Sky-subtracted image and its variance.
    mask : 2-D bool array
        True where bad.
    fwhm : float
        Width to expect, in pixels; one that is outside 0.6 to 1.7 times it is not believed.
    size : int
        Side of the PSF image, odd.

    Returns
    -------
    psf : 2-D float32 array or None
        None where there are fewer than 5 good stars.
    """
    middle = tuple(
        slice(max(0, (length - _LARGEST) // 2), max(0, (length - _LARGEST) // 2) + _LARGEST)
        for length in data.shape
    )
    data, variance, mask = data[middle], variance[middle], mask[middle]
    half = size // 2
    if min(data.shape) < 2 * size:
        return None
    stamps = _candidates(data, variance, mask, fwhm, half)
    if len(stamps) < _LEAST_STARS:
        return None
    fits = np.array([fit_moffat(stamp, beta=3.0, radius=1.3 * fwhm) for stamp in stamps])
    chosen = _locus(fits[:, 1], fwhm)
    # A second time, against their own mean: what is no star does not look like the others.
    for _ in range(2):
        if len(chosen) < _LEAST_STARS:
            return None
        psf = _stack([stamps[k] for k in chosen], size)
        chosen = [k for k in chosen if _misfit(stamps[k], psf, fits[k, 3:], fwhm) < _MOST_MISFIT]
    if len(chosen) < _LEAST_STARS:
        return None
    psf = _stack([stamps[k] for k in chosen], size)
    if not _PLAUSIBLE[0] < psf_fwhm(psf) / fwhm < _PLAUSIBLE[1]:
        return None
    return psf


def _candidates(data, variance, mask, fwhm, half):
    """Stamps of bright, isolated sources that touch no masked pixel, the brightest first."""
    weight = np.where(mask, 0, 1 / variance).astype(np.float32)
    level, snr = smooth_level(np.where(mask, 0, data).astype(np.float32), weight, fwhm / FWHM_PER_SD)
    _, noise = sky_statistics(snr[~mask])
    if not noise > 0:
        return []
    reach = int(np.ceil(2.5 * fwhm))
    peaks = (snr > 3 * noise) & (snr == ndimage.maximum_filter(snr, size=3))
    y, x = np.nonzero(peaks)
    order = np.argsort(-level[y, x])
    y, x = y[order], x[order]
    # Masked pixels near: saturated, or cut by the edge.
    touched = ndimage.maximum_filter(mask, size=2 * reach + 1, mode="constant", cval=True)
    stamps = []
    for k in range(len(x)):
        if snr[y[k], x[k]] < _LEAST_SNR * noise or len(stamps) >= 5 * _MOST_STARS:
            break
        inside = half <= y[k] < data.shape[0] - half and half <= x[k] < data.shape[1] - half
        if not inside or touched[y[k], x[k]]:
            continue
        near = (np.abs(x - x[k]) <= half) & (np.abs(y - y[k]) <= half)
        near[k] = False
        if np.any(level[y[near], x[near]] > _NEIGHBOUR * level[y[k], x[k]]):
            continue
        stamp = data[y[k] - half : y[k] + half + 1, x[k] - half : x[k] + half + 1].astype(float)
        stamps.append(np.where(mask[y[k] - half : y[k] + half + 1, x[k] - half : x[k] + half + 1], 0, stamp))
    return stamps


def _locus(widths, fwhm):
    """Indices of the sources in the narrowest crowd of widths, or none if there is no crowd."""
    plausible = (widths > _PLAUSIBLE[0] * fwhm) & (widths < _PLAUSIBLE[1] * fwhm)
    sorted_widths = np.sort(widths[plausible])
    for low in sorted_widths:
        count = np.count_nonzero((sorted_widths >= low) & (sorted_widths < low * _LOCUS))
        wider = np.count_nonzero((sorted_widths >= low * _LOCUS) & (sorted_widths < low * _LOCUS**2))
        # Galaxies of all sizes fill the next interval just as well; stars do not.
        if count >= _LEAST_STARS and count >= 2 * wider:
            centre = np.median(sorted_widths[(sorted_widths >= low) & (sorted_widths < low * _LOCUS)])
            spread = np.sqrt(_LOCUS)
            return np.nonzero((widths > centre / spread) & (widths < centre * spread))[0][
                :_MOST_STARS
            ].tolist()
    return []


def _stack(stamps, size):
    """PSF from stars: the common Moffat profile, and the median of what it leaves."""
    fits = np.array([fit_moffat(stamp) for stamp in stamps])
    fwhm, beta = np.median(fits[:, 1]), np.median(fits[:, 2])
    y, x = np.mgrid[:size, :size] - size // 2

    def profile(x0, y0):
        alpha2 = (fwhm / 2) ** 2 / (2 ** (1 / beta) - 1)
        return (1 + ((x - x0) ** 2 + (y - y0) ** 2) / alpha2) ** -beta

    core = np.hypot(x, y) < 1.5 * fwhm
    rests = []
    for stamp, (*_, x0, y0) in zip(stamps, fits, strict=True):
        model = profile(x0, y0)
        peak = np.sum((model * stamp)[core]) / np.sum((model**2)[core])
        # The rest is small and smooth: moving it by a part of a pixel costs little, as it would not for the
        # star.
        rests.append(ndimage.shift(stamp / peak - model, (-y0, -x0), order=3, mode="constant"))
    rest = np.median(rests, axis=0)
    # Far out the median of few stars is noise; the profile is trusted there.
    rest *= 1 / (1 + (np.hypot(x, y) / (2.5 * fwhm)) ** 6)
    psf = np.maximum(profile(0, 0) + rest, -0.01)
    return centre_psf(normalize_psf(psf))[0]


def _misfit(stamp, psf, place, fwhm):
    """Root mean square of star minus PSF in the core, over the peak."""
    moved = ndimage.shift(psf.astype(float), (place[1], place[0]), order=3, mode="constant")
    size = psf.shape[0]
    y, x = np.mgrid[:size, :size] - size // 2
    core = np.hypot(x, y) < 1.5 * fwhm
    peak = np.sum((moved * stamp)[core]) / np.sum((moved**2)[core])
    return float(np.sqrt(np.mean((stamp - peak * moved)[core] ** 2)) / (abs(peak) * moved.max()))
