# Licensed under a 3-clause BSD style license - see LICENSE
"""Batches for training: a scene under fresh noise, with bands dropped, and its padded truth."""

import hashlib
import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from jaisp.exceptions import FileError
from jaisp.models.detrjepa import flux_units
from jaisp.models.inputs import band_dropout
from jaisp.simulation import NoiseBank, SceneBank, SceneConfig, draw_tile, make_scenes
from jaisp.surveys import EUCLID, RUBIN
from jaisp.training._run_files import require_space

__all__ = ["TileBatches", "batch_loader", "load_scenes", "pad_truth"]

logger = logging.getLogger(__name__)


def load_scenes(config, folder, *, seed, n, progress=None):
    """
    Load scenes from ``folder``, or draw and keep them there.

    Parameters
    ----------
    config : `~jaisp.training.config.DataConfig`
    folder : path-like
    seed, n : int
    progress : callable, optional
        Called with the number of scenes drawn and to draw.

    Returns
    -------
    `~jaisp.simulation.SceneBank`
    """
    folder = Path(folder) / f"scenes_{seed}_{n}{_settings_key(config.scenes)}"
    if (folder / "config.json").is_file():
        bank = SceneBank.load(folder)
        if bank.config == config.scenes and len(bank) == n:
            return bank
    logger.info("drawing %d scenes into %s", n, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Two bytes a pixel: six bands of Rubin on half the size, four of Euclid.
    require_space(folder.parent, int(1.02 * n * 11 * config.scenes.size**2), f"{n} scenes")
    bank = make_scenes(n, config.scenes, seed=seed, workers=max(config.workers, 1), progress=progress)
    try:
        bank.save(folder)
    except OSError as error:
        raise FileError(f"cannot write scenes into {str(folder)!r}: {error.strerror or error}") from None
    return SceneBank.load(folder)


def _settings_key(scenes):
    """End of a folder's name that tells settings apart, for runs that share a cache; none for the default."""
    default = asdict(SceneConfig())
    changed = {name: value for name, value in asdict(scenes).items() if value != default[name]}
    return f"_{hashlib.sha256(repr(changed).encode()).hexdigest()[:8]}" if changed else ""


def pad_truth(truths, keeps, size):
    """Stack truth of several tiles, padded; sources outside the tile are left out."""
    units = flux_units().numpy()
    kept = []
    for truth, keep in zip(truths, keeps, strict=True):
        inside = (np.abs(truth["x"] - (size - 1) / 2) < size / 2) & (
            np.abs(truth["y"] - (size - 1) / 2) < size / 2
        )
        chosen = np.flatnonzero(inside)
        kept.append(
            {
                "x": truth["x"][chosen],
                "y": truth["y"][chosen],
                "flux_asinh": np.arcsinh(truth["flux"][chosen] / units),
                "log_radius": np.log(np.maximum(truth["half_light_radius"][chosen], 0.03)),
                "ellipticity": np.stack([truth["e1"][chosen], truth["e2"][chosen]], axis=-1),
                "is_star": truth["is_star"][chosen],
                "band_snr": truth["band_snr"][chosen] * keep,
                **({"unlabelled": truth["unlabelled"][chosen]} if "unlabelled" in truth else {}),
            }
        )
    longest = max(1, *(len(item["x"]) for item in kept))
    padded = {}
    for name in kept[0]:
        first = kept[0][name]
        out = np.zeros((len(kept), longest, *first.shape[1:]), bool if first.dtype == bool else np.float32)
        for row, item in zip(out, kept, strict=True):
            row[: len(item[name])] = item[name]
        padded[name] = torch.from_numpy(out)
    return padded


class TileBatches(Dataset):
    """
    Batch ``step`` of a run: a pure function of the seed and the step, so that a resumed run sees the same.

    Items are ``(tiles, truth)``, with padded truth. What the network sees of the tiles is made on its device:
    a GPU would wait for cores that filter images. ``in_order`` takes tile after tile, as validation does: of
    tiles drawn at random some come twice, and would be each other's null. Then ``len`` is the number of
    batches that hold each tile once, the last of which may be smaller.
    """

    def __init__(
        self,
        bank,
        *,
        batch_size,
        seed,
        band_dropout=0.0,
        survey_dropout=0.0,
        survey_dropout_end=None,
        in_order=False,
    ):
        self.bank, self.batch_size, self.seed, self.in_order = bank, batch_size, seed, in_order
        self.band_dropout, self.survey_dropout = band_dropout, survey_dropout
        self.survey_dropout_end = survey_dropout_end
        self._noise = None

    def __len__(self):
        return -(-len(self.bank) // self.batch_size)

    def _dropout(self, rng, step):
        """Bands that a tile keeps, shape (10,)."""
        keep = np.ones(10, bool)
        if rng.random() < self.band_dropout:
            if rng.random() < 0.4:
                keep[7:] = False  # VIS without NISP is common
            else:
                keep = rng.random(10) > rng.uniform(0.1, 0.7)
                keep[rng.integers(10)] = True
        dropping = self.survey_dropout_end is None or step < self.survey_dropout_end
        if dropping and rng.random() < self.survey_dropout:
            kind = rng.integers(3)  # Rubin alone, Euclid alone, VIS alone
            chosen = (
                np.arange(10) < 6 if kind == 0 else np.arange(10) > 5 if kind == 1 else np.arange(10) == 6
            )
            keep = keep & chosen if (keep & chosen).any() else chosen
        return keep

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        if self._noise is None:  # made in the worker, so that it is not sent there
            self._noise = NoiseBank()
        arrays, truths, keeps = [], [], []
        for index in self._numbers(rng, step):
            tile, truth = draw_tile(self.bank[int(index)], rng, self._noise, cutouts=self.bank.config.cutouts)
            arrays.append(tile)
            truths.append(truth)
            keeps.append(self._dropout(rng, step))
        tiles = {key: torch.from_numpy(np.stack([tile[key] for tile in arrays])) for key in arrays[0]}
        keep = torch.from_numpy(np.stack(keeps))
        tiles = band_dropout(tiles, {RUBIN.name: keep[:, :6], EUCLID.name: keep[:, 6:]})
        return tiles, pad_truth(truths, keeps, tiles["euclid_snr"].shape[-1])

    def _numbers(self, rng, step):
        """Which tiles of the bank a batch is of."""
        if self.in_order:
            return np.arange(step * self.batch_size, min((step + 1) * self.batch_size, len(self.bank)))
        return rng.integers(0, len(self.bank), self.batch_size)


def _single_thread(_):
    torch.set_num_threads(1)


def batch_loader(dataset, steps, *, workers):
    """Yield ``dataset[step]`` for each of ``steps``, prepared ahead by ``workers`` processes."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_single_thread,
        pin_memory=torch.cuda.is_available(),  # so that copies to the device do not wait
    )
