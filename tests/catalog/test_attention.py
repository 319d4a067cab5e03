# Licensed under a 3-clause BSD style license - see LICENSE
"""Attention of slots: that of the slots which the catalogue was made from, drawn where it lies on the sky."""

import dataclasses
from importlib.resources import as_file, files

import astropy.units as u
import numpy as np
import pytest
import torch
from astropy.table import QTable

from jaisp import DETRJEPA, ObjectJEPA
from jaisp.catalog import detect, plot_attention, slot_attention
from jaisp.catalog.attention import _inside
from jaisp.exceptions import ConfigError
from jaisp.io import align, read_euclid, read_rubin
from jaisp.io.tiles import owned
from jaisp.models import DETRJEPAConfig


@pytest.fixture(scope="module")
def model():
    return DETRJEPA.from_pretrained()


@pytest.fixture(scope="module")
def pair():
    with as_file(files("jaisp") / "data" / "demo") as folder:
        rubin = read_rubin([folder / "rubin_i.fits.gz"])
        euclid = read_euclid([folder / "euclid_VIS.fits.gz", folder / "euclid_H.fits.gz"])
    return align(rubin, euclid)


@pytest.fixture(scope="module")
def slots(model, pair):
    """The most active slots of each view."""
    found = detect(model, pair)
    return {view: some.select(np.argsort(-some.activity_logit)[:8]) for view, some in found.items()}


def catalogue(pair, slots):
    ids = np.arange(11, 11 + len(slots.x))
    return QTable({"id": ids, "sky_centroid": pair.wcs.pixel_to_world(slots.x, slots.y)})


@pytest.mark.parametrize("view", ["joint", "rubin"])
def test_the_slots_are_those_of_the_catalogue(model, pair, slots, view):
    """Decoded alone, a tile's slots lie where they lay in the whole field."""
    table = catalogue(pair, slots[view])
    looks = slot_attention(model, table, pair, [13, 11], view=view)
    assert [look.id for look in looks] == [13, 11]
    for look, k in zip(looks, (2, 0), strict=True):
        np.testing.assert_allclose([look.x, look.y], [slots[view].x[k], slots[view].y[k]], atol=0.02)
        n_layers, rows, columns = look.weights.shape
        assert n_layers == len(model.decoder.layers)
        np.testing.assert_allclose(look.weights.sum((1, 2)), 1, atol=1e-5)
        assert 0 <= look.x - look.x0 < 16 * columns
        assert 0 <= look.y - look.y0 < 16 * rows


def test_a_slot_looks_at_its_own_surroundings(model, pair, slots):
    """
    In the mean of bright objects it looks more at what is within 4 arcsec: weights lie where they are said.

    The same weights turned and mirrored on the tile give about what chance gives.
    """
    looks = slot_attention(model, catalogue(pair, slots["joint"]), pair, range(11, 19))

    def near(weights, look):
        rows, columns = np.indices(weights.shape)
        x, y = look.x0 + 16 * columns + 7.5, look.y0 + 16 * rows + 7.5
        inside = np.hypot(x - look.x, y - look.y) < 40
        return weights[inside].sum() / inside.mean()

    right = [near(look.weights[0], look) for look in looks]
    turned = [near(look.weights[0][::-1, ::-1].T, look) for look in looks]
    assert np.mean(right) > 2
    assert np.mean(turned) < 0.7 * np.mean(right)


def test_picture(model, pair, slots):
    table = catalogue(pair, slots["joint"])
    figure = plot_attention(model, table, pair, [11, 12, 13, 14], layer=-1, half_width=4 * u.arcsec)
    assert len(figure.axes) == 4
    for panel, row in zip(figure.axes, table[:4], strict=True):
        cross = np.ravel(panel.lines[0].get_data())
        shown = [
            image
            for image in (pair.rubin, pair.euclid)
            if image.shape == panel.images[0].get_array().shape[:2]
        ]
        np.testing.assert_allclose(cross, shown[0].wcs.world_to_pixel(row["sky_centroid"]), atol=0.1)
        left, right, _, _ = panel.images[1].get_extent()
        token = (right - left) / panel.images[1].get_array().shape[1]
        np.testing.assert_allclose(token * shown[0].pixel_scale, 1.6)
        np.testing.assert_allclose(np.diff(panel.get_xlim()) * shown[0].pixel_scale, 8)
        assert panel.get_title().startswith(str(row["id"]))
    figure.canvas.draw()


def test_refusals(model, pair, slots):
    table = catalogue(pair, slots["joint"])
    with pytest.raises(ConfigError, match="only a DETRJEPA has slots that attend"):
        slot_attention(ObjectJEPA(), table, pair)
    with pytest.raises(ConfigError, match=r"view='euclidd' .did you mean 'euclid'"):
        slot_attention(model, table, pair, view="euclidd")
    with pytest.raises(ConfigError, match="no object 99 in this catalogue of 8 objects"):
        slot_attention(model, table, pair, 99)
    with pytest.raises(ConfigError, match=r"layer=5; the decoder has \d layers"):
        plot_attention(model, table, pair, [11], layer=5)
    away = table.copy()
    away["sky_centroid"] = table["sky_centroid"].spherical_offsets_by(1 * u.deg, 0 * u.deg)
    with pytest.raises(ConfigError, match="object 11 is not on these images"):
        slot_attention(model, away, pair, [11])
    x, y = slots["joint"].x[0], slots["joint"].y[0]
    grid = np.stack(np.meshgrid(np.arange(20, 400, 4.0), np.arange(20, 400, 4.0)), -1).reshape(-1, 2)
    everything = detect(model, pair)["joint"]
    gaps = np.hypot(*(grid[:, None] - np.stack([everything.x, everything.y], -1)).T).min(0)
    x, y = grid[gaps.argmax()]
    away["sky_centroid"] = pair.wcs.pixel_to_world(np.full(8, x), np.full(8, y))
    with pytest.raises(ConfigError, match=r"no slot within 0\.8 arcsec of object 11"):
        slot_attention(model, away, pair, [11])


def test_an_object_just_outside_the_edge_has_the_tile_next_to_it(pair):
    """Slots may end up a pixel outside the images, fits a little more."""
    ny, nx = pair.shape
    for place in ((-1.4, 100.0), (nx + 2.0, -3.0), (200.0, ny - 0.5)):
        x, y = _inside(np.array(place), pair.shape)
        assert sum(bool(owned(x - tile.x0, y - tile.y0, tile)) for tile in pair.tiles()) == 1
    assert _inside(np.array([-50.0, 100.0]), pair.shape)[0] == -50


def test_tokens_are_as_large_as_the_models_patches(pair):
    torch.manual_seed(0)
    config = dataclasses.replace(DETRJEPAConfig.tiny(), patch_size=32)
    coarse = DETRJEPA(config).eval()
    torch.nn.init.constant_(coarse.backbone.heat[-1].bias, 1.0)
    found = detect(coarse, pair)["joint"].select(slice(1))
    (look,) = slot_attention(coarse, catalogue(pair, found), pair)
    assert look.patch_size == 32
    assert look.weights.shape[1:] == (384 // 32, 384 // 32)
