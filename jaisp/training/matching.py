# Licensed under a 3-clause BSD style license - see LICENSE
"""Hungarian matching: of slots to true sources, and of the slots of two surveys."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from jaisp.models.layers import distances

__all__ = ["assign", "match_surveys", "match_truth"]

_FAR = 1e6


def assign(cost, allowed):
    """
    One-to-one assignment of least cost among the allowed pairs.

    Parameters
    ----------
    cost : ndarray, shape (n, m)
    allowed : ndarray of bool, shape (n, m)

    Returns
    -------
    rows, columns : ndarray of int
    """
    rows, columns = linear_sum_assignment(np.where(allowed, cost, _FAR))
    keep = allowed[rows, columns]
    return rows[keep], columns[keep]


@torch.no_grad()
def match_truth(output, truth, *, snr, gate=6.0):
    """
    Match the slots of each tile to true sources.

    The cost is class + position in units of its expected error + brightness; the last stops
    blended neighbours from being swapped.

    Parameters
    ----------
    output : dict
        A decoder layer's output.
    truth : dict of Tensor
        Padded truth, with ``x``, ``y`` (B, M) and ``flux_asinh`` (B, M, 10).
    snr : Tensor, shape (B, M)
        Signal to noise of the sources in this view; zero for padding.
    gate : float
        Largest distance in 0.1" pixels.

    Returns
    -------
    slot, source : Tensor of int, shape (2, K) each
        Tile and index of the matched slots, and of their sources.
    """
    position = output["position"].detach()
    target = torch.stack([truth["x"], truth["y"]], dim=-1)
    distance = distances(position, target)
    # Expected error: VIS resolution over S/N, with a floor that tolerates the network's own error.
    scale = 0.4 + 6.0 / snr.clamp_min(3.0)
    cost = (
        0.5 * (distance / scale[:, None, :]).square().clamp_max(18.0)
        - torch.nn.functional.logsigmoid(output["activity_logit"].detach())[..., None]
    )
    if "flux_asinh" in output:
        cost = cost + 0.5 * torch.cdist(output["flux_asinh"].detach(), truth["flux_asinh"], p=1) / 10
    allowed = (distance < gate) & output["valid"][..., None] & (snr > 0)[:, None, :]
    cost, allowed = cost.float().cpu().numpy(), allowed.cpu().numpy()
    slots, sources = [], []
    for tile in range(len(cost)):
        rows, columns = assign(cost[tile], allowed[tile])
        slots.append(np.stack([np.full_like(rows, tile), rows]))
        sources.append(np.stack([np.full_like(columns, tile), columns]))
    device = position.device
    return (
        torch.from_numpy(np.concatenate(slots, axis=1)).to(device),
        torch.from_numpy(np.concatenate(sources, axis=1)).to(device),
    )


@torch.no_grad()
def match_surveys(rubin, euclid, *, similarity_weight, position_weight=1.0, gate=10.0):
    """
    Match the active slots of the two surveys, position-gated and free of truth.

    Similarity alone pairs few slots rightly at first, so its weight ramps up; a slot may stay
    unmatched when every partner is beyond the gate or the 99 % chi-square of the position.

    Parameters
    ----------
    rubin, euclid : dict
        Outputs of the last decoder layer, with ``projection``.
    similarity_weight : float
        Weight of ``1 - cosine`` against half the squared normalised distance.
    position_weight : float
        Weight of the latter. With 0 slots are matched by similarity alone, wherever they are.
    gate : float
        Largest distance in 0.1" pixels (1 arcsec).

    Returns
    -------
    tile, rubin_slot, euclid_slot : Tensor of int, shape (K,)
    """
    distance = distances(rubin["position"], euclid["position"])
    # 60 mas of offset between the surveys and the positional errors of both slots.
    variance = (
        0.6**2 + rubin["error"].square().mean(-1)[..., None] + euclid["error"].square().mean(-1)[:, None]
    )
    chi2 = distance.square() / variance
    normalize = torch.nn.functional.normalize
    cosine = normalize(rubin["projection"], dim=-1) @ normalize(euclid["projection"], dim=-1).transpose(1, 2)
    cost = 0.5 * position_weight * chi2 + similarity_weight * (1 - cosine)

    def active(output):
        return (output["activity_logit"] > 0) & output["valid"]

    allowed = active(rubin)[..., None] & active(euclid)[:, None]
    if position_weight:
        allowed = allowed & (distance < gate) & (chi2 < 9.21)
    cost, allowed = cost.float().cpu().numpy(), allowed.cpu().numpy()
    pairs = []
    for tile in range(len(cost)):
        rows, columns = assign(cost[tile], allowed[tile])
        pairs.append(np.stack([np.full_like(rows, tile), rows, columns]))
    return torch.from_numpy(np.concatenate(pairs, axis=1)).to(distance.device)
