# Licensed under a 3-clause BSD style license - see LICENSE
"""The DETR decoder: heat-map peaks become queries, queries become object slots."""

import torch
from torch import nn
from torch.nn import functional

from jaisp.models.layers import Attention, FeedForward, LayerNorm, distances, rotary_table

__all__ = ["Decoder", "find_proposals", "worth_a_query"]

PIXEL = 0.1  # arcsec: positions of slots are in pixels of the heat map
MAX_SHIFT = 4.0  # pixels that one decoder layer may move a slot
_SLOT_WAVELENGTH = 0.5  # arcsec: the finest relative position that slots tell apart by rotation


def worth_a_query(heat, *, nms_size=3, threshold=0.02):
    """
    Peaks of the heat map: pixels above a threshold that are the highest of the window around them.

    By maxima of shifted maps, since `torch.nn.functional.max_pool2d` is slow on a CPU.

    Parameters
    ----------
    heat : Tensor, shape (B, H, W)
        Logits.
    nms_size : int
        Side of the window, odd.
    threshold : float
        Probability.

    Returns
    -------
    Tensor of bool, shape (B, H, W)
    """
    heat = heat.detach()
    highest = heat
    for axis in (-1, -2):
        length = heat.shape[axis]
        pad = [nms_size // 2] * 2 if axis == -1 else [0, 0] + [nms_size // 2] * 2
        padded = functional.pad(highest, pad, value=-torch.inf)
        highest = padded.narrow(axis, 0, length)
        for step in range(1, nms_size):
            highest = torch.maximum(highest, padded.narrow(axis, step, length))
    return (heat == highest) & (heat > _logit(threshold))


def _logit(probability):
    return torch.logit(torch.tensor(probability)).item()


def find_proposals(heat, n_queries, *, nms_size=3, threshold=0.02, window=None):
    """
    Peaks of the heat map, highest first.

    Parameters
    ----------
    heat : Tensor, shape (B, H, W)
        Logits.
    n_queries : int
        Proposals to return for each tile.
    window : Tensor, shape (B, 4), optional
        ``x0, x1, y0, y1`` (half open, pixels): only peaks inside become queries.

    Returns
    -------
    score (B, N) logits, position (B, N, 2) as (x, y) pixels, valid (B, N), n_proposals (B,)
    """
    heat = heat.detach()
    height, width = heat.shape[-2:]
    peak = worth_a_query(heat, nms_size=nms_size, threshold=threshold)
    if window is not None:
        x = torch.arange(width, device=heat.device)
        y = torch.arange(height, device=heat.device)
        inside_x = (x >= window[:, :1]) & (x < window[:, 1:2])
        inside_y = (y >= window[:, 2:3]) & (y < window[:, 3:4])
        peak = peak & inside_y[:, :, None] & inside_x[:, None, :]
    n_proposals = peak.flatten(1).sum(1)
    scores = heat.masked_fill(~peak, -torch.inf).flatten(1)
    if scores.shape[1] < n_queries:
        scores = functional.pad(scores, (0, n_queries - scores.shape[1]), value=-torch.inf)
    score, index = scores.topk(n_queries, dim=1)
    valid = score > -torch.inf
    index = index.clamp_max(height * width - 1)
    position = torch.stack([index % width, index // width], dim=-1).float()
    return score.masked_fill(~valid, _logit(threshold)), position, valid, n_proposals


class DecoderLayer(nn.Module):
    """Self-attention among slots, cross-attention to tokens, and a fresh look at the fine map."""

    def __init__(self, dim, window_features):
        super().__init__()
        self.norm_self, self.norm_cross, self.norm_ff = (LayerNorm(dim) for _ in range(3))
        self.self_attention, self.cross_attention = Attention(dim), Attention(dim)
        self.window = nn.Linear(window_features, dim)
        self.feed_forward = FeedForward(dim, 2 * dim)
        self.distance_bias = FeedForward(3, 24, dim // 32)

    def forward(self, slots, position, gathered, features, valid, *, attention=False):
        """Refine ``slots`` (B, N, dim); also their attention to the tokens if asked for, else None."""
        arcsec = position * PIXEL
        distance = distances(arcsec, arcsec)
        near = torch.stack(
            [(distance + 0.05).log(), (-(distance**2) / 0.18).exp(), (-distance).exp()], dim=-1
        )
        bias = self.distance_bias(near).permute(0, 3, 1, 2)
        # A query without a proposal is seen by nobody; it still sees itself, so that no row is empty.
        unseen = ~valid[:, None, None, :] & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
        bias = bias.masked_fill(unseen, -1e4)
        table = rotary_table(arcsec, 32, _SLOT_WAVELENGTH)
        normed = self.norm_self(slots)
        slots = slots + self.self_attention(normed, normed, table, table, bias)
        tokens = (
            features["tokens"],
            rotary_table(arcsec, 32, 3.2),
            rotary_table(features["token_positions"], 32, 3.2),
        )
        normed = self.norm_cross(slots)
        weights = self.cross_attention.weights(normed, *tokens) if attention else None
        slots = slots + self.cross_attention(normed, *tokens)
        slots = slots + self.window(gathered)
        return slots + self.feed_forward(self.norm_ff(slots)), weights


class Decoder(nn.Module):
    """
    Image-conditioned queries: what a slot holds is gathered at its proposal, nothing is learned per slot.

    Learned constant queries would match across surveys by their number and not by what they see.
    """

    def __init__(self, config, fine_channels):
        super().__init__()
        self.config = config
        dim = config.dim
        features = fine_channels * config.window**2
        self.content = nn.Linear(features + dim + 1, dim)
        self.layers = nn.ModuleList([DecoderLayer(dim, features) for _ in range(config.n_decoder_layers)])
        self.norm = LayerNorm(dim)
        self.shift = FeedForward(dim, dim, 4)  # dx, dy, log errors
        self.activity = FeedForward(dim, dim, 1)
        nn.init.zeros_(self.shift[-1].weight)
        nn.init.zeros_(self.shift[-1].bias)

    def _gather(self, fine, position):
        """Fine features in a window around each position, bilinear: (B, N, window^2 * C)."""
        batch, channels, height, width = fine.shape
        side = self.config.window + 1
        corner = (position - 0.5) / 2 - self.config.window // 2  # 0.1" pixels to 0.2" pixels
        base = corner.floor()
        fraction = (corner - base).to(fine.dtype)[:, :, None, None, None, :]
        steps = torch.arange(side, device=fine.device)
        column = base[..., :1].long() + steps  # (B, N, side)
        row = base[..., 1:].long() + steps
        inside = ((row >= 0) & (row < height))[..., :, None] & ((column >= 0) & (column < width))[
            ..., None, :
        ]
        tile = torch.arange(batch, device=fine.device)[:, None, None, None] * height
        index = (tile + row.clamp(0, height - 1)[..., :, None]) * width
        index = index + column.clamp(0, width - 1)[..., None, :]
        # Rows of a channels-last map are picked whole; grid_sample would transpose the map each time.
        pixels = fine.permute(0, 2, 3, 1).reshape(-1, channels)
        values = pixels.index_select(0, index.flatten()).view(*index.shape, channels)
        values = values * inside[..., None]
        values = torch.lerp(values[:, :, :-1], values[:, :, 1:], fraction[..., 1])
        values = torch.lerp(values[:, :, :, :-1], values[:, :, :, 1:], fraction[..., 0])
        return values.flatten(2)

    def forward(self, features, window=None, *, attention=False):
        """
        Decode the slots of a batch of encoded tiles.

        Returns
        -------
        list of dict
            For each layer ``slots`` (B, N, dim), ``position`` (B, N, 2) pixels, ``error`` (B, N, 2)
            pixels, ``activity_logit`` (B, N); common to all ``valid``, ``n_proposals``; and with
            ``attention=True`` ``attention`` (B, N, rows, columns), by how much a slot drew on each token,
            the mean over the heads, 1 in sum.
        """
        config = self.config
        score, position, valid, n_proposals = find_proposals(
            features["heat"],
            config.n_queries,
            nms_size=config.nms_size,
            threshold=config.proposal_threshold,
            window=window,
        )
        gathered = self._gather(features["fine"], position)
        tokens = features["tokens"]
        patch = config.patch_size
        column = (position[..., 0] / patch).long()
        row = (position[..., 1] / patch).long()
        n_columns = features["heat"].shape[-1] // patch
        index = (row * n_columns + column).clamp(0, tokens.shape[1] - 1)
        coarse = tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))
        slots = self.content(torch.cat([gathered, coarse, score[..., None].to(coarse.dtype)], dim=-1))
        outputs = []
        for layer in self.layers:
            slots, weights = layer(slots, position, gathered, features, valid, attention=attention)
            normed = self.norm(slots)
            shift = self.shift(normed).float()
            position = position.detach() + MAX_SHIFT * torch.tanh(shift[..., :2] / MAX_SHIFT)
            outputs.append(
                {
                    "slots": normed,
                    "position": position,
                    "error": shift[..., 2:].clamp(-5, 3).exp(),
                    "activity_logit": self.activity(normed)[..., 0].float() + 0.5 * score,
                    "valid": valid,
                    "n_proposals": n_proposals,
                }
            )
            if attention:
                outputs[-1]["attention"] = weights.mean(dim=1).unflatten(-1, (-1, n_columns))
            gathered = self._gather(features["fine"], position.detach())
        return outputs
