# Licensed under a 3-clause BSD style license - see LICENSE
"""Files and grids: survey files to images, two surveys to one grid, a field to tiles."""

# Eager, because the function `align` has the name of its module: imported later, the module would hide it.
from jaisp.io.align import AlignedPair, align
from jaisp.io.euclid import read_euclid
from jaisp.io.rubin import read_rubin
from jaisp.io.tiles import Tile

__all__ = ["AlignedPair", "Tile", "align", "read_euclid", "read_rubin"]
