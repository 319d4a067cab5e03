# Licensed under a 3-clause BSD style license - see LICENSE
"""How well each approach joins what it sees in the two surveys: separation, retrieval, partners."""

import dataclasses

import numpy as np
from astropy import units as u

from jaisp.catalog import detect
from jaisp.evaluation.embedding import Objects, retrieval, right_partner, true_pairs
from jaisp.evaluation.matching import match_one_to_one
from jaisp.io import align
from jaisp.surveys import EUCLID

__all__ = ["object_gauges", "peer_partners", "tile_gauges"]

_CLEAR = 10  # S/N in its own survey, from which an object's embedding is asked for
_LEAST = 5  # S/N that a peer must claim


def _objects(positions, embedding, tile, truth, *, survey, first, error=0.05):
    """Detections of one survey with the true sources behind them, numbered from ``first``."""
    wanted = np.flatnonzero(np.asarray(truth[f"{survey}_snr"], float) > _CLEAR)
    radius = (0.3 if survey == EUCLID.name else 0.5) * u.arcsec
    index, _ = match_one_to_one(positions, truth["sky_centroid"][wanted], radius=radius)
    real = np.flatnonzero(index >= 0)
    origin = truth["sky_centroid"][0]
    east, north = origin.spherical_offsets_to(positions[real])
    return Objects(
        embedding=np.asarray(embedding)[real],
        xy=np.stack([east.to_value(u.arcsec), north.to_value(u.arcsec)], axis=-1),
        error=np.full(len(real), error),
        tile=np.full(len(real), tile),
        source=first + wanted[index[real]],
    )


def _join(parts):
    return Objects(
        **{item.name: np.concatenate([getattr(part, item.name) for part in parts])
           for item in dataclasses.fields(Objects)}
    )  # fmt: skip


def object_gauges(models, fields):
    """
    What the embeddings of models with slots know: separation, retrieval, partners.

    Objects found in one survey alone whose S/N there is above 10, with the true sources behind them.

    Parameters
    ----------
    models : dict of str to model
        Such as `~jaisp.models.DETRJEPA`; what `~jaisp.catalog.detect` takes.
    fields : iterable of `~jaisp.evaluation.Field`
        With both surveys.

    Returns
    -------
    list of dict
        For each model ``n_pairs`` sources found in both surveys; ``separation``, the mean cosine of their two
        embeddings less that of different objects of a field; ``retrieval`` among all objects of the field by
        embedding alone, and ``chance``; ``nearest`` and ``partner``, the share of sources whose partner is
        the nearest object, and is found by position and embedding.
    """
    parts = {name: {"rubin": [], "euclid": []} for name in models}
    for k, field in enumerate(fields):
        pair = align(field.rubin, field.euclid)
        for name, model in models.items():
            slots = detect(model, pair)
            for survey in ("rubin", "euclid"):
                own = slots[survey].select(slots[survey].activity_logit > 0)
                sky = pair.wcs.pixel_to_world(own.x, own.y).icrs
                parts[name][survey].append(
                    _objects(sky, own.embedding, k, field.truth, survey=survey, first=k * 1_000_000)
                )
    rows = []
    for name, surveys in parts.items():
        first, second = (_join(surveys[survey]) for survey in ("rubin", "euclid"))
        found = retrieval(first, second)
        rows.append(
            {
                "finder": name,
                "unit": "object",
                "n_pairs": len(found.rank),
                "separation": true_pairs(first, second).mean - _unmatched(first, second),
                "retrieval": found.top(1),
                "chance": found.chance(1),
                "nearest": _share(right_partner(first, second, how="nearest")),
                "partner": _share(right_partner(first, second, how="both")),
            }
        )
    return rows


def _share(right):
    return float(right.mean()) if len(right) else np.nan


def _unmatched(first, second):
    """Mean cosine of different objects of one tile."""
    total, n = 0.0, 0
    for tile in np.unique(first.tile):
        i, j = np.flatnonzero(first.tile == tile), np.flatnonzero(second.tile == tile)
        cosine = first.embedding[i] @ second.embedding[j].T
        other = first.source[i][:, None] != second.source[j]
        total, n = total + float(cosine[other].sum()), n + int(other.sum())
    return total / n if n else np.nan


def peer_partners(peers, fields):
    """
    How well catalogues of each survey alone are joined by position.

    Parameters
    ----------
    peers : dict of str to (peer, dict)
        Peers that run on one survey, with their settings.
    fields : iterable of `~jaisp.evaluation.Field`
        With both surveys.

    Returns
    -------
    list of dict
        As `object_gauges`; a peer has no embeddings.
    """
    parts = {name: {"rubin": [], "euclid": []} for name in peers}
    for k, field in enumerate(fields):
        for name, (peer, settings) in peers.items():
            for survey in ("rubin", "euclid"):
                table = peer(**{survey: getattr(field, survey)}, **settings)
                table = table[table["snr"] > _LEAST]
                nothing = np.zeros((len(table), 1))
                parts[name][survey].append(
                    _objects(
                        table["sky_centroid"], nothing, k, field.truth, survey=survey, first=k * 1_000_000
                    )
                )
    rows = []
    for name, surveys in parts.items():
        first, second = (_join(surveys[survey]) for survey in ("rubin", "euclid"))
        right = {how: right_partner(first, second, how=how) for how in ("nearest", "position")}
        rows.append(
            {
                "finder": name,
                "unit": "object",
                "n_pairs": len(right["nearest"]),
                "separation": np.nan,
                "retrieval": np.nan,
                "chance": np.nan,
                "nearest": _share(right["nearest"]),
                "partner": _share(right["position"]),
            }
        )
    return rows


def tile_gauges(name, model, fields, *, coverage=0.9):
    """
    What a model with one vector a tile knows of its sky.

    Parameters
    ----------
    name : str
        For the table.
    model : `~jaisp.models.PatchJEPA`
        Or another with ``embed``.
    fields : iterable of `~jaisp.evaluation.Field`
        With both surveys.
    coverage : float
        Tiles of which either survey covers less are left out.

    Returns
    -------
    dict
        As a row of `object_gauges`; retrieval is among the tiles of all fields.
    """
    vectors = {"rubin": [], "euclid": []}
    for field in fields:
        table = model.embed(field.rubin, field.euclid)
        full = (table["rubin_coverage"] >= coverage) & (table["euclid_coverage"] >= coverage)
        for survey, found in vectors.items():
            found.append(np.asarray(table[f"{survey}_embedding"])[full])
    cosine = np.concatenate(vectors["rubin"]) @ np.concatenate(vectors["euclid"]).T
    n = len(cosine)
    own = np.diag(cosine)
    other = (cosine.sum() - own.sum()) / (n * (n - 1)) if n > 1 else np.nan
    return {
        "finder": name,
        "unit": "tile",
        "n_pairs": n,
        "separation": float(own.mean() - other) if n else np.nan,
        "retrieval": _share(cosine.argmax(axis=1) == np.arange(n)) if n else np.nan,
        "chance": 1 / n if n else np.nan,
        "nearest": np.nan,
        "partner": np.nan,
    }
