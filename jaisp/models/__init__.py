# Licensed under a 3-clause BSD style license - see LICENSE
"""Models: tensors in, object slots out. Nothing here knows a WCS or a file of images."""

from jaisp.models.config import DETRJEPAConfig, ObjectJEPAConfig, PatchJEPAConfig
from jaisp.models.detrjepa import DETRJEPA
from jaisp.models.inputs import (
    TILE_KEYS,
    VIEWS,
    band_dropout,
    crop_window,
    matched_filter,
    network_inputs,
)
from jaisp.models.object_jepa import ObjectJEPA
from jaisp.models.patch_jepa import PatchJEPA
from jaisp.models.slots import Slots

__all__ = [
    "DETRJEPA",
    "TILE_KEYS",
    "VIEWS",
    "DETRJEPAConfig",
    "ObjectJEPA",
    "ObjectJEPAConfig",
    "PatchJEPA",
    "PatchJEPAConfig",
    "Slots",
    "band_dropout",
    "crop_window",
    "matched_filter",
    "network_inputs",
]
