# Licensed under a 3-clause BSD style license - see LICENSE
"""Gauges of ``ablations.py`` beside those of training's validation: slots, and what they make of nothing."""

import numpy as np
import torch

from jaisp.evaluation import Objects, match_by_similarity, slot_spread
from jaisp.simulation import NoiseBank, draw_tile

VIEWS = ("joint", "rubin", "euclid")
#: What training's validation says of slots on true sources: nothing where slots lie on none.
OF_SOURCES = (
    "similarity",
    "similarity_elsewhere",
    "retrieval_top1",
    "retrieval_chance",
    "retrieval_elsewhere",
    "effective_rank",
)


def judge(model, bank, *, seed=5_000_000, batch_size=8, all_active=False):
    """
    Similarity of slots and their nulls, on scenes that a model has not seen.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
    bank : `~jaisp.simulation.SceneBank`
    seed : int
        Of the noise.
    batch_size : int
    all_active : bool
        Take every slot for an object, of a model that has not learned which are: those that lie on a source
        do by chance.

    Returns
    -------
    dict
        Of active slots, paired by similarity alone within a tile, the mean cosine between the surveys
        (``matched``), the same for Euclid's next tile (``shuffled``) and for white noise (``noise``);
        ``noise_slots``, active joint slots of a tile of white noise. Of Rubin's slots the median ``spread``
        of one over images, and ``std``, the root of the summed variance of the unit embeddings: 1 if they
        point everywhere. None where there are no such slots, and with ``all_active`` for what training's
        validation says of true sources.
    """
    figures = dict.fromkeys(OF_SOURCES) if all_active else {}
    seen, blank = see(model, bank, seed, batch_size, all_active)
    figures["matched"] = cosine(seen["rubin"], seen["euclid"])
    figures["shuffled"] = cosine(seen["rubin"], seen["euclid"], shift=1)
    figures["noise"] = cosine(blank["rubin"], blank["euclid"])
    figures["noise_slots"] = float(blank["joint"][1].sum() / len(blank["joint"][1]))
    embedding, active = seen["rubin"]
    spread = slot_spread(embedding, active, fewest=min(8, len(active)))
    figures["spread"] = float(np.median(spread)) if len(spread) else None
    held = embedding[active]
    figures["std"] = float(np.sqrt(held.var(axis=0).sum())) if len(held) > 1 else None
    return {
        name: None if value is None or not np.isfinite(value) else float(value)
        for name, value in figures.items()
    }


def see(model, bank, seed, batch_size, all_active):
    """Embeddings (n, slots, d) and activity (n, slots) of each view, of scenes and of white noise."""
    rng, noise = np.random.default_rng(seed), NoiseBank(seed=seed)
    parts = [{view: [] for view in VIEWS} for _ in range(2)]
    for start in range(0, len(bank), batch_size):
        drawn = [draw_tile(bank[k], rng, noise)[0] for k in range(start, min(start + batch_size, len(bank)))]
        tiles = {key: torch.from_numpy(np.stack([tile[key] for tile in drawn])) for key in drawn[0]}
        for part, batch in zip(parts, (tiles, white(tiles, rng)), strict=True):
            with torch.inference_mode():
                found = model(batch)
            for view, slots in found.items():
                active = slots.valid if all_active else slots.valid & (slots.activity_logit > 0)
                part[view].append((slots.embedding.numpy(), active.numpy()))
    return [
        {view: [np.concatenate(v) for v in zip(*values, strict=True)] for view, values in part.items()}
        for part in parts
    ]


def white(tiles, rng):
    """The same tiles with white noise for the sky."""
    tiles = dict(tiles)
    for survey in ("rubin", "euclid"):
        snr = tiles[f"{survey}_snr"]
        noise = torch.from_numpy(rng.standard_normal(snr.shape, dtype=np.float32))
        tiles[f"{survey}_snr"] = noise * tiles[f"{survey}_valid"]
    return tiles


def cosine(rubin, euclid, *, shift=0):
    """Mean cosine of the active slots of two views, paired within the tile by it; NaN without any."""
    objects = []
    for embedding, active in (rubin, euclid):
        tile, _ = np.nonzero(active)
        n = len(tile)
        objects.append(Objects(embedding[active], np.zeros((n, 2)), np.ones(n), tile, np.full(n, -1)))
    if not all(len(one) for one in objects):
        return np.nan
    return match_by_similarity(*objects, shift=shift).mean
