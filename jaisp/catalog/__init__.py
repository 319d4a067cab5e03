# Licensed under a 3-clause BSD style license - see LICENSE
"""From object slots to a catalogue: measurement, cross-match, flags, tables and files."""

import importlib

_LAZY = {
    "FLAGS": "flags",
    "ActivityCalibration": "calibration",
    "Detections": "detections",
    "Flag": "flags",
    "Measurement": "measurement",
    "OffsetField": "offsets",
    "SlotDetections": "detections",
    "Sources": "measurement",
    "crossmatch": "matching",
    "decode_flags": "flags",
    "fit_offsets": "offsets",
    "flag_bit": "flags",
    "flag_table": "flags",
    "make_table": "table",
    "match_slots": "matching",
    "measure": "measurement",
    "read_catalog": "write",
    "write_catalog": "write",
}

__all__ = sorted(_LAZY)


def __getattr__(name):
    if name in _LAZY:
        return getattr(importlib.import_module(f"jaisp.catalog.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
