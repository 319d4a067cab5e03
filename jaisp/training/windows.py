# Licensed under a 3-clause BSD style license - see LICENSE
"""
Windows of tiles for the views of one survey.

A network with edges knows where in its tile an object lies, and two views of one tile could agree about that
instead of the object. So each survey's view is shown a window of its own, in opposite corners: where sides
are three quarters of the tile's, the place of an object in one window says next to nothing (a correlation of
.14 along each axis) of that in the other. Windows drawn independently would leave .88.
"""

import numpy as np

__all__ = ["draw_windows", "place_window", "shift_positions", "window_truth"]

_STEP = 32  # 0.1 arcsec pixels: sides are multiples of it, as tiles of any model may be


def place_window(shape, share, place):
    """
    Window of a tile.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the tile in 0.1 arcsec pixels.
    share : float
        Sides of the window as a fraction of the tile's.
    place : tuple of float
        Where along y and x it lies: 0 at the first pixel, 1 at the last.

    Returns
    -------
    tuple of int
        ``x0, x1, y0, y1``, half open; corners are even, sides multiples of 32.
    """
    window = []
    for side, at in zip(shape, place, strict=True):
        length = side if share == 1 else min(side, max(_STEP, int(share * side) // _STEP * _STEP))
        first = 2 * round(at * (side - length) / 2)
        window = [first, first + length, *window]
    return tuple(window)


def draw_windows(shape, share, rng):
    """
    Draw windows for the surveys' views, in opposite corners of the tile.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the tiles in 0.1 arcsec pixels.
    share : float
        See `place_window`.
    rng : `~numpy.random.Generator`

    Returns
    -------
    dict of tuple of int
        Windows by view; empty for whole tiles.
    """
    if share == 1:
        return {}
    corner = rng.integers(2, size=2)
    return {
        "rubin": place_window(shape, share, corner),
        "euclid": place_window(shape, share, 1 - corner),
    }


def window_truth(truth, window):
    """
    Truth as it lies in a window.

    Parameters
    ----------
    truth : dict of Tensor
        With ``x`` and ``y`` (B, M), and signal to noise under names with ``snr``.
    window : tuple of int
        From `place_window`.

    Returns
    -------
    dict of Tensor
        Sources outside have no signal.
    """
    x0, x1, y0, y1 = window
    x, y = truth["x"] - x0, truth["y"] - y0
    inside = (x > -0.5) & (x < x1 - x0 - 0.5) & (y > -0.5) & (y < y1 - y0 - 0.5)
    seen = {**truth, "x": x, "y": y}
    for name, values in truth.items():
        if "snr" in name:
            seen[name] = values * (inside[..., None] if values.ndim > inside.ndim else inside)
    return seen


def shift_positions(output, window):
    """
    Move positions from a window's frame to its tile's, in place.

    Parameters
    ----------
    output : dict of Tensor
        Of a decoder layer; ``position`` (B, N, 2) in 0.1 arcsec pixels.
    window : tuple of int
        From `place_window`.
    """
    corner = output["position"].new_tensor(np.array(window[::2], np.float32))
    output["position"] = output["position"] + corner
