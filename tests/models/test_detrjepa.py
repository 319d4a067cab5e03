# Licensed under a 3-clause BSD style license - see LICENSE
"""DETRJEPA: shapes, missing bands, invariances, and weights on disk."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from jaisp.exceptions import ConfigError, FileError, ImageError, WeightsError
from jaisp.models import DETRJEPA, VIEWS, DETRJEPAConfig, band_dropout, matched_filter
from jaisp.models.decoder import find_proposals, worth_a_query
from jaisp.models.detrjepa import SlotHeads


def gaussian_psf(size, sigma):
    axis = torch.arange(size) - size // 2
    psf = torch.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / sigma**2)
    return psf / psf.sum()


def make_tiles(batch=2, size=128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    half = size // 2
    return {
        "rubin_snr": torch.randn(batch, 6, half, half, generator=generator),
        "rubin_valid": torch.ones(batch, 6, half, half, dtype=torch.bool),
        "rubin_noise": torch.full((batch, 6), 3.0),
        "rubin_psf": gaussian_psf(25, 1.8).expand(batch, 6, -1, -1).clone(),
        "euclid_snr": torch.randn(batch, 4, size, size, generator=generator),
        "euclid_valid": torch.ones(batch, 4, size, size, dtype=torch.bool),
        "euclid_noise": torch.full((batch, 4), 2.0),
        "euclid_psf": gaussian_psf(33, 0.9).expand(batch, 4, -1, -1).clone(),
    }


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    config = DETRJEPAConfig.tiny()
    model = DETRJEPA(config).eval()
    # A fresh heat map is silent; give it peaks, so that there are slots to look at. They are drawn from a
    # seed of their own: how many weights the model has must not decide where they lie.
    torch.manual_seed(1)
    torch.nn.init.constant_(model.backbone.heat[-1].bias, -1.0)
    torch.nn.init.normal_(model.backbone.heat[-1].weight, std=1.0)
    return model


def test_shapes_and_units(model):
    slots = model(make_tiles())
    assert set(slots) == set(VIEWS)
    for view in VIEWS:
        arrays = slots[view].to_numpy()
        assert arrays["x"].shape == (2, 100)
        assert arrays["flux"].shape == (2, 100, 10)
        assert arrays["embedding"].shape == (2, 100, 64)
        np.testing.assert_allclose(np.linalg.norm(arrays["embedding"], axis=-1), 1, atol=1e-5)
        assert (arrays["x_err"] > 0).all()
        assert (arrays["half_light_radius"] > 0).all()
        assert (np.hypot(arrays["e1"], arrays["e2"]) < np.sqrt(2)).all()
        assert arrays["valid"].any()
        inside = (arrays["x"] > -9) & (arrays["x"] < 137)
        assert inside[arrays["valid"]].all()


def test_a_tile_does_not_depend_on_its_batch(model):
    tiles = make_tiles(batch=3)
    together = model(tiles)["joint"].to_numpy()
    alone = model({key: value[1:2] for key, value in tiles.items()})["joint"].to_numpy()
    for name in ("x", "activity_logit", "flux", "embedding"):
        np.testing.assert_allclose(together[name][1], alone[name][0], rtol=1e-3, atol=1e-4)


def test_attention_is_told_and_changes_nothing(model):
    """Of each layer, on the grid of tokens as it lies on the tile."""
    tiles = make_tiles()
    for key in ("rubin_snr", "rubin_valid", "euclid_snr", "euclid_valid"):
        tiles[key] = tiles[key][..., : tiles[key].shape[-1] // 2]
    features = model.encode(model.prepare(tiles))
    plain, told = model.decode(features), model.decode(features, attention=True)
    for before, after in zip(plain, told, strict=True):
        assert "attention" not in before
        assert after["attention"].shape == (2, 100, 8, 4)  # tokens of 16 px in 128 x 64
        torch.testing.assert_close(after["attention"].sum((2, 3)), torch.ones(2, 100))
        assert torch.equal(before["slots"], after["slots"])


def test_views_ignore_the_other_survey(model):
    tiles = make_tiles()
    other = dict(tiles, euclid_snr=torch.randn_like(tiles["euclid_snr"]))
    first, second = model(tiles), model(other)
    assert torch.equal(first["rubin"].x, second["rubin"].x)
    assert not torch.equal(first["euclid"].activity_logit, second["euclid"].activity_logit)


def test_a_missing_band_is_not_an_empty_one(model):
    tiles = make_tiles()
    keep = {"rubin": torch.ones(2, 6, dtype=torch.bool), "euclid": torch.ones(2, 4, dtype=torch.bool)}
    keep["rubin"][:, 3] = False
    dropped = band_dropout(tiles, keep)
    assert (dropped["rubin_noise"][:, 3] == 0).all()
    assert not dropped["rubin_valid"][:, 3].any()
    # What is under a missing band must not matter.
    tiles["rubin_snr"][:, 3] = 1e3
    again = band_dropout(tiles, keep)
    assert torch.equal(model(dropped)["joint"].x, model(again)["joint"].x)
    assert torch.isfinite(model(dropped)["joint"].flux).all()


def test_noise_that_no_training_shows_is_taken_for_the_nearest_that_it_does(model):
    """Images in wrong units must not look like nothing ever seen: only their signal to noise counts then."""
    tiles = make_tiles()

    def activity(noise):
        return model(dict(tiles, euclid_noise=torch.full((2, 4), noise)))["joint"].activity_logit

    assert torch.equal(activity(200.0), activity(5000.0))
    assert torch.equal(activity(0.1), activity(0.001))
    assert not torch.equal(activity(3.0), activity(4.0))
    assert not torch.equal(activity(0.0), activity(0.001))  # no band at all


def test_slots_follow_the_image(model):
    """The shortcut of learned queries: slot i would be the same whatever the image shows."""
    slots = model(make_tiles(batch=8, seed=3))["joint"]
    spread = slots.embedding.std(0).norm(dim=-1)[slots.valid.all(0)]
    assert spread.mean() > 0.3


def test_matched_filter_is_the_optimal_significance():
    psf = gaussian_psf(25, 1.8)[None, None]
    flux, sigma = 50.0, 2.0
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 20:45, 8:33] = flux * psf[0, 0] / sigma
    significance = matched_filter(image, psf)
    expected = flux * psf.square().sum().sqrt() / sigma
    assert significance.max() == pytest.approx(expected.item(), rel=1e-5)
    assert divmod(int(significance.argmax()), 64) == (32, 20)
    noise = matched_filter(torch.randn(4, 1, 256, 256, generator=torch.Generator().manual_seed(0)), psf)
    assert noise.std() == pytest.approx(1.0, abs=0.03)


def test_proposals_are_peaks_inside_the_window():
    heat = torch.full((1, 40, 40), -9.0)
    for row, column, value in [(5, 6, 3.0), (5, 7, 2.0), (20, 30, 4.0), (33, 2, 1.0)]:
        heat[0, row, column] = value
    score, position, valid, n = find_proposals(heat, 5)
    assert position[0, :3].tolist() == [[30, 20], [6, 5], [2, 33]]
    assert score[0, :3].tolist() == [4, 3, 1]
    assert valid[0].tolist() == [True] * 3 + [False] * 2
    assert n.tolist() == [3]
    _, position, valid, n = find_proposals(heat, 5, window=torch.tensor([[0, 10, 0, 40]]))
    assert position[0, valid[0]].tolist() == [[6, 5], [2, 33]]
    assert n.tolist() == [2]


@pytest.mark.parametrize("nms_size", [3, 5])
def test_peaks_are_those_of_max_pooling(nms_size):
    heat = torch.randn(2, 50, 70, generator=torch.Generator().manual_seed(2))
    highest = torch.nn.functional.max_pool2d(heat, nms_size, stride=1, padding=nms_size // 2)
    peaks = worth_a_query(heat, nms_size=nms_size, threshold=0.6)
    assert peaks.any()
    assert torch.equal(peaks, (heat == highest) & (torch.sigmoid(heat) > 0.6))


@pytest.mark.parametrize(("patch_size", "n_tokens"), [(8, 256), (32, 16)])
def test_patches_of_other_sizes(patch_size, n_tokens):
    model = DETRJEPA(dataclasses.replace(DETRJEPAConfig.tiny(), patch_size=patch_size)).eval()
    torch.nn.init.constant_(model.backbone.heat[-1].bias, 1.0)
    features = model.encode(model.prepare(make_tiles(size=128)))
    assert features["tokens"].shape == (2, n_tokens, 32)
    first, last = features["token_positions"][0, 0], features["token_positions"][0, -1]
    assert first.tolist() == pytest.approx([0.05 * patch_size] * 2)
    assert last.tolist() == pytest.approx([12.8 - 0.05 * patch_size] * 2, rel=1e-5)
    assert torch.isfinite(model(make_tiles())["joint"].embedding).all()


def test_tiles_must_hold_whole_patches():
    model = DETRJEPA(dataclasses.replace(DETRJEPAConfig.tiny(), patch_size=32))
    with pytest.raises(ImageError, match="must be a multiple of 16"):
        model(make_tiles(size=144))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda tiles: tiles.pop("rubin_psf"), "tiles lack rubin_psf"),
        (lambda tiles: tiles.update(rubin_snr=tiles["rubin_snr"][:, :4]), "needed: .batch, 6, height, width"),
        (lambda tiles: tiles.update(euclid_snr=tiles["euclid_snr"][..., :100]), "twice the Rubin size"),
    ],
)
def test_bad_tiles(model, change, text):
    tiles = make_tiles()
    change(tiles)
    with pytest.raises(ImageError, match=text):
        model(tiles)


def test_save_and_load_bitwise(model, tmp_path):
    model.save_pretrained(tmp_path / "weights", notes={"step": 3})
    loaded = DETRJEPA.from_pretrained(tmp_path / "weights")
    assert loaded.config == model.config
    assert loaded.weights_info["name"] == "weights"
    assert len(loaded.weights_info["sha256"]) == 64
    tiles = make_tiles()
    for view in VIEWS:
        before, after = model(tiles)[view].to_numpy(), loaded(tiles)[view].to_numpy()
        for name, values in before.items():
            np.testing.assert_array_equal(values, after[name])
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def break_weights(folder, how):
    if how == "missing":
        return folder / "nowhere"
    if how == "empty":
        (folder / "empty").mkdir()
        return folder / "empty"
    config = json.loads((folder / "config.json").read_text())
    if how == "truncated":
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    elif how == "other model":
        config["model"] = "PatchJEPA"
    elif how == "unknown key":
        config["config"]["n_querys"] = 3
    elif how == "other size":
        config["config"]["dim"] = 64
    elif how == "not json":
        (folder / "config.json").write_text("{")
        return folder
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ("missing", WeightsError, "does not exist"),
        ("empty", WeightsError, "has no config.json; give one that `jaisp train` wrote"),
        ("truncated", WeightsError, "is damaged"),
        ("other model", WeightsError, "are for PatchJEPA, not for DETRJEPA"),
        ("unknown key", ConfigError, "unknown key 'n_querys' .*did you mean 'n_queries'"),
        ("other size", WeightsError, "do not fit their configuration"),
        ("not json", WeightsError, "is not a configuration of jaisp weights"),
    ],
)
def test_bad_weights(model, tmp_path, how, error, text):
    model.save_pretrained(tmp_path / "weights")
    folder = break_weights(tmp_path / "weights", how)
    with pytest.raises(error, match=text):
        DETRJEPA.from_pretrained(folder)


@pytest.mark.parametrize("error", [SafetensorError("I/O error: no space"), OSError(28, "no space")])
def test_weights_that_cannot_be_written(model, tmp_path, monkeypatch, error):
    def fail(state, path, **options):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr("jaisp.models.pretrained.save_file", fail)
    with pytest.raises(FileError, match=r"cannot write weights into '.*': .*no space"):
        model.save_pretrained(tmp_path / "weights")
    assert not list((tmp_path / "weights").iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write weights into"):
        model.save_pretrained(tmp_path / "file")


def test_unknown_device(model, tmp_path):
    model.save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="unknown device 'gpu7'; allowed: cpu, cuda, auto"):
        DETRJEPA.from_pretrained(tmp_path, device="gpu7")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"dim": 100}, "multiple of 32"),
        ({"nms_size": 4}, "odd"),
        ({"channels": (8, 8)}, "three positive"),
        ({"patch_size": 12}, "8, 16 or 32"),
    ],
)
def test_bad_config(values, text):
    with pytest.raises(ConfigError, match=text):
        DETRJEPAConfig(**values)


def test_config_round_trips_through_json():
    config = DETRJEPAConfig(channels=(16, 32, 48), dim=64)
    assert DETRJEPAConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_embeddings_hear_what_the_heads_say_without_changing_it():
    torch.manual_seed(0)
    heads = SlotHeads(DETRJEPAConfig.tiny())
    slots = torch.randn(1, 5, DETRJEPAConfig.tiny().dim)
    for parameter in heads.projector.parameters():
        parameter.detach().zero_()  # what is left comes from the properties
    assert not heads(slots)["projection"].any()  # at first they are not heard
    torch.nn.init.normal_(heads.property_projector[-1].weight)
    out = heads(slots)
    assert out["projection"].std(dim=1).min() > 0
    out["projection"].sum().backward()
    assert all(parameter.grad is None for parameter in heads.properties.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in heads.property_projector[-1].parameters())


def test_gathered_statistics_are_those_of_the_slots_they_were_gathered_from():
    model = DETRJEPA(DETRJEPAConfig.tiny()).eval()
    generator = torch.Generator().manual_seed(2)

    def outputs():
        return [
            {
                "projection": 3 + 5 * torch.randn(2, 300, 64, generator=generator),
                "activity_logit": torch.ones(2, 300),
                "valid": torch.ones(2, 300, dtype=torch.bool),
            }
        ]

    with model.heads.gather_statistics():
        for _ in range(4):
            model.heads.normalize(outputs())
    assert not model.training
    assert not model.heads.training
    (after,) = (batch := outputs())
    model.heads.normalize(batch)
    assert after["projection"].mean().abs() < 0.02
    assert (after["projection"].std() - 1).abs() < 0.02
