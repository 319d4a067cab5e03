# Licensed under a 3-clause BSD style license - see LICENSE
"""Models: tensors in, object slots out. Nothing here knows a WCS or a file of images."""

from jaisp.models.config import DETRJEPAConfig
from jaisp.models.detrjepa import DETRJEPA
from jaisp.models.inputs import TILE_KEYS, VIEWS, band_dropout, matched_filter, network_inputs
from jaisp.models.slots import Slots

__all__ = [
    "DETRJEPA",
    "TILE_KEYS",
    "VIEWS",
    "DETRJEPAConfig",
    "Slots",
    "band_dropout",
    "matched_filter",
    "network_inputs",
]
