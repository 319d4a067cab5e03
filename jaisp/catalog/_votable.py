# Licensed under a 3-clause BSD style license - see LICENSE
"""Catalogues as VOTables, with UCDs, a coordinate system, and the metadata as one INFO element."""

import json
import warnings

from astropy.io.votable import from_table, parse
from astropy.io.votable.exceptions import VOWarning
from astropy.io.votable.tree import CooSys, Info

from jaisp.catalog.columns import refuse_taken_names, split_coordinates, unite_coordinates

__all__ = ["read_votable", "write_votable"]

_META = "jaisp_meta"


def write_votable(table, path):
    """Write a catalogue whose metadata are plain values."""
    refuse_taken_names(table)
    flat = split_coordinates(table)
    meta, flat.meta = flat.meta, {}
    votable = from_table(flat)
    votable.description = "Catalogue of objects made by jaisp"
    votable.resources[0].coordinate_systems.append(CooSys(ID="icrs", system="ICRS", config=votable.config))
    found = votable.get_first_table()
    for field in found.fields:
        if (field.ucd or "").startswith("pos.eq."):
            field.ref = "icrs"
    found.infos.append(Info(name=_META, value=json.dumps(meta)))
    # BINARY2 keeps masks beside the values; in text a masked number would become NaN.
    votable.to_xml(str(path), tabledata_format="binary2")


def read_votable(path):
    """Read a catalogue that `write_votable` wrote."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VOWarning)
        found = parse(str(path)).get_first_table()
    table = unite_coordinates(found.to_table(use_names_over_ids=True))
    stored = {info.name: info.value for info in found.infos}
    table.meta = json.loads(stored.get(_META, "{}"))
    return table
