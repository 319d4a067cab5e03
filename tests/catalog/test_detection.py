# Licensed under a 3-clause BSD style license - see LICENSE
"""Slots of a whole field: which view they are of."""

from importlib.resources import as_file, files

import numpy as np
import pytest
from astropy.table import QTable
from scipy.spatial import cKDTree

from jaisp import DETRJEPA
from jaisp.catalog import detect, slot_attention
from jaisp.catalog._edges import depth
from jaisp.io import align, read_euclid, read_rubin


@pytest.fixture(scope="module")
def model():
    return DETRJEPA.from_pretrained()


def demo_pair(*, masked=None, columns=slice(0)):
    """The pair of the demo, one survey's columns masked (pixels of that survey)."""
    with as_file(files("jaisp") / "data" / "demo") as folder:
        images = {
            "rubin": read_rubin([folder / "rubin_i.fits.gz"]),
            "euclid": read_euclid([folder / "euclid_VIS.fits.gz", folder / "euclid_H.fits.gz"]),
        }
    if masked:
        for mask in images[masked].mask.values():
            mask[:, columns] = True
    return align(**images)


def xy(slots):
    return np.stack([slots.x, slots.y], axis=-1)


@pytest.mark.parametrize(("masked", "shown", "pixel"), [("euclid", "rubin", 1), ("rubin", "euclid", 2)])
def test_where_one_survey_ends_slots_are_those_of_the_other(model, masked, shown, pixel):
    """Beyond the edge of its own view, before it joint ones, and no object twice at the edge."""
    pair = demo_pair(masked=masked, columns=slice(400 // pixel, None))
    found = detect(model, pair)
    joint, own = (found[view].select(found[view].activity_logit > -2.2) for view in ("joint", shown))
    inside = depth(getattr(pair, masked), joint.x, joint.y)
    beyond = (inside < -5) & (depth(getattr(pair, shown), joint.x, joint.y) > 5)
    distance, _ = cKDTree(xy(own)).query(xy(joint))
    assert beyond.sum() > 5
    assert (distance[beyond] == 0).all()
    both = inside > 5
    assert both.sum() > 5
    assert (distance[both] > 0).all()
    of_own = (depth(getattr(pair, masked), own.x, own.y) < -5) & (
        depth(getattr(pair, shown), own.x, own.y) > 5
    )
    assert of_own.sum() == beyond.sum()
    # No object twice, once from each view.
    pairs = cKDTree(xy(joint)).query_pairs(3.0, output_type="ndarray")
    assert not ((distance[pairs] == 0).sum(axis=1) == 1).any()


def test_attention_is_of_the_view_that_the_slot_is_of(model):
    pair = demo_pair(masked="euclid", columns=slice(200, None))
    found = detect(model, pair)["joint"]
    found = found.select((depth(pair.euclid, found.x, found.y) < -5) & (found.activity_logit > 1))
    table = QTable({"id": np.arange(len(found)), "sky_centroid": pair.wcs.pixel_to_world(found.x, found.y)})
    looks = slot_attention(model, table, pair, [0, 1])
    np.testing.assert_allclose([(look.x, look.y) for look in looks], xy(found)[:2], atol=0.02)
