# Licensed under a 3-clause BSD style license - see LICENSE
"""Noiseless paired scenes for training: drawn once, seen many times under fresh noise (`draw_tile`)."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import scipy.fft as fft
from scipy.ndimage import gaussian_filter, map_coordinates

from jaisp.exceptions import ConfigError, FileError, suggest
from jaisp.files import whole_folder
from jaisp.simulation import _render
from jaisp.simulation.draw import NoiseBank, draw_tile
from jaisp.simulation.population import draw_sources
from jaisp.simulation.psfs import PSFLibrary, draw_rubin_psfs, frequencies

__all__ = ["NoiseBank", "Scene", "SceneBank", "SceneConfig", "draw_tile", "make_scene", "make_scenes"]

OVERSAMPLED = 0.05
CLIP = 60000.0
N_RUBIN, N_BANDS = 6, 10
_COMPACT_FACTOR = 5.0
_UNUSUAL_DENSITY = (0.05, 8.0)
_UNUSUAL_STARS = (0.0, 0.9)
_UNUSUAL_THIN = (0.0, 0.5)
_SOURCE_COLUMNS = ("x", "y", "half_light_radius", "e1", "e2", "is_star", "flux", "norm")


@dataclass(frozen=True)
class SceneConfig:
    """
    Settings of training scenes.

    Parameters
    ----------
    size : int
        Width of a scene in 0.1" pixels; a multiple of 4.
    density : float
        Mean number of sources per square arcminute brighter than VIS 26.5.
    density_factor : float
        Each scene's density is multiplied by a log-uniform factor between ``1 / density_factor`` and this.
    faint_limit : float
        VIS magnitude of the faintest source.
    large : float
        Mean number of large nearby galaxies per 100 sources brighter than VIS 26.5: ten times what the
        sky has, so that a network learns them.
    compact : float
        Faint compact sources per 100 sources brighter than VIS 26.5, half of them around galaxies; each
        scene's number is a log-uniform factor between 1/5 and 5 of it. Without them a network takes most
        points near a galaxy for its star-forming knots, and crowded stars for those of a galaxy unseen.
    unusual : float
        Share of the scenes that are drawn from a wider population than the sky's: from next to empty to
        crowded, with up to nine stars in ten and half the discs seen edge-on. Without them a network is not
        sure of a thin disc, or of a star in a crowd, however bright. More large galaxies are not among them:
        they are full of knots, for which points around galaxies were then taken.
    cutouts : float
        Share of the tiles that show a small cutout only, with nothing around it.
    offset : float
        Largest cross-survey offset per axis in arcsec.
    psf_error : float
        Relative standard deviation of the width of the given PSFs about the true ones.
    psf_sets : int
        Number of Euclid PSF sets in the library.
    psf_seed : int
        Seed of the library.
    """

    size: int = 256
    density: float = 100.0
    density_factor: float = 2.0
    faint_limit: float = 28.0
    large: float = 0.5
    compact: float = 6.0
    unusual: float = 0.2
    cutouts: float = 0.15
    offset: float = 0.06
    psf_error: float = 0.04
    psf_sets: int = 32
    psf_seed: int = 0

    def __post_init__(self):
        if self.size < 64 or self.size % 4:
            raise ConfigError(f"scene size is {self.size}; give a multiple of 4 pixels, at least 64")
        if self.density <= 0 or self.density_factor < 1:
            raise ConfigError(
                f"density {self.density} must be positive and density_factor {self.density_factor} at least 1"
            )

    @classmethod
    def from_dict(cls, values):
        """Build from a dictionary; an unknown key raises `ConfigError` that lists near names."""
        allowed = [field.name for field in fields(cls)]
        for key in values:
            if key not in allowed:
                raise ConfigError(
                    f"unknown scene setting {key!r}{suggest(key, allowed)}; allowed: {', '.join(allowed)}"
                )
        return cls(**values)

    @property
    def grid(self):
        """Size of the oversampled grid: the scene and a margin of at least 2.2 arcsec, a fast FFT length."""
        n = 2 * self.size + 88
        while n % 8 or fft.next_fast_len(n, real=True) != n:
            n += 4
        return n


@dataclass
class Scene:
    """
    One noiseless piece of sky seen by both surveys.

    Parameters
    ----------
    rubin : ndarray of float16, shape (6, size / 2, size / 2)
        nJy per 0.2" pixel, clipped to +-60000.
    euclid : ndarray of float16, shape (4, size, size)
        nJy per 0.1" pixel, clipped likewise.
    rubin_psf : ndarray of float32, shape (6, 25, 25)
        PSFs as an observer would be told, a few per cent wrong in width.
    euclid_psf : ndarray of float32, shape (4, 33, 33)
        The same for Euclid.
    x, y : ndarray, shape (n,)
        Positions on the 0.1" grid (Euclid frame) of the sources in the scene and 1" around it.
    flux : ndarray, shape (n, 10)
        Total flux in nJy.
    norm : ndarray, shape (n, 10)
        Root of the summed squared profile (unit flux, per pixel): S/N = flux * norm / pixel noise.
    half_light_radius : ndarray, shape (n,)
        Intrinsic, circularised, in VIS, arcsec.
    e1, e2 : ndarray, shape (n,)
        Intrinsic ellipticity.
    is_star : ndarray of bool, shape (n,)
        Whether the source is a point.
    offset : ndarray, shape (2,)
        Shift in arcsec (x, y) of Rubin against Euclid.
    """

    rubin: np.ndarray
    euclid: np.ndarray
    rubin_psf: np.ndarray
    euclid_psf: np.ndarray
    x: np.ndarray
    y: np.ndarray
    half_light_radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    is_star: np.ndarray
    flux: np.ndarray
    norm: np.ndarray
    offset: np.ndarray

    def __len__(self):
        return len(self.x)


def make_scene(rng, config=None):
    """
    Draw one scene.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of randomness.
    config : `SceneConfig`, optional
        Settings.

    Returns
    -------
    `Scene`
    """
    config = config or SceneConfig()
    side = config.grid * OVERSAMPLED
    span = np.log(config.density_factor)
    population = {
        "density": config.density * np.exp(rng.uniform(-span, span)),
        "faint_limit": config.faint_limit,
        "large": config.large,
    }
    # Without them nothing is drawn, and a seed gives the scenes of before there were any.
    if config.compact:
        population["compact"] = config.compact * _COMPACT_FACTOR ** rng.uniform(-1, 1)
    if config.unusual and rng.random() < config.unusual:
        population |= _unusual(rng, config)
    return render_scene(rng, draw_sources(rng, (side / 60) ** 2, **population), config)


def _unusual(rng, config):
    """What an unusual scene has in place of the sky's population."""
    return {
        "density": config.density * np.exp(rng.uniform(*np.log(_UNUSUAL_DENSITY))),
        "star_fraction": rng.uniform(*_UNUSUAL_STARS),
        "thin": rng.uniform(*_UNUSUAL_THIN),
    }


def render_scene(rng, sources, config):
    """Draw given `Sources` (positions in arcsec from the corner of the oversampled grid) as a `Scene`."""
    n = config.grid
    offset = rng.uniform(-config.offset, config.offset, 2)
    library = PSFLibrary.shared(config.psf_seed, config.psf_sets)
    transfers, given = _psfs(rng, library, n, config)

    images = np.zeros((N_BANDS, n, n), np.float32)
    # Arcsec from the grid's lower edge to oversampled pixels.
    x, y = sources.x / OVERSAMPLED - 0.5, sources.y / OVERSAMPLED - 0.5
    for components, radii, kind in (
        (sources.bulge_flux, sources.bulge_radius, 4),
        (sources.disc_flux, sources.disc_radius, 1),
    ):
        for k in np.nonzero((components[:, 6] > 0) & ~sources.is_star)[0]:
            radius = radii[k] / OVERSAMPLED
            reach = _render.profile_reach(radius, components[k].max(), kind, 2.0) / np.sqrt(
                _render.axes(0.6 * sources.e1[k], 0.6 * sources.e2[k])[1]
            )
            _render.add_galaxy(
                images, x[k], y[k], radius, sources.e1[k], sources.e2[k], components[k], kind, reach=reach
            )
    stars = sources.is_star
    _render.add_points(images, x[stars], y[stars], sources.bulge_flux[stars])
    parent = sources.knot_parent
    _render.add_points(
        images,
        x[parent] + sources.knot_dx / OVERSAMPLED,
        y[parent] + sources.knot_dy / OVERSAMPLED,
        sources.knot_flux[parent] * sources.knot_weight[:, None],
    )

    rubin, euclid = _convolve(images, transfers, offset, config)
    margin = (n - 2 * config.size) // 2
    # Oversampled pixel m has its centre at 0.1" pixel (m - margin - 0.5) / 2.
    grid_x, grid_y = (x - margin - 0.5) / 2, (y - margin - 0.5) / 2
    inside = (grid_x > -10.5) & (grid_x < config.size + 9.5) & (grid_y > -10.5) & (grid_y < config.size + 9.5)
    kept = sources.select(inside)
    return Scene(
        rubin=rubin,
        euclid=euclid,
        rubin_psf=given[0],
        euclid_psf=given[1],
        x=grid_x[inside].astype(np.float32),
        y=grid_y[inside].astype(np.float32),
        half_light_radius=kept.half_light_radius.astype(np.float32),
        e1=kept.e1.astype(np.float32),
        e2=kept.e2.astype(np.float32),
        is_star=kept.is_star,
        flux=kept.flux.astype(np.float32),
        norm=_norms(kept, transfers, n),
        offset=offset.astype(np.float32),
    )


def _psfs(rng, library, n, config):
    """Transfer functions of the ten bands on the oversampled grid, and the PSFs that are given out."""
    half = n // 2
    transfers = np.zeros((N_BANDS, n, half + 1), np.complex64)
    coarse = draw_rubin_psfs(rng, half, 2 * OVERSAMPLED)
    index = rng.integers(len(library.vis))
    flips = rng.random(3) < 0.5
    vis, nisp = (_flip(psf[index], flips) for psf in (library.vis, library.nisp))
    nisp_transfer = fft.rfft2(fft.ifftshift(_fit(nisp, half), axes=(-2, -1)))
    # The coarse transfer functions fill the low frequencies; there is no power beyond.
    quarter = half // 2
    for band, otf in enumerate((*coarse, None, *nisp_transfer)):
        if otf is None:
            transfers[band] = fft.rfft2(fft.ifftshift(_fit(vis, n)))
            continue
        transfers[band, :quarter, : quarter + 1] = otf[:quarter]
        transfers[band, n - quarter :, : quarter + 1] = otf[quarter:]

    widths = 1 + np.clip(rng.normal(0, config.psf_error, N_BANDS), -0.15, 0.15)
    smooth = _render.SMOOTHING / 2
    fy, fx = frequencies(half, 2 * OVERSAMPLED)
    blur = np.exp(-2 * np.pi**2 * (smooth * 2 * OVERSAMPLED) ** 2 * (fx**2 + fy**2))
    rubin = fft.fftshift(fft.irfft2(coarse * blur, (half, half)), axes=(-2, -1))
    near = fft.fftshift(fft.irfft2(nisp_transfer * blur, (half, half)), axes=(-2, -1))
    middle = len(vis) // 2
    vis = gaussian_filter(
        vis[middle - 48 : middle + 49, middle - 48 : middle + 49], _render.SMOOTHING, truncate=6
    )
    rubin_psf = np.stack([_sample(psf, quarter, 25, 2 / w) for psf, w in zip(rubin, widths[:6], strict=True)])
    euclid_psf = np.stack(
        [_sample(vis, 48, 33, 2 / widths[6])]
        + [_sample(psf, quarter, 33, 1 / w) for psf, w in zip(near, widths[7:], strict=True)]
    )
    return transfers, (rubin_psf, euclid_psf)


def _flip(psf, flips):
    """Mirror PSFs about their central pixel, and swap their axes."""
    if flips[0]:
        psf = np.roll(psf[..., ::-1], 1, axis=-1)
    if flips[1]:
        psf = np.roll(psf[..., ::-1, :], 1, axis=-2)
    return np.swapaxes(psf, -1, -2) if flips[2] else psf


def _fit(psf, n):
    """Crop or pad PSFs that are centred on pixel size // 2 to (n, n), with sum 1."""
    size = psf.shape[-1]
    if size > n:
        start = size // 2 - n // 2
        psf = psf[..., start : start + n, start : start + n]
    elif size < n:
        out = np.zeros((*psf.shape[:-2], n, n), np.float32)
        start = n // 2 - size // 2
        out[..., start : start + size, start : start + size] = psf
        psf = out
    return psf / psf.sum(axis=(-2, -1), keepdims=True)


def _sample(psf, centre, size, step):
    """Sample a PSF image every ``step`` pixels about ``centre``; odd, sum 1."""
    reach = int(np.ceil(size // 2 * step)) + 4
    lower = max(centre - reach, 0)
    crop = psf[lower : centre + reach + 1, lower : centre + reach + 1]
    where = (np.arange(size) - size // 2) * step + centre - lower
    grid = np.meshgrid(where, where, indexing="ij")
    values = map_coordinates(crop.astype(np.float32), grid, order=3, mode="constant", output=np.float32)
    return values / values.sum()


def _convolve(images, transfers, offset, config):
    """Convolve with the PSFs, and sample at the pixel centres of the two grids."""
    n, size = config.grid, config.size
    margin = (n - 2 * size) // 2
    fy, fx = frequencies(n, 1.0)
    rubin = np.empty((N_RUBIN, size // 2, size // 2), np.float16)
    euclid = np.empty((N_BANDS - N_RUBIN, size, size), np.float16)
    for band in range(N_BANDS):
        is_rubin = band < N_RUBIN
        # A coarse pixel's centre lies between oversampled ones: move the sky there.
        shift = (1.5, 1.5) - offset / OVERSAMPLED if is_rubin else (0.5, 0.5)
        spectrum = fft.rfft2(images[band])
        spectrum *= transfers[band]
        spectrum *= np.exp((2j * np.pi * shift[1]) * fy)
        spectrum *= np.exp((2j * np.pi * shift[0]) * fx)
        step = 4 if is_rubin else 2
        image = fft.irfft2(spectrum, (n, n))[margin : n - margin : step, margin : n - margin : step]
        out = np.clip(image * step**2, -CLIP, CLIP)
        (rubin if is_rubin else euclid)[band if is_rubin else band - N_RUBIN] = out
    return rubin, euclid


def _norms(sources, transfers, n):
    """Root of the summed squared observed profile of unit flux, per band, by Parseval on a polar grid."""
    fx, fy, weight = _render.polar_grid()
    columns, rows = fx * n * OVERSAMPLED, fy * n * OVERSAMPLED
    sign = np.where(columns < 0, -1, 1)
    where = [(rows * sign) % n, columns * sign]
    power = np.empty((N_BANDS, len(fx)), np.float32)
    smooth = np.exp(-4 * np.pi**2 * (_render.SMOOTHING * OVERSAMPLED) ** 2 * (fx**2 + fy**2))
    for band in range(N_BANDS):
        square = transfers[band].real ** 2 + transfers[band].imag ** 2
        power[band] = map_coordinates(square, where, order=1, mode="grid-wrap")
        power[band] *= (0.2 if band < N_RUBIN else 0.1) ** 2 * weight * smooth
    total = sources.flux
    out = np.empty((len(sources), N_BANDS), np.float32)
    out[:] = np.sqrt(power.sum(axis=1))
    knots_of = np.split(
        np.arange(len(sources.knot_parent)), np.searchsorted(sources.knot_parent, np.arange(1, len(sources)))
    )
    for k in np.nonzero(~sources.is_star)[0]:
        shape = (sources.e1[k], sources.e2[k])
        share = np.stack([sources.bulge_flux[k], sources.disc_flux[k]], axis=1) / total[k][:, None]
        profile = share @ np.stack(
            [
                _render.sersic_transform(fx, fy, sources.bulge_radius[k], *shape, 4),
                _render.sersic_transform(fx, fy, sources.disc_radius[k], *shape, 1),
            ]
        )
        knots = knots_of[k]
        if len(knots):
            phase = fx[:, None] * sources.knot_dx[knots] + fy[:, None] * sources.knot_dy[knots]
            points = np.exp(-2j * np.pi * phase) @ sources.knot_weight[knots]
            profile = profile + (sources.knot_flux[k] / total[k])[:, None] * points
        out[k] = np.sqrt((power * (profile.real**2 + profile.imag**2)).sum(axis=1))
    return out


def _scene_of(args):
    sequence, config = args
    return make_scene(np.random.default_rng(sequence), config)


def make_scenes(n, config=None, *, seed=0, workers=1, progress=None):
    """
    Draw ``n`` scenes; scene ``i`` depends on ``seed``, ``i`` and ``config`` alone.

    Parameters
    ----------
    n : int
        Number of scenes.
    config : `SceneConfig`, optional
        Settings.
    seed : int, optional
        Seed.
    workers : int, optional
        Number of processes.
    progress : callable, optional
        Called with the number of scenes done and to do after each.

    Returns
    -------
    `SceneBank`
    """
    config = config or SceneConfig()
    tasks = [(child, config) for child in np.random.SeedSequence(seed).spawn(n)]
    scenes = []

    def collect(iterator):
        for scene in iterator:
            scenes.append(scene)
            if progress is not None:
                progress(len(scenes), n)

    if workers <= 1:
        collect(map(_scene_of, tasks))
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            collect(pool.map(_scene_of, tasks, chunksize=4))
    return SceneBank.from_scenes(scenes, config)


class SceneBank:
    """
    Many scenes as a few large arrays, in memory or mapped from a folder.

    ``bank[i]`` gives a `Scene`; ``len(bank)`` their number.

    Parameters
    ----------
    arrays : dict
        ``rubin``, ``euclid``, ``rubin_psf``, ``euclid_psf``, ``offset``, ``start`` (n + 1) and the
        concatenated columns of the sources.
    config : `SceneConfig`
        Settings with which the scenes were made.
    """

    def __init__(self, arrays, config):
        self.arrays = arrays
        self.config = config

    @classmethod
    def from_scenes(cls, scenes, config):
        """Collect a list of scenes."""
        arrays = {
            name: np.stack([getattr(scene, name) for scene in scenes])
            for name in ("rubin", "euclid", "rubin_psf", "euclid_psf", "offset")
        }
        arrays["start"] = np.cumsum([0, *(len(scene) for scene in scenes)])
        for name in _SOURCE_COLUMNS:
            arrays[name] = np.concatenate([getattr(scene, name) for scene in scenes])
        return cls(arrays, config)

    def __len__(self):
        return len(self.arrays["start"]) - 1

    def __getitem__(self, index):
        index = range(len(self))[index]
        part = slice(*self.arrays["start"][index : index + 2])
        images = {
            name: self.arrays[name][index]
            for name in ("rubin", "euclid", "rubin_psf", "euclid_psf", "offset")
        }
        return Scene(**images, **{name: self.arrays[name][part] for name in _SOURCE_COLUMNS})

    def save(self, folder):
        """Write to a folder, whole or not at all: one ``.npy`` per array, and ``config.json``."""
        with whole_folder(folder, "config.json") as partial:
            for name, array in self.arrays.items():
                np.save(partial / f"{name}.npy", array)
            (partial / "config.json").write_text(json.dumps(asdict(self.config), indent=1) + "\n")

    @classmethod
    def load(cls, folder):
        """Open a folder written by `save`; arrays are mapped, not read."""
        folder = Path(folder)
        try:
            config = SceneConfig.from_dict(json.loads((folder / "config.json").read_text()))
            names = ("rubin", "euclid", "rubin_psf", "euclid_psf", "offset", "start", *_SOURCE_COLUMNS)
            arrays = {
                name: np.load(folder / f"{name}.npy", mmap_mode="r" if name in ("rubin", "euclid") else None)
                for name in names
            }
        except (OSError, ValueError) as error:
            raise FileError(
                f"{folder} holds no scenes ({error}); make them with make_scenes(...).save(folder)"
            ) from None
        return cls(arrays, config)
