# Licensed under a 3-clause BSD style license - see LICENSE
"""
Windows of tiles for the views of one survey.

A network with edges knows where in its tile an object lies, and two views of one tile could agree about that
instead of the object. So each survey's view is shown a window of its own, in opposite corners. Nor must they
agree about where in a token's patch it lies, which every token knows: the corners are moved by up to a patch,
each view's by itself. Where sides are three quarters of the tile's, the place of an object in one window then
says little (a correlation of .46 along each axis; without the moves .14) of that in the other. Windows drawn
independently would leave .88.
"""

import numpy as np

__all__ = ["draw_windows", "place_window", "shift_positions", "window_truth"]

_STEP = 32  # 0.1 arcsec pixels: sides are multiples of it, as tiles of any model may be
_PATCH = 16  # 0.1 arcsec pixels: the largest patch of a model


def place_window(shape, share, place, shift=(0, 0)):
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
    shift : tuple of int
        Even numbers of pixels by which it is moved along y and x, away from the nearer edge of the tile.

    Returns
    -------
    tuple of int
        ``x0, x1, y0, y1``, half open; corners are even, sides multiples of 32.
    """
    window = []
    for side, at, moved in zip(shape, place, shift, strict=True):
        length = side if share == 1 else min(side, max(_STEP, int(share * side) // _STEP * _STEP))
        room = side - length
        first = 2 * round(at * room / 2)
        first += min(moved, room) if at < 0.5 else -min(moved, room)
        window = [first, first + length, *window]
    return tuple(window)


def draw_windows(shape, share, rng):
    """
    Draw windows for the surveys' views, in opposite corners of the tile or up to a patch from there.

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
    shift = 2 * rng.integers(_PATCH // 2, size=(2, 2))
    return {
        "rubin": place_window(shape, share, corner, shift[0]),
        "euclid": place_window(shape, share, 1 - corner, shift[1]),
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
