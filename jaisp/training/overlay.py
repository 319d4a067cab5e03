# Licensed under a 3-clause BSD style license - see LICENSE
"""Blends whose parts are known, without truth: a tile under a shifted copy of itself."""

import numpy as np
import torch

from jaisp.models.inputs import VIEWS
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["overlay_copies"]


def overlay_copies(tiles, targets, rng, probability, *, faintest=0.5):
    """
    Lay a shifted copy over each tile, and join what was found in both.

    The sum is a sky of twice the density, with the PSFs and the noise correlation of the tile. Its blends are
    known by their parts, and its noise is larger than that in which these were found.

    Parameters
    ----------
    tiles : dict of Tensor
        See `~jaisp.models.TILE_KEYS`.
    targets : dict of Tensor, shape (B, M)
        Of `~jaisp.training.proposals.find_sources`.
    rng : `numpy.random.Generator`
    probability : float
        That a tile gets a copy.
    faintest : float
        The copy's flux is that of the tile times a factor between this and 1.

    Returns
    -------
    tiles, targets : dict of Tensor
        Targets have 2 M entries; their significance is that over the noise of the tile alone.
    """
    size = tiles["euclid_snr"].shape[-1]
    shifts = rng.integers(0, size // 2, (len(targets["x"]), 2))  # of Rubin's pixels, two of Euclid's
    factor = rng.uniform(faintest, 1, len(shifts)) * (rng.random(len(shifts)) < probability)
    factor = torch.from_numpy(factor.astype(np.float32))
    tiles = dict(tiles)
    for survey, step in ((RUBIN, 1), (EUCLID, 2)):

        def copy(values, step=step):
            return torch.stack(
                [
                    image.roll((step * int(dy), step * int(dx)), dims=(-2, -1))
                    for image, (dx, dy) in zip(values, shifts, strict=True)
                ]
            )

        snr, valid = tiles[f"{survey.name}_snr"], tiles[f"{survey.name}_valid"]
        one = factor[:, None, None, None]
        both = valid & (copy(valid) | (one == 0))
        growth = (1 + one**2).sqrt()
        tiles[f"{survey.name}_snr"] = (snr + one * copy(snr)) / growth * both
        tiles[f"{survey.name}_valid"] = both
        tiles[f"{survey.name}_noise"] = tiles[f"{survey.name}_noise"] * growth[..., 0, 0]
    moved = torch.from_numpy(2 * shifts).float()
    joined = {
        name: torch.cat([targets[name], (targets[name] + moved[:, None, axis]) % size], dim=1)
        for axis, name in enumerate(("x", "y"))
    }
    for view in VIEWS:
        snr = targets[f"snr_{view}"]
        joined[f"snr_{view}"] = torch.cat([snr, factor[:, None] * snr], dim=1)
    return tiles, joined
