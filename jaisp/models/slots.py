# Licensed under a 3-clause BSD style license - see LICENSE
"""Object slots: what the decoder says of each query."""

import dataclasses
from dataclasses import dataclass

import torch

__all__ = ["Slots"]


@dataclass
class Slots:
    """
    Slots of a batch of tiles, as seen in one view.

    All are tensors whose first two axes are the tile (B) and the slot (N).

    Attributes
    ----------
    activity_logit : (B, N)
        Logit of the network's probability that the slot holds a source (not calibrated).
    x, y : (B, N)
        Position in 0.1 arcsec pixels of the tile, 0-based.
    x_err, y_err : (B, N)
        1 sigma of the position as the network sees it, pixels.
    flux : (B, N, 10)
        The network's estimate of the total fluxes, nJy: six of Rubin, four of Euclid. Meaningless where an
        image is far noisier or deeper than the surveys'.
    half_light_radius : (B, N)
        Intrinsic, arcsec.
    e1, e2 : (B, N)
        Ellipticity (1 - q) / (1 + q) along and at 45 degrees from the x axis.
    star_logit : (B, N)
        Logit of being a point source.
    embedding : (B, N, d)
        Unit vectors, free of position.
    valid : (B, N)
        False for queries without a proposal.
    n_proposals : (B,)
        Peaks above the proposal threshold, which may be more than there are slots.
    """

    activity_logit: torch.Tensor
    x: torch.Tensor
    y: torch.Tensor
    x_err: torch.Tensor
    y_err: torch.Tensor
    flux: torch.Tensor
    half_light_radius: torch.Tensor
    e1: torch.Tensor
    e2: torch.Tensor
    star_logit: torch.Tensor
    embedding: torch.Tensor
    valid: torch.Tensor
    n_proposals: torch.Tensor

    @property
    def activity(self):
        """The network's probability that a slot holds a source; zero for queries without a proposal."""
        return torch.sigmoid(self.activity_logit) * self.valid

    def to_numpy(self):
        """Return a dictionary of float32 / bool / int numpy arrays."""
        arrays = {}
        for item in dataclasses.fields(self):
            value = getattr(self, item.name).detach().cpu()
            arrays[item.name] = (value.float() if value.is_floating_point() else value).numpy()
        return arrays
