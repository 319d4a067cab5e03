# Licensed under a 3-clause BSD style license - see LICENSE
"""From the tiles of an aligned pair to the slots of the whole field: every object once."""

from dataclasses import dataclass, fields
from itertools import islice

import numpy as np
import torch
from scipy.spatial import cKDTree

from jaisp.catalog._edges import depth
from jaisp.io.tiles import subwindows

__all__ = ["FieldSlots", "decode_tile", "detect", "outside_own_sky"]

_MARGIN = 6  # pixels beyond the owned window in which slots are still looked at
_SEAM = 3.0  # pixels: slots of two tiles nearer than this are one object
_SMALLEST_WINDOW = 40  # pixels: a window this small is not split any more


@dataclass
class FieldSlots:
    """
    Slots over a whole field, one entry an object.

    Positions are in pixels of the pair's 0.1 arcsec grid; other columns as in `jaisp.models.Slots`.
    ``tile`` and ``slot`` number the tile and the query; ``saturated`` marks places where there were
    more proposals than queries even after splitting.
    """

    x: np.ndarray
    y: np.ndarray
    x_err: np.ndarray
    y_err: np.ndarray
    activity_logit: np.ndarray
    flux: np.ndarray
    half_light_radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    star_logit: np.ndarray
    embedding: np.ndarray
    tile: np.ndarray
    slot: np.ndarray
    saturated: np.ndarray

    def __len__(self):
        return len(self.x)

    def select(self, index):
        """Return the slots of an index or a mask."""
        return FieldSlots(**{item.name: getattr(self, item.name)[index] for item in fields(self)})


def _reach(window):
    """Window in which proposals are looked for: what is owned and a margin."""
    x0, x1, y0, y1 = window
    return x0 - _MARGIN, x1 + _MARGIN, y0 - _MARGIN, y1 + _MARGIN


def _parts(proposed, window, n_queries):
    """
    Windows to decode one by one: split where the proposals outnumber the queries.

    Returns
    -------
    list of (window, saturated)
    """
    x0, x1, y0, y1 = _reach(window)
    too_many = np.count_nonzero(proposed[max(y0, 0) : y1, max(x0, 0) : x1]) > n_queries
    if too_many and min(window[1] - window[0], window[3] - window[2]) > _SMALLEST_WINDOW:
        return [part for quadrant in subwindows(window) for part in _parts(proposed, quadrant, n_queries)]
    return [(window, too_many)]


def decode_tile(model, features, proposed, tile, **options):
    """
    Decode a tile, in parts where it is crowded.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
    features : dict
        Of ``model.encode``, with a batch axis of one.
    proposed : ndarray of bool, shape (H, W)
        Of ``model.proposed``.
    tile : `~jaisp.io.Tile`
    **options
        Of the model's decoder.

    Yields
    ------
    layers : list of dict
        Outputs of the decoder's layers.
    window : tuple of int
        ``x0, x1, y0, y1`` in the tile of which they are.
    saturated : bool
        Whether there were more proposals than queries all the same.
    """
    x0, x1, y0, y1 = tile.own
    own = (x0 - tile.x0, x1 - tile.x0, y0 - tile.y0, y1 - tile.y0)
    for window, saturated in _parts(proposed, own, model.config.n_queries):
        reach = torch.tensor([_reach(window)], device=features["heat"].device)
        yield model.decode(features, reach, **options), window, saturated


def _collect(model, output, window, saturated, tile, part):
    """Slots of one decoded window as arrays on the field's grid, with their distance outside the window."""
    model.heads.normalize([output])
    slots = model.to_slots(output).to_numpy()
    x, y = slots["x"][0], slots["y"][0]
    x0, x1, y0, y1 = window
    outside = np.maximum.reduce([x0 - 0.5 - x, x - (x1 - 0.5), y0 - 0.5 - y, y - (y1 - 0.5)])
    keep = slots["valid"][0] & (outside < _SEAM)
    names = [item.name for item in fields(FieldSlots) if item.name in slots]
    columns = {name: slots[name][0][keep] for name in names}
    columns["x"] = columns["x"] + tile.x0
    columns["y"] = columns["y"] + tile.y0
    n = int(keep.sum())
    columns["tile"] = np.full(n, tile.index)
    # A slot's number: the query, counted on over the windows of a split tile.
    columns["slot"] = np.flatnonzero(keep) + part * model.config.n_queries
    columns["saturated"] = np.full(n, saturated)
    columns["outside"] = outside[keep]
    return columns


def _merge_seams(columns, window_id):
    """
    Indices of the slots that stay where windows meet: each object once, from the window that owns it.

    Two windows may place one object on either side of their common edge, so slots a little outside
    are kept until here; pairs are matched one-to-one between two windows.
    """
    outside, logit = columns["outside"], columns["activity_logit"]
    near_edge = np.flatnonzero(outside > -_SEAM)
    gone = np.zeros(len(outside), bool)
    if len(near_edge) > 1:
        xy = np.stack([columns["x"], columns["y"]], axis=-1)[near_edge]
        pairs = cKDTree(xy).query_pairs(_SEAM, output_type="ndarray")
        pairs = near_edge[pairs]
        pairs = pairs[window_id[pairs[:, 0]] != window_id[pairs[:, 1]]]
        first, second = pairs.T
        distance = np.hypot(
            columns["x"][first] - columns["x"][second], columns["y"][first] - columns["y"][second]
        )
        matched = set()
        for k in np.argsort(distance, kind="stable"):
            i, j = first[k], second[k]
            if gone[i] or gone[j] or (i, window_id[j]) in matched or (j, window_id[i]) in matched:
                continue
            matched.update({(i, window_id[j]), (j, window_id[i])})
            i_owns, j_owns = outside[i] < 0, outside[j] < 0
            loser = (j if logit[i] >= logit[j] else i) if i_owns == j_owns else (j if i_owns else i)
            gone[loser] = True
    # Well outside and unmatched: the owner saw it and had another opinion.
    return np.flatnonzero(~gone & (outside < 1.0))


def _join(parts):
    """Concatenate the windows of a view and settle their seams."""
    window_id = np.repeat(np.arange(len(parts)), [len(part["x"]) for part in parts])
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    keep = _merge_seams(columns, window_id)
    return FieldSlots(**{item.name: columns[item.name][keep] for item in fields(FieldSlots)})


def outside_own_sky(pair, x, y):
    """
    Whose slots objects are: those of a survey where it alone shows the sky, else joint ones.

    Parameters
    ----------
    pair : `~jaisp.io.AlignedPair`
        Both surveys.
    x, y : ndarray, shape (n,)
        Pixels of the pair's grid.

    Returns
    -------
    outside : dict of ndarray, shape (n,)
        For each view how far in pixels positions are outside the sky that is its own, negative inside: of
        ``"rubin"`` and ``"euclid"`` the sky that the other does not show, of ``"joint"`` the rest.
    """
    rubin, euclid = (depth(image, x, y) for image in (pair.rubin, pair.euclid))
    alone = {"rubin": np.maximum(euclid, -rubin), "euclid": np.maximum(rubin, -euclid)}
    return {"joint": -np.minimum(alone["rubin"], alone["euclid"]), **alone}


def _each_on_its_sky(pair, slots):
    """
    Slots of all objects: joint ones where both surveys show the sky, else those of the one that does.

    Beside the edge of Euclid's image the joint view finds less in Rubin's than Rubin's own.
    """
    places = [np.concatenate([vars(found)[name] for found in slots.values()]) for name in ("x", "y")]
    outside, parts, stop = outside_own_sky(pair, *places), [], 0
    for view, found in slots.items():
        start, stop = stop, stop + len(found)
        own = outside[view][start:stop]
        near = own < _SEAM
        parts.append({**vars(found.select(near)), "outside": own[near]})
    return _join(parts)


def detect(model, pair, *, size=384, halo=32, batch_size=4, progress=None):
    """
    Run a model over an aligned pair.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
        In training mode, too, it is used as for evaluation, and stays as it is.
    pair : `~jaisp.io.AlignedPair`
        One survey or both.
    size, halo : int
        See `~jaisp.io.AlignedPair.tiles`.
    batch_size : int
        Tiles at a time.
    progress : callable, optional
        Called as ``progress(done, total)``.

    Returns
    -------
    slots : dict of `FieldSlots`
        For ``"joint"`` and for each survey that the pair holds. Joint ones are of both surveys where both
        show the sky, and elsewhere those of the survey that does; with one survey the two are the same.
    """
    surveys = [name for name in ("rubin", "euclid") if getattr(pair, name) is not None]
    views = ("joint", *surveys) if len(surveys) == 2 else ("joint",)
    device = next(model.parameters()).device
    total = sum(1 for _ in pair.tiles(size=size, halo=halo))
    tiles, done = pair.tiles(size=size, halo=halo), 0
    parts = {view: [] for view in views}
    with model.inference():
        while batch := list(islice(tiles, batch_size)):
            arrays = [tile.arrays for tile in batch]
            tensors = {
                key: torch.from_numpy(np.stack([a[key] for a in arrays])).to(device) for key in arrays[0]
            }
            inputs = model.prepare(tensors)
            shown = [[name for name in surveys if a[f"{name}_valid"].any()] for a in arrays]
            for view in views:
                # Of a tile that shows one survey only, the joint view is that survey's.
                rows = [k for k, names in enumerate(shown) if view == "joint" or len(names) == 2]
                if not rows:
                    continue
                features = model.encode({key: value[rows] for key, value in inputs.items()}, view)
                proposed = model.proposed(features).cpu().numpy()
                for at, row in enumerate(rows):
                    one = {key: value[at : at + 1] for key, value in features.items()}
                    tile = batch[row]
                    found = [
                        _collect(model, layers[-1], window, saturated, tile, part)
                        for part, (layers, window, saturated) in enumerate(
                            decode_tile(model, one, proposed[at], tile)
                        )
                    ]
                    parts[view] += found
                    if view == "joint" and len(shown[row]) == 1 and len(surveys) == 2:
                        parts[shown[row][0]] += found
            if progress is not None:
                done += len(batch)
                progress(done, total)
    slots = {view: _join(found) for view, found in parts.items() if found}
    if len(surveys) == 2 and slots:
        slots["joint"] = _each_on_its_sky(pair, slots)
    elif slots:
        slots[surveys[0]] = slots["joint"]
    return slots
