# Licensed under a 3-clause BSD style license - see LICENSE
"""ObjectJEPA: cut-outs around peaks, slots as DETRJEPA has them, and so the same catalogue."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.table import QTable

import jaisp
from jaisp.catalog import COLUMNS
from jaisp.exceptions import ConfigError, ImageError, WeightsError
from jaisp.models import VIEWS, DETRJEPAConfig, ObjectJEPA, ObjectJEPAConfig, PatchJEPA
from jaisp.models.object_jepa import CUTOUT, cut_out

from .test_detrjepa import make_tiles

DEMO = Path(jaisp.__file__).parent / "data" / "demo"


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(1)
    model = ObjectJEPA(ObjectJEPAConfig.tiny()).eval()
    # A fresh heat map is silent; give it peaks, so that there are slots to look at.
    torch.nn.init.constant_(model.backbone.heat[-1].bias, -1.0)
    torch.nn.init.normal_(model.backbone.heat[-1].weight, std=1.0)
    return model


@pytest.fixture(scope="module")
def bundled():
    return ObjectJEPA.from_pretrained()


@pytest.fixture(scope="module")
def demo():
    return (
        jaisp.read_rubin(sorted(DEMO.glob("rubin_*"))),
        jaisp.read_euclid(sorted(DEMO.glob("euclid_*"))),
        QTable.read(DEMO / "truth.fits"),
    )


@pytest.fixture(scope="module")
def table(bundled, demo):
    return bundled.catalog(*demo[:2])


def test_config_round_trips_through_json():
    config = ObjectJEPAConfig(channels=(16, 32, 40), cutout_channels=(8, 16, 24), match_radius=0.7)
    assert ObjectJEPAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"cutout_channels": (8, 8)}, "cutout_channels must be three positive integers"),
        ({"dim": 100}, "multiple of 32"),
        ({"nms_size": 4}, "odd"),
        ({"match_radius": 0.0}, "match_radius must be positive, not 0.0"),
        ({"n_queries": 0}, "n_queries must be at least 1"),
    ],
)
def test_bad_config(values, text):
    with pytest.raises(ConfigError, match=text):
        ObjectJEPAConfig(**values)
    with pytest.raises(ConfigError, match=r"unknown key 'match_radii'.*did you mean 'match_radius'"):
        ObjectJEPAConfig.from_dict({"match_radii": 1.0})
    with pytest.raises(ConfigError, match="unknown key 'match_radius'"):
        DETRJEPAConfig.from_dict({"match_radius": 1.0})


def test_cut_outs_are_pieces_of_the_image_and_zero_beyond_it():
    images = torch.arange(2 * 3 * 10 * 12, dtype=torch.float32).reshape(2, 3, 10, 12) + 1
    corner = torch.tensor([[0, 1, 1], [2, -3, 8], [5, 0, 10]])  # image, row, column of three pieces
    pieces = cut_out(images, corner, 4)
    assert torch.equal(pieces[0], images[0, :, 2:6, 5:9])
    assert (pieces[1, :, :3] == 0).all()
    assert torch.equal(pieces[1, :, 3], images[1, :, 0, 0:4])
    assert torch.equal(pieces[2, :, :2, :2], images[1, :, 8:, 10:])
    assert (pieces[2, :, 2:] == 0).all()
    assert (pieces[2, :, :, 2:] == 0).all()


def test_shapes_and_units(tiny):
    with torch.inference_mode():
        slots = tiny(make_tiles())
    assert set(slots) == set(VIEWS)
    for view in VIEWS:
        arrays = slots[view].to_numpy()
        assert arrays["x"].shape == (2, 100)
        assert arrays["flux"].shape == (2, 100, 10)
        np.testing.assert_allclose(np.linalg.norm(arrays["embedding"], axis=-1), 1, atol=1e-5)
        assert (arrays["x_err"] > 0).all()
        assert arrays["valid"].any()


def test_a_slot_knows_nothing_beyond_its_cut_out(tiny):
    """Given where to look, an object far away changes nothing: that is what tells it from DETRJEPA."""
    inputs = tiny.prepare(make_tiles(batch=1))
    features = tiny.features(inputs)
    features["heat"] = torch.full_like(features["heat"], -9.0)
    features["heat"][0, 30, 30] = 3.0
    near, far = (dict(features, images=features["images"].clone()) for _ in range(2))
    half = CUTOUT // 4  # in Rubin pixels
    far["images"][..., 15 + half :, :] += 1.0
    near["images"][..., 15 + half - 1 :, :] += 1.0
    with torch.inference_mode():
        first, other, changed = (tiny.decode(one)[-1] for one in (features, far, near))
    assert first["valid"].sum() == 1
    assert torch.equal(first["slots"], other["slots"])
    assert not torch.equal(first["slots"], changed["slots"])


def test_views_ignore_the_other_survey(tiny):
    tiles = make_tiles()
    other = dict(tiles, euclid_snr=tiles["euclid_snr"].flip(-1))
    with torch.inference_mode():
        first, second = tiny(tiles), tiny(other)
    assert torch.equal(first["rubin"].x, second["rubin"].x)
    assert not torch.equal(first["euclid"].activity_logit, second["euclid"].activity_logit)


def test_a_tile_does_not_depend_on_its_batch(bundled):
    tiles = make_tiles(batch=3)
    for key in ("rubin_snr", "euclid_snr"):  # something to find
        tiles[key][:, :, 20:23, 30:33] += 12
    with torch.inference_mode():
        together = bundled(tiles)["joint"].to_numpy()
        alone = bundled({key: value[1:2] for key, value in tiles.items()})["joint"].to_numpy()
    valid = alone["valid"][0]
    assert valid.any()
    np.testing.assert_array_equal(together["valid"][1], valid)
    for name in ("x", "activity_logit", "flux", "embedding"):
        np.testing.assert_allclose(together[name][1][valid], alone[name][0][valid], rtol=2e-3, atol=2e-3)


def test_an_empty_tile_has_no_object(tiny):
    tiles = {key: torch.zeros_like(value) for key, value in make_tiles().items()}
    model = ObjectJEPA(ObjectJEPAConfig.tiny()).eval()  # its heat map is silent
    with torch.inference_mode():
        slots = model(tiles)["joint"]
    assert not slots.valid.any()
    assert torch.isfinite(slots.flux).all()


def test_save_and_load_bitwise(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    loaded = ObjectJEPA.from_pretrained(tmp_path)
    assert loaded.config == tiny.config
    tiles = make_tiles()
    with torch.inference_mode():
        before, after = tiny(tiles), loaded(tiles)
    for view in VIEWS:
        for name, values in before[view].to_numpy().items():
            np.testing.assert_array_equal(values, after[view].to_numpy()[name])
    with pytest.raises(WeightsError, match="are for ObjectJEPA, not for PatchJEPA"):
        PatchJEPA.from_pretrained(tmp_path)


def test_bad_tiles(tiny):
    tiles = make_tiles()
    tiles["euclid_snr"] = tiles["euclid_snr"][..., :100]
    with pytest.raises(ImageError, match="twice the Rubin size"):
        tiny(tiles)


def test_catalog_has_all_columns_and_finds_bright_sources(bundled, demo, table):
    assert table.colnames == [column.name for column in COLUMNS]
    assert table.meta["weights"]["name"] == "object_jepa"
    assert len(table.meta["weights"]["sha256"]) == 64
    euclid, truth = demo[1:]
    x, y = euclid.wcs.world_to_pixel(truth["sky_centroid"])
    ny, nx = euclid.shape
    inside = (x > 10) & (x < nx - 11) & (y > 10) & (y < ny - 11)
    bright = truth["sky_centroid"][inside & (truth["snr"] > 30)]
    _, separation, _ = bright.match_to_catalog_sky(table["sky_centroid"])
    assert len(bright) > 20
    assert (separation < 0.3 * u.arcsec).mean() > 0.8
    _, separation, _ = table["sky_centroid"].match_to_catalog_sky(truth["sky_centroid"])
    assert (separation > 0.5 * u.arcsec).mean() < 0.15


def test_catalog_of_one_survey_alone(bundled, demo):
    alone = bundled.catalog(euclid=demo[1])
    assert len(alone) > 20
    assert np.isnan(alone["rubin_i_flux"].value).all()
    assert np.isfinite(alone["euclid_vis_flux"].value).mean() > 0.9
    with pytest.raises(ImageError, match="no image given"):
        bundled.catalog()
