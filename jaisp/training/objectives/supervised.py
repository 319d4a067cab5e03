# Licensed under a 3-clause BSD style license - see LICENSE
"""Detection and properties from simulated truth, and prediction between the surveys without it."""

import math
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from jaisp.models import DETRJEPA
from jaisp.models.inputs import VIEWS, crop_window
from jaisp.training.config import DataConfig, LossConfig
from jaisp.training.data import TileBatches, batch_loader, load_scenes
from jaisp.training.losses import heat_loss, jepa_loss, set_loss, view_snr
from jaisp.training.matching import match_truth
from jaisp.training.objectives import batch_numbers, check_side, start_model
from jaisp.training.regularizers import REGULARIZERS
from jaisp.training.validation import validate
from jaisp.training.windows import draw_windows, shift_positions, window_truth

__all__ = ["Supervised", "autocast", "slot_gauges"]

_STATISTICS_TILES = 96
_STATISTICS_SEED = 777
_WINDOW_SEED = 778


def autocast(precision, device):
    """Context in which the network runs in the precision that ``[optimizer]`` names; losses stay outside."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def slot_gauges(output):
    """Mean number of active slots, and of queries that had a proposal, of a tile."""
    n_tiles = len(output["valid"])
    active = (output["activity_logit"] > 0) & output["valid"]
    return {"n_objects": active.sum().item() / n_tiles, "n_queries": output["valid"].sum().item() / n_tiles}


class Supervised:
    """
    Set loss from simulated truth; from ``jepa_start`` on also JEPA between the slots of the two surveys.

    See `~jaisp.training.objectives.Objective` for the interface.
    """

    model_class, data_class, loss_class = DETRJEPA, DataConfig, LossConfig
    guards = MappingProxyType({"embedding_std": 0.05})
    match = staticmethod(match_truth)
    first_views = ("joint",)  # those that learn before ``jepa_start``

    def __init__(self, config, folder, *, rank=0, world_size=1, check=False, progress=None):
        self.config, self.check = config, check
        self.rank, self.world_size = rank, world_size
        self.model = start_model(config, self.model_class).to(memory_format=torch.channels_last)
        check_side(config.data, self.model)
        self.jepa_step = int(config.optimizer.jepa_start * config.optimizer.steps)
        self.banks = self.load_data(Path(config.data.cache or folder), progress)

    def load_data(self, folder, progress):
        """Scenes to train and to validate on."""
        data = self.config.data
        n_train = self.config.optimizer.batch_size if self.check else data.n_scenes
        n_validation = 2 if self.check else data.n_validation
        return [
            load_scenes(data, folder, seed=data.seed + k, n=n, progress=progress)
            for k, n in enumerate((n_train, n_validation))
        ]

    def dataset(self, bank, seed, **options):
        """Batches of tiles of a bank, by number."""
        return TileBatches(bank, batch_size=self.config.optimizer.batch_size, seed=seed, **options)

    def hidden(self):
        """Options of `dataset` that say what the network does not get to see in training."""
        loss = self.config.loss
        # JEPA needs both surveys of a tile; where there is none, dropout goes on.
        end = self.jepa_step * self.config.optimizer.accumulate * self.world_size if loss.jepa > 0 else None
        return {
            "band_dropout": loss.band_dropout,
            "survey_dropout": loss.survey_dropout,
            "survey_dropout_end": end,
        }

    def batches(self, first_step, last_step):
        """Batches of some steps, prepared ahead by worker processes."""
        optimizer = self.config.optimizer
        dataset = self.dataset(self.banks[0], optimizer.seed, **self.hidden())
        numbers = batch_numbers(optimizer, first_step, last_step, rank=self.rank, world_size=self.world_size)
        return batch_loader(dataset, numbers, workers=0 if self.check else self.config.data.workers)

    def losses(self, batch, step):
        """All terms of the objective for one batch, and gauges."""
        inputs, truth = self.model.prepare(self.shown(batch)), batch[1]
        loss_config, optimizer = self.config.loss, self.config.optimizer
        with_jepa = self.check or (step >= self.jepa_step and loss_config.jepa > 0)
        windows = self.windows(inputs, step) if with_jepa else {}
        terms, outputs = {}, {}
        for view in VIEWS if with_jepa else self.first_views:
            shown, there = inputs, truth
            if view in windows:
                shown, there = crop_window(inputs, windows[view]), window_truth(truth, windows[view])
            with autocast(optimizer.precision, inputs["rubin"].device):
                features = self.model.encode(shown, view)
                layers = self.model.decode(features)
            snr = self.view_snr(there, view)
            losses, _ = set_loss(layers, there, snr, loss_config, match=self.match)
            losses["heat"] = heat_loss(features["heat"], there, snr, loss_config)
            if view in windows:
                shift_positions(layers[-1], windows[view])
            share = (0.5 if view == "joint" else 0.25) if with_jepa else 1.0
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + share * value
            outputs[view] = layers[-1]
        gauges = slot_gauges(next(iter(outputs.values())))
        if with_jepa:
            self.model.heads.normalize(list(outputs.values()))
            losses, more = self.between_surveys(outputs, step)
            terms.update(losses)
            gauges.update(more)
        total = sum(getattr(loss_config, name) * value for name, value in terms.items())
        return total, terms, gauges

    def windows(self, inputs, step):
        """Windows of the tiles that the surveys' views are shown in a step."""
        rng = np.random.default_rng([self.config.optimizer.seed + _WINDOW_SEED, step])
        return draw_windows(inputs["euclid"].shape[-2:], self.config.loss.window, rng)

    def between_surveys(self, outputs, step):
        """Terms ``jepa`` and ``regularizer`` from the outputs of the three views, and gauges."""
        done = (step - self.jepa_step) / max(1, self.config.optimizer.steps - self.jepa_step)
        loss = self.config.loss
        ramp = {"both": min(1.0, max(0.0, 2 * done)), "position": 0.0, "similarity": 1.0}[loss.matching]
        return jepa_loss(
            self.model,
            outputs,
            similarity_weight=3.0 * ramp,
            position_weight=0.0 if loss.matching == "similarity" else 1.0,
            regularize=REGULARIZERS[loss.regularizer_kind],
        )

    def validate(self, model):
        """Detection F1 and what the embeddings know, on scenes not trained on, with statistics of its own."""
        if self.config.loss.jepa > 0:
            self._gather_statistics(model)
        return validate(model, self.banks[1], batch_size=self.config.optimizer.batch_size)

    @torch.no_grad()
    def _gather_statistics(self, model):
        """Statistics of the embeddings of averaged weights; those copied from the model were .3 sd off."""
        device, optimizer = next(model.parameters()).device, self.config.optimizer
        seed = optimizer.seed + _STATISTICS_SEED
        with model.heads.gather_statistics():
            for tiles in self.tiles(range(math.ceil(_STATISTICS_TILES / optimizer.batch_size)), seed):
                inputs = model.prepare({key: value.to(device) for key, value in tiles.items()})
                model.heads.normalize([model.decode(model.encode(inputs, view))[-1] for view in VIEWS])

    def tiles(self, numbers, seed):
        """What the network is shown of some batches, of training tiles with noise of another seed."""
        batches = self.dataset(self.banks[0], seed, band_dropout=self.config.loss.band_dropout)
        return (self.shown(batches[number]) for number in numbers)

    def shown(self, batch):
        """The part of a batch that the network is shown."""
        return batch[0]

    def view_snr(self, truth, view):
        """Signal to noise of the true sources in a view: (B, M)."""
        return view_snr(truth, view)
