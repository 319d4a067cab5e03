# Licensed under a 3-clause BSD style license - see LICENSE
"""Building blocks: norms that look at one pixel only, and attention that sees relative sky positions only."""

import math

import torch
from torch import nn
from torch.nn import functional

__all__ = [
    "Attention",
    "ChannelNorm",
    "ConvBlock",
    "FeedForward",
    "LayerNorm",
    "TransformerLayer",
    "distances",
    "rotary_table",
]


def distances(first, second):
    """
    Distances between positions (B, N, 2) and (B, M, 2), to rounding.

    From 25 points on `torch.cdist` multiplies matrices by default, which loses 0.01 arcsec, and more for
    near pairs; what came out depended on the batch.
    """
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


class LayerNorm(nn.LayerNorm):
    """Layer norm in the precision of its input; autocast would copy everything to float32 and back."""

    def forward(self, values):
        """Normalise the last axis."""
        weight, bias = self.weight, self.bias
        if values.is_cuda:  # its kernel takes one type only
            weight, bias = weight.to(values.dtype), bias.to(values.dtype)
        with torch.autocast(values.device.type, enabled=False):
            return functional.layer_norm(values, self.normalized_shape, weight, bias, self.eps)


class ChannelNorm(nn.Module):
    """
    Layer norm over the channels of each pixel of a (B, C, H, W) map.

    Norms over pixels (batch or group norm) would let one bright star change the whole tile.
    """

    def __init__(self, channels):
        super().__init__()
        self.norm = LayerNorm(channels)

    def forward(self, maps):
        """Normalise each pixel of ``maps`` (B, C, H, W)."""
        return self.norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """Pre-activation residual 3 x 3 convolution."""

    def __init__(self, channels):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps):
        """Add one convolution to ``maps`` (B, C, H, W)."""
        return maps + self.conv(functional.gelu(self.norm(maps)))


class FeedForward(nn.Sequential):
    """Two-layer perceptron with a GELU."""

    def __init__(self, dim, hidden, out=None):
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out or dim))


def rotary_table(positions, head_dim, shortest):
    """
    Cosines and sines of the rotary position embedding (RoFormer, arXiv:2104.09864) in two dimensions.

    Parameters
    ----------
    positions : Tensor, shape (..., 2)
        Positions in arcsec.
    head_dim : int
        Channels of an attention head, a multiple of 4.
    shortest : float
        Shortest wavelength in arcsec; the longest is 100 arcsec.

    Returns
    -------
    Tensor, shape (2, ..., head_dim / 2)
    """
    n = head_dim // 4
    steps = torch.arange(n, device=positions.device, dtype=torch.float32) / max(n - 1, 1)
    frequencies = 2 * math.pi / (shortest * (100.0 / shortest) ** steps)
    angles = (positions[..., None].float() * frequencies).flatten(-2)
    return torch.stack([angles.cos(), angles.sin()])


def _rotate(values, table):
    """Rotate channel pairs of (B, heads, N, head_dim) by the table (2, B, N, head_dim / 2)."""
    cos, sin = table[0][:, None].to(values.dtype), table[1][:, None].to(values.dtype)
    first, second = values.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions: only pairs of positions matter, contents never hold one."""

    def __init__(self, dim):
        super().__init__()
        self.n_heads = dim // 32
        self.query, self.key_value, self.out = (
            nn.Linear(dim, dim),
            nn.Linear(dim, 2 * dim),
            nn.Linear(dim, dim),
        )

    def forward(self, slots, context, slot_table, context_table, bias=None):
        """Mix ``context`` (B, M, dim) into ``slots`` (B, N, dim); ``bias`` adds to the logits."""
        query = self._heads(self.query(slots), slot_table)
        key, value = self.key_value(context).chunk(2, dim=-1)
        key, value = self._heads(key, context_table), self._heads(value)
        if query.device.type == "cpu":  # where the backward pass takes three times as long in bfloat16
            query, key, value = query.float(), key.float(), value.float()
        with torch.autocast(query.device.type, enabled=False):  # it would undo this
            mixed = functional.scaled_dot_product_attention(
                query, key, value, attn_mask=None if bias is None else bias.to(query.dtype)
            )
        return self.out(mixed.transpose(1, 2).flatten(2))

    def weights(self, slots, context, slot_table, context_table, bias=None):
        """
        By how much each slot draws on each part of the context, (B, heads, N, M), 1 in sum over the last.

        `forward` never holds them, as its kernel does not; here they are worked out to be looked at.
        """
        query = self._heads(self.query(slots), slot_table)
        key = self._heads(self.key_value(context).chunk(2, dim=-1)[0], context_table)
        logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        return (logits if bias is None else logits + bias).float().softmax(dim=-1)

    def _heads(self, values, table=None):
        """Values (B, N, dim) as (B, heads, N, head_dim), rotated if a table is given."""
        batch, n, dim = values.shape
        values = values.view(batch, n, self.n_heads, dim // self.n_heads).transpose(1, 2)
        return values if table is None else _rotate(values, table)


class TransformerLayer(nn.Module):
    """Pre-norm self-attention and feed-forward layer of the ViT."""

    def __init__(self, dim):
        super().__init__()
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.attention, self.feed_forward = Attention(dim), FeedForward(dim, 2 * dim)

    def forward(self, tokens, table):
        """Update ``tokens`` (B, T, dim) at the positions of ``table``."""
        normed = self.norm1(tokens)
        tokens = tokens + self.attention(normed, normed, table, table)
        return tokens + self.feed_forward(self.norm2(tokens))
