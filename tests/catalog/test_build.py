# Licensed under a 3-clause BSD style license - see LICENSE
"""From images to a table: what happens around detection and measurement."""

from jaisp.catalog.build import _measure_noise
from jaisp.io import align
from jaisp.surveys import EUCLID, RUBIN

from .drawn import make_image


def test_findings_of_bands_that_align_left_out():
    rubin = make_image(RUBIN, {"g": 60, "r": 60, "i": 80})
    rubin.mask["r"][:, 10:] = True
    euclid = make_image(EUCLID, {"VIS": 60})
    euclid.wcs.wcs.crpix -= 60, 0
    pair = align(rubin, euclid, region="overlap")
    assert pair.rubin.bands == ("g", "i")
    _measure_noise(pair)
    # In the order of the survey, with the band that is not there.
    assert [finding.band for finding in pair.rubin.findings] == ["g", "r", "r", "i"]
