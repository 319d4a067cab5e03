# Licensed under a 3-clause BSD style license - see LICENSE
"""Where the slots of chosen objects look: the decoder's attention to the image."""

from dataclasses import dataclass

import numpy as np
import torch
from astropy import units as u

from jaisp.catalog.columns import arcsec
from jaisp.catalog.detection import decode_tile, outside_own_sky
from jaisp.catalog.drawing import (
    INK,
    LABEL,
    PAPER,
    aligned,
    chosen_rows,
    covered,
    shrink_factor,
    survey_images,
)
from jaisp.catalog.plots import require_matplotlib, rgb
from jaisp.exceptions import ConfigError, suggest
from jaisp.io.tiles import owned
from jaisp.surveys import EUCLID

__all__ = ["SlotAttention", "plot_attention", "slot_attention"]

_VIEWS = ("joint", "rubin", "euclid")
_REACH = 8.0  # grid pixels between an object, as measured, and its slot
_MAX_PANELS = 6  # objects that are drawn unless they are named
_COLUMNS = 3
_RED, _OPAQUE = (1.0, 0.25, 0.2), 0.6


@dataclass(frozen=True)
class SlotAttention:
    """
    Where the slot of one object looked.

    Attributes
    ----------
    id : int
        The object's number in the catalogue.
    x, y : float
        Position of its slot, in pixels of the pair's 0.1 arcsec grid.
    x0, y0 : int
        Grid pixel of the tile's first corner.
    patch_size : int
        Grid pixels along a token's side: token ``[row, column]`` covers those from ``(x0 + patch_size *
        column, y0 + patch_size * row)`` on.
    weights : `~numpy.ndarray` (n_layers, rows, columns)
        For each layer of the decoder, first to last, by how much the slot drew on each token: the mean over
        the heads of attention, 1 in sum over a layer.
    """

    id: int
    x: float
    y: float
    x0: int
    y0: int
    patch_size: int
    weights: np.ndarray


def slot_attention(model, table, images, ids=None, *, view="joint", size=384, halo=32):
    """
    Decode the tiles of some objects again, and keep where their slots looked.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
        The model that made the catalogue.
    table : `~astropy.table.QTable`
        The catalogue.
    images : `~jaisp.io.AlignedPair` or tuple
        The images it was made from. A tuple ``(rubin, euclid)`` of `~jaisp.image.SurveyImage`, either of
        which may be None, is aligned first.
    ids : int or sequence of int, optional
        Values of the column ``id``. By default the first six.
    view : {"joint", "rubin", "euclid"}
        Whose slots: those of both surveys together (where one alone shows the sky, its own), which are the
        rows of the catalogue, or of one alone.
    size, halo : int
        Of the tiles, in grid pixels, as for `detect`.

    Returns
    -------
    list of `SlotAttention`
        One for each object, in the order of ``ids``.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        If the model has no attention, an id is not in the table, or the view holds no slot at its place.
    """
    if not getattr(model, "has_attention", False):
        raise ConfigError(f"only a DETRJEPA has slots that attend to the image, not {type(model).__name__}")
    if view not in _VIEWS:
        raise ConfigError(f"view={view!r}{suggest(view, _VIEWS)}; allowed: {', '.join(_VIEWS)}")
    pair = aligned(images, table)
    rows = chosen_rows(table, ids, _MAX_PANELS)
    places = [[float(value) for value in pair.wcs.world_to_pixel(row["sky_centroid"])] for row in rows]
    owners = [_inside(place, pair.shape) for place in places]
    views = _views(pair, owners, view)
    found, patch = {}, model.config.patch_size
    for tile in pair.tiles(size=size, halo=halo):
        mine = [k for k, (x, y) in enumerate(owners) if owned(x - tile.x0, y - tile.y0, tile)]
        slots = {one: _tile_slots(model, tile, one) for one in {views[k] for k in mine}}
        for k in mine:
            found[k] = _nearest(int(rows[k]["id"]), places[k], slots[views[k]], tile, patch, views[k])
    missing = [int(row["id"]) for k, row in enumerate(rows) if k not in found]
    if missing:
        raise ConfigError(f"object {missing[0]} is not on these images; give those of the catalogue")
    return [found[k] for k in range(len(rows))]


def _views(pair, places, view):
    """Of which view the slot at each place is."""
    if view != "joint" or pair.rubin is None or pair.euclid is None:
        return [view] * len(places)
    outside = outside_own_sky(pair, *np.array(places, float).reshape(-1, 2).T)
    return [min(outside, key=lambda name, k=k: outside[name][k]) for k in range(len(places))]


def _inside(place, shape):
    """The place on the field next to an object: slots and fits may end up just outside its edge."""
    nearest = np.clip(place, -0.5, np.subtract(shape[::-1], 0.51))
    return nearest if np.hypot(*(nearest - place)) < _REACH else place


def _tile_slots(model, tile, view):
    """Positions (n, 2) on the grid and attention (n, layers, rows, columns) of a tile's slots."""
    device = next(model.parameters()).device
    places, weights = [], []
    with model.inference():
        tensors = {key: torch.from_numpy(value[None]).to(device) for key, value in tile.arrays.items()}
        features = model.encode(model.prepare(tensors), view)
        # As in the catalogue, crowded windows in parts: slots depend on those beside them.
        proposed = model.proposed(features).cpu().numpy()[0]
        for layers, _, _ in decode_tile(model, features, proposed, tile, attention=True):
            valid = layers[-1]["valid"][0]
            places.append(layers[-1]["position"][0][valid])
            weights.append(torch.stack([layer["attention"][0][valid] for layer in layers], dim=1))
    return torch.cat(places).cpu().numpy() + [tile.x0, tile.y0], torch.cat(weights).cpu().numpy()


def _nearest(number, place, slots, tile, patch_size, view):
    positions, weights = slots
    distance = np.hypot(*(positions - place).T)
    if not len(distance) or distance.min() > _REACH:
        reach = f"{_REACH * EUCLID.pixel_scale:.1f} arcsec"
        raise ConfigError(f"the {view} view has no slot within {reach} of object {number}")
    nearest = distance.argmin()
    x, y = (float(value) for value in positions[nearest])
    return SlotAttention(number, x, y, tile.x0, tile.y0, patch_size, weights[nearest])


def plot_attention(model, table, images, ids=None, *, view="joint", layer=None, half_width=6 * u.arcsec):
    """
    Draw where the slots of objects looked, over the image.

    Parameters
    ----------
    model, table, images, ids, view
        As for `slot_attention`, which see.
    layer : int, optional
        Layer of the decoder, from 0; negative numbers count from the last. By default the mean of all.
    half_width : `~astropy.units.Quantity`, optional
        From an object to the edges of its panel, an angle.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        One panel for each object: the composite of Euclid (of Rubin in its view, and where Euclid has no
        pixels), the redder the more attention a token got, and a cross on the slot. The title
        says how much of the attention fell within the panel; the rest went to the rest of the tile.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        As `slot_attention`, or if there is no such layer.
    `~jaisp.exceptions.MissingDependencyError`
        If matplotlib is not installed.
    """
    figure_class = require_matplotlib()
    pair = aligned(images, table)
    looks = slot_attention(model, table, pair, ids, view=view)
    columns = min(len(looks), _COLUMNS) or 1
    lines = -(-len(looks) // columns) or 1
    figure = figure_class(
        figsize=(3.4 * columns, 3.7 * lines), dpi=120, layout="constrained", facecolor=PAPER
    )
    panels = figure.subplots(lines, columns, squeeze=False).flat
    pictures = [(image, rgb(image)) for image in reversed(survey_images(pair, table))]
    if view == "rubin":
        pictures = pictures[-1:]
    half = float(arcsec(half_width, "half_width")) / EUCLID.pixel_scale
    for panel, look, row in zip(panels, looks, chosen_rows(table, ids, _MAX_PANELS), strict=False):
        there = [both for both in pictures if covered(row, both[0])]
        _draw_look(panel, look, _of_layer(look.weights, layer), *(there or pictures)[0], half)
    for panel in figure.axes[len(looks) :]:
        panel.remove()
    return figure


def _of_layer(weights, layer):
    if layer is None:
        return weights.mean(axis=0)
    if not -len(weights) <= layer < len(weights):
        raise ConfigError(f"layer={layer}; the decoder has {len(weights)} layers: 0 to {len(weights) - 1}")
    return weights[layer]


def _draw_look(panel, look, weights, image, picture, half):
    """Draw the attention (rows, columns) over a picture, ``half`` grid pixels to each side of the slot."""
    scale = round(image.pixel_scale / EUCLID.pixel_scale) * shrink_factor(image.shape)

    def drawn(value):
        """Grid pixels as pixels of the picture."""
        return (value + 0.5) / scale - 0.5

    edges = [
        start - 0.5 + look.patch_size * np.arange(n + 1)
        for start, n in zip((look.x0, look.y0), weights.shape[::-1], strict=True)
    ]
    overlay = np.empty((*weights.shape, 4), np.float32)
    overlay[..., :3] = _RED
    overlay[..., 3] = _OPAQUE * np.sqrt(weights / weights.max())
    panel.imshow(picture, origin="lower", interpolation="nearest")
    extent = [drawn(axis[k]) for axis in edges for k in (0, -1)]
    panel.imshow(overlay, origin="lower", extent=extent, interpolation="nearest")
    panel.plot(drawn(look.x), drawn(look.y), "+", color=LABEL, ms=12, mew=1.5)
    near_x, near_y = (
        np.abs(axis[:-1] + look.patch_size / 2 - middle) < half
        for axis, middle in zip(edges, (look.x, look.y), strict=True)
    )
    inside = weights[np.ix_(near_y, near_x)].sum()
    panel.set_title(f"{look.id}   {inside:.0%} of its attention here", color=INK, fontsize=9)
    panel.set(xticks=[], yticks=[])
    panel.set(xlim=(drawn(look.x - half), drawn(look.x + half)))
    panel.set(ylim=(drawn(look.y - half), drawn(look.y + half)))
    panel.spines[:].set_visible(False)
