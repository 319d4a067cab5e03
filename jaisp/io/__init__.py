# Licensed under a 3-clause BSD style license - see LICENSE
"""Files and grids: survey files to images, two surveys to one grid, a field to tiles."""

import importlib

_LAZY = {
    "AlignedPair": "jaisp.io.align",
    "Tile": "jaisp.io.tiles",
    "align": "jaisp.io.align",
    "read_euclid": "jaisp.io.euclid",
    "read_rubin": "jaisp.io.rubin",
}

__all__ = sorted(_LAZY)


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
