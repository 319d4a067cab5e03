# Licensed under a 3-clause BSD style license - see LICENSE
"""What `jaisp.io.align` refuses."""

import astropy.units as u
import numpy as np
import pytest
from numpy.testing import assert_allclose

from jaisp.exceptions import ConfigError, ImageError, OverlapError
from jaisp.image import SurveyImage
from jaisp.io import align

from ._frames import (
    CENTRE,
    gaussian,
    make_image,
    make_wcs,
    plain,
)


@pytest.mark.parametrize("shift", [(14.9, 0.0), (0.0, -3000.0), (170 * 3600.0, 80 * 3600.0)])
def test_no_common_sky(shift):
    with pytest.raises(
        OverlapError, match=r"Rubin \(centre RA .* Euclid \(centre RA 53.1.* share no sky.* apart"
    ):
        align(
            plain("rubin", shift=shift, tangent=CENTRE.spherical_offsets_by(*(s * u.arcsec for s in shift))),
            plain("euclid"),
        )


def test_corners_that_miss_each_other_share_no_sky():
    # The boxes around both images overlap, the images do not.
    with pytest.raises(OverlapError, match="share no sky"):
        align(plain("rubin", rotation=45, shift=(9.5, 9.5)), plain("euclid"))


def test_a_nearly_empty_union_is_refused():
    rng = np.random.default_rng(16)
    tall = make_image(
        "euclid", rng.normal(size=(4000, 10)), make_wcs((4000, 10), 0.1, shift=(0, 199)), fwhm=1.8
    )
    wide = make_image(
        "rubin", rng.normal(size=(5, 2000)), make_wcs((5, 2000), 0.2, shift=(-199, 0)), fwhm=4.0
    )
    with pytest.raises(OverlapError, match='hardly overlap; use region="overlap"'):
        align(wide, tall)
    assert_allclose(align(wide, tall, region="overlap").shape, 10, atol=3)


def test_no_usable_pixel_in_the_region():
    rng = np.random.default_rng(17)
    mask = np.zeros((100, 100), bool)
    mask[:, :60] = True
    wcs = make_wcs((100, 100), 0.2, shift=(-9, 0))
    euclid = plain("euclid")
    rubin = make_image("rubin", rng.normal(size=(100, 100)), wcs, fwhm=4.0, mask=mask)
    with pytest.raises(OverlapError, match="Rubin has no usable pixel in the region"):
        align(rubin, euclid, region="overlap")
    # One band of two: it is left out, and told.
    rubin = SurveyImage(
        {band: rng.normal(size=(100, 100)) for band in "gi"},
        wcs,
        survey="rubin",
        variance={band: np.ones((100, 100)) for band in "gi"},
        mask={"g": mask},
        psf={band: gaussian(25, 4.0) for band in "gi"},
    )
    image = align(rubin, euclid, region="overlap").rubin
    assert image.bands == ("i",)
    assert "g: no usable pixel in the region; left out" in [str(finding) for finding in image.findings]


def test_wrong_arguments():
    rubin, euclid = plain("rubin"), plain("euclid")
    with pytest.raises(ImageError, match="nothing to align"):
        align()
    with pytest.raises(ImageError, match="rubin is an image of Euclid"):
        align(euclid, rubin)
    with pytest.raises(ImageError, match="euclid is a ndarray; allowed: a SurveyImage"):
        align(rubin, np.zeros((3, 3)))
    with pytest.raises(ConfigError, match="unknown region 'both'; allowed: union, euclid, overlap"):
        align(rubin, euclid, region="both")
