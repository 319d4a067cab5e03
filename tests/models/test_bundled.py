# Licensed under a 3-clause BSD style license - see LICENSE
"""The bundled weights: golden tensors, silence on noise, sources found, embeddings that meet."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.wcs import WCS

from jaisp import DETRJEPA, SurveyImage
from jaisp.models import VIEWS, crop_window
from jaisp.simulation import NoiseBank, SceneConfig, draw_tile, make_scene

GOLDEN = Path(__file__).with_name("golden_detr_jepa.json")


@pytest.fixture(scope="module")
def model():
    return DETRJEPA.from_pretrained()


@pytest.fixture(scope="module")
def seen(model):
    """Sixteen tiles that training did not see, and what the model makes of them."""
    noise, tiles, truths = NoiseBank(seed=9), [], []
    for seed in range(16):
        rng = np.random.default_rng([424242, seed])
        arrays, truth = draw_tile(make_scene(rng, SceneConfig(unusual=0.0)), rng, noise)
        tiles.append(arrays)
        truths.append(truth)
    batch = {key: torch.from_numpy(np.stack([tile[key] for tile in tiles])) for key in tiles[0]}
    with torch.inference_mode():
        return batch, truths, {view: slots.to_numpy() for view, slots in model(batch).items()}


def test_small_enough(model):
    folder = Path(__import__("jaisp").__file__).parent / "data" / "weights" / "detr_jepa"
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12e6
    assert json.loads((folder / "config.json").read_text())["notes"]["validation"]["val/f1_joint"] > 0.8
    assert model.config.calibration["activity"]["snr_slope"] > 0


def test_golden_tensors(model):
    """Weights, architecture and inputs together: any change of one shows here."""
    rng = np.random.default_rng(11)
    axis = np.arange(-16, 17)
    spot = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 0.9**2)
    broad = np.exp(-0.5 * (axis[4:-4, None] ** 2 + axis[4:-4] ** 2) / 1.8**2)
    tiles = {
        "rubin_snr": rng.normal(size=(1, 6, 64, 64)),
        "rubin_valid": np.ones((1, 6, 64, 64), bool),
        "rubin_noise": np.full((1, 6), 3.0),
        "rubin_psf": np.tile(broad / broad.sum(), (1, 6, 1, 1)),
        "euclid_snr": rng.normal(size=(1, 4, 128, 128)),
        "euclid_valid": np.ones((1, 4, 128, 128), bool),
        "euclid_noise": np.full((1, 4), 2.0),
        "euclid_psf": np.tile(spot / spot.sum(), (1, 4, 1, 1)),
    }
    for x, y, height in ((40, 60, 30), (90, 30, 8)):
        tiles["euclid_snr"][0, :, y - 16 : y + 17, x - 16 : x + 17] += height * spot
        i, j = x // 2, y // 2
        tiles["rubin_snr"][0, :, j - 12 : j + 13, i - 12 : i + 13] += height * broad
    tensors = {
        key: torch.from_numpy(value.astype(bool if value.dtype == bool else np.float32))
        for key, value in tiles.items()
    }
    with torch.inference_mode():
        slots = model(tensors)["joint"].to_numpy()
    best = np.argsort(-slots["activity_logit"][0])[:2]
    found = {
        name: np.round(slots[name][0][best].astype(float), 5).tolist()
        for name in ("activity_logit", "x", "y", "half_light_radius", "star_logit")
    }
    found["embedding"] = np.round(slots["embedding"][0][best][:, :8].astype(float), 5).tolist()
    golden = json.loads(GOLDEN.read_text())
    for name, values in golden.items():
        np.testing.assert_allclose(found[name], values, rtol=2e-3, atol=2e-3, err_msg=name)


def compare_slots(first, second, **tolerance):
    """Active slots agree in everything; queries without a proposal hold nothing to compare."""
    valid = first["valid"]
    np.testing.assert_array_equal(valid, second["valid"])
    for name, values in first.items():
        if name not in ("valid", "n_proposals"):
            np.testing.assert_allclose(values[valid], second[name][valid], err_msg=name, **tolerance)


def test_a_tile_does_not_depend_on_its_batch(model, seen):
    """Alone, and among others in another order; what differs is the rounding of other matrix shapes."""
    batch, _, together = seen
    order = [5, 2, 7]
    for chosen in (order, order[:1]):
        with torch.inference_mode():
            parts = model({key: value[chosen] for key, value in batch.items()})
        for view in VIEWS:
            expected = {name: values[chosen] for name, values in together[view].items()}
            compare_slots(expected, parts[view].to_numpy(), rtol=2e-3, atol=2e-3)


def test_saving_and_loading_changes_no_bit(model, seen, tmp_path):
    batch, _, _ = seen
    model.save_pretrained(tmp_path)
    loaded = DETRJEPA.from_pretrained(tmp_path)
    assert loaded.config == model.config
    state = loaded.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    part = {key: value[:2] for key, value in batch.items()}
    with torch.inference_mode():
        before, after = model(part), loaded(part)
    for view in VIEWS:
        compare_slots(before[view].to_numpy(), after[view].to_numpy(), rtol=0, atol=0)


def test_bands_are_known_by_name(model):
    """The order in which a user gives the bands changes no bit of the catalogue."""
    scene = make_scene(np.random.default_rng([424242, 0]))
    rng, wcs = np.random.default_rng(6), WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [150.0, 2.0], [64.5, 64.5]
    wcs.wcs.cdelt = [-0.2 / 3600, 0.2 / 3600]
    image = scene.rubin + rng.normal(0, 2.0, scene.rubin.shape)
    planes = {
        band: (image[k], np.full(image[k].shape, 4.0), scene.rubin_psf[k]) for k, band in enumerate("ugrizy")
    }
    catalogs = []
    for order in ("ugrizy", "ziyrug"):
        data, variance, psf = ({band: planes[band][part] for band in order} for part in range(3))
        rubin = SurveyImage(data, wcs, survey="rubin", unit="nJy", variance=variance, psf=psf)
        catalogs.append(model.catalog(rubin))
    first, second = catalogs
    assert len(first) > 10
    for name in ("activity", "embedding", "rubin_u_flux", "rubin_y_flux"):
        np.testing.assert_array_equal(np.asarray(first[name]), np.asarray(second[name]), err_msg=name)


def test_noise_is_empty(model):
    noise = NoiseBank(seed=10)
    rng = np.random.default_rng(5)
    scene = make_scene(rng)
    scene.rubin[:], scene.euclid[:] = 0, 0
    tiles = [draw_tile(scene, rng, noise)[0] for _ in range(8)]
    batch = {key: torch.from_numpy(np.stack([tile[key] for tile in tiles])) for key in tiles[0]}
    with torch.inference_mode():
        slots = model(batch)
    # Eight tiles are 1.5 square arcminutes; backgrounds and defects are drawn at their worst.
    for view in ("joint", "rubin", "euclid"):
        assert (slots[view].activity > 0.5).sum() <= 6


def test_finds_sources_where_they_are(seen):
    _, truths, slots = seen
    found = total = false = 0
    for k, truth in enumerate(truths):
        active = slots["joint"]["activity_logit"][k] > 0
        active &= slots["joint"]["valid"][k]
        xy = np.stack([slots["joint"]["x"][k][active], slots["joint"]["y"][k][active]], axis=-1)
        inside = (np.abs(truth["x"] - 127.5) < 120) & (np.abs(truth["y"] - 127.5) < 120)
        bright = inside & (truth["snr"] > 10)
        every = np.stack([truth["x"], truth["y"]], axis=-1)
        distance = np.linalg.norm(xy[:, None] - every[None], axis=-1)
        found += (distance[:, bright] < 3).any(axis=0).sum()
        total += bright.sum()
        false += (distance[:, truth["snr"] > 2].min(axis=1) > 5).sum()
    assert found / total > 0.9
    assert false / found < 0.09


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shift", [4, 8])
def test_an_object_is_the_same_wherever_it_lies_in_its_patch(model, seen, view, shift):
    """The pixels do not change, only where they are cut into patches of 16."""
    batch, _, _ = seen
    few = {key: value[:8] for key, value in batch.items()}
    slots = []
    for corner in (0, shift):
        window = (corner, corner + 224, corner, corner + 224)
        with torch.inference_mode():
            found = model(crop_window(few, window), views=(view,))[view].to_numpy()
        slots.append(found | {"x": found["x"] + corner, "y": found["y"] + corner})
    same, other = [], []
    for k in range(8):
        first, second = (
            {
                name: one[name][k][one["valid"][k] & (one["activity_logit"][k] > 2)]
                for name in ("x", "y", "embedding")
            }
            for one in slots
        )
        distance = np.hypot(first["x"][:, None] - second["x"], first["y"][:, None] - second["y"])
        inside = np.abs(first["x"] - 116) + np.abs(first["y"] - 116) < 150
        cosine = first["embedding"] @ second["embedding"].T
        same.extend(cosine[(distance < 2) & inside[:, None]])
        other.extend(cosine[distance > 20])
    assert len(same) > 50
    assert np.median(same) > 0.8
    assert np.mean(other) < 0.2


@pytest.mark.parametrize("views", [("rubin", "euclid"), ("joint", "rubin"), ("joint", "euclid")])
def test_views_agree_on_an_object_and_not_on_others(seen, views):
    _, _, slots = seen
    same, other = [], []
    for k in range(8):
        rubin, euclid = ({name: slots[view][name][k] for name in ("x", "y", "embedding")} for view in views)
        keep = [(slots[view]["activity_logit"][k] > 2) & slots[view]["valid"][k] for view in views]
        distance = np.hypot(
            rubin["x"][keep[0]][:, None] - euclid["x"][keep[1]],
            rubin["y"][keep[0]][:, None] - euclid["y"][keep[1]],
        )
        cosine = rubin["embedding"][keep[0]] @ euclid["embedding"][keep[1]].T
        same.extend(cosine[distance < 2])
        other.extend(cosine[distance > 20])
    assert np.mean(same) > 0.7
    assert np.mean(other) < 0.2
