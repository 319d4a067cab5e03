# Licensed under a 3-clause BSD style license - see LICENSE
"""
What only ``ablations.py`` trains: learned queries, one survey alone, rendering without proposals.

All read their batches from the disk where a run before has drawn the same: drawing takes as long as a step of
a small model.
"""

import math
from pathlib import Path

import numpy as np
import torch
from torch import nn

from jaisp.files import atomic_path
from jaisp.models import DETRJEPA
from jaisp.models.layers import FeedForward, LayerNorm
from jaisp.training.config import LossConfig
from jaisp.training.matching import assign
from jaisp.training.objectives.labelfree import LabelFree
from jaisp.training.objectives.supervised import Supervised, autocast, slot_gauges

VIEWS = ("joint", "rubin", "euclid")


class Drawn(torch.utils.data.Dataset):
    """Batches of a dataset by number, kept in a folder."""

    def __init__(self, dataset, folder):
        self.dataset, self.folder = dataset, folder

    def __getitem__(self, number):
        path = self.folder / f"{number}.pt"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as partial:
                torch.save(self.dataset[number], partial)
        return torch.load(path)


class Shared(Supervised):
    """The supervised objective (mode B), on batches that all its variants share."""

    def dataset(self, bank, seed, **options):
        """Batches of a bank, from the disk if they are kept there."""
        data, folder = super().dataset(bank, seed, **options), self.config.data.cache
        if not folder:
            return data
        name = "_".join(str(value) for value in (len(bank), data.batch_size, seed, *options.values()))
        return Drawn(data, Path(folder) / "batches" / name)


class RubinAlone(Shared):
    """Every tile is shown without its Euclid bands."""

    first_views = ("rubin",)


class EuclidAlone(Shared):
    """Every tile is shown without its Rubin bands."""

    first_views = ("euclid",)


class LearnedDecoder(nn.Module):
    """
    The decoder as it is first drawn (DETR, arXiv:2005.12872): learned queries, free of position.

    Torch's own decoder layers over tokens with a sinusoidal position; positions are read from the slots.
    """

    def __init__(self, config):
        super().__init__()
        self.config, dim = config, config.dim
        self.queries = nn.Parameter(torch.randn(config.n_queries, dim))
        self.layers = nn.ModuleList(
            [
                nn.TransformerDecoderLayer(
                    dim, dim // 32, 2 * dim, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(config.n_decoder_layers)
            ]
        )
        self.norm = LayerNorm(dim)
        self.place, self.activity = FeedForward(dim, dim, 4), FeedForward(dim, dim, 1)

    def forward(self, features, window=None):
        """Slots of a batch; ``window`` is for queries that have a place, and does nothing here."""
        tokens, heat = features["tokens"], features["heat"]
        side = max(heat.shape[-2:])
        tokens = tokens + sinusoids(features["token_positions"], tokens.shape[-1])
        slots = self.queries.expand(len(tokens), -1, -1).to(tokens.dtype)
        outputs = []
        for layer in self.layers:
            slots = layer(slots, tokens)
            normed = self.norm(slots)
            place = self.place(normed).float()
            outputs.append(
                {
                    "slots": normed,
                    "position": side * torch.sigmoid(place[..., :2]),
                    "error": place[..., 2:].clamp(-5, 5).exp(),
                    "activity_logit": self.activity(normed).float()[..., 0],
                    "valid": torch.ones(slots.shape[:2], dtype=torch.bool, device=slots.device),
                    "n_proposals": torch.full((len(slots),), slots.shape[1], device=slots.device),
                }
            )
        return outputs


def sinusoids(positions, dim):
    """Sines and cosines of positions (B, T, 2) in arcsec: (B, T, dim)."""
    rates = 2 * math.pi / torch.logspace(math.log10(3.2), 2, dim // 4, device=positions.device)
    angles = (positions[..., None].float() * rates).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class LearnedModel(DETRJEPA):
    """DETR-JEPA with `LearnedDecoder`."""

    def __init__(self, config=None):
        super().__init__(config)
        self.decoder = LearnedDecoder(self.config)


@torch.no_grad()
def match_anywhere(output, truth, *, snr):
    """Match slots to sources as DETR does: probability and distance over the whole tile, no gate."""
    place = torch.stack([truth["x"], truth["y"]], dim=-1)
    distance = torch.cdist(output["position"].detach(), place, p=1) / 256
    cost = 5 * distance - torch.sigmoid(output["activity_logit"].detach())[..., None]
    cost, present = cost.cpu().numpy(), (snr > 0).cpu().numpy()
    pairs = []
    for tile in range(len(cost)):
        slot, source = assign(cost[tile], np.broadcast_to(present[tile], cost[tile].shape))
        pairs.append(np.stack([np.full_like(slot, tile), slot, source]))
    tile, slot, source = torch.from_numpy(np.concatenate(pairs, axis=1)).to(snr.device)
    return torch.stack([tile, slot]), torch.stack([tile, source])


class LearnedQueries(Shared):
    """Learned queries that are taught to detect, as DETR's are."""

    model_class = LearnedModel
    match = staticmethod(match_anywhere)


class Verbatim(Shared):
    """
    The first idea and nothing else: learned queries, all of them objects, matched by similarity, predicted.

    There is no truth in it, and nothing that says which slots are active.
    """

    model_class = LearnedModel

    def losses(self, batch, step):
        """Prediction between the surveys and the regulariser."""
        inputs, outputs = self.model.prepare(self.shown(batch)), {}
        for view in VIEWS:
            with autocast(self.config.optimizer.precision, inputs["rubin"].device):
                outputs[view] = self.model.decode(self.model.encode(inputs, view))[-1]
            outputs[view]["activity_logit"] = torch.ones_like(outputs[view]["activity_logit"])
        gauges = slot_gauges(outputs["joint"])
        self.model.heads.normalize(list(outputs.values()))
        terms, more = self.between_surveys(outputs, step)
        total = sum(getattr(self.config.loss, name) * value for name, value in terms.items())
        return total, terms, gauges | more


class Views(Shared):
    """Detection in all three views and nothing between them: what the predictive loss adds to."""

    loss_class = LossConfig

    def between_surveys(self, outputs, step):
        """Nothing."""
        zero = outputs["joint"]["projection"].sum() * 0
        return {"jepa": zero, "regularizer": zero}, {}


class RenderingOnly(LabelFree):
    """
    Mode A without its teacher: what the fit of both images needs is a source, wherever a slot happens to be.

    With ``confirm_start = 0``; queries come from a heat map that nothing but the fit teaches.
    """

    def losses(self, batch, step):
        """All terms of mode A; no proposal has any significance."""
        blank = {name: torch.zeros_like(values) for name, values in batch["targets"].items()}
        return super().losses({**batch, "targets": blank}, step)
