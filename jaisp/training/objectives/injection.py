# Licensed under a 3-clause BSD style license - see LICENSE
"""Mode C: weights adapted to a user's own images, by sources injected into them."""

from dataclasses import dataclass

import numpy as np
import torch

from jaisp.exceptions import ConfigError
from jaisp.models import band_dropout
from jaisp.surveys import EUCLID, RUBIN
from jaisp.training.config import LossConfig
from jaisp.training.data import TileBatches, pad_truth
from jaisp.training.folders import FolderConfig, load_tiles, turn_tile
from jaisp.training.injection import inject_sources
from jaisp.training.losses import view_snr
from jaisp.training.objectives.supervised import Supervised
from jaisp.training.proposals import find_sources
from jaisp.training.validation import validate

__all__ = ["Injection", "InjectionData", "InjectionTiles"]


@dataclass(frozen=True)
class InjectionData(FolderConfig):
    """
    Own images into which sources are injected.

    Parameters
    ----------
    density : float
        Mean number of injected sources per square arcminute brighter than VIS 26.5; the sky has about 100.
    faint_limit : float
        VIS magnitude of the faintest.
    """

    density: float = 60.0
    faint_limit: float = 27.5

    def __post_init__(self):
        super().__post_init__()
        if not self.folder:
            raise ConfigError('objective "injection" needs [data] folder: the images to inject sources into')
        if self.density <= 0:
            raise ConfigError(f"density must be positive, not {self.density}")


class InjectionTiles(TileBatches):
    """
    Batches of real tiles with injected sources.

    Items are ``(tiles, truth)`` as of `TileBatches`; ``truth`` also holds what the tiles had before,
    ``unlabelled`` (B, M): places that may hold a source, of which nothing is known.
    """

    def __init__(self, bank, *, density, faint_limit, **options):
        super().__init__(bank, **options)
        self.density, self.faint_limit = density, faint_limit

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        tiles, truths, keeps = [], [], []
        for index in self._numbers(rng, step):
            before = turn_tile(self.bank[int(index)], rng)
            tile, truth = inject_sources(before, rng, density=self.density, faint_limit=self.faint_limit)
            tiles.append(tile)
            truths.append(_with_unlabelled(truth, before))
            keeps.append(self._dropout(rng, step))
        tiles = {key: torch.from_numpy(np.stack([tile[key] for tile in tiles])) for key in tiles[0]}
        keep = torch.from_numpy(np.stack(keeps))
        tiles = band_dropout(tiles, {RUBIN.name: keep[:, :6], EUCLID.name: keep[:, 6:]})
        return tiles, pad_truth(truths, keeps, tiles["euclid_snr"].shape[-1])


def _with_unlabelled(truth, tile):
    """Append the peaks of the tile's own matched filter, each at an S/N that is neither found nor missed."""
    found = find_sources({name: torch.from_numpy(values)[None] for name, values in tile.items()})
    peaks = (found["snr_joint"][0] > 0).numpy()
    n = int(peaks.sum())
    more = {name: np.zeros((n, *values.shape[1:]), values.dtype) for name, values in truth.items()}
    more["x"], more["y"] = (found[name][0].numpy()[peaks] for name in ("x", "y"))
    more["band_snr"][:] = 4 / np.sqrt(10)  # 4 in all
    joined = {name: np.concatenate([values, more[name]]) for name, values in truth.items()}
    joined["unlabelled"] = np.arange(len(joined["x"])) >= len(truth["x"])
    return joined


class Injection(Supervised):
    """
    The supervised objective on injected sources; what the images hold already is neither right nor wrong.

    See `~jaisp.training.objectives.Objective` for the interface.
    """

    data_class, loss_class = InjectionData, LossConfig

    def load_data(self, folder, progress):
        """Tiles of the user's pairs."""
        return load_tiles(self.config.data, folder, progress=progress)

    def dataset(self, bank, seed, **options):
        """Batches of tiles of a bank with sources put in, by number."""
        data, batch_size = self.config.data, self.config.optimizer.batch_size
        return InjectionTiles(
            bank,
            density=data.density,
            faint_limit=data.faint_limit,
            batch_size=batch_size,
            seed=seed,
            **options,
        )

    def view_snr(self, truth, view):
        """Signal to noise in a view, such that unlabelled places are ignored."""
        loss = self.config.loss
        between = 0.5 * (loss.positive_snr + loss.ignore_snr)
        return torch.where(truth["unlabelled"], between, view_snr(truth, view))

    def validate(self, model):
        """Scores of the injected sources alone, and what the embeddings know of them."""
        if self.config.loss.jepa > 0:
            self._gather_statistics(model)
        return validate(model, self.dataset(self.banks[1], 987, in_order=True))
