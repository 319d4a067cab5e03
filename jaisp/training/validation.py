# Licensed under a 3-clause BSD style license - see LICENSE
"""Gauges on validation scenes: detection F1, and what the embeddings know against their nulls."""

from dataclasses import fields

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
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
from jaisp.models.inputs import crop_window
from jaisp.models.layers import distances
from jaisp.training.data import TileBatches
from jaisp.training.losses import view_snr
from jaisp.training.matching import assign, match_surveys
from jaisp.training.windows import place_window, shift_positions

__all__ = ["validate", "validate_unlabelled"]

_RADIUS = 3.0  # 0.3 arcsec in 0.1" pixels
_VIEWS = ("joint", "rubin", "euclid")
# Views of windows of a tile, and where those lie: an object is at another place in each.
_ELSEWHERE = {"rubin elsewhere": ("rubin", 0.0), "euclid elsewhere": ("euclid", 1.0)}
_WINDOW = 0.75  # of the sides of a tile
_SHIFTS = range(1, 6)  # tiles laid over others: of one shift few pairs are near each other


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
    if not len(order):  # at the very beginning no peak may be worth a query
        return 0.0, 0.0
    right = np.concatenate(right)[order].cumsum()
    wrong = np.concatenate(wrong)[order].cumsum()
    purity = right / np.maximum(right + wrong, 1)
    completeness = right / max(total, 1)
    f1 = 2 * purity * completeness / np.maximum(purity + completeness, 1e-9)
    pure = purity >= 0.95
    return float(f1.max(initial=0.0)), float(completeness[pure].max() if pure.any() else 0.0)


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
    """What the embeddings know, beside its nulls; nothing without pairs, or another tile for the nulls."""
    pairs = true_pairs(rubin, euclid)
    if not len(pairs.first):
        return {}
    found = retrieval(rubin, euclid)
    # Shifted by their number, or with none beside it, a tile would lie over itself.
    n_tiles = len(np.union1d(rubin.tile, euclid.tile))
    if n_tiles < 2:
        return {}
    shuffled = [match_on_sky(rubin, euclid, shift=shift) for shift in _SHIFTS if shift < n_tiles]
    similarity = np.concatenate([one.similarity for one in shuffled])
    return {
        "similarity": pairs.mean,
        "shuffled_similarity": match_by_similarity(rubin, euclid, shift=1).mean,
        "shuffled_on_sky": float(similarity.mean()) if len(similarity) else float("nan"),
        "shuffled_on_sky_fraction": float(np.mean([one.fraction for one in shuffled])),
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
    bank : `~jaisp.simulation.SceneBank` or `~jaisp.training.data.TileBatches`
        Scenes not trained on, or batches of tiles with truth.
    batch_size : int

    Returns
    -------
    dict
        ``val/f1`` and ``val/completeness`` (at purity 0.95) of each view; of objects above S/N 10 the
        similarity of true pairs, of those of other tiles (matched by similarity alone, and as on the sky),
        retrieval within the tile, effective rank, and the similarity and the retrieval of true pairs that lie
        elsewhere in what each survey's view is shown: what is lost there was not of the object.
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    batches = bank
    if not isinstance(bank, TileBatches):
        batches = TileBatches(bank, batch_size=batch_size, seed=987, in_order=True)
    matches, outputs = ({name: [] for name in (*_VIEWS, *_ELSEWHERE)} for _ in range(2))
    errors = []
    for step in range(len(batches)):
        tiles, truth = batches[step]
        inputs = model.prepare({name: values.to(device) for name, values in tiles.items()})
        for name in matches:
            view, place = _ELSEWHERE.get(name, (name, 0.0))
            share = _WINDOW if name in _ELSEWHERE else 1.0
            # At another place in their tokens' patches, too: another in each batch.
            shift = place * np.array([2 * (3 * step % 8), 2 * ((5 * step + 4) % 8)])
            window = place_window(inputs["euclid"].shape[-2:], share, (place, place), shift.astype(int))
            output = model.decode(model.encode(crop_window(inputs, window), view))[-1]
            model.heads.normalize([output])
            shift_positions(output, window)
            output = {key: values.cpu() for key, values in output.items()}
            matched = _match(output, truth, view)
            matches[name].extend(matched)
            columns = {
                "embedding": functional.normalize(output["projection"], dim=-1).numpy(),
                "position": output["position"].numpy(),
                "error": output["error"].numpy(),
            }
            outputs[name].extend(
                {key: values[k] for key, values in columns.items()} for k in range(len(matched))
            )
            if view == "joint":
                for tile, (_, _, partner, snr) in enumerate(matched):
                    slots = np.flatnonzero(partner >= 0)
                    slots = slots[snr[partner[slots]] > 20]
                    dx = output["position"][tile, slots, 0].numpy() - truth["x"][tile].numpy()[partner[slots]]
                    errors.extend(100 * dx)
    model.train(training)
    metrics = {}
    for view in _VIEWS:
        metrics[f"val/f1_{view}"], metrics[f"val/completeness_{view}"] = _best_f1(matches[view])
    metrics["val/position_mas"] = float(1.4826 * np.median(np.abs(errors))) if errors else float("nan")
    objects = {name: _objects(outputs[name], matches[name]) for name in matches if name != "joint"}
    gauges = _embedding_gauges(objects["rubin"], objects["euclid"])
    apart = true_pairs(objects["rubin elsewhere"], objects["euclid elsewhere"])
    if gauges and len(apart.first):
        gauges["similarity_elsewhere"] = apart.mean
        found = retrieval(objects["rubin elsewhere"], objects["euclid elsewhere"])
        gauges["retrieval_elsewhere"] = found.top(1)
    metrics.update({f"val/{name}": value for name, value in gauges.items()})
    return metrics


@torch.no_grad()
def validate_unlabelled(model, batches):
    """
    Gauges of a model on tiles without truth.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
    batches : `~jaisp.training.objectives.labelfree.UnlabelledBatches`
        Of tiles not trained on.

    Returns
    -------
    dict
        ``val/n_objects``, ``val/n_proposals`` above 5 sigma of a tile and the share of these that an active
        slot is near (``val/proposals_found``); of Rubin and Euclid slots that position matches,
        ``val/similarity``, the same for Euclid slots of another tile (``val/shuffled_similarity``, the best
        assignment), and the share that finds its partner among the tile's by similarity alone
        (``val/retrieval_top1``, and what chance gives).
    """
    training, device = model.training, next(model.parameters()).device
    model.eval()
    sums = dict.fromkeys(("n_objects", "n_proposals", "found", "tiles"), 0.0)
    pairs, embeddings = [], []
    for step in range(len(batches)):
        batch = batches[step]
        inputs = model.prepare({name: values.to(device) for name, values in batch["student"].items()})
        outputs = {}
        for view in ("joint", "rubin", "euclid"):
            outputs[view] = model.decode(model.encode(inputs, view))[-1]
            model.heads.normalize([outputs[view]])
            outputs[view] = {name: values.cpu() for name, values in outputs[view].items()}
        active = {view: (one["activity_logit"] > 0) & one["valid"] for view, one in outputs.items()}
        targets = batch["targets"]
        proposed = targets["snr_joint"] > 5
        place = torch.stack([targets["x"], targets["y"]], dim=-1)
        distance = distances(place, outputs["joint"]["position"]) + 1e9 * ~active["joint"][:, None]
        sums["tiles"] += len(proposed)
        sums["n_objects"] += active["joint"].sum().item()
        sums["n_proposals"] += proposed.sum().item()
        sums["found"] += ((distance.amin(-1) < _RADIUS) & proposed).sum().item()
        tile, i, j = match_surveys(outputs["rubin"], outputs["euclid"], similarity_weight=0.0)
        z = {view: functional.normalize(outputs[view]["projection"], dim=-1) for view in ("rubin", "euclid")}
        for number in range(len(proposed)):
            here = tile == number
            chosen = torch.nonzero(active["euclid"][number])[:, 0]
            partner = torch.searchsorted(chosen, j[here])
            pairs.append(
                ((z["rubin"][number][i[here]] @ z["euclid"][number][chosen].T).numpy(), partner.numpy())
            )
            embeddings.append((z["rubin"][number][i[here]].numpy(), z["euclid"][number][j[here]].numpy()))
    model.train(training)
    metrics = {f"val/{name}": sums[name] / sums["tiles"] for name in ("n_objects", "n_proposals")}
    metrics["val/proposals_found"] = sums["found"] / max(1, sums["n_proposals"])
    metrics.update(_unlabelled_similarity(pairs, embeddings))
    return metrics


def _unlabelled_similarity(pairs, embeddings):
    """Similarity of matched slots, of other tiles' slots, and retrieval within the tile."""
    own, top1, chance, shuffled = [], [], [], []
    for similarity, partner in pairs:
        if similarity.shape[1] < 2:
            continue
        own.extend(similarity[np.arange(len(partner)), partner])
        top1.extend(similarity.argmax(1) == partner)
        chance.extend([1 / similarity.shape[1]] * len(partner))
    for (rubin, _), (_, euclid) in zip(embeddings, embeddings[1:] + embeddings[:1], strict=True):
        similarity = rubin @ euclid.T
        if similarity.size:
            rows, columns = linear_sum_assignment(-similarity)
            shuffled.extend(similarity[rows, columns])
    if not own or not shuffled:
        return {}
    means = {
        "similarity": own,
        "shuffled_similarity": shuffled,
        "retrieval_top1": top1,
        "retrieval_chance": chance,
    }
    return {f"val/{name}": float(np.mean(values)) for name, values in means.items()}
