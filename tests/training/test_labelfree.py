# Licensed under a 3-clause BSD style license - see LICENSE
"""Learning without truth: proposals, the fit of both images, and that no truth is touched."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from jaisp.models import DETRJEPAConfig, network_inputs
from jaisp.scene import render_image
from jaisp.training import TrainingConfig
from jaisp.training.config import ObjectiveConfig
from jaisp.training.folders import FolderConfig
from jaisp.training.objectives import labelfree
from jaisp.training.objectives.labelfree import LabelFree, LabelFreeLoss, finding_loss
from jaisp.training.overlay import overlay_copies
from jaisp.training.proposals import _background, find_sources, significance_map
from jaisp.training.rendering import explain

from .configs import supervised_config

SIZE = 128
NOISE = 2.0  # nJy per pixel, all bands


def gaussian(size, sigma):
    steps = np.arange(size) - size // 2
    psf = np.exp(-0.5 * (steps**2 + steps[:, None] ** 2) / sigma**2)
    return torch.from_numpy((psf / psf.sum()).astype(np.float32))


def make_tiles(batch=1, size=SIZE, *, vis_alone=False, seed=0):
    """White noise in all bands; PSFs are Gaussians of sigma 2 pixels (Rubin) and 1.4 (Euclid)."""
    generator = torch.Generator().manual_seed(seed)
    tiles = {}
    for survey, n, side, width, sigma in (("rubin", 6, size // 2, 25, 2.0), ("euclid", 4, size, 33, 1.4)):
        present = torch.ones(n, dtype=torch.bool)
        if vis_alone:
            present[:] = False
            present[0] = survey == "euclid"
        mask = present[None, :, None, None].expand(batch, n, side, side)
        tiles[f"{survey}_snr"] = torch.randn(batch, n, side, side, generator=generator) * mask
        tiles[f"{survey}_valid"] = mask.clone()
        tiles[f"{survey}_noise"] = NOISE * present.float().expand(batch, n).clone()
        tiles[f"{survey}_psf"] = (gaussian(width, sigma) * present[:, None, None]).expand(batch, -1, -1, -1)
    return tiles


def add_sources(tiles, x, y, flux, radius, e1, e2):
    """Add the same sources to all tiles; ``flux`` (n, 10)."""
    x, y, flux, radius, e1, e2 = (
        torch.as_tensor(v, dtype=torch.float32) for v in (x, y, flux, radius, e1, e2)
    )
    for survey, bands, scale in (("rubin", slice(0, 6), 0.2), ("euclid", slice(6, 10), 0.1)):
        place = ((x - 0.5) / 2, (y - 0.5) / 2) if survey == "rubin" else (x, y)
        snr = tiles[f"{survey}_snr"]
        image = render_image(
            tiles[f"{survey}_psf"][0],
            *place,
            flux[:, bands],
            radius,
            e1,
            e2,
            shape=snr.shape[-2:],
            pixel_scale=scale,
        )
        tiles[f"{survey}_snr"] = snr + image / NOISE


def test_proposals_are_where_the_sources_are():
    tiles = make_tiles()
    grid = np.linspace(15.3, 112.7, 5)
    x, y = (values.ravel() for values in np.meshgrid(grid, grid))
    n = len(x)
    zeros = np.zeros(n)
    # A flat spectrum at S/N 20: noise of a PSF flux is 2 sqrt(pi) sigma x noise per pixel.
    information = sum(k / (2 * math.sqrt(math.pi) * s * NOISE) ** 2 for k, s in ((6, 2.0), (4, 1.4)))
    flux = np.full((n, 10), 20 / math.sqrt(information))
    add_sources(tiles, x, y, flux, zeros, zeros, zeros)
    found = find_sources(tiles)
    bright = found["snr_joint"][0] > 8
    assert bright.sum() == n
    distance = np.hypot(
        found["x"][0][bright].numpy()[:, None] - x, found["y"][0][bright].numpy()[:, None] - y
    )
    assert sorted(distance.argmin(1)) == list(range(n))
    assert distance.min(1).max() < 0.8
    assert np.median(distance.min(1)) < 0.25
    # The largest of four spectra is a little above the one that is right.
    assert found["snr_joint"][0][bright].mean().item() == pytest.approx(20, rel=0.06)
    squares = found["snr_rubin"] ** 2 + found["snr_euclid"] ** 2
    assert squares[0][bright].sqrt().mean().item() == pytest.approx(20, rel=0.08)


@pytest.mark.parametrize("shape", [(96, 128), (80, 112), (70, 65)])
def test_background_lies_where_it_is_on_tiles_of_any_side(shape):
    y, x = torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")
    slope = (x + 2 * y)[None]
    found = _background(slope)
    assert found.shape == slope.shape
    # Between the middles of whole boxes a plane is a plane.
    inside = np.s_[:, 16 : shape[0] // 32 * 32 - 16, 16 : shape[1] // 32 * 32 - 16]
    assert (found - slope)[inside].abs().max() < 2


def test_proposals_of_noise_have_the_rate_of_its_maxima():
    """A field of correlation exp(-r^2 / 4 s^2) has u exp(-u^2/2) / (2 s^2 (2 pi)^1.5) maxima above u."""
    level, sigma, size = 3.5, 1.4, 256
    tiles = make_tiles(12, size, vis_alone=True, seed=4)
    number = (find_sources(tiles)["snr_joint"] > level).sum().item()
    level *= 1 + 1 / (24 * sigma**2)  # a maximum lies between pixels, whose value counts
    rate = level * math.exp(-0.5 * level**2) / (2 * sigma**2 * (2 * math.pi) ** 1.5)
    assert number == pytest.approx(12 * size**2 * rate, rel=0.25)


def make_sky(seed=1):
    """Two galaxies and a star, one pair blended."""
    truth = {
        "x": [50.3, 57.8, 90.6],
        "y": [60.7, 63.2, 30.4],
        "flux": np.outer([900.0, 500.0, 700.0], np.linspace(0.5, 1.5, 10)),
        "radius": [0.4, 0.25, 0.0],
        "e1": [0.2, -0.1, 0.0],
        "e2": [-0.1, 0.15, 0.0],
    }
    tiles = make_tiles(seed=seed)
    for name in ("rubin_snr", "euclid_snr"):
        tiles[name] = 0.1 * tiles[name]  # hardly any noise
    add_sources(tiles, *truth.values())
    return {name: values[0] for name, values in tiles.items()}, truth


def fit(tile, truth, **changed):
    values = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in truth.items()}
    values.update(changed)
    return explain(tile, values["x"], values["y"], values["radius"], values["e1"], values["e2"])


def test_misfit_is_least_at_the_truth_and_fluxes_are_solved():
    tile, truth = make_sky()
    best = fit(tile, truth)
    assert best.misfit.item() == pytest.approx(0.01, rel=0.05)  # the noise that is left
    np.testing.assert_allclose(best.flux.numpy(), truth["flux"], rtol=0.02)
    for name, step in (("x", 0.2), ("y", 0.2), ("radius", 0.03), ("e1", 0.05), ("e2", 0.05)):
        for number in range(2):
            for sign in (-1, 1):
                moved = torch.tensor(truth[name], dtype=torch.float32)
                moved[number] += sign * step
                moved.requires_grad_()
                worse = fit(tile, truth, **{name: moved})
                assert worse.misfit > best.misfit, (name, number, sign)
                # The gradient points back to the truth.
                (slope,) = torch.autograd.grad(worse.misfit, moved)
                assert slope[number].item() * sign > 0, (name, number, sign)


def test_slots_flatter_than_a_line_are_drawn_as_flat_ones():
    """Both components of an ellipticity may near 1; a training once ended there in a failed factorisation."""
    tile, truth = make_sky()
    steep = {name: torch.tensor([0.99, 0.2, 0.0], requires_grad=True) for name in ("e1", "e2")}
    found = fit(tile, truth, **steep)
    assert torch.isfinite(found.flux).all()
    assert torch.isfinite(torch.stack(torch.autograd.grad(found.misfit, list(steep.values())))).all()


def test_significance_says_what_the_fit_needs():
    tile, truth = make_sky()
    x, y = [*truth["x"], truth["x"][0], 20.0], [*truth["y"], truth["y"][0], 100.0]
    more = {name: [*truth[name], truth[name][0], 0.2] for name in ("radius", "e1", "e2")}
    for name in ("rubin_snr", "euclid_snr"):
        tile[name] = tile[name] + torch.randn(tile[name].shape, generator=torch.Generator().manual_seed(5))
    result = fit(tile, {"x": x, "y": y, **more})
    joint = result.significance["joint"]
    assert (joint[:3] > 20).all()
    assert joint[3] < 3  # the first once more
    assert joint[4] < 4  # empty sky
    # A faint star alone: flux over noise, all bands.
    star = {name: np.asarray(values)[2:3] for name, values in truth.items()}
    star["flux"] = star["flux"] / 10
    tiles = make_tiles(seed=7)
    add_sources(tiles, *star.values())
    alone = fit({name: values[0] for name, values in tiles.items()}, star).significance
    scale = np.array([2 * math.sqrt(math.pi) * s * NOISE for s in [2.0] * 6 + [1.4] * 4])
    snr = np.sqrt(((star["flux"][0] / scale) ** 2).sum())
    assert alone["joint"].item() == pytest.approx(snr, abs=2)
    squares = alone["rubin"].item() ** 2 + alone["euclid"].item() ** 2
    assert math.sqrt(squares) == pytest.approx(snr, abs=2)


def test_a_slot_on_a_residual_is_not_punished():
    output = {
        "position": torch.tensor([[[10.0, 10.0], [40.0, 40.0]]]),
        "error": torch.ones(1, 2, 2),
        "activity_logit": torch.tensor([[4.0, 4.0]]),
        "valid": torch.ones(1, 2, dtype=torch.bool),
    }
    targets = {"x": torch.tensor([[10.0]]), "y": torch.tensor([[10.0]])}
    snr, config = torch.tensor([[20.0]]), LabelFreeLoss()
    spare = torch.tensor([[False, True]])
    assert finding_loss([output], targets, snr, config)["activity"] > 3
    assert finding_loss([output], targets, snr, config, spare)["activity"] < 0.05


class Forbidden(dict):
    """A truth that must not be read."""

    def __getitem__(self, key):
        raise AssertionError(f"the truth was asked for {key}")

    get = items = values = keys = __iter__ = __getitem__


@pytest.fixture
def scene_config(tmp_path):
    config = supervised_config(tmp_path)
    data = FolderConfig(**{f.name: getattr(config.data, f.name) for f in dataclasses.fields(config.data)})
    return TrainingConfig(
        model=DETRJEPAConfig.tiny(),
        data=data,
        loss=LabelFreeLoss(confirm_start=0.3),
        optimizer=config.optimizer,
        objective=ObjectiveConfig(kind="labelfree"),
    )


def test_no_truth_is_touched_and_all_terms_teach(scene_config, tmp_path, monkeypatch):
    draw = labelfree.draw_tile
    monkeypatch.setattr(labelfree, "draw_tile", lambda *a, **k: (draw(*a, **k)[0], Forbidden(x=1)))
    torch.manual_seed(0)
    objective = LabelFree(scene_config, tmp_path)
    early, late = list(objective.batches(0, 2))
    total, terms, gauges = objective.losses(early, 0)
    assert "jepa" not in terms
    assert {"n_objects", "n_queries", "n_proposals", "n_needed"} <= set(gauges)
    total, terms, _ = objective.losses(late, 3)
    assert {"render", "activity", "position", "heat", "flux", "dropped_band", "shape", "jepa"} <= set(terms)
    total.backward()
    model = objective.model
    for part in (model.backbone.heat, model.decoder.shift[-1], model.heads.properties):
        assert all(torch.isfinite(p.grad).all() and p.grad.abs().max() > 0 for p in part.parameters())


def test_nothing_is_fitted_before_its_time(scene_config, tmp_path, monkeypatch):
    config = dataclasses.replace(
        scene_config,
        loss=LabelFreeLoss(render_start=0.5),
        optimizer=dataclasses.replace(scene_config.optimizer, steps=4, jepa_start=1.0),
    )
    objective = LabelFree(config, tmp_path)
    batch = objective.dataset(objective.banks[0], 0, **objective.hidden())[0]
    _, terms, gauges = objective.losses(batch, 2)
    assert {"render", "flux"} < set(terms)
    assert "n_needed" in gauges
    monkeypatch.setattr(labelfree, "explain_slots", None)
    total, terms, gauges = objective.losses(batch, 1)
    assert set(terms) == {"heat", "activity", "position"}
    assert torch.isfinite(total)
    assert "n_needed" not in gauges


def test_the_student_sees_less_than_its_teacher(scene_config, tmp_path):
    objective = LabelFree(scene_config, tmp_path)
    (batch,) = objective.batches(0, 1)
    tiles, inputs = batch["tiles"], network_inputs(batch["student"])
    for survey, n in (("rubin", 6), ("euclid", 4)):
        present, log_noise = inputs[f"{survey}_condition"][:, :n], inputs[f"{survey}_condition"][:, n : 2 * n]
        teacher = tiles[f"{survey}_noise"].clamp_min(1e-6).log10() - 0.7
        assert ((log_noise >= teacher - 1e-5) | (present == 0)).all()
        assert ((log_noise <= teacher + math.log10(2) + 1e-5) | (present == 0)).all()


def test_an_overlaid_tile_is_the_sum_of_two_with_what_was_found_in_both():
    tiles = make_tiles(2)
    add_sources(
        tiles, [40.3, 80.2], [50.1, 90.4], np.full((2, 10), 400.0), [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    )
    for name, value in (("valid", False), ("snr", 0.0)):
        tiles[f"euclid_{name}"][:, :, 3:5, 7] = value
    targets = find_sources(tiles, lowest=8.0)
    n = targets["x"].shape[1]
    both, joined = overlay_copies(tiles, targets, np.random.default_rng(2), 1.0)
    # The matched filter sees each target where it is said to be, at the significance that is said.
    growth = both["rubin_noise"] / tiles["rubin_noise"]
    seen = significance_map(both) * growth[:, :1, None]
    expected, x, y = joined["snr_joint"], joined["x"].round().long(), joined["y"].round().long()
    assert expected.shape == (2, 2 * n)
    assert (expected[:, n:] < expected[:, :n]).all()
    for tile in range(2):
        inside = (expected[tile] > 0) & (x[tile] > 4) & (x[tile] < 123) & (y[tile] > 4) & (y[tile] < 123)
        assert inside.sum() >= 3
        values = seen[tile, y[tile][inside], x[tile][inside]]
        torch.testing.assert_close(values, expected[tile][inside], rtol=0.15, atol=3.0)
    # Twice the bad pixels; the noise has the unit variance that it had.
    assert (~both["euclid_valid"]).sum() == 2 * (~tiles["euclid_valid"]).sum()
    quiet, _ = overlay_copies(make_tiles(2), targets, np.random.default_rng(2), 1.0)
    assert quiet["euclid_snr"].std().item() == pytest.approx(1, abs=0.01)
    same, none = overlay_copies(tiles, targets, np.random.default_rng(2), 0.0)
    torch.testing.assert_close(same, tiles, rtol=0, atol=0)
    assert (none["snr_joint"][:, n:] == 0).all()
