# Licensed under a 3-clause BSD style license - see LICENSE
"""
jaisp: one catalogue of objects from Rubin and Euclid images of the same sky.

Importing jaisp is light: torch is loaded when a model is first touched.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("jaisp")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_LAZY = {
    "DETRJEPA": "jaisp.models",
    "ObjectJEPA": "jaisp.models",
    "PatchJEPA": "jaisp.models",
    "SurveyImage": "jaisp.image",
    "align": "jaisp.io",
    "read_euclid": "jaisp.io",
    "read_rubin": "jaisp.io",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
