# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS, Sip

import jaisp.io
from jaisp.exceptions import ConfigError, FileError
from jaisp.image import SurveyImage
from jaisp.simulation import simulate, simulate_field, write_euclid, write_rubin

pytest.importorskip("galsim", reason="GalSim draws the fields")


@pytest.fixture(scope="module")
def field():
    return simulate_field(7, size_arcmin=0.35, psf="moffat", bright_stars=False)


def test_rubin_layout(field, tmp_path):
    paths = write_rubin(field[0], tmp_path / "new")
    assert [path.name for path in paths] == [f"rubin_{band}.fits" for band in "ugrizy"]
    with fits.open(paths[3]) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "MASK", "VARIANCE", "PSF"]
        assert hdus[0].header["BAND"] == "i"
        assert hdus["IMAGE"].header["BUNIT"] == "nJy"
        bit = hdus["MASK"].header["MP_BAD"]
        assert np.array_equal((hdus["MASK"].data >> bit) & 1, field[0].mask["i"])
    assert not [path for path in (tmp_path / "new").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(("layout", "count"), [("single", 4), ("mer", 16), ("cutout", 1)])
def test_euclid_layouts(field, tmp_path, layout, count):
    image = field[1]
    paths = write_euclid(image, tmp_path, layout=layout)
    assert len(list(tmp_path.iterdir())) == count
    with fits.open(paths[0]) as hdus:
        hdu = hdus["VIS_FLUX"] if layout == "cutout" else hdus[0]
        assert hdu.header["MAGZERO"] == 24.6
        good = ~image.mask["VIS"]
        assert hdu.data[good] * 524.8 == pytest.approx(image.data["VIS"][good], rel=1e-4, abs=1e-4)


@pytest.mark.skipif(not hasattr(jaisp.io, "read_euclid"), reason="jaisp.io cannot read files yet")
@pytest.mark.parametrize("layout", ["single", "mer", "cutout"])
def test_round_trip(field, tmp_path, layout):
    rubin = jaisp.io.read_rubin(write_rubin(field[0], tmp_path))
    euclid = jaisp.io.read_euclid(write_euclid(field[1], tmp_path, layout=layout))
    for before, after in zip(field, (rubin, euclid), strict=False):
        assert after.bands == before.bands
        for band in before.bands:
            good = ~before.mask[band]
            assert np.array_equal(before.mask[band], after.mask[band])
            assert after.data[band][good] == pytest.approx(before.data[band][good], rel=1e-4, abs=1e-4)
            assert after.variance[band][good] == pytest.approx(before.variance[band][good], rel=1e-4)
            assert after.psf[band] == pytest.approx(before.psf[band], abs=1e-5)
        corner = (before.shape[1] - 1.0, 0.0)
        sky = before.wcs.pixel_to_world_values(*corner)
        assert np.array(after.wcs.world_to_pixel_values(*sky)) == pytest.approx(corner, abs=1e-5)


@pytest.mark.parametrize("layout", ["single", "mer", "cutout"])
def test_distortion_is_written(tmp_path, layout):
    axis = np.arange(-8, 9)
    psf = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / 2**2)
    bent = np.zeros((3, 3))
    bent[2, 0] = 1e-4
    pixels = np.random.default_rng(1).normal(size=(80, 80))
    for name, band, scale in (("rubin", "i", 0.2), ("euclid", "VIS", 0.1)):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN-SIP", "DEC--TAN-SIP"
        wcs.wcs.crval, wcs.wcs.crpix = (53.0, -28.0), (40.5, 40.5)
        wcs.wcs.cdelt = -scale / 3600, scale / 3600
        wcs.sip = Sip(bent, bent, None, None, wcs.wcs.crpix)
        image = SurveyImage(
            {band: pixels}, wcs, survey=name, variance={band: np.ones((80, 80))}, psf={band: psf}
        )
        if name == "rubin":
            again = jaisp.io.read_rubin(write_rubin(image, tmp_path))
        else:
            again = jaisp.io.read_euclid(write_euclid(image, tmp_path, layout=layout))
        assert again.wcs.pixel_to_world(0, 0).separation(wcs.pixel_to_world(0, 0)).mas < 0.01


def test_simulate_writes_fields(tmp_path):
    told = []
    folders = simulate(
        tmp_path, n_tiles=2, seed=1, size_arcmin=0.3, psf="moffat", progress=lambda *args: told.append(args)
    )
    assert [folder.name for folder in folders] == ["field_000", "field_001"]
    assert told == [(1, 2), (2, 2)]
    names = sorted(path.name for path in folders[1].iterdir())
    assert names == sorted(
        [
            *(f"rubin_{b}.fits" for b in "ugrizy"),
            *(f"euclid_{b}.fits" for b in ("VIS", "Y", "J", "H")),
            "truth.fits",
        ]
    )
    truth = QTable.read(folders[0] / "truth.fits")
    assert truth["sky_centroid"].ra.unit == "deg"
    assert truth["rubin_i_flux"].unit == "nJy"
    assert truth.meta["DEPTH"] == "ten_year"
    again = simulate(tmp_path / "again", n_tiles=1, seed=1, size_arcmin=0.3, psf="moffat")
    first, second = (fits.getdata(folder / "euclid_VIS.fits") for folder in (folders[0], again[0]))
    assert np.array_equal(first, second)


def test_a_field_that_is_there_is_replaced(tmp_path):
    """Files of another layout would be read along with the new ones; what is not ours stays."""
    for layout in ("mer", "cutout"):
        (folder,) = simulate(tmp_path, seed=2, size_arcmin=0.2, psf="moffat", layout=layout)
        (folder / "notes.txt").write_text("mine")
    names = {path.name for path in folder.iterdir()}
    assert names == {*(f"rubin_{b}.fits" for b in "ugrizy"), "euclid_cutout.fits", "truth.fits", "notes.txt"}


def test_failure_leaves_no_half_file(field, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(fits.HDUList, "writeto", fail)
    with pytest.raises(FileError, match="disk full"):
        write_rubin(field[0], tmp_path)
    assert not list(tmp_path.iterdir())


def test_user_mistakes(field, tmp_path):
    with pytest.raises(ConfigError, match="layout is 'multi'"):
        write_euclid(field[1], tmp_path, layout="multi")
    with pytest.raises(ConfigError, match="n_tiles is 0"):
        simulate(tmp_path, n_tiles=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot make the folder"):
        write_rubin(field[0], tmp_path / "file" / "below")
