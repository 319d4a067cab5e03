# Licensed under a 3-clause BSD style license - see LICENSE
"""ObjectJEPA: peaks of a probability map, cut out and encoded one by one."""

import torch
from torch import nn
from torch.nn import functional

from jaisp.models.backbone import Backbone
from jaisp.models.config import ObjectJEPAConfig
from jaisp.models.decoder import MAX_SHIFT, find_proposals
from jaisp.models.detrjepa import SlotHeads, SlotModel
from jaisp.models.inputs import N_CONDITIONS
from jaisp.models.layers import ChannelNorm, ConvBlock, FeedForward, LayerNorm
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["CUTOUT", "ObjectJEPA"]

#: Side of a cut-out in Euclid pixels: 3.2 arcsec, 16 Rubin pixels.
CUTOUT = 32


def cut_out(images, corner, side):
    """
    Square pieces of a batch of images, zero beyond their edges.

    Parameters
    ----------
    images : Tensor, shape (B, C, H, W)
    corner : Tensor of int, shape (3, K)
        Image, row and column of the first pixel; may lie up to ``side`` pixels outside.
    side : int
        Pixels.

    Returns
    -------
    Tensor, shape (K, C, side, side)
    """
    padded = functional.pad(images, (side, side, side, side))
    pieces = padded.unfold(2, side, 1).unfold(3, side, 1)  # a view: nothing is copied yet
    return pieces[corner[0], :, corner[1] + side, corner[2] + side]


class CutoutEncoder(nn.Module):
    """A CNN from the 3.2 arcsec around each peak, in all bands at once, to one vector a peak."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        c0, c1, c2 = config.cutout_channels
        dim = config.dim
        self.net = nn.Sequential(
            nn.Conv2d(3 * len(RUBIN.bands) + 4 * 3 * len(EUCLID.bands), c0, 3, padding=1),
            ConvBlock(c0),
            ChannelNorm(c0),
            nn.Conv2d(c0, c1, 2, stride=2),
            ConvBlock(c1),
            ConvBlock(c1),
            ChannelNorm(c1),
            nn.Conv2d(c1, c2, 2, stride=2),
            ConvBlock(c2),
            ConvBlock(c2),
            nn.Flatten(),
        )
        self.slot = FeedForward(c2 * (CUTOUT // 8) ** 2 + N_CONDITIONS + 1, 3 * dim // 2, dim)
        self.norm = LayerNorm(dim)
        self.place = nn.Linear(dim, 5)  # dx, dy, log errors, activity
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)

    def forward(self, features, window=None):
        """
        Cut out the peaks of ``features["heat"]`` and encode them.

        Returns
        -------
        list of dict
            One entry, as of the last layer of `~jaisp.models.decoder.Decoder`.
        """
        config = self.config
        score, peak, valid, n_proposals = find_proposals(
            features["heat"],
            config.n_queries,
            nms_size=config.nms_size,
            threshold=config.proposal_threshold,
            window=window,
        )
        tile, query = valid.nonzero(as_tuple=True)  # cut-outs of empty queries would be most of the work
        column, row = (peak[tile, query] / 2).long().unbind(-1)  # of the Rubin pixel
        corner = torch.stack([tile, row - CUTOUT // 4, column - CUTOUT // 4])
        maps = self.net(cut_out(features["images"], corner, CUTOUT // 2))
        known = torch.cat([features["condition"][tile], score[tile, query, None]], dim=-1)
        vectors = self.norm(self.slot(torch.cat([maps, known.to(maps.dtype)], dim=-1)))
        place = self.place(vectors).float()

        def spread(values, empty):
            full = values.new_full((*valid.shape, *values.shape[1:]), empty)
            return full.index_put((tile, query), values)

        # The middle of the cut-out, and not the peak, is what the encoder can measure from.
        middle = 2.0 * torch.stack([column, row], dim=-1) + 0.5
        position = middle + MAX_SHIFT * torch.tanh(place[:, :2] / MAX_SHIFT)
        return [
            {
                "slots": spread(vectors, 0.0),
                "position": torch.where(valid[..., None], spread(position, 0.0), peak),
                "error": spread(place[:, 2:4].clamp(-5, 3).exp(), 1.0),
                "activity_logit": spread(place[:, 4] + score[tile, query], -10.0),
                "valid": valid,
                "n_proposals": n_proposals,
            }
        ]


class ObjectJEPA(SlotModel):
    """
    Approach 2: a CNN finds, a CNN encodes cut-outs of what was found, position matches the surveys.

    A probability map of both surveys' images (the backbone of `~jaisp.models.DETRJEPA` without its
    transformer); its peaks are cut out, 32 x 32 Euclid pixels and the 16 x 16 Rubin pixels under them; a
    second CNN turns each cut-out into a slot. The objects of the two surveys are matched by position
    within a radius, and their embeddings trained to name one another (see `jaisp.training`). An object sees
    its own 3.2 arcsec and no other object.

    Parameters
    ----------
    config : `~jaisp.models.ObjectJEPAConfig`, optional
        Sizes; the default is that of the bundled weights.

    Examples
    --------
    >>> from jaisp.models import ObjectJEPA, ObjectJEPAConfig
    >>> model = ObjectJEPA(ObjectJEPAConfig.tiny())
    >>> model.config.match_radius
    0.5
    """

    config_class = ObjectJEPAConfig
    bundled_name = "object_jepa"

    def __init__(self, config=None):
        super().__init__()
        self.config = config or ObjectJEPAConfig()
        self.backbone = Backbone(self.config)
        self.decoder = CutoutEncoder(self.config)
        self.heads = SlotHeads(self.config)

    def features(self, inputs):
        """Heat map (B, 2H, 2W), and what the cut-outs need: images (B, 66, H, W) at 0.2" and conditions."""
        euclid = functional.pixel_unshuffle(inputs["euclid"], 2)
        return {
            "heat": self.backbone(inputs)["heat"],
            "images": torch.cat([inputs["rubin"], euclid], dim=1),
            "condition": torch.cat([inputs["rubin_condition"], inputs["euclid_condition"]], dim=1),
        }
