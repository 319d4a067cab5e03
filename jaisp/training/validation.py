# Licensed under a 3-clause BSD style license - see LICENSE
"""Gauges on validation scenes: detection F1, and what the embeddings know against their nulls."""

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from jaisp.training.data import TileBatches
from jaisp.training.losses import view_snr
from jaisp.training.matching import assign

__all__ = ["validate"]

_RADIUS = 3.0  # 0.3 arcsec in 0.1" pixels


def _match(output, truth, view):
    """Match slots to truth within 0.3 arcsec, one-to-one: activity, validity, index of the truth, its S/N."""
    snr = view_snr(truth, view).numpy()
    xy = torch.stack([truth["x"], truth["y"]], dim=-1)
    distance = torch.cdist(output["position"], xy).numpy()
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
    return float(f1.max(initial=0.0)), float(completeness[pure].max() if pure.any() else 0.0)


def _retrieval(outputs, matches):
    """Similarity of one object's two embeddings, of different tiles' slots, and top-1 within the tile."""
    true_pairs, shuffled, top1, chance, every = [], [], [], [], []
    actives = []
    for tile in range(len(matches["rubin"])):
        found = {}
        for view in ("rubin", "euclid"):
            _, _, partner, snr = matches[view][tile]
            slots = np.flatnonzero((partner >= 0) & (np.where(partner >= 0, snr[partner], 0) > 10))
            found[view] = (slots, partner[slots])
        _, i, j = np.intersect1d(found["rubin"][1], found["euclid"][1], return_indices=True)
        z_rubin = outputs["rubin"][tile][found["rubin"][0]]
        z_euclid = outputs["euclid"][tile][found["euclid"][0]]
        actives.append((z_rubin, z_euclid))
        if len(i) < 2:
            continue
        similarity = z_rubin[i] @ z_euclid.T
        true_pairs.extend(similarity[np.arange(len(i)), j])
        top1.extend(similarity.argmax(1) == j)
        chance.extend([1 / z_euclid.shape[0]] * len(i))
        every.append(z_rubin)
    for (z_rubin, _), (_, z_euclid) in zip(actives, actives[1:] + actives[:1], strict=True):
        if len(z_rubin) and len(z_euclid):
            similarity = z_rubin @ z_euclid.T
            rows, columns = linear_sum_assignment(-similarity)
            shuffled.extend(similarity[rows, columns])
    if not true_pairs:
        return {}
    z = np.concatenate(every)
    singular = np.linalg.svd(z - z.mean(0), compute_uv=False) ** 2
    share = singular / singular.sum()
    rank = np.exp(-(share * np.log(share + 1e-12)).sum())
    return {
        "similarity": float(np.mean(true_pairs)),
        "shuffled_similarity": float(np.mean(shuffled)),
        "retrieval_top1": float(np.mean(top1)),
        "retrieval_chance": float(np.mean(chance)),
        "effective_rank": float(rank),
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
        ``val/f1`` and ``val/completeness`` (at purity 0.95) of each view; similarity of true and of
        shuffled pairs, retrieval among S/N > 10 objects of the tile, effective rank.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    batches = TileBatches(bank, batch_size=batch_size, seed=987)
    matches = {view: [] for view in ("joint", "rubin", "euclid")}
    embeddings = {view: [] for view in matches}
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
            embeddings[view].extend(functional.normalize(output["projection"], dim=-1).numpy())
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
    metrics.update({f"val/{name}": value for name, value in _retrieval(embeddings, matches).items()})
    return metrics
