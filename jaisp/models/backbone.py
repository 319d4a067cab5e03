# Licensed under a 3-clause BSD style license - see LICENSE
"""From the images of both surveys to tokens, a fine feature map and a heat map of sources."""

import torch
from torch import nn
from torch.nn import functional

from jaisp.models.inputs import N_CONDITIONS
from jaisp.models.layers import ChannelNorm, ConvBlock, LayerNorm, TransformerLayer, rotary_table
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["Backbone", "token_positions"]

PIXEL = 0.1  # arcsec


def token_positions(batch, rows, columns, device, size=1.6):
    """Centres of the tokens in arcsec from the tile's corner, shape (B, rows * columns, 2) as (x, y)."""
    y, x = torch.meshgrid(
        (torch.arange(rows, device=device) + 0.5) * size,
        (torch.arange(columns, device=device) + 0.5) * size,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2).expand(batch, -1, -1)


class Backbone(nn.Module):
    """
    Band stems of both surveys, summed on one 0.2 arcsec map; a convolutional pyramid; a ViT; and back up.

    Missing bands enter as zeros with their validity channel at zero, so that any subset works and
    the sum over bands is a sum of evidence. Depth and PSF size modulate the features (FiLM,
    arXiv:1709.07871).
    """

    def __init__(self, config):
        super().__init__()
        c0, c1, c2 = config.channels
        self.patch_size = config.patch_size
        self.stride = config.patch_size // 8  # from the map at 0.8" to the tokens
        self.fine_channels = c0 + c0 // 2
        dim = config.dim
        self.rubin_stem = nn.Conv2d(3 * len(RUBIN.bands), c0, 3, padding=1)
        self.euclid_stem = nn.Conv2d(4 * 3 * len(EUCLID.bands), c0, 3, padding=1)
        self.film = nn.Sequential(nn.Linear(N_CONDITIONS, 64), nn.GELU(), nn.Linear(64, 2 * (c0 + dim)))
        self.level0 = nn.Sequential(ConvBlock(c0), ConvBlock(c0))
        self.down1 = nn.Sequential(ChannelNorm(c0), nn.Conv2d(c0, c1, 2, stride=2))
        self.level1 = nn.Sequential(ConvBlock(c1), ConvBlock(c1))
        self.down2 = nn.Sequential(ChannelNorm(c1), nn.Conv2d(c1, c2, 2, stride=2))
        self.level2 = nn.Sequential(ConvBlock(c2), ConvBlock(c2))
        self.down3 = nn.Sequential(ChannelNorm(c2), nn.Conv2d(c2, dim, self.stride, stride=self.stride))
        self.layers = nn.ModuleList([TransformerLayer(dim) for _ in range(config.n_backbone_layers)])
        self.norm = LayerNorm(dim)
        self.up2, self.up1 = nn.Conv2d(dim, c2, 1), nn.Conv2d(c2, c1, 1)
        self.up0, self.lateral0 = nn.Conv2d(c1, self.fine_channels, 1), nn.Conv2d(c0, self.fine_channels, 1)
        self.merge2, self.merge1 = ConvBlock(c2), ConvBlock(c1)
        self.merge0 = nn.Sequential(ConvBlock(self.fine_channels), ConvBlock(self.fine_channels))
        # Four values a pixel of 0.2": the heat map has the 0.1" pixels of VIS, which resolves close pairs.
        self.heat = nn.Sequential(ChannelNorm(self.fine_channels), nn.Conv2d(self.fine_channels, 4, 1))
        nn.init.constant_(self.heat[-1].bias, -5.0)

    def forward(self, inputs):
        """
        Encode image channels made by `~jaisp.models.inputs.network_inputs`.

        Returns
        -------
        dict
            ``tokens`` (B, T, dim), ``token_positions`` (B, T, 2) arcsec, ``fine`` (B, C, H, W) at 0.2",
            ``heat`` (B, 2H, 2W) logits at 0.1".
        """
        condition = torch.cat([inputs["rubin_condition"], inputs["euclid_condition"]], dim=1)
        c0 = self.rubin_stem.out_channels
        film = self.film(condition)
        scale0, shift0, scale_t, shift_t = film.split(
            [c0, c0, self.norm.normalized_shape[0], self.norm.normalized_shape[0]], dim=1
        )
        rubin = inputs["rubin"].to(memory_format=torch.channels_last)
        euclid = functional.pixel_unshuffle(inputs["euclid"], 2).to(memory_format=torch.channels_last)
        maps = self.rubin_stem(rubin) + self.euclid_stem(euclid)
        maps = maps * (1 + scale0[:, :, None, None]) + shift0[:, :, None, None]
        maps0 = self.level0(maps)
        maps1 = self.level1(self.down1(maps0))
        maps2 = self.level2(self.down2(maps1))
        coarse = self.down3(maps2)
        batch, dim, rows, columns = coarse.shape
        tokens = coarse.flatten(2).transpose(1, 2)
        tokens = tokens * (1 + scale_t[:, None]) + shift_t[:, None]
        size = PIXEL * self.patch_size
        positions = token_positions(batch, rows, columns, tokens.device, size)
        table = rotary_table(positions, 32, 2 * size)
        for layer in self.layers:
            tokens = layer(tokens, table)
        tokens = self.norm(tokens)
        coarse = tokens.transpose(1, 2).reshape(batch, dim, rows, columns)

        def up(values, factor=2):
            return functional.interpolate(values, scale_factor=factor, mode="nearest")

        maps2 = self.merge2(maps2 + up(self.up2(coarse), self.stride))
        maps1 = self.merge1(maps1 + up(self.up1(maps2)))
        fine = self.merge0(self.lateral0(maps0) + up(self.up0(maps1)))
        heat = functional.pixel_shuffle(self.heat(fine).float(), 2)[:, 0]
        return {"tokens": tokens, "token_positions": positions, "fine": fine, "heat": heat}
