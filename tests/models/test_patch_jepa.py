# Licensed under a 3-clause BSD style license - see LICENSE
"""PatchJEPA: one vector a tile; its bundled weights know one sky in both surveys; no catalogue."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import jaisp
from jaisp.exceptions import ConfigError, ImageError, WeightsError
from jaisp.models import DETRJEPA, PatchJEPA, PatchJEPAConfig
from jaisp.simulation import NoiseBank, SceneConfig, draw_tile, make_scene

from .test_detrjepa import make_tiles

DEMO = Path(jaisp.__file__).parent / "data" / "demo"


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(2)
    return PatchJEPA(PatchJEPAConfig.tiny()).eval()


@pytest.fixture(scope="module")
def bundled():
    return PatchJEPA.from_pretrained()


@pytest.fixture(scope="module")
def scenes():
    """Twelve tiles that training did not see, of scenes as they were when it was done."""
    noise, config, tiles = NoiseBank(seed=9), SceneConfig(compact=0.0, unusual=0.0), []
    for seed in range(12):
        rng = np.random.default_rng([515151, seed])
        tiles.append(draw_tile(make_scene(rng, config), rng, noise)[0])
    return {key: torch.from_numpy(np.stack([tile[key] for tile in tiles])) for key in tiles[0]}


@pytest.fixture(scope="module")
def demo():
    return (
        jaisp.read_rubin(sorted(DEMO.glob("rubin_*"))),
        jaisp.read_euclid(sorted(DEMO.glob("euclid_*"))),
    )


def test_config_round_trips_through_json():
    config = PatchJEPAConfig(dim=96, n_layers=2, tile_size=128)
    assert PatchJEPAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"dim": 100}, "multiple of 32, not 100"),
        ({"n_layers": 0}, "n_layers must be at least 1, not 0"),
        ({"tile_size": 100}, "tile_size must be a multiple of 16 and at least 64, not 100"),
    ],
)
def test_bad_config(values, text):
    with pytest.raises(ConfigError, match=text):
        PatchJEPAConfig(**values)


def test_save_and_load_bitwise(tiny, tmp_path):
    tiny.save_pretrained(tmp_path)
    loaded = PatchJEPA.from_pretrained(tmp_path)
    assert loaded.config == tiny.config
    tiles = make_tiles()
    with torch.inference_mode():
        before, after = tiny(tiles), loaded(tiles)
    for survey in ("rubin", "euclid"):
        assert torch.equal(before[survey], after[survey])
    with pytest.raises(WeightsError, match="are for PatchJEPA, not for DETRJEPA"):
        DETRJEPA.from_pretrained(tmp_path)


def test_a_survey_has_a_vector_of_its_own(tiny):
    """The vector of one survey does not know the other's images, and does know its own."""
    tiles = make_tiles()
    other = dict(tiles, euclid_snr=tiles["euclid_snr"].flip(-1))
    with torch.inference_mode():
        first, second = tiny(tiles), tiny(other)
    assert torch.equal(first["rubin"], second["rubin"])
    assert (first["euclid"] - second["euclid"]).abs().max() > 1e-4
    torch.testing.assert_close(first["rubin"].norm(dim=-1), torch.ones(2))


def test_bad_tiles(tiny):
    tiles = make_tiles()
    del tiles["euclid_noise"]
    with pytest.raises(ImageError, match="tiles lack euclid_noise"):
        tiny(tiles)


def test_bundled_weights(bundled, scenes):
    """Vectors of one sky are alike, of different skies are not: the golden figure of these weights."""
    assert bundled.weights_info["name"] == "patch_jepa"
    with torch.inference_mode():
        vectors = bundled(scenes)
        part = bundled({key: value[3:5] for key, value in scenes.items()})
    for survey in ("rubin", "euclid"):  # a tile does not depend on its batch
        torch.testing.assert_close(part[survey], vectors[survey][3:5], rtol=1e-3, atol=1e-4)
    cosine = vectors["rubin"] @ vectors["euclid"].T
    own = cosine.diagonal()
    other = (cosine.sum() - own.sum()) / (12 * 11)
    assert (own.mean() - other).item() == pytest.approx(0.858, abs=0.005)
    assert (cosine.argmax(1) == torch.arange(12)).sum() == pytest.approx(10, abs=1)


def test_embed_gives_a_row_for_each_tile(bundled, demo):
    rubin, euclid = demo
    done = []
    table = bundled.embed(rubin, euclid, region="overlap", progress=lambda *numbers: done.append(numbers))
    assert table.colnames == [
        "tile",
        "sky_centroid",
        "rubin_embedding",
        "euclid_embedding",
        "rubin_coverage",
        "euclid_coverage",
        "similarity",
    ]
    assert done[-1] == (len(table), len(table))
    seen = (table["rubin_coverage"] > 0) & (table["euclid_coverage"] > 0)
    assert seen.any()
    np.testing.assert_allclose(np.linalg.norm(table["euclid_embedding"][seen], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(np.isfinite(table["similarity"]), seen)
    one = bundled.embed(rubin, euclid, region="overlap", batch_size=1)
    np.testing.assert_allclose(one["rubin_embedding"], table["rubin_embedding"], rtol=1e-3, atol=1e-4)


def test_embed_one_survey_alone(bundled, demo):
    table = bundled.embed(euclid=demo[1])
    assert np.isnan(table["rubin_embedding"]).all()
    assert np.isfinite(table["euclid_embedding"]).all()
    assert np.isnan(table["similarity"]).all()
    with pytest.raises(ImageError, match="no image given; give rubin, euclid or both"):
        bundled.embed()


def test_catalog_is_refused_and_says_what_to_use(tiny, demo):
    with pytest.raises(
        ConfigError, match=r"makes no catalogue: .*use DETRJEPA or ObjectJEPA, or PatchJEPA\.embed"
    ):
        tiny.catalog(*demo)
