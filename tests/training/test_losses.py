# Licensed under a 3-clause BSD style license - see LICENSE
"""Terms of the objective against closed cases."""

import math

import numpy as np
import pytest
import torch

from jaisp.exceptions import ConfigError
from jaisp.models import DETRJEPA, DETRJEPAConfig
from jaisp.training.config import LossConfig
from jaisp.training.losses import _readout_targets, heat_loss, jepa_loss, readout_loss, set_loss, view_snr
from jaisp.training.matching import assign, match_surveys, match_truth
from jaisp.training.regularizers import REGULARIZERS, sigreg, vicreg, visreg


def make_truth(x, y, snr=20.0):
    x, y = torch.tensor([x], dtype=torch.float32), torch.tensor([y], dtype=torch.float32)
    n = x.shape[1]
    band_snr = torch.zeros(1, n, 10)
    band_snr[..., 6] = torch.as_tensor(snr)
    return {
        "x": x,
        "y": y,
        "flux_asinh": torch.ones(1, n, 10),
        "log_radius": torch.full((1, n), -1.0),
        "ellipticity": torch.zeros(1, n, 2),
        "is_star": torch.zeros(1, n, dtype=torch.bool),
        "band_snr": band_snr,
    }


def make_output(positions, logits):
    position = torch.tensor([positions], dtype=torch.float32)
    n = position.shape[1]
    return {
        "position": position,
        "error": torch.ones(1, n, 2),
        "activity_logit": torch.tensor([logits], dtype=torch.float32),
        "valid": torch.ones(1, n, dtype=torch.bool),
        "flux_asinh": torch.ones(1, n, 10),
        "log_radius": torch.full((1, n), -1.0),
        "ellipticity": torch.zeros(1, n, 2),
        "star_logit": torch.full((1, n), -9.0),
        "projection": torch.eye(n, 64)[None],
    }


def test_assign_leaves_rows_without_a_partner():
    cost = np.array([[1.0, 5.0], [2.0, 9.0], [0.0, 0.0]])
    rows, columns = assign(cost, np.array([[True, True], [True, False], [False, False]]))
    assert sorted(zip(rows.tolist(), columns.tolist(), strict=True)) == [(0, 1), (1, 0)]


def test_matching_is_one_to_one_and_gated():
    truth = make_truth([10.0, 12.0, 50.0], [10.0, 10.0, 50.0])
    output = make_output([[10.4, 10], [11.8, 10], [10.1, 10], [80, 80]], [1.0, 1.0, -3.0, 5.0])
    slot, source = match_truth(output, truth, snr=view_snr(truth, "joint"))
    assert slot[1].tolist() == [0, 1]
    assert source[1].tolist() == [0, 1]


def test_brightness_keeps_blended_neighbours_from_swapping():
    truth = make_truth([10.0, 11.0], [10.0, 10.0])
    truth["flux_asinh"][0, 0] = 6.0
    output = make_output([[10.45, 10], [10.55, 10]], [2.0, 2.0])
    output["flux_asinh"][0, 1] = 6.0
    slot, source = match_truth(output, truth, snr=view_snr(truth, "joint"))
    assert dict(zip(slot[1].tolist(), source[1].tolist(), strict=True)) == {1: 0, 0: 1}


def test_set_loss_is_small_for_the_truth_and_finite_without_any():
    config = LossConfig()
    truth = make_truth([10.0, 30.0], [10.0, 40.0])
    right = make_output([[10, 10], [30, 40], [70, 70]], [9.0, 9.0, -9.0])
    wrong = make_output([[12, 10], [30, 43], [70, 70]], [-9.0, 9.0, 9.0])
    snr = view_snr(truth, "euclid")
    good, (_, source) = set_loss([right], truth, snr, config)
    bad, _ = set_loss([wrong], truth, snr, config)
    assert good["activity"] < 1e-3
    assert good["position"] == pytest.approx(0.0, abs=1e-6)
    assert source[1].tolist() == [0, 1]
    for name in ("activity", "position"):
        assert bad[name] > good[name] + 1
    # In the Rubin view these sources have no signal: nothing is to be found.
    empty, _ = set_loss([right], truth, view_snr(truth, "rubin"), config)
    assert torch.isfinite(empty["activity"])
    assert empty["position"] == 0


def test_faint_truth_is_neither_right_nor_wrong():
    truth = make_truth([10.0], [10.0], snr=3.5)
    for logit in (-9.0, 9.0):
        losses, _ = set_loss(
            [make_output([[10, 10]], [logit])], truth, view_snr(truth, "joint"), LossConfig()
        )
        assert losses["activity"] == 0


def test_heat_loss_prefers_the_peak_at_the_source():
    truth = make_truth([10.2, 40.0], [20.0, 5.0])
    snr = view_snr(truth, "joint")
    flat = torch.full((1, 64, 64), -8.0)
    peaked, shifted = flat.clone(), flat.clone()
    for x, y in ((10, 20), (40, 5)):
        peaked[0, y, x] = 8.0
        shifted[0, y + 6, x] = 8.0
    values = [heat_loss(heat, truth, snr, LossConfig()).item() for heat in (peaked, flat, shifted)]
    assert values[0] < 0.01 < values[1] < values[2]
    # A source outside the tile gives no positive and no error.
    outside = make_truth([200.0], [10.0])
    assert torch.isfinite(heat_loss(flat, outside, view_snr(outside, "joint"), LossConfig()))


@pytest.mark.parametrize("n", [64, 512])
def test_sigreg_has_its_null_floor_on_normal_embeddings_and_sees_collapse(n):
    generator = torch.Generator().manual_seed(2)
    normal = torch.randn(n, 64, generator=generator)
    floor = sigreg(normal, generator).item()
    assert 0.3 < floor < 1.5
    assert sigreg(torch.zeros(n, 64) + normal[:1], generator).item() > 5 * floor
    narrow = sigreg(0.3 * normal, generator)
    assert narrow.item() > 5 * floor


def test_survey_matching_needs_activity_position_and_uses_similarity():
    rubin = make_output([[10, 10], [30, 30], [50, 50], [52, 50]], [3.0, 3.0, -3.0, 3.0])
    euclid = make_output([[10.5, 10], [60, 30], [50, 50], [52.2, 50]], [3.0, 3.0, 3.0, 3.0])
    tile, i, j = match_surveys(rubin, euclid, similarity_weight=1.0)
    assert tile.tolist() == [0, 0]
    assert i.tolist() == [0, 3]
    assert j.tolist() == [0, 3]
    # Two candidates at the same distance: the embedding decides.
    rubin = make_output([[10, 10]], [3.0])
    euclid = make_output([[9.0, 10], [11.0, 10]], [3.0, 3.0])
    rubin["projection"][0, 0] = euclid["projection"][0, 1]
    assert match_surveys(rubin, euclid, similarity_weight=3.0)[2].tolist() == [1]


@pytest.mark.parametrize("name", ["sigreg", "vicreg", "visreg"])
def test_regularisers_are_least_for_normal_embeddings_and_push_the_collapsed_apart(name):
    generator = torch.Generator().manual_seed(3)
    regularize = REGULARIZERS[name]
    normal = torch.randn(512, 16, generator=generator)
    line = torch.randn(512, 1, generator=generator) * torch.ones(16)
    narrow = (0.3 * normal).requires_grad_()
    least = regularize(normal).item()
    assert regularize(line).item() > 3 * least + 0.3
    value = regularize(narrow)
    assert value.item() > 3 * least
    # Its gradient widens them.
    assert (torch.autograd.grad(value, narrow)[0] * narrow).sum() < 0


def test_regularisers_have_the_values_of_their_formulas():
    # Two coordinates of one kind: variance 1, covariance 1.
    values = torch.tensor([-1.0, 1.0]).repeat(500)[:, None] * math.sqrt(999 / 1000)
    assert vicreg(values.repeat(1, 2)).item() == pytest.approx(0.04, rel=0.01)
    assert vicreg(0.5 * values).item() == pytest.approx(0.5, rel=0.01)
    # The Wasserstein distance of two points from a normal: 2 (1 - sqrt(2 / pi)).
    assert visreg(values).item() == pytest.approx(2 * (1 - math.sqrt(2 / math.pi)), rel=0.02)
    assert REGULARIZERS["none"](values).item() == 0


def test_readout_is_a_linear_map_from_the_direction_of_embeddings_to_what_slots_say():
    torch.manual_seed(0)
    model = torch.nn.Module()
    model.readout = torch.nn.Linear(8, 12)
    embedding = torch.randn(300, 8)
    unit = embedding / embedding.norm(dim=1, keepdim=True)
    said = 3 + 5 * unit @ torch.randn(8, 12)
    centred = said - said.mean(0)
    scaled = centred / said.std(0, correction=0)
    slope = torch.linalg.lstsq(torch.cat([unit * 8**0.5, torch.ones(300, 1)], 1), scaled).solution
    with torch.no_grad():
        model.readout.weight.copy_(slope[:-1].T)
        model.readout.bias.copy_(slope[-1])
    assert readout_loss(model, (embedding, 7 * embedding), said) < 1e-3  # of any length
    assert readout_loss(model, (embedding, embedding.flip(0)), said) > 0.2
    embedding.requires_grad_()
    readout_loss(model, (embedding, embedding), said.requires_grad_()).backward()
    assert embedding.grad.abs().sum() > 0


def test_readout_is_of_brightness_and_colours():
    """Each survey says its own fluxes: what Rubin says of Euclid's bands does not count, nor vice versa."""
    rubin, euclid = (make_output([[10, 10]], [1.0]) for _ in range(2))
    flux = torch.arange(10.0).square()
    rubin["flux_asinh"] = torch.cat([flux[:6], torch.full((4,), 99.0)])[None, None]
    euclid["flux_asinh"] = torch.cat([torch.full((6,), 99.0), flux[6:]])[None, None]
    for output, radius in ((rubin, 9.0), (euclid, 0.5)):
        output["log_radius"], output["star_logit"] = torch.tensor([[radius]]), torch.tensor([[0.0]])
    zero = torch.tensor([0])
    said = _readout_targets(rubin, euclid, zero, zero, zero)
    expected = torch.cat([torch.tensor([28.5]), 2 * torch.arange(9.0) + 1, torch.tensor([0.5, 0.5])])
    torch.testing.assert_close(said, expected[None])


def between(joint_seed):
    """Terms between views of twelve sources, the last inactive in Rubin, and gradients by view."""
    model = DETRJEPA(DETRJEPAConfig.tiny())
    places = [[20.0 * k, 20.0] for k in range(12)]
    outputs = {}
    for number, view in enumerate(("rubin", "euclid", "joint")):
        output = make_output(places, [1.0] * 11 + [-1.0 if view == "rubin" else 1.0])
        rng = torch.Generator().manual_seed(joint_seed if view == "joint" else number)
        dim = model.config.embedding_dim
        output["projection"] = torch.randn(1, 12, dim, generator=rng).requires_grad_()
        output["flux_asinh"] = torch.randn(1, 12, 10, generator=rng)
        output["log_radius"] = output["star_logit"] = torch.randn(1, 12, generator=rng)
        outputs[view] = output
    torch.manual_seed(0)  # of the predictors
    for part in (model.predict_rubin, model.predict_euclid):
        for value in part.parameters():
            torch.nn.init.normal_(value, std=0.1)
    terms, gauges = jepa_loss(model, outputs, similarity_weight=0.0, regularize=vicreg)
    projections = [outputs[view]["projection"] for view in ("rubin", "euclid", "joint")]
    return gauges, {
        name: torch.autograd.grad(terms[name], projections, retain_graph=True, materialize_grads=True)
        for name in ("jepa", "regularizer")
    }


def test_joint_slots_follow_those_of_the_surveys_and_not_the_other_way_round():
    (gauges, one), (_, other) = between(10), between(11)
    assert gauges["n_matched"] == 11
    for survey in (0, 1):
        torch.testing.assert_close(one["jepa"][survey], other["jepa"][survey], rtol=0, atol=0)
    assert one["jepa"][2].abs().sum() > 0


def test_regularizer_sees_all_active_slots_matched_or_not():
    _, gradients = between(10)
    rubin, euclid, joint = (part[0].abs().sum(-1) > 0 for part in gradients["regularizer"])
    assert rubin.tolist() == [True] * 11 + [False]
    assert euclid.all()
    assert not joint.any()


def test_similarity_alone_matches_slots_wherever_they_are():
    rubin = make_output([[10, 10], [50, 50], [90, 90]], [1.0, 1.0, -1.0])
    euclid = make_output([[10, 10], [50, 50]], [1.0, 1.0])
    euclid["projection"] = rubin["projection"][:, [1, 0]]
    by_similarity = match_surveys(rubin, euclid, similarity_weight=3.0, position_weight=0.0)
    by_position = match_surveys(rubin, euclid, similarity_weight=0.0)
    assert by_similarity.tolist() == [[0, 0], [0, 1], [1, 0]]
    assert by_position.tolist() == [[0, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize(("name", "near"), [("regularizer_kind", "sigregg"), ("matching", "positions")])
def test_unknown_choices_are_refused_with_a_near_name(name, near):
    with pytest.raises(ConfigError, match=f"unknown {name} '{near}'.*did you mean"):
        LossConfig(**{name: near})
