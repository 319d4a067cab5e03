# Licensed under a 3-clause BSD style license - see LICENSE
"""From object slots to a table: detection over a field, measurement, cross-match, files and pictures."""

import importlib

_HOMES = {
    "ActivityCalibration": "calibration",
    "COLUMNS": "columns",
    "Catalog": "write",
    "Column": "columns",
    "FLAGS": "flags",
    "FieldSlots": "detection",
    "Flag": "flags",
    "Matches": "crossmatching",
    "Measurement": "measurement",
    "OffsetField": "offsets",
    "SlotAttention": "attention",
    "Sources": "measurement",
    "SurveyLinks": "links",
    "catalog_pair": "build",
    "check_output": "write",
    "correct_offset": "offsets",
    "crossmatch": "crossmatching",
    "deblended_image": "deblending",
    "decode_flags": "flags",
    "detect": "detection",
    "embedding_map": "manifold",
    "fit_offsets": "offsets",
    "flag_value": "flags",
    "link_surveys": "links",
    "make_catalog": "build",
    "match_positions": "crossmatching",
    "measure": "measurement",
    "measure_offset": "links",
    "most_similar": "manifold",
    "oddness": "manifold",
    "offset_field": "offsets",
    "plot_attention": "attention",
    "plot_catalog": "plots",
    "plot_crossmatch": "plots",
    "plot_cutouts": "plots",
    "plot_embedding": "plots_objects",
    "plot_offsets": "plots_offsets",
    "plot_sed": "plots_objects",
    "read_catalog": "write",
    "read_hats": "exports",
    "rgb": "plots",
    "slot_attention": "attention",
    "to_regions": "exports",
    "write_catalog": "write",
    "write_hats": "exports",
    "write_regions": "exports",
}

__all__ = sorted(_HOMES)


def __getattr__(name):
    # Lazy: reading a catalogue or decoding flags needs no torch.
    if name in _HOMES:
        return getattr(importlib.import_module(f"jaisp.catalog.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
