# Licensed under a 3-clause BSD style license - see LICENSE
"""Which objects are near an edge."""

import numpy as np
import pytest

from jaisp.catalog._edges import depth, near_edge
from jaisp.image import SurveyImage
from jaisp.io import align

from ..evaluation.helpers import gaussian, tangent


def image(survey, scale, size, *, turn=0.0, hole=False):
    band = {"rubin": "r", "euclid": "VIS"}[survey]
    mask = np.zeros((size, size), bool)
    mask[size // 2 - 5 : size // 2 + 5, size // 2 - 5 : size // 2 + 5] = hole
    pixels = np.random.default_rng(1).normal(size=(size, size))
    return SurveyImage(
        {band: pixels},
        tangent(scale, size, turn=turn),
        survey=survey,
        variance={band: np.ones((size, size))},
        mask={band: mask},
        psf={band: gaussian(21, 4.0)},
    )


def offsets(pair, arcsec):
    """Grid pixels of places north of the centre."""
    sky = pair.wcs.pixel_to_world(*((side - 1) / 2 for side in pair.shape[::-1]))
    places = [sky.spherical_offsets_by(0 * sky.ra, value * sky.dec.unit / 3600) for value in arcsec]
    return np.transpose([pair.wcs.world_to_pixel(place) for place in places])


def test_edges_are_those_of_the_images():
    """Euclid ends 10 arcsec from the centre, Rubin 20."""
    pair = align(image("rubin", 0.2, 200), image("euclid", 0.1, 200), region="union")
    x, y = offsets(pair, [0.0, 7.0, 9.5, 12.0, 19.5])
    assert near_edge(pair, x, y, np.full(5, 12.0)).tolist() == [False, False, True, False, True]
    assert near_edge(pair, x, y, np.full(5, 40.0)).tolist() == [False, True, True, True, True]


def test_depth_is_negative_outside():
    pair = align(image("rubin", 0.2, 200), image("euclid", 0.1, 200), region="union")
    near = np.array([-3.0, -0.5, -0.1, 0.1, 0.5, 3.0])
    for survey, edge in ((pair.euclid, 10.0), (pair.rubin, 20.0)):
        arcsec = np.concatenate([[0.0, 7.0, 12.0, 25.0], edge - near])
        np.testing.assert_allclose(depth(survey, *offsets(pair, arcsec)), 10 * (edge - arcsec), atol=2)


@pytest.mark.parametrize("turn", [0.0, 40.0])
def test_of_a_turned_image_it_is_the_turned_edge(turn):
    pair = align(image("rubin", 0.2, 200, turn=turn), region="union")
    x, y = offsets(pair, [0.0, 17.0, 19.0 / np.cos(np.radians(turn))])
    assert near_edge(pair, x, y, np.full(3, 15.0)).tolist() == [False, False, True]


def test_holes_are_no_edges():
    pair = align(euclid=image("euclid", 0.1, 200, hole=True))
    x, y = offsets(pair, [0.0, 1.5, 9.5])
    assert near_edge(pair, x, y, np.full(3, 12.0)).tolist() == [False, False, True]
    assert near_edge(pair, x[:0], y[:0], np.zeros(0)).tolist() == []
