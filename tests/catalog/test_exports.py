# Licensed under a 3-clause BSD style license - see LICENSE
"""What other programs read is what the catalogue says: masks, units, positions, angles, embeddings."""

import json
import sys
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.io.votable import parse
from astropy.table import MaskedColumn, QTable, vstack
from astropy.utils.masked import Masked
from astropy.wcs import WCS

from jaisp.catalog import (
    COLUMNS,
    flag_value,
    read_catalog,
    read_hats,
    to_regions,
    write_catalog,
    write_hats,
    write_regions,
)
from jaisp.catalog.columns import describe_columns, split_coordinates, unite_coordinates
from jaisp.exceptions import ConfigError, FileError, MissingDependencyError


def turned_wcs(angle):
    """North is ``angle`` degrees from +y: the axes of images need not point to the poles."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 53.0, -28.0
    wcs.wcs.crpix = 100.5, 100.5
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * 0.1 / 3600
    return wcs


@pytest.fixture
def table():
    wcs = turned_wcs(30)
    sky = wcs.pixel_to_world([50.0, 60.0, 120.0], [20.0, 90.0, 130.0])
    mask = np.array([False, True, False])
    table = QTable()
    table["id"] = [1, 2, 3]
    table["sky_centroid"] = sky
    table["rubin_sky_centroid"] = SkyCoord(*(Masked(a.to(u.deg), mask=mask) for a in (sky.ra, sky.dec)))
    table["rubin_slot"] = MaskedColumn([4, 0, 6], mask=mask)
    table["separation"] = Masked([1.0, 0.0, 3.0] * u.mas, mask=mask)
    table["euclid_vis_flux"] = [1.0, np.nan, 3.0] * u.nJy
    table["semimajor_axis"] = [1.0, 0.5, np.nan] * u.arcsec
    table["semiminor_axis"] = [0.5, 0.5, np.nan] * u.arcsec
    table["orientation"] = [25.0, 0.0, np.nan] * u.deg
    table["rubin_unrecognized_blend"] = [True, False, True]
    table["embedding"] = np.arange(12, dtype=np.float32).reshape(3, 4)
    table["flags"] = [0, flag_value("rubin_only"), flag_value("euclid_only") | flag_value("edge")]
    table.meta = {
        "versions": {"jaisp": "0.1"},
        "threshold": 0.5,
        "grid": {"pixel_scale_arcsec": 0.1, "shape": [60, 60], "wcs": dict(wcs.to_header())},
    }
    describe_columns(table)
    return table


def assert_same(again, table):
    assert again.colnames == table.colnames
    assert json.dumps(again.meta) == json.dumps(table.meta)
    for name in table.colnames:
        if isinstance(table[name], SkyCoord):
            assert again[name].separation(table[name]).max() < 1e-6 * u.mas
            masks = [np.broadcast_to(getattr(t[name].ra, "mask", False), 3) for t in (again, table)]
        else:
            assert again[name].unit == table[name].unit, name
            assert again[name].dtype.newbyteorder("=") == table[name].dtype, name
            masks = [np.broadcast_to(getattr(t[name], "mask", False), t[name].shape) for t in (again, table)]
            good = ~masks[1]
            np.testing.assert_array_equal(np.asarray(again[name])[good], np.asarray(table[name])[good], name)
        np.testing.assert_array_equal(*masks, name)


def test_split_and_unite(table):
    flat = split_coordinates(table)
    assert flat.colnames[1:5] == ["ra", "dec", "rubin_ra", "rubin_dec"]
    assert flat["ra"].meta["ucd"] == "pos.eq.ra;meta.main"
    np.testing.assert_array_equal(flat["rubin_dec"].mask, [False, True, False])
    assert_same(unite_coordinates(flat), table)


def test_columns_of_ones_own_are_no_coordinates_of_jaisp(table, tmp_path):
    """As those that a match with another catalogue brings: masked, and in other units."""
    table["gaia_ra"] = Masked([3180.0, 0.0, 3181.0] * u.arcmin, mask=[False, True, False])
    table["gaia_dec"] = Masked([-28.0, 0.0, -28.1] * u.deg, mask=[False, True, False])
    write_catalog(table, tmp_path / "catalog.vot")
    assert_same(read_catalog(tmp_path / "catalog.vot"), table)
    table["dec"] = [1.0, 2.0, 3.0]
    with pytest.raises(ConfigError, match="has a column 'dec', as which sky_centroid is to be written"):
        write_catalog(table, tmp_path / "other.vot")
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.vot"]
    write_catalog(table, tmp_path / "catalog.fits")  # where coordinates have names of their own
    assert read_catalog(tmp_path / "catalog.fits")["dec"].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("suffix", [".vot", ".xml"])
def test_votable(table, tmp_path, suffix):
    path = tmp_path / f"catalog{suffix}"
    write_catalog(table, path)
    assert_same(read_catalog(path), table)
    votable = parse(path, verify="exception")
    ra = votable.get_first_table().get_field_by_id("ra")
    assert (str(ra.unit), ra.ucd, ra.ref) == ("deg", "pos.eq.ra;meta.main", "icrs")
    flux = votable.get_first_table().get_field_by_id("euclid_vis_flux")
    assert (str(flux.unit), flux.ucd) == ("nJy", "phot.flux.density;em.opt")
    assert "deblended" in flux.description


def test_other_programs_see_descriptions(table, tmp_path):
    """FITS has cards that TOPCAT reads; ECSV has its header."""
    write_catalog(table, tmp_path / "catalog.fits")
    header = fits.getheader(tmp_path / "catalog.fits", 1)
    cards = {header[f"TTYPE{k}"]: k for k in range(1, header["TFIELDS"] + 1)}
    assert header[f"TUCD{cards['sky_centroid.ra']}"] == "pos.eq.ra;meta.main"
    assert header[f"TUCD{cards['euclid_vis_flux']}"] == "phot.flux.density;em.opt"
    assert header[f"TCOMM{cards['flags']}"] == "sum of the bits of jaisp.catalog.FLAGS"
    assert_same(read_catalog(tmp_path / "catalog.fits"), table)
    write_catalog(table, tmp_path / "catalog.ecsv")
    assert (
        QTable.read(tmp_path / "catalog.ecsv")["flags"].info.description == header[f"TCOMM{cards['flags']}"]
    )


def test_registry_has_valid_ucds():
    from astropy.io.votable.ucd import check_ucd

    assert len({column.name for column in COLUMNS}) == len(COLUMNS)
    for column in COLUMNS:
        assert column.description
        assert not column.ucd or check_ucd(column.ucd, check_controlled_vocabulary=True), column


class TestRegions:
    @pytest.fixture(autouse=True)
    def package(self):
        self.regions = pytest.importorskip("regions")

    def test_ellipses_on_the_image(self, table, tmp_path):
        """Read back and put on the image, each has the catalogue's pixel, axes and angle."""
        path = tmp_path / "catalog.reg"
        write_regions(table, path, scale=1.0)
        first, second, third = self.regions.Regions.read(path, format="ds9")
        ellipse = first.to_pixel(turned_wcs(30))
        np.testing.assert_allclose([ellipse.center.x, ellipse.center.y], [50, 20], atol=1e-3)
        np.testing.assert_allclose([ellipse.width, ellipse.height], [20, 10], rtol=1e-3)
        np.testing.assert_allclose(ellipse.angle.to_value(u.deg) % 180, 25, atol=0.01)
        assert [str(region.meta["text"]) for region in (first, second, third)] == ["1", "2", "3"]
        # NaN axes: a point source is drawn with the smallest ellipse
        np.testing.assert_allclose(third.width.to_value(u.arcsec), 0.6, rtol=1e-3)

    def test_sides_and_angles_are_those_of_the_package(self, table):
        """Which works them out ellipse by ellipse, in ten times as long."""
        wcs = WCS(table.meta["grid"]["wcs"])
        x, y = wcs.world_to_pixel(table["sky_centroid"])
        for k, ellipse in enumerate(to_regions(table)):
            there = ellipse.to_pixel(wcs)
            pixel = self.regions.EllipsePixelRegion(
                self.regions.PixCoord(x[k], y[k]), there.width, there.height, there.angle
            ).to_sky(wcs)
            found = (ellipse.angle - pixel.angle).to_value(u.deg)
            assert (found + 90) % 180 - 90 == pytest.approx(0, abs=1e-4)
            np.testing.assert_allclose(ellipse.width.to_value("arcsec"), pixel.width.to_value("arcsec"), 1e-5)
            if np.isfinite(table["orientation"][k]):
                found = (there.angle - table["orientation"][k]).to_value(u.deg)
                assert (found + 90) % 180 - 90 == pytest.approx(0, abs=1e-3)

    def test_nothing_is_left_of_a_file_that_could_not_be_written(self, table, tmp_path, monkeypatch):
        path = tmp_path / "catalog.reg"
        write_regions(table, path)
        before = path.read_text()

        def fails(self, name, **options):
            Path(name).write_text("half of it")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(self.regions.Regions, "write", fails)
        with pytest.raises(FileError, match="No space left on device"):
            write_regions(table, path)
        assert path.read_text() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["catalog.reg"]

    def test_a_catalogue_joined_from_two_has_no_grid(self, table):
        joined = vstack([table, table], metadata_conflicts="silent")
        with pytest.raises(ConfigError, match="was joined from several"):
            to_regions(joined)
        joined.meta = {"patches": [table.meta, table.meta]}
        with pytest.raises(ConfigError, match="hold no WCS"):
            to_regions(joined)

    def test_colours(self, table):
        colours = [region.visual["color"] for region in to_regions(table)]
        assert colours == ["green", "red", "cyan"]
        colours = [region.visual["color"] for region in to_regions(table, color_by="flags")]
        assert colours == ["green", "green", "magenta"]

    def test_refusals(self, table, tmp_path):
        with pytest.raises(ConfigError, match=r"color_by='flag' .did you mean 'flags'"):
            to_regions(table, color_by="flag")
        with pytest.raises(FileError, match=r"unknown suffix '\.txt'; allowed: \.reg"):
            write_regions(table, tmp_path / "catalog.txt")
        table.meta = {}
        with pytest.raises(ConfigError, match="hold no WCS"):
            to_regions(table)


# Third-party warnings at the import of lsdb, and of its dask, are not ours to mend.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_hats(table, tmp_path, monkeypatch):
    lsdb = pytest.importorskip("lsdb")
    table.meta["numbers"] = np.arange(3)  # as a user may add them
    write_hats(table, tmp_path / "sky", name="mine")
    table.meta["numbers"] = [0, 1, 2]
    assert_same(read_hats(tmp_path / "sky"), table)
    # what a user of LSDB sees
    place = table["sky_centroid"][1]
    cone = lsdb.open_catalog(tmp_path / "sky").cone_search(place.ra.deg, place.dec.deg, 0.5)
    rows = cone.compute()
    assert list(rows["id"]) == [2]
    assert rows["rubin_slot"].isna().all()
    with pytest.raises(FileError, match="it exists; choose another name"):
        write_hats(table, tmp_path / "sky")
    with pytest.raises(ConfigError, match="name='my cat' is no name"):
        write_hats(table, tmp_path / "named", name="my cat")

    def fails(self, path, **options):
        (path / "part").write_text("half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lsdb.catalog.Catalog, "write_catalog", fails)
    with pytest.raises(FileError, match="No space left on device"):
        write_hats(table, tmp_path / "full")
    assert [entry.name for entry in tmp_path.iterdir()] == ["sky"]
    with pytest.raises(ConfigError, match="no objects"):
        write_hats(table[:0], tmp_path / "none")
    with pytest.raises(FileError, match="does not exist"):
        read_hats(tmp_path / "none")


@pytest.mark.parametrize(
    ("package", "function", "extra"), [("regions", to_regions, "export"), ("lsdb", write_hats, "hats")]
)
def test_missing_packages(table, monkeypatch, tmp_path, package, function, extra):
    monkeypatch.setitem(sys.modules, package, None)
    options = (tmp_path / "out",) if function is write_hats else ()
    with pytest.raises(MissingDependencyError, match=rf"pip install 'jaisp\[{extra}\]'"):
        function(table, *options)
