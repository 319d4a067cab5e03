# Licensed under a 3-clause BSD style license - see LICENSE
"""From a noiseless scene to a tile as a survey would deliver it: depth, correlated noise, defects, flips."""

import numpy as np
import scipy.fft as fft
from scipy.ndimage import binary_dilation

from jaisp.surveys import AB_ZERO_POINT

__all__ = ["NoiseBank", "draw_tile"]

N_RUBIN = 6
TEN_YEAR = np.array([4.2, 1.6, 1.6, 2.7, 5.4, 11.0])
_LAGS = 64
_FARTHEST_MASK = 2.0  # arcsec beyond a saturated core
_CUTOUT_SIDES = (0.25, 0.8)  # in shares of the tile


class NoiseBank:
    """
    Large fields of correlated noise, cut at random places for each tile.

    Each field is white noise of unit variance passed through a kernel of sum 1, so that its variance on
    the scale of a source is near one while its pixels scatter less, as in resampled survey images.

    Parameters
    ----------
    seed : int, optional
        Seed.
    size : int, optional
        Width of a field in pixels.
    """

    def __init__(self, *, seed=0, size=2048):
        self.size = size
        self.fields, self.powers = {}, {}
        transfers = {
            "rubin": [_white, *(_gaussian_transfer(s) for s in (0.4, 0.55, 0.8)), _gaussian_transfer(1.05)],
            "vis": [_white, _lag_transfer(0.11), _lag_transfer(0.22)],
            "nisp": [_native_pixels(1.0), _native_pixels(0.85)],
        }
        for name, group in transfers.items():
            self.fields[name], self.powers[name] = [], []
            for index, transfer in enumerate(group):
                rng = np.random.default_rng([seed, len(name), index])
                spectrum = fft.rfft2(rng.standard_normal((size, size), dtype=np.float32))
                spectrum *= transfer(size)
                self.fields[name].append(fft.irfft2(spectrum, (size, size)).astype(np.float32))
                self.powers[name].append(transfer(_LAGS) ** 2)

    def cut(self, rng, name, n, psf):
        """
        Cut (n, n) pixels of noise whose matched-filter S/N for ``psf`` has unit variance.

        Parameters
        ----------
        rng : `numpy.random.Generator`
            Source of randomness.
        name : str
            ``"rubin"``, ``"vis"`` or ``"nisp"``.
        n : int
            Width in pixels.
        psf : ndarray
            PSF with which the noise will be filtered.

        Returns
        -------
        ndarray of float32, shape (n, n)
        """
        kind = rng.integers(len(self.fields[name]))
        x, y = rng.integers(0, self.size - n, 2)
        noise = self.fields[name][kind][y : y + n, x : x + n]
        if rng.random() < 0.5:
            noise = noise[::-1]
        if rng.random() < 0.5:
            noise = noise[:, ::-1]
        if rng.random() < 0.5:
            noise = noise.T
        power = fft.rfft2(psf, (_LAGS, _LAGS))
        power = power.real**2 + power.imag**2
        # Columns of the half plane stand for two, but for the first and the last.
        power[:, 1:-1] *= 2
        seen = (power * self.powers[name][kind]).sum() / power.sum()
        return noise * np.float32(1 / np.sqrt(seen))


def _axis(n):
    return fft.fftfreq(n)[:, None], fft.rfftfreq(n)[None, :]


def _white(n):
    return np.ones((n, n // 2 + 1), np.float32)


def _gaussian_transfer(sigma):
    def transfer(n):
        fy, fx = _axis(n)
        return np.exp(-2 * np.pi**2 * sigma**2 * (fx**2 + fy**2)).astype(np.float32)

    return transfer


def _lag_transfer(side):
    """Three-pixel kernel (side, 1, side) / (1 + 2 side) on each axis."""

    def transfer(n):
        fy, fx = _axis(n)
        row, column = ((1 + 2 * side * np.cos(2 * np.pi * f)) / (1 + 2 * side) for f in (fy, fx))
        return (row * column).astype(np.float32)

    return transfer


def _native_pixels(width):
    """White noise of 0.3" pixels spread by bilinear weights over the 0.1" grid."""

    def transfer(n):
        fy, fx = _axis(n)
        return (np.sinc(3 * width * fy) * np.sinc(3 * width * fx)).astype(np.float32) ** 2

    return transfer


def _smooth_fields(rng, n, bands):
    """Background left over in units of the noise: constant, gradient, and now and then scattered light."""
    t = np.linspace(-1, 1, n, dtype=np.float32)
    constant, across, up = rng.normal(0, 1, (3, bands)).astype(np.float32) * np.array(
        [[0.12], [0.06], [0.06]], "f4"
    )
    return constant[:, None, None], across[:, None] * t, up[:, None] * t


def _defects(rng, shape, grow):
    """Bad pixels (True) of one survey: columns, blobs of cosmic rays, a missing edge."""
    bands, n, _ = shape
    bad = np.zeros(shape, bool)
    which = slice(None) if rng.random() < 0.5 else slice(*sorted(rng.choice(bands + 1, 2, replace=False)))
    if rng.random() < 0.4:
        for x in rng.integers(0, n, rng.integers(1, 4)):
            length = int(n * rng.uniform(0.2, 1.0))
            y = rng.integers(0, n - length + 1)
            bad[which, y : y + length, x : x + rng.integers(1, 2 + grow)] = True
    if rng.random() < 0.6:
        for _ in range(rng.integers(1, 12)):
            x, y, angle = rng.uniform(0, n), rng.uniform(0, n), rng.uniform(0, np.pi)
            along = np.arange(0, rng.exponential(4 * grow) + 1, 0.5)
            i, j = (x + along * np.cos(angle)).astype(int), (y + along * np.sin(angle)).astype(int)
            band = rng.integers(bands)
            for dx in range(grow):
                for dy in range(grow):
                    bad[band, np.clip(j + dy, 0, n - 1), np.clip(i + dx, 0, n - 1)] = True
    if rng.random() < 0.3:
        cut = int(n * rng.uniform(0.02, 0.4))
        edge = rng.integers(4)
        part = (slice(0, cut), slice(n - cut, n))[edge % 2]
        bad[(which, part) if edge < 2 else (which, slice(None), part)] = True
    return bad


def _cutout(rng):
    """Edges x0, x1, y0, y1 of a small cutout, in shares of the tile's width."""
    sides = rng.uniform(*_CUTOUT_SIDES, 2)
    corner = rng.uniform(0, 1 - sides)
    return corner[0], corner[0] + sides[0], corner[1], corner[1] + sides[1]


def _saturate(rng, images, threshold, pixel_scale):
    """Clip bright cores; in half the cases return them as bad pixels, narrow or wide, else leave them."""
    if images.max() < threshold:
        return None
    masked = rng.random() < 0.5
    saturated = np.zeros(images.shape, bool)
    for band in range(len(images)):
        core = images[band] > threshold
        if masked and core.any():
            widest = np.log(_FARTHEST_MASK / pixel_scale)
            saturated[band] = binary_dilation(core, iterations=int(np.exp(rng.uniform(0, widest))))
    np.minimum(images, threshold, out=images)
    return saturated if masked else None


def _turn(array, flips):
    """One of the eight flips and turns of the last two axes."""
    if flips[0]:
        array = array[..., ::-1]
    if flips[1]:
        array = array[..., ::-1, :]
    if flips[2]:
        array = np.swapaxes(array, -1, -2)
    return array


def _depths(rng, euclid_psf):
    """Noise in nJy per pixel on the scale of a source, ten bands."""
    survey_wide = np.exp(rng.uniform(np.log(0.7), np.log(3.5)))
    rubin = TEN_YEAR * survey_wide * 10 ** (0.4 * rng.normal(0, 0.25, N_RUBIN))
    vis = np.exp(rng.uniform(np.log(1.6), np.log(3.5)))
    # Flux noise of a point source is sigma / norm; 5 sigma at the drawn depth (24.9-25.5 on real Q1 images).
    depth = rng.uniform(24.2, 25.4) + rng.normal(0, 0.15, 3)
    nisp = 10 ** (0.4 * (AB_ZERO_POINT - depth)) / 5 * np.sqrt((euclid_psf[1:] ** 2).sum(axis=(1, 2)))
    return np.concatenate([rubin, [vis], nisp])


def draw_tile(scene, rng, noise_bank, *, cutouts=0.0):
    """
    Observe a scene once: depth, noise, background, defects, and one of eight flips, all at random.

    Parameters
    ----------
    scene : `~jaisp.simulation.scenes.Scene`
        Noiseless scene of width S in 0.1" pixels.
    rng : `numpy.random.Generator`
        Source of randomness.
    noise_bank : `NoiseBank`
        Fields of noise.
    cutouts : float, optional
        Probability that the tile shows a small cutout only, with nothing around it.

    Returns
    -------
    arrays : dict
        ``rubin_snr`` (6, S/2, S/2) and ``euclid_snr`` (4, S, S), float32, flux per pixel over the noise on
        the scale of a source, 0 where invalid; ``rubin_valid``, ``euclid_valid``, bool;
        ``rubin_noise`` (6,) and ``euclid_noise`` (4,), nJy; ``rubin_psf`` (6, 25, 25) and
        ``euclid_psf`` (4, 33, 33).
    truth : dict
        ``x``, ``y`` (0.1" pixels), ``flux`` (n, 10) in nJy, ``half_light_radius`` in arcsec, ``e1``, ``e2``,
        ``is_star``; ``band_snr`` (n, 10), ``rubin_snr``, ``euclid_snr`` and ``snr``: optimal S/N of each
        source alone, 0 in bands whose pixels are bad at its place.
    """
    flips = rng.random(3) < 0.5
    sigma = _depths(rng, scene.euclid_psf)
    stated = sigma * np.exp(rng.normal(0, 0.08, len(sigma)))
    gains = 1 + rng.normal(0, 0.02, len(sigma))
    size = scene.euclid.shape[-1]
    x, y, e1, e2 = _turn_sources(scene, flips, size)

    arrays = {}
    band_snr = scene.flux * scene.norm / sigma
    with_defects = rng.random() < 0.3
    bump = rng.random() < 0.1
    own = rng.spawn(1)[0]  # what follows is drawn as if there were no cutouts
    cutout = _cutout(own) if own.random() < cutouts else None
    for survey, bands, poisson in (
        ("rubin", slice(0, N_RUBIN), (1 / 500, 1 / 50)),
        ("euclid", slice(N_RUBIN, None), (1 / 100, 1 / 20)),
    ):
        images = _turn(getattr(scene, survey), flips).astype(np.float32, order="C")
        psf = np.ascontiguousarray(_turn(getattr(scene, f"{survey}_psf"), flips))
        n = images.shape[-1]
        threshold = np.exp(rng.uniform(np.log(1.2e4), np.log(5.5e4)))
        saturated = _saturate(rng, images, threshold, 0.1 * size / n)
        grain = np.exp(rng.uniform(*np.log(poisson)))
        images *= (gains[bands] / sigma[bands]).astype(np.float32)[:, None, None]
        _add_noise(rng, images, survey, psf, grain, noise_bank)
        constant, across, up = _smooth_fields(rng, n, len(images))
        images += constant
        images += across[:, None, :]
        images += up[:, :, None]
        if bump:
            images += _bump(rng, n, len(images))
        images *= (sigma[bands] / stated[bands]).astype(np.float32)[:, None, None]

        valid = np.ones(images.shape, bool)
        scale = n / size
        i = np.clip(np.round((x + 0.5) * scale - 0.5).astype(int), 0, n - 1)
        j = np.clip(np.round((y + 0.5) * scale - 0.5).astype(int), 0, n - 1)
        if cutout is not None:
            x0, x1, y0, y1 = (round(n * edge) for edge in cutout)
            outside = np.ones(images.shape[1:], bool)
            outside[y0:y1, x0:x1] = False
            valid &= ~outside
            band_snr[:, bands] *= valid[:, j, i].T
        if with_defects:
            bad = _defects(rng, images.shape, 1 if survey == "rubin" else 2)
            valid &= ~bad
            band_snr[:, bands] *= valid[:, j, i].T
        if saturated is not None:
            # A saturated star is seen by its wings; what lies under its core is not.
            own = (scene.flux * scene.norm**2)[:, bands] > 0.2 * threshold
            band_snr[:, bands] *= own | ~saturated[:, j, i].T
            valid &= ~saturated
        images *= valid
        arrays[f"{survey}_snr"] = images
        arrays[f"{survey}_valid"] = valid
        arrays[f"{survey}_noise"] = stated[bands].astype(np.float32)
        arrays[f"{survey}_psf"] = psf

    square = band_snr**2
    truth = {
        "x": x,
        "y": y,
        "flux": np.array(scene.flux),
        "half_light_radius": np.array(scene.half_light_radius),
        "e1": e1,
        "e2": e2,
        "is_star": np.array(scene.is_star),
        "band_snr": band_snr.astype(np.float32),
        "rubin_snr": np.sqrt(square[:, :N_RUBIN].sum(axis=1)).astype(np.float32),
        "euclid_snr": np.sqrt(square[:, N_RUBIN:].sum(axis=1)).astype(np.float32),
        "snr": np.sqrt(square.sum(axis=1)).astype(np.float32),
    }
    return arrays, truth


def _turn_sources(scene, flips, size):
    x, y, e1, e2 = (np.array(getattr(scene, name)) for name in ("x", "y", "e1", "e2"))
    if flips[0]:
        x, e2 = size - 1 - x, -e2
    if flips[1]:
        y, e2 = size - 1 - y, -e2
    if flips[2]:
        x, y, e1 = y, x, -e1
    return x, y, e1, e2


def _add_noise(rng, images, survey, psf, grain, noise_bank):
    """Add noise in place, larger where sources are bright."""
    n = images.shape[-1]
    for band, image in enumerate(images):
        name = "rubin" if survey == "rubin" else ("vis" if band == 0 else "nisp")
        noise = noise_bank.cut(rng, name, n, psf[band])
        variance = np.maximum(image, 0)
        variance *= np.float32(grain)
        variance += 1
        np.sqrt(variance, out=variance)
        variance *= noise
        image += variance


def _bump(rng, n, bands):
    """A smooth patch of scattered light, up to a few times the noise, different in each band."""
    x, y = rng.uniform(-0.2, 1.2, 2) * n
    width = rng.uniform(0.15, 0.6) * n
    t = np.arange(n, dtype=np.float32)
    patch = np.exp(-0.5 * ((t - y) / width) ** 2)[:, None] * np.exp(-0.5 * ((t - x) / width) ** 2)[None, :]
    height = rng.uniform(0.3, 2.0) * rng.uniform(0.3, 1.0, bands) * rng.choice([-0.3, 1.0], p=[0.2, 0.8])
    return height.astype(np.float32)[:, None, None] * patch.astype(np.float32)
