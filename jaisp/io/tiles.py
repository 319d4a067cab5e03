# Licensed under a 3-clause BSD style license - see LICENSE
"""
Tiles of an aligned pair: what a model sees at a time.

Tiles overlap, so that every object is seen whole, but each pixel is *owned* by one tile only: an object is
taken from the tile that owns its centre, the rest (the halo) is context.
"""

from functools import cached_property

import numpy as np

from jaisp.exceptions import ConfigError, ImageError
from jaisp.image import resize_psf
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["PSF_SIZES", "Tile", "check_layout", "make_tiles", "owned", "subwindows"]

# Side of the PSF images in a tile, in pixels of each survey's grid.
PSF_SIZES = {"rubin": 25, "euclid": 33}


class Tile:
    """
    A square cut from an aligned pair; its arrays are made when first asked for.

    Parameters
    ----------
    pair : `~jaisp.io.AlignedPair`
        Where to cut.
    own : tuple of int
        Owned window (x0, x1, y0, y1), half open, in pixels of the 0.1 arcsec grid. It owns the positions
        ``x0 - 0.5 <= x < x1 - 0.5``, and so on: whole pixels.
    index : int
        Number of the tile in the layout of the field.
    size : int
        Side in pixels of the 0.1 arcsec grid, even.
    halo : int
        How many pixels around the owned window are shown.
    origin : tuple of int, optional
        Grid pixel (x, y) at the tile's pixel (0, 0): even, may be negative. By default the owned window is in
        the middle of the tile.

    Attributes
    ----------
    x0, y0 : int
        Origin on the grid; grid position = tile position + origin.
    """

    def __init__(self, pair, own, *, index=0, size=384, halo=32, origin=None):
        check_layout(size, halo)
        self.own = tuple(int(edge) for edge in own)
        x0, x1, y0, y1 = self.own
        if origin is None:
            origin = ((x0 + x1 - size) // 4 * 2, (y0 + y1 - size) // 4 * 2)
        ny, nx = pair.shape
        for low, high, start, n in ((x0, x1, origin[0], nx), (y0, y1, origin[1], ny)):
            if not (max(0, start) <= low < high <= min(n, start + size)):
                raise ConfigError(
                    f"a tile of {size} px cannot own the window {self.own} of a field of {nx} x {ny} px; "
                    f"give (x0, x1, y0, y1) inside the field, at most {size - 2} px a side"
                )
        self.index, self.size, self.halo = int(index), int(size), int(halo)
        self.x0, self.y0 = (int(edge) for edge in origin)
        self._pair = pair

    @property
    def view(self):
        """Window (x0, x1, y0, y1) of the grid that is shown: the owned one and its halo, inside the tile."""
        ny, nx = self._pair.shape
        x0, x1, y0, y1 = self.own
        view = []
        for low, high, start, n in ((x0, x1, self.x0, nx), (y0, y1, self.y0, ny)):
            # Outwards to even pixels: no Rubin pixel is cut.
            low = (low - self.halo) // 2 * 2
            high = -((-high - self.halo) // 2) * 2
            view += [max(low, start, 0), min(high, start + self.size, n)]
        return tuple(view)

    @cached_property
    def arrays(self):
        """
        Arrays of the tile, bands in the order of the surveys; a band that is missing is zero and nowhere
        valid.

        Returns
        -------
        arrays : dict of array
            For each survey (Rubin n = 6, pixels of 0.2 arcsec, and Euclid n = 4, 0.1 arcsec) ``<survey>_snr``
            (n, side, side) float32, data less sky in units of the noise of a source, 0 where invalid;
            ``<survey>_valid`` (n, side, side) bool; ``<survey>_noise`` (n,) float32, median noise per pixel
            at the scale of a source in nJy; ``<survey>_psf`` (n, 25, 25) or (n, 33, 33) float32, sum 1.
        """
        arrays = {}
        for survey, image, binning in ((RUBIN, self._pair.rubin, 2), (EUCLID, self._pair.euclid, 1)):
            arrays.update(self._survey_arrays(survey, image, binning))
        return arrays

    def _survey_arrays(self, survey, image, binning):
        n, side, psf_side = len(survey.bands), self.size // binning, PSF_SIZES[survey.name]
        snr, valid = np.zeros((n, side, side), np.float32), np.zeros((n, side, side), bool)
        noise, psf = np.zeros(n, np.float32), np.zeros((n, psf_side, psf_side), np.float32)
        here, there = self._slices(binning)
        for band in image.bands if image is not None else ():
            good = ~image.mask[band][here]
            if not good.any():
                continue
            k = survey.index(band)
            data, background = image.data[band][here], image.background[band]
            if background is not None:
                data = data - background[here]
            sd = np.sqrt(image.variance[band][here]) * np.float32(image.noise[band].scale)
            np.divide(data, sd, out=snr[k][there], where=good)
            valid[k][there] = good
            noise[k] = np.median(sd[good])
            psf[k] = resize_psf(image.psf[band], psf_side)
        return {
            f"{survey.name}_snr": snr,
            f"{survey.name}_valid": valid,
            f"{survey.name}_noise": noise,
            f"{survey.name}_psf": psf,
        }

    def _slices(self, binning):
        """Slices of the shown window in the image and in the tile."""
        x0, x1, y0, y1 = (edge // binning for edge in self.view)
        left, low = self.x0 // binning, self.y0 // binning
        return np.s_[y0:y1, x0:x1], np.s_[y0 - low : y1 - low, x0 - left : x1 - left]

    def split(self):
        """
        Cut the owned window into quadrants, for skies too dense for one tile.

        Returns
        -------
        tiles : list of `Tile`
            Up to four tiles of the same size and index, that show only their own quadrant and its halo.

        Raises
        ------
        `~jaisp.exceptions.ImageError`
            If the tile was sent to another process, and has left the images behind.
        """
        if isinstance(self._pair, _Field):
            raise ImageError("a tile that another process sent has no images to split; split it there")
        return [
            Tile(self._pair, own, index=self.index, size=self.size, halo=self.halo)
            for own in subwindows(self.own)
        ]

    def __getstate__(self):
        # Sent to another process, a tile takes its arrays along and leaves the images behind.
        state = dict(self.__dict__, arrays=self.arrays)
        state["_pair"] = _Field(self._pair.shape)
        return state

    def __repr__(self):
        return f"<Tile {self.index}: {self.size} px from ({self.x0}, {self.y0}), owns {self.own}>"


class _Field:
    """All that is left of a pair in a tile that was sent to another process."""

    rubin = euclid = None

    def __init__(self, shape):
        self.shape = shape


def make_tiles(pair, *, size=384, halo=32):
    """
    Cut an aligned pair into tiles.

    Parameters
    ----------
    pair : `~jaisp.io.AlignedPair`
        Two surveys, or one, on one grid.
    size : int
        Side of a tile in pixels of the 0.1 arcsec grid; even.
    halo : int
        Width of the overlap on each side, in the same pixels; even, less than half of ``size``.

    Yields
    ------
    tile : `Tile`
        Row by row. Tiles whose owned window has no valid pixel in any band are left out; ``index`` counts
        them all the same, so that a tile's number does not depend on masks.

    Notes
    -----
    Nothing is copied but the arrays of the tile in hand: about 4 MB for 384 pixels. The memory needed is
    that of the images and of what `~jaisp.image.SurveyImage` works out for each band: the background and,
    where none was given, the variance, 4 bytes per pixel each.
    """
    check_layout(size, halo)
    rows, columns = (_layout(n, size, halo) for n in pair.shape)
    for row, (y0, low, high) in enumerate(rows):
        for column, (x0, left, right) in enumerate(columns):
            own = (left, right, low, high)
            if _any_valid(pair, own):
                index = row * len(columns) + column
                yield Tile(pair, own, index=index, size=size, halo=halo, origin=(x0, y0))


def check_layout(size, halo):
    """Refuse sizes of tiles and halos that cannot be."""
    if size < 4 or size % 2 or halo < 0 or halo % 2 or 2 * halo >= size:
        raise ConfigError(
            f"tiles of size {size} with halo {halo} are not possible; allowed: even numbers of pixels with "
            "0 <= halo < size / 2"
        )


def _layout(n, size, halo):
    """Origin and owned window (start, low, high) of each tile along an axis of ``n`` pixels; n is even."""
    step = size - 2 * halo
    number = max(1, -(-(n - 2 * halo) // step))
    # The field lies in the middle of its tiles.
    first = (n - number * step - 2 * halo) // 4 * 2
    starts = [first + k * step for k in range(number)]
    edges = [0, *(start + halo for start in starts[1:]), n]
    return list(zip(starts, edges[:-1], edges[1:], strict=True))


def _any_valid(pair, window):
    x0, x1, y0, y1 = window
    for image, binning in ((pair.rubin, 2), (pair.euclid, 1)):
        where = np.s_[y0 // binning : -(-y1 // binning), x0 // binning : -(-x1 // binning)]
        if image is not None and not all(image.mask[band][where].all() for band in image.bands):
            return True
    return False


def owned(x, y, tile):
    """
    Tell which positions a tile owns.

    Parameters
    ----------
    x, y : float or array
        Positions in the tile, in its 0.1 arcsec pixels (as the models give them).
    tile : `Tile`
        The tile.

    Returns
    -------
    owned : bool or array of bool
        Of the tiles of a field exactly one owns each position inside the field's outer pixel edges.
    """
    x0, x1, y0, y1 = tile.own
    # Adding the half pixel first keeps two neighbours from rounding one position to different sides.
    x, y = np.asarray(x) + (tile.x0 + 0.5), np.asarray(y) + (tile.y0 + 0.5)
    return (x >= x0) & (x < x1) & (y >= y0) & (y < y1)


def subwindows(window):
    """
    Quadrants of a window.

    Parameters
    ----------
    window : tuple of int
        (x0, x1, y0, y1), half open.

    Returns
    -------
    windows : list of tuple of int
        Four windows (fewer if it is one pixel wide) that share no pixel and leave none out; inner edges are
        even where possible.
    """
    x0, x1, y0, y1 = window
    columns, rows = _halves(x0, x1), _halves(y0, y1)
    return [(*column, *row) for row in rows for column in columns]


def _halves(low, high):
    middle = (low + high) // 2
    if middle - 1 > low:
        middle -= middle % 2
    return [(low, middle), (middle, high)] if low < middle else [(low, high)]
