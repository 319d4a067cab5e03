# Licensed under a 3-clause BSD style license - see LICENSE
"""PSFs of files: beside an image, by keyword, of cells, on pixels of their own."""

import numpy as np
import pytest
from astropy.io import fits

from jaisp.exceptions import JaispError, JaispWarning
from jaisp.io import read_rubin

from ._layouts import (
    psf_image,
    write_rubin,
)


def useless_psfs():
    table = fits.BinTableHDU.from_columns([fits.Column("PSF_MASK", "E", array=[1.0])], name="PSF_DATA")
    return [
        (fits.HDUList([fits.PrimaryHDU(), table]), "holds no PSF image"),
        (fits.HDUList([fits.PrimaryHDU(np.ones((20, 20)))]), "allowed: a square image, odd number"),
        (fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(psf_image(), name="HSC-R")]), "no PSF of band z"),
    ]


def write_cells(path, cells, **kwargs):
    """A coadd of cells as DP2 has it: one PSF for each, NaN where a cell is missing."""
    path = write_rubin(path, psf=False, **kwargs)
    fits.append(path, np.array(cells, np.float32), fits.Header({"EXTNAME": "PSF"}))
    return path


def test_separate_psf_file(tmp_path):
    path = write_rubin(tmp_path / "rubin_r.fits", band="r", psf=False)
    assert read_rubin(path).psf_source["r"] == "survey"
    fits.PrimaryHDU(psf_image(31, 2.2)).writeto(tmp_path / "rubin_r_psf.fits")
    for files in (path, sorted(tmp_path.glob("*.fits"))):
        image = read_rubin(files)
        assert image.psf_source["r"] == "given"
        assert image.psf["r"].shape == (31, 31)


@pytest.mark.parametrize("name", ["{}", "{}_PSF", "PSF_{}"])
def test_file_of_the_psfs_of_all_bands(tmp_path, name):
    paths = [write_rubin(tmp_path / f"{band}.fits", band=band) for band in "gy"]
    hdus = [
        fits.ImageHDU(psf_image(15, sd), name=name.format(band))
        for band, sd in (("r", 1.0), ("g", 1.5), ("y", 2.0))
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "psf.fits")
    image = read_rubin(paths, psf=tmp_path / "psf.fits")
    np.testing.assert_allclose(image.psf["g"], psf_image(15, 1.5), rtol=1e-4)
    np.testing.assert_allclose(image.psf["y"], psf_image(15, 2.0), rtol=1e-4)


@pytest.mark.parametrize(("hdus", "why"), useless_psfs())
def test_psf_found_beside_that_cannot_be_used(tmp_path, hdus, why):
    """As PSFEx models: the image is read all the same, unlike with one that the user gives."""
    path, other = write_rubin(tmp_path / "z.fits", band="z", psf=False), tmp_path / "z_psf.fits"
    hdus.writeto(other)
    said = rf"z.fits: the PSF file found beside it is not used \(.*z_psf.fits: .*{why}.*\); give psf="
    with pytest.warns(JaispWarning, match=said):
        image = read_rubin(path)
    assert image.psf_source["z"] == "survey"
    with pytest.raises(JaispError, match=why):
        read_rubin(write_rubin(tmp_path / "a.fits", band="z", psf=False), psf=other)


def test_psf_keyword(tmp_path):
    paths = [write_rubin(tmp_path / f"{band}.fits", band=band) for band in "ig"]
    narrow, wide = psf_image(15, 1.0), psf_image(15, 2.0)
    fits.PrimaryHDU(wide).writeto(tmp_path / "wide.fits")
    in_order = read_rubin(paths, psf=[narrow, tmp_path / "wide.fits"])
    np.testing.assert_allclose(in_order.psf["i"], narrow, rtol=1e-5)
    np.testing.assert_allclose(in_order.psf["g"], wide, rtol=1e-5)
    by_band = read_rubin(paths, psf={"g": narrow})
    np.testing.assert_allclose(by_band.psf["g"], narrow, rtol=1e-5)
    assert by_band.psf["i"].shape == (25, 25)


def test_psf_of_the_cell_in_the_middle(tmp_path):
    none = np.full((15, 15), np.nan)
    cells = np.array(
        [[psf_image(15, 1.0 + 0.1 * (3 * row + column)) for column in range(3)] for row in range(3)]
    )
    image = read_rubin(write_cells(tmp_path / "a.fits", cells))
    np.testing.assert_allclose(image.psf["g"], psf_image(15, 1.4), rtol=1e-4)
    cells[1] = none
    cells[0, 1] = none
    image = read_rubin(write_cells(tmp_path / "b.fits", cells))
    np.testing.assert_allclose(image.psf["g"], psf_image(15, 1.7), rtol=1e-4)
    # Where another image's cells lie is not known.
    other = read_rubin(write_rubin(tmp_path / "c.fits"), psf=tmp_path / "b.fits")
    mean = np.nanmean(cells.reshape(9, 15, 15), axis=0)
    np.testing.assert_allclose(other.psf["g"], mean, atol=1e-4)


@pytest.mark.parametrize(
    "cards",
    [
        {"OVERSAMP": 5},
        {"PIXELSCL": 0.04, "OVERSAMP": 1},
        {"CDELT1": -0.04 / 3600, "CDELT2": 0.04 / 3600},
        {"CD1_1": -0.04 / 3600, "CD2_2": 0.04 / 3600, "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN"},
    ],
)
def test_psf_on_pixels_of_its_own(tmp_path, cards):
    path = write_rubin(tmp_path / "a.fits", psf=False)
    fits.append(path, psf_image(105, 7.5), fits.Header({"EXTNAME": "PSF", **cards}))
    psf = read_rubin(path).psf["g"]
    # Fine pixels add up to those of the image.
    expected = np.pad(psf_image(105, 7.5).reshape(21, 5, 21, 5).sum((1, 3)), 1)
    np.testing.assert_allclose(psf, expected, atol=1e-5)


@pytest.mark.parametrize(
    "cards", [{}, {"CDELT1": 1.0, "CDELT2": 1.0}, {"PIXELSCL": 0.2}, {"PIXELSCL": 0.201}]
)
def test_psf_on_the_pixels_of_the_image_stays_as_it_is(tmp_path, cards):
    path = write_rubin(tmp_path / "a.fits", psf=False)
    fits.append(path, psf_image(25, 1.8), fits.Header({"EXTNAME": "PSF", **cards}))
    np.testing.assert_allclose(read_rubin(path).psf["g"], psf_image(25, 1.8), rtol=1e-5)
