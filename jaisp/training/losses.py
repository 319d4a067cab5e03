# Licensed under a 3-clause BSD style license - see LICENSE
"""The objective: detection and properties of slots from truth, prediction between surveys without it."""

import torch
from torch.nn import functional

from jaisp.surveys import RUBIN
from jaisp.training.matching import match_surveys, match_truth
from jaisp.training.regularizers import sigreg

__all__ = [
    "heat_loss",
    "jepa_loss",
    "position_loss",
    "readout_loss",
    "set_loss",
    "similarities",
    "view_snr",
]


def view_snr(truth, view):
    """Signal to noise of the true sources in a view, from the bands that the tile kept: (B, M)."""
    squares = truth["band_snr"].square()
    if view == "rubin":
        squares = squares[..., :6]
    elif view == "euclid":
        squares = squares[..., 6:]
    return squares.sum(-1).sqrt()


def heat_loss(logits, truth, snr, config, *, reach=4):
    """
    Penalty-reduced focal loss of the heat map (CenterNet, arXiv:1904.07850).

    Parameters
    ----------
    logits : Tensor, shape (B, H, W)
    truth : dict of Tensor
        Padded truth.
    snr : Tensor, shape (B, M)
        Signal to noise in this view.
    config : `~jaisp.training.config.LossConfig`
    reach : int
        Half-width in pixels of the Gaussian target.
    """
    batch, height, width = logits.shape
    offsets = torch.arange(-reach, reach + 1, device=logits.device)
    column = truth["x"].round().long()[..., None, None] + offsets
    row = truth["y"].round().long()[..., None, None] + offsets[:, None]
    column, row = torch.broadcast_tensors(column, row)
    distance2 = (column - truth["x"][..., None, None]) ** 2 + (row - truth["y"][..., None, None]) ** 2
    # The worse a position can be known, the wider the target.
    sigma = (0.8 + 4.0 / snr.clamp_min(3.0)).clamp_max(2.0)[..., None, None]
    values = torch.exp(-0.5 * distance2 / sigma**2)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    tile = torch.arange(batch, device=logits.device)[:, None, None, None] * height * width
    index = (tile + row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).flatten()

    def paint(chosen):
        painted = torch.zeros(batch * height * width, device=logits.device)
        weights = values * (chosen[..., None, None] & inside)
        return painted.scatter_reduce_(0, index, weights.flatten(), "amax").view_as(logits)

    positive = snr > config.positive_snr
    target = paint(positive)
    ignored = paint((snr > config.ignore_snr) & ~positive)
    x, y = truth["x"].round().long(), truth["y"].round().long()
    centre = positive & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    tiles = torch.arange(batch, device=logits.device)[:, None].expand_as(x)
    hits = torch.zeros_like(logits, dtype=torch.bool)
    hits[tiles[centre], y[centre], x[centre]] = True
    probability = torch.sigmoid(logits)
    away = (1 - target).pow(4) * (1 - ignored).pow(4) * probability.square() * functional.softplus(logits)
    at = (1 - probability).square() * functional.softplus(-logits)
    return torch.where(hits, at, away).sum() / hits.sum().clamp_min(1)


def set_loss(layers, truth, snr, config, *, match=match_truth):
    """
    Set-prediction loss of DETR (arXiv:2005.12872), with an auxiliary loss at every layer.

    Parameters
    ----------
    layers : list of dict
        Outputs of the decoder layers.
    truth : dict of Tensor
        Padded truth.
    snr : Tensor, shape (B, M)
        Signal to noise in this view.
    config : `~jaisp.training.config.LossConfig`
    match : callable
        What matches slots to sources, called as `~jaisp.training.matching.match_truth` is.

    Returns
    -------
    losses : dict of Tensor
        ``activity``, ``position``, ``flux``, ``shape``, ``star``.
    matched : tuple of Tensor
        Slots and sources of the last layer's matches.
    """
    losses = dict.fromkeys(("activity", "position", "flux", "shape", "star"), 0.0)
    for output in layers:
        slot, source = match(output, truth, snr=snr)
        matched_snr = snr[source[0], source[1]]
        is_positive = matched_snr > config.positive_snr
        target = torch.zeros_like(output["activity_logit"])
        weight = output["valid"].float()
        target[slot[0], slot[1]] = is_positive.float()
        uncertain = (matched_snr > config.ignore_snr) & ~is_positive
        weight[slot[0][uncertain], slot[1][uncertain]] = 0
        count = is_positive.sum().clamp_min(1)
        bce = functional.binary_cross_entropy_with_logits(output["activity_logit"], target, reduction="none")
        losses["activity"] = losses["activity"] + (bce * weight).sum() / count
        found = matched_snr > config.ignore_snr
        if "unlabelled" in truth:  # there may be a source, but nothing is known of it
            found = found & ~truth["unlabelled"][source[0], source[1]]
        slot, source = slot[:, found], source[:, found]
        losses["position"] = losses["position"] + position_loss(output, truth, slot, source).sum() / count
    output = layers[-1]
    values = {
        key: output[key][slot[0], slot[1]]
        for key in ("flux_asinh", "log_radius", "ellipticity", "star_logit")
    }
    true = {
        key: truth[key][source[0], source[1]]
        for key in ("flux_asinh", "log_radius", "ellipticity", "is_star")
    }
    flux = functional.smooth_l1_loss(values["flux_asinh"], true["flux_asinh"], reduction="none", beta=0.3)
    losses["flux"] = flux.mean(-1).sum() / count
    galaxy = ~true["is_star"]
    size = functional.smooth_l1_loss(values["log_radius"], true["log_radius"], reduction="none", beta=0.3)
    shape = (values["ellipticity"] - true["ellipticity"]).abs().mean(-1)
    losses["shape"] = ((size + shape) * galaxy).sum() / count
    star = functional.binary_cross_entropy_with_logits(
        values["star_logit"], true["is_star"].float(), reduction="none"
    )
    losses["star"] = star.sum() / count
    return losses, (slot, source)


def position_loss(output, truth, slot, source):
    """
    Laplace negative log-likelihood of the places of matched sources: like L1, and teaches the error; plus L1.

    Parameters
    ----------
    output : dict
        A decoder layer's output.
    truth : dict of Tensor
        ``x``, ``y`` (B, M).
    slot, source : Tensor of int, shape (2, K)
        As from `~jaisp.training.matching.match_truth`.

    Returns
    -------
    Tensor, shape (K,)
    """
    place = torch.stack([truth["x"], truth["y"]], dim=-1)[source[0], source[1]]
    error = output["error"][slot[0], slot[1]]
    deviation = (output["position"][slot[0], slot[1]] - place).abs()
    return (deviation / error + error.log()).mean(-1) + deviation.mean(-1)


@torch.no_grad()
def similarities(first, second):
    """
    Gauges of embeddings of matched slots, (K, d) each.

    Mean cosine of rows that belong together (``similarity``), and of the others (``unmatched_similarity``);
    ``n_matched``, and the spread of the first, ``embedding_std``.
    """
    cosine = functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T
    n = len(cosine)
    own = cosine.diagonal().mean()
    return {
        "similarity": own.item(),
        "unmatched_similarity": ((cosine.sum() - n * own) / max(1, n * (n - 1))).item(),
        "n_matched": float(n),
        "embedding_std": first.std(0).mean().item(),
    }


def jepa_loss(model, outputs, *, similarity_weight, position_weight=1.0, regularize=sigreg):
    """
    Predictive loss between matched active slots of the two surveys, in both directions.

    The target's gradient is stopped: space images know more than ground images, and the better view
    should not be pulled down to the worse. The joint slots follow both; these do not follow them, since
    both are shown the same place (see `jaisp.training.windows`). The regulariser sees all active slots.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
    outputs : dict
        For each view, the output of the last decoder layer.
    similarity_weight, position_weight : float
        See `~jaisp.training.matching.match_surveys`.
    regularize : callable
        One of `~jaisp.training.regularizers.REGULARIZERS`.

    Returns
    -------
    losses : dict of Tensor
        ``jepa``, ``regularizer`` and ``readout``.
    gauges : dict of float
        ``similarity`` of matched slots, ``unmatched_similarity`` of different objects, ``n_matched``.
    """
    rubin, euclid = outputs["rubin"], outputs["euclid"]
    weights = {"similarity_weight": similarity_weight, "position_weight": position_weight}
    tile, i, j = match_surveys(rubin, euclid, **weights)
    z_rubin, z_euclid = rubin["projection"][tile, i], euclid["projection"][tile, j]
    if len(tile) < 8:
        zero = z_rubin.sum() * 0
        return {"jepa": zero, "regularizer": zero, "readout": zero}, {"n_matched": float(len(tile))}
    shift = euclid["position"][tile, j] - rubin["position"][tile, i]
    errors = torch.stack([rubin["error"][tile, i].mean(-1), euclid["error"][tile, j].mean(-1)], dim=-1)
    context = torch.cat([shift, errors.log()], dim=-1).detach()

    def distance(predicted, target):
        return (1 - functional.cosine_similarity(predicted, target, dim=-1)).mean()

    loss = 0.5 * (
        distance(model.predict_euclid(z_rubin, context), z_euclid.detach())
        + distance(model.predict_rubin(z_euclid, context), z_rubin.detach())
    )
    # Without a predictor too, so that embeddings of one object compare by plain cosine.
    loss = loss + 0.5 * distance(z_rubin, z_euclid)
    for single in (rubin, euclid):
        tile_s, k, joint_slot = match_surveys(single, outputs["joint"], **weights)
        loss = loss + 0.25 * distance(
            outputs["joint"]["projection"][tile_s, joint_slot], single["projection"][tile_s, k].detach()
        )
    gauges = similarities(z_rubin, z_euclid)
    active = [one["projection"][(one["activity_logit"] > 0) & one["valid"]] for one in (rubin, euclid)]
    regularizer = sum(regularize(one) for one in active) / len(active)
    readout = readout_loss(model, (z_rubin, z_euclid), _readout_targets(rubin, euclid, tile, i, j))
    return {"jepa": loss, "regularizer": regularizer, "readout": readout}, gauges


def _readout_targets(rubin, euclid, tile, i, j):
    """
    What two matched slots say of their object (K, 12): brightness, nine colours, size and kind.

    Each survey says its own fluxes, Euclid size and kind. Of ten fluxes one by one, the brightness that they
    share would be nearly all.
    """
    n = len(RUBIN.bands)
    fluxes = torch.cat([rubin["flux_asinh"][tile, i, :n], euclid["flux_asinh"][tile, j, n:]], dim=-1)
    size, star = euclid["log_radius"][tile, j], euclid["star_logit"][tile, j].sigmoid()
    brightness = fluxes.mean(dim=-1, keepdim=True)
    return torch.cat([brightness, fluxes.diff(dim=-1), size[:, None], star[:, None]], dim=-1).detach()


def readout_loss(model, embeddings, targets):
    """
    Read off each survey's embedding, by one linear map, what the slots of both say.

    A prediction between the surveys in plain terms: a Rubin embedding is to know Euclid's colours, size and
    kind. No truth enters, and the slots that are read are not changed.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
    embeddings : tuple of Tensor, shape (K, d) each
    targets : Tensor, shape (K, 12)
        Standardised here over the batch.
    """
    targets = functional.batch_norm(targets, None, None, training=True)
    scale = embeddings[0].shape[-1] ** 0.5  # embeddings are compared by their direction
    read = [model.readout(functional.normalize(one, dim=-1) * scale) for one in embeddings]
    return sum(functional.smooth_l1_loss(one, targets, beta=0.3) for one in read) / len(read)
