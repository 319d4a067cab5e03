# Licensed under a 3-clause BSD style license - see LICENSE
"""The objective of PatchJEPA: two surveys' vectors of one sky together, of different skies apart."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from jaisp.exceptions import ConfigError
from jaisp.models import PatchJEPA
from jaisp.training.data import TileBatches
from jaisp.training.losses import similarities
from jaisp.training.objectives.objects import contrast
from jaisp.training.objectives.supervised import Supervised, autocast

__all__ = ["PatchLossConfig", "Patches"]


@dataclass(frozen=True)
class PatchLossConfig:
    """
    The contrastive loss of `~jaisp.models.PatchJEPA`.

    Parameters
    ----------
    temperature : float
        Divides the cosines.
    band_dropout : float
        Probability that a tile loses some of its bands.
    """

    temperature: float = 0.1
    band_dropout: float = 0.2

    def __post_init__(self):
        if self.temperature <= 0:
            raise ConfigError(f"temperature must be positive, not {self.temperature}")
        if not 0 <= self.band_dropout < 1:
            raise ConfigError(f"band_dropout must be in [0, 1), not {self.band_dropout}")


class Patches(Supervised):
    """
    Contrast between the surveys' vectors of the tiles of a batch; no truth enters.

    See `~jaisp.training.objectives.Objective` for the interface.
    """

    model_class, loss_class = PatchJEPA, PatchLossConfig
    guards = {}  # noqa: RUF012

    def hidden(self):
        """Options of `dataset` that say what the network does not get to see in training."""
        return {"band_dropout": self.config.loss.band_dropout}

    def losses(self, batch, step):
        """Contrastive loss of the tiles that both surveys see, and gauges."""
        vectors = self._vectors(self.model, self.shown(batch))
        rubin, euclid = (vectors[name] for name in ("rubin", "euclid"))
        if len(rubin) < 2:
            return 0 * (rubin.sum() + euclid.sum()), {"contrast": 0.0}, {}
        loss = contrast(rubin, euclid, temperature=self.config.loss.temperature)
        return loss, {"contrast": loss}, similarities(rubin, euclid)

    def _vectors(self, model, tiles):
        """Vectors of both surveys of the tiles in which neither lacks all bands."""
        both = (tiles["rubin_noise"] > 0).any(1) & (tiles["euclid_noise"] > 0).any(1)
        device = next(model.parameters()).device
        inputs = model.prepare({key: value[both].to(device) for key, value in tiles.items()})
        with autocast(self.config.optimizer.precision, inputs["rubin"].device):
            return {name: model.encode(inputs, name) for name in ("rubin", "euclid")}

    @torch.no_grad()
    def validate(self, model):
        """
        What the vectors of the validation tiles know of their sky.

        ``val/separation`` is the mean cosine of the two surveys' vectors of one sky less that of different
        skies; retrieval looks for the same sky among all validation tiles.
        """
        optimizer, bank = self.config.optimizer, self.banks[1]
        batches = TileBatches(bank, batch_size=optimizer.batch_size, seed=987, in_order=True)
        found = [self._vectors(model, batches[step][0]) for step in range(len(batches))]
        rubin, euclid = (
            functional.normalize(torch.cat([part[name] for part in found]), dim=-1)
            for name in ("rubin", "euclid")
        )
        values = similarities(rubin, euclid)
        top1 = ((rubin @ euclid.T).argmax(1) == torch.arange(len(rubin), device=rubin.device)).float().mean()
        return {
            "val/similarity": values["similarity"],
            "val/unmatched_similarity": values["unmatched_similarity"],
            "val/separation": values["similarity"] - values["unmatched_similarity"],
            "val/retrieval_top1": top1.item(),
            "val/retrieval_chance": 1 / len(rubin),
        }
