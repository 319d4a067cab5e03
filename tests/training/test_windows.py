# Licensed under a 3-clause BSD style license - see LICENSE
"""Parts of tiles: what is cut out, where things lie in it, and what an objective makes of it."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.exceptions import ConfigError
from jaisp.models import crop_window
from jaisp.training.config import LossConfig
from jaisp.training.windows import draw_windows, place_window, shift_positions, window_truth


def grid_inputs(size):
    """Inputs whose pixels say where on the tile they are, in 0.1 arcsec."""

    def places(n, step):
        axis = (torch.arange(n) + 0.5) * step - 0.5
        return torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flip(0)[None]

    return {"rubin": places(size // 2, 2), "euclid": places(size, 1), "rubin_condition": torch.ones(1, 18)}


@settings(deadline=None, max_examples=50)
@given(st.sampled_from([64, 128, 256, 384]), st.floats(0.5, 1.0), st.integers(0, 10**6))
def test_windows_lie_within_the_tile_and_show_its_pixels(size, share, seed):
    inputs = grid_inputs(size)
    windows = draw_windows((size, size), share, np.random.default_rng(seed))
    for window in windows.values():
        x0, x1, y0, y1 = window
        assert 0 <= x0 < x1 <= size and 0 <= y0 < y1 <= size  # noqa: PT018
        assert (x1 - x0) % 32 == 0 and x0 % 2 == 0 and y0 % 2 == 0  # noqa: PT018
        shown = crop_window(inputs, window)
        for survey in ("rubin", "euclid"):
            first, last = shown[survey][0, :, 0, 0], shown[survey][0, :, -1, -1]
            step = inputs[survey][0, 0, 0, 1] - inputs[survey][0, 0, 0, 0]
            assert (first - (step - 1) / 2).tolist() == [x0, y0]
            assert (last + (step - 1) / 2).tolist() == [x1 - 1, y1 - 1]
        assert shown["rubin_condition"] is inputs["rubin_condition"]
    assert bool(windows) == (share < 1)


def test_truth_is_of_the_window_and_positions_are_of_the_tile():
    inputs = grid_inputs(128)
    truth = {"x": torch.tensor([[10.0, 40.0, 119.0]]), "y": torch.tensor([[50.0, 40.0, 40.0]])}
    truth |= {"band_snr": torch.ones(1, 3, 10), "snr_rubin": torch.ones(1, 3), "is_star": torch.ones(1, 3)}
    window = (24, 120, 8, 104)
    shown, there = crop_window(inputs, window), window_truth(truth, window)
    assert shown["euclid"].shape[-2:] == (96, 96)
    assert there["x"].tolist() == [[-14.0, 16.0, 95.0]]
    assert there["snr_rubin"].tolist() == [[0.0, 1.0, 1.0]]
    assert there["band_snr"].sum(-1).tolist() == [[0.0, 10.0, 10.0]]
    assert there["is_star"].sum() == 3
    output = {"position": torch.stack([there["x"], there["y"]], dim=-1)}
    shift_positions(output, window)
    torch.testing.assert_close(output["position"], torch.stack([truth["x"], truth["y"]], dim=-1))


def test_windows_are_in_opposite_corners_so_that_places_in_them_are_not_alike():
    seen, places, phases = set(), [], []
    rng = np.random.default_rng(0)
    for _ in range(400):
        windows = draw_windows((256, 256), 0.75, rng)
        assert sorted(windows) == ["euclid", "rubin"]
        seen.add(windows["rubin"])
        x = rng.uniform(0, 256, 50)
        (r0, r1, *_), (e0, e1, *_) = windows["rubin"], windows["euclid"]
        # In opposite corners, but for up to a patch of 16 pixels.
        assert sorted([r0 // 16, -(-e0 // 16)]) == [0, 4] or sorted([e0 // 16, -(-r0 // 16)]) == [0, 4]
        phases.append([r0 % 16, e0 % 16])
        both = (x > r0) & (x < r1) & (x > e0) & (x < e1)
        places.append(np.stack([x[both] - r0, x[both] - e0]))
    assert len(seen) > 150  # four corners, eight steps along each axis
    # x is uniform over what both show, and half the distance of the corners is added and taken away.
    apart = np.arange(64 - 28, 65, 2)
    weight = np.convolve(np.ones(8), np.ones(8)) * (192 - apart)
    spread, moved = ((weight * value).sum() for value in ((192 - apart) ** 2 / 12, apart**2 / 4))
    expected = (spread - moved) / (spread + moved)
    assert np.corrcoef(np.concatenate(places, axis=1))[0, 1] == pytest.approx(expected, abs=0.05)
    assert expected == pytest.approx(0.46, abs=0.01)
    # Where a view lies in its tokens' patches says nothing of where the other one does.
    phases = np.array(phases)
    assert {tuple(np.unique(phase)) for phase in phases.T} == {tuple(range(0, 16, 2))}
    assert abs(np.corrcoef(phases.T)[0, 1]) < 0.15
    assert draw_windows((256, 256), 1, rng) == {}


@pytest.mark.parametrize("window", [0.3, 1.2])
def test_windows_that_would_hardly_overlap_are_refused(window):
    with pytest.raises(ConfigError, match=rf"window must be in \[0.7, 1\], not {window}"):
        dataclasses.replace(LossConfig(), window=window)


def test_windows_lie_from_the_first_pixel_to_the_last():
    assert place_window((256, 128), 0.75, (0, 0)) == (0, 96, 0, 192)
    assert place_window((256, 128), 0.75, (1, 1)) == (32, 128, 64, 256)
    assert place_window((256, 128), 1.0, (0.3, 0.7)) == (0, 128, 0, 256)
    assert place_window((80, 80), 1.0, (0, 0)) == (0, 80, 0, 80)  # a whole tile stays whole
    assert place_window((32, 32), 0.5, (1, 0)) == (0, 32, 0, 32)  # no window is smaller
