# Licensed under a 3-clause BSD style license - see LICENSE
"""Gauges on validation scenes: detection F1, and what the embeddings know against their nulls."""

from dataclasses import fields

import numpy as np
import torch
from torch.nn import functional

from jaisp.evaluation import (
    Objects,
    effective_rank,
    match_by_similarity,
    match_on_sky,
    retrieval,
    true_pairs,
)
from jaisp.models.decoder import PIXEL
from jaisp.models.layers import distances
from jaisp.training.data import TileBatches
from jaisp.training.losses import view_snr
from jaisp.training.matching import assign

__all__ = ["validate"]

_RADIUS = 3.0  # 0.3 arcsec in 0.1" pixels


def _match(output, truth, view):
    """Match slots to truth within 0.3 arcsec, one-to-one: activity, validity, index of the truth, its S/N."""
    snr = view_snr(truth, view).numpy()
    xy = torch.stack([truth["x"], truth["y"]], dim=-1)
    distance = distances(output["position"], xy).numpy()
    valid = output["valid"].numpy()
    activity = torch.sigmoid(output["activity_logit"]).numpy()
    matches = []
    for tile in range(len(valid)):
        partner = np.full(valid.shape[1], -1)
        # Sources to be found come first: a faint neighbour must not take their slot.
        cost = distance[tile] - 3.0 * (snr[tile] > 5) - 6.0 * activity[tile][:, None]
        allowed = (distance[tile] < _RADIUS) & valid[tile][:, None] & (snr[tile] > 0)
        rows, columns = assign(cost, allowed)
        partner[rows] = columns
        matches.append((activity[tile], valid[tile], partner, snr[tile]))
    return matches


def _best_f1(matches):
    """Best F1 over the ranking by activity; a match to truth below S/N 5 is neither right nor wrong."""
    scores, right, wrong, total = [], [], [], 0
    for activity, valid, partner, snr in matches:
        total += (snr > 5).sum()
        partner_snr = np.where(partner >= 0, snr[partner], 0.0)
        scores.append(activity[valid])
        right.append((partner_snr > 5)[valid])
        wrong.append((partner < 0)[valid])
    order = np.argsort(-np.concatenate(scores))
    right = np.concatenate(right)[order].cumsum()
    wrong = np.concatenate(wrong)[order].cumsum()
    purity = right / np.maximum(right + wrong, 1)
    completeness = right / max(total, 1)
    f1 = 2 * purity * completeness / np.maximum(purity + completeness, 1e-9)
    pure = purity >= 0.95
    return float(f1.max()), float(completeness[pure].max() if pure.any() else 0.0)


def _objects(outputs, matches):
    """Slots of a view that lie on true sources above S/N 10, for the gauges of `jaisp.evaluation`."""
    columns = {item.name: [] for item in fields(Objects)}
    first = np.cumsum([0, *(len(snr) for *_, snr in matches)])  # truth is padded to other lengths
    for tile, (output, (_, _, partner, snr)) in enumerate(zip(outputs, matches, strict=True)):
        slots = np.flatnonzero((partner >= 0) & (np.where(partner >= 0, snr[partner], 0) > 10))
        columns["embedding"].append(output["embedding"][slots])
        columns["xy"].append(output["position"][slots] * PIXEL)
        columns["error"].append(output["error"][slots].mean(axis=-1) * PIXEL)
        columns["tile"].append(np.full(len(slots), tile))
        columns["source"].append(first[tile] + partner[slots])
    return Objects(**{name: np.concatenate(parts) for name, parts in columns.items()})


def _embedding_gauges(rubin, euclid):
    """What the embeddings know, beside its nulls; nothing without pairs."""
    pairs = true_pairs(rubin, euclid)
    if not len(pairs.first):
        return {}
    found = retrieval(rubin, euclid)
    shuffled = match_on_sky(rubin, euclid, shift=1)
    return {
        "similarity": pairs.mean,
        "shuffled_similarity": match_by_similarity(rubin, euclid, shift=1).mean,
        "shuffled_on_sky": shuffled.mean,
        "shuffled_on_sky_fraction": shuffled.fraction,
        "retrieval_top1": found.top(1),
        "retrieval_chance": found.chance(1),
        "effective_rank": effective_rank(rubin.embedding[pairs.first]),
    }


@torch.no_grad()
def validate(model, bank, *, batch_size=8):
    """
    Validation metrics of a model.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
    bank : `~jaisp.simulation.SceneBank`
        Scenes not trained on.
    batch_size : int

    Returns
    -------
    dict
        ``val/f1`` and ``val/completeness`` (at purity 0.95) of each view; of objects above S/N 10 the
        similarity of true pairs, of those of other tiles (matched by similarity alone, and as on the sky),
        retrieval within the tile, effective rank.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    batches = TileBatches(bank, batch_size=batch_size, seed=987)
    matches = {view: [] for view in ("joint", "rubin", "euclid")}
    outputs = {view: [] for view in matches}
    errors = []
    for step in range(max(1, len(bank) // batch_size)):
        inputs, truth = batches[step]
        inputs = {name: values.to(device) for name, values in inputs.items()}
        for view in matches:
            output = model.decode(model.encode(inputs, view))[-1]
            model.heads.normalize([output])
            output = {name: values.cpu() for name, values in output.items()}
            matched = _match(output, truth, view)
            matches[view].extend(matched)
            columns = {
                "embedding": functional.normalize(output["projection"], dim=-1).numpy(),
                "position": output["position"].numpy(),
                "error": output["error"].numpy(),
            }
            outputs[view].extend(
                {name: values[k] for name, values in columns.items()} for k in range(len(matched))
            )
            if view == "joint":
                for tile, (_, _, partner, snr) in enumerate(matched):
                    slots = np.flatnonzero(partner >= 0)
                    slots = slots[snr[partner[slots]] > 20]
                    dx = output["position"][tile, slots, 0].numpy() - truth["x"][tile].numpy()[partner[slots]]
                    errors.extend(100 * dx)
    model.train(training)
    metrics = {}
    for view, found in matches.items():
        metrics[f"val/f1_{view}"], metrics[f"val/completeness_{view}"] = _best_f1(found)
    metrics["val/position_mas"] = float(1.4826 * np.median(np.abs(errors))) if errors else float("nan")
    objects = [_objects(outputs[view], matches[view]) for view in ("rubin", "euclid")]
    metrics.update({f"val/{name}": value for name, value in _embedding_gauges(*objects).items()})
    return metrics
