# Licensed under a 3-clause BSD style license - see LICENSE
"""
Parts of tiles for the views of one survey.

A network with edges knows where in its tile an object lies, and two views of one tile could agree about that
instead of the object. So each survey's view is shown a part of its own.
"""

import numpy as np

from jaisp.models.inputs import crop_window

__all__ = ["draw_windows", "shift_positions", "show_window"]

_STEP = 32  # 0.1 arcsec pixels: windows are as large as tiles of any model may be


def draw_windows(inputs, share, rng):
    """
    Draw a window of the tiles for each survey's view.

    Parameters
    ----------
    inputs : dict of Tensor
        From `~jaisp.models.network_inputs`.
    share : float
        Their sides, as a fraction of the tile's; 1 for whole tiles.
    rng : `~numpy.random.Generator`

    Returns
    -------
    dict of tuple of int
        ``x0, x1, y0, y1`` in 0.1 arcsec pixels by view; empty for whole tiles.
    """
    height, width = inputs["euclid"].shape[-2:]
    sides = [max(_STEP, int(share * side) // _STEP * _STEP) for side in (width, height)]
    if share == 1 or (sides[0] >= width and sides[1] >= height):
        return {}
    windows = {}
    for view in ("rubin", "euclid"):
        corner = [
            2 * int(rng.integers(0, (whole - side) // 2 + 1))
            for whole, side in zip((width, height), sides, strict=True)
        ]
        windows[view] = (corner[0], corner[0] + sides[0], corner[1], corner[1] + sides[1])
    return windows


def show_window(inputs, truth, window):
    """
    Show a part of the tiles.

    Parameters
    ----------
    inputs : dict of Tensor
        From `~jaisp.models.network_inputs`.
    truth : dict of Tensor
        With ``x`` and ``y`` (B, M), and signal to noise under names with ``snr``.
    window : tuple of int
        From `draw_windows`.

    Returns
    -------
    inputs, truth : dict of Tensor
        Those of the part; sources outside have no signal.
    """
    x0, x1, y0, y1 = window
    x, y = truth["x"] - x0, truth["y"] - y0
    inside = (x > -0.5) & (x < x1 - x0 - 0.5) & (y > -0.5) & (y < y1 - y0 - 0.5)
    seen = {**truth, "x": x, "y": y}
    for name, values in truth.items():
        if "snr" in name:
            seen[name] = values * (inside[..., None] if values.ndim > inside.ndim else inside)
    return crop_window(inputs, window), seen


def shift_positions(output, window):
    """
    Move positions from a window's frame to its tile's, in place.

    Parameters
    ----------
    output : dict of Tensor
        Of a decoder layer; ``position`` (B, N, 2) in 0.1 arcsec pixels.
    window : tuple of int
        ``x0, x1, y0, y1``, from `draw_windows`.
    """
    corner = output["position"].new_tensor(np.array(window[::2], np.float32))
    output["position"] = output["position"] + corner
