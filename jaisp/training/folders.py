# Licensed under a 3-clause BSD style license - see LICENSE
"""Tiles of a user's own pairs of images, read once and kept in a cache."""

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaisp.exceptions import ConfigError, FileError, ImageError, JaispError
from jaisp.files import whole_folder
from jaisp.io import align, read_euclid, read_rubin
from jaisp.io.companions import without_companions
from jaisp.training._run_files import require_space
from jaisp.training.config import DataConfig

__all__ = ["FolderConfig", "TileBank", "find_pairs", "load_tiles", "turn_tile"]

logger = logging.getLogger(__name__)

_RUBIN_NAMES = ("rubin*.fits*", "*deep_coadd*.fits*")
_EUCLID_NAMES = ("euclid*.fits*", "EUC_MER_BGSUB-MOSAIC-*.fits*")
_LEAST_VALID = 0.3  # of the pixels of a survey's best band, for a tile to be of use


@dataclass(frozen=True)
class FolderConfig(DataConfig):
    """
    Own images to train on, or simulated scenes.

    Parameters
    ----------
    folder : str
        Holds one pair of images, or a folder for each pair. Rubin files are named ``rubin*.fits`` or
        ``*deep_coadd*.fits``, Euclid files ``euclid*.fits`` or ``EUC_MER_BGSUB-MOSAIC-*.fits``. Empty for
        simulated scenes.
    tile_size : int
        Side of the tiles cut from the images, in 0.1 arcsec pixels; a multiple of 16.
    validation_share : float
        Share of the tiles that are kept for the validation: whole stripes of each pair.
    """

    folder: str = ""
    tile_size: int = 256
    validation_share: float = 0.15

    def __post_init__(self):
        super().__post_init__()
        if self.tile_size < 64 or self.tile_size % 16:
            raise ConfigError(f"tile_size must be a multiple of 16, at least 64, not {self.tile_size}")
        if not 0 < self.validation_share < 1:
            raise ConfigError(f"validation_share must be between 0 and 1, not {self.validation_share}")
        if self.folder and (self.scenes != DataConfig().scenes or self.n_scenes != DataConfig().n_scenes):
            raise ConfigError(
                f"[data] folder = {self.folder!r} contradicts n_scenes and [data.scenes], which are for "
                "simulated scenes; leave one of them out"
            )


def find_pairs(folder):
    """
    Find the pairs of images in a folder.

    Parameters
    ----------
    folder : path-like
        See `FolderConfig`.

    Returns
    -------
    dict
        Name of each pair, and its Rubin and Euclid files: ``{name: (rubin, euclid)}``.

    Raises
    ------
    FileError
        If the folder is missing or holds no pair, or a pair lacks one survey.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise FileError(f"[data] folder {str(folder)!r} {what}")
    pairs = {}
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        rubin = _images(place, _RUBIN_NAMES, ("psf",))
        euclid = _images(place, _EUCLID_NAMES, ("rms", "flag", "psf"))
        if not rubin and not euclid:
            continue
        if not rubin or not euclid:
            has, lacks, names = (
                ("Euclid", "Rubin", _RUBIN_NAMES) if euclid else ("Rubin", "Euclid", _EUCLID_NAMES)
            )
            raise FileError(
                f"{str(place)!r} has images of {has} but none of {lacks} (looked for {', '.join(names)}); "
                "add them, or move the folder away"
            )
        pairs[place.name] = rubin, euclid
    if not pairs:
        raise FileError(
            f"[data] folder {str(folder)!r} holds no pair of images; put {', '.join(_RUBIN_NAMES)} and "
            f"{', '.join(_EUCLID_NAMES)} there, or into one folder for each pair"
        )
    return pairs


def _images(place, names, companions):
    """Files of these names in a folder, less those that are read along with others."""
    found = {str(path) for name in names for path in place.glob(name) if "_psf.fits" not in path.name}
    return [path for path, _ in without_companions([(path, None) for path in sorted(found)], companions)]


class TileBank:
    """
    Tiles as a few large arrays, mapped from a folder; ``bank[i]`` is a dict as `jaisp.io.Tile.arrays`.

    Parameters
    ----------
    arrays : dict of ndarray
        Each with the tiles on its first axis.
    """

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(self.arrays["rubin_noise"])

    def __getitem__(self, index):
        tile = {name: np.array(values[index]) for name, values in self.arrays.items()}
        return {
            name: values.astype(np.float32) if values.dtype == np.float16 else values
            for name, values in tile.items()
        }

    def save(self, folder):
        """Write one ``.npy`` for each array, and what says that they are whole: all of it or nothing."""
        with whole_folder(folder, "tiles.json") as partial:
            for name, values in self.arrays.items():
                np.save(partial / f"{name}.npy", values)
            (partial / "tiles.json").write_text(json.dumps({"names": sorted(self.arrays), "n": len(self)}))

    @classmethod
    def load(cls, folder):
        """Open what `save` wrote."""
        names = json.loads((folder / "tiles.json").read_text())["names"]
        return cls({name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names})


def load_tiles(config, cache, *, progress=None):
    """
    Cut the pairs of a folder into tiles, or take them from the cache.

    Parameters
    ----------
    config : `FolderConfig`
    cache : path-like
        Folder; the tiles of the same files, with those beside them, and settings are kept there.
    progress : callable, optional
        Called with the number of pairs done and to do.

    Returns
    -------
    training, validation : `TileBank`

    Raises
    ------
    `~jaisp.exceptions.JaispError`
        If a pair cannot be read, does not overlap, or has no usable pixel: with the pair's name.
    """
    pairs = find_pairs(config.folder)
    # With the RMS maps, masks and PSFs that the readers find beside the images.
    places = {Path(name).parent for pair in pairs.values() for group in pair for name in group}
    files = sorted(path for place in places for path in place.glob("*.fits*"))
    stamp = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(repr((stamp, config.tile_size, config.validation_share)).encode()).hexdigest()[:12]
    folders = [Path(cache) / f"tiles_{key}" / part for part in ("training", "validation")]
    if not all((folder / "tiles.json").is_file() for folder in folders):
        banks = _cut(pairs, config, progress)
        for bank, folder in zip(banks, folders, strict=True):
            n_bytes = sum(values.nbytes for values in bank.arrays.values())
            try:
                folder.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FileError(f"cannot make the cache {str(folder)!r}: {error.strerror}") from None
            require_space(folder.parent, n_bytes, f"{len(bank)} tiles")
            try:
                bank.save(folder)
            except OSError as error:
                raise FileError(f"cannot keep tiles in {str(folder)!r}: {error.strerror or error}") from None
    return [TileBank.load(folder) for folder in folders]


def _cut(pairs, config, progress):
    """Tiles of all pairs, as banks for training and validation."""
    parts = [], []
    for number, (name, (rubin, euclid)) in enumerate(pairs.items()):
        try:
            pair = align(read_rubin(rubin), read_euclid(euclid), region="overlap")
        except JaispError as error:
            raise type(error)(f"pair {name!r}: {error}") from None
        tiles = [_packed(tile, name) for tile in pair.tiles(size=config.tile_size, halo=0)]
        tiles = [tile for tile in tiles if tile is not None]
        if not tiles:
            raise ImageError(
                f"pair {name!r} has no usable tile of {config.tile_size} pixels: less than "
                f"{_LEAST_VALID:.0%} of the pixels of one survey are valid (not masked, not NaN)"
            )
        # The last ones: a stripe along an edge, so that few pixels border on those of training.
        n_validation = round(config.validation_share * len(tiles))
        parts[0].extend(tiles[: len(tiles) - n_validation])
        parts[1].extend(tiles[len(tiles) - n_validation :])
        if progress is not None:
            progress(number + 1, len(pairs))
    if not parts[0]:
        raise ConfigError(
            f"validation_share = {config.validation_share} of {len(parts[1])} tiles of {config.tile_size} "
            "pixels leaves none to train on; give a smaller share, more images, or a smaller tile_size"
        )
    if len(parts[1]) < 2:  # too few to spare a stripe of any pair
        moved = parts[0][-2:]
        if len(parts[0]) < 4:
            raise ImageError(
                f"{len(parts[0]) + len(parts[1])} tiles of {config.tile_size} pixels are too few to "
                "train on; give more images, or a smaller tile_size"
            )
        parts = parts[0][:-2], parts[1] + moved
    logger.info("%d tiles to train on, %d to validate", *(len(part) for part in parts))
    return [TileBank({key: np.stack([tile[key] for tile in part]) for key in part[0]}) for part in parts]


def _packed(tile, name):
    """Arrays of a tile with half-precision images; None if one survey hardly has a valid pixel."""
    arrays = dict(tile.arrays)
    for survey in ("rubin", "euclid"):
        snr = arrays[f"{survey}_snr"]
        if not np.isfinite(snr).all() or not np.isfinite(arrays[f"{survey}_noise"]).all():
            raise ImageError(
                f"pair {name!r}: {tile!r} has pixels that are not finite; mask them in the files"
            )
        if arrays[f"{survey}_valid"].mean((1, 2)).max() < _LEAST_VALID:
            return None
        arrays[f"{survey}_snr"] = np.clip(snr, -6e4, 6e4).astype(np.float16)
    return arrays


def turn_tile(tile, rng):
    """One of the eight flips and turns of a tile, at random."""
    flips = rng.random(3) < 0.5
    turned = {}
    for name, values in tile.items():
        if values.ndim == 3:
            if flips[0]:
                values = values[..., ::-1]
            if flips[1]:
                values = values[..., ::-1, :]
            if flips[2]:
                values = np.swapaxes(values, -1, -2)
            values = np.ascontiguousarray(values)
        turned[name] = values
    return turned
