# Licensed under a 3-clause BSD style license - see LICENSE
"""What ``jaisp catalog`` with the bundled weights says where there is nothing to say."""

import numpy as np
import pytest

from jaisp import SurveyImage
from jaisp.catalog import read_catalog
from jaisp.cli import main
from jaisp.simulation import simulate_field, write_euclid, write_rubin

pytest.importorskip("galsim")
SIZE = 0.64  # arcmin


@pytest.fixture(scope="module")
def fields(tmp_path_factory):
    """Files of two fields of different sky at one place, and their Euclid images."""
    written = []
    for seed in (9_200_000, 9_200_001):
        folder = tmp_path_factory.mktemp("field")
        rubin, euclid, _ = simulate_field(seed, size_arcmin=SIZE, bright_stars=False, rotation=20.0)
        files = [
            [str(path) for path in paths]
            for paths in (write_rubin(rubin, folder), write_euclid(euclid, folder))
        ]
        written.append((rubin, euclid, *files))
    return written


def rows(rubin, euclid):
    assert main(["catalog", "--rubin", *rubin, "--euclid", *euclid, "-o", "out.fits", "--workers", "1"]) == 0
    return read_catalog("out.fits")


def test_white_noise_has_no_objects(fields, workplace, capsys):
    """Less than one row for each square arcminute above an activity of 0.5."""
    rng = np.random.default_rng(1)
    files = []
    for image, write in zip(fields[0][:2], (write_rubin, write_euclid), strict=True):
        sigma = {band: np.sqrt(np.median(values)) for band, values in image.variance.items()}
        noise = SurveyImage(
            {band: value * rng.standard_normal(image.shape) for band, value in sigma.items()},
            image.wcs,
            survey=image.survey.name,
            variance={band: np.full(image.shape, value**2) for band, value in sigma.items()},
            psf=image.psf,
        )
        files.append([str(path) for path in write(noise, workplace)])
    # On half a square arcminute that is no row at all.
    assert len(rows(*files)) < 1


def test_pictures_of_different_sky_do_not_match(fields, workplace, capsys):
    """Rubin of one field with Euclid of another: what matches, matches by chance."""
    fraction = {}
    for name, other in (("true", fields[0]), ("crossed", fields[1])):
        table = rows(fields[0][2], other[3])
        x, y = fields[0][1].wcs.world_to_pixel(table["sky_centroid"])
        inside = (np.abs(x / 384 - 0.5) < 0.5) & (np.abs(y / 384 - 0.5) < 0.5)
        matched = ~np.ma.getmaskarray(table["match_similarity"])
        assert inside.sum() > 50
        fraction[name] = matched[inside].mean()
    assert fraction["crossed"] < 0.15
    assert fraction["true"] > 0.35
