# Licensed under a 3-clause BSD style license - see LICENSE
"""From images to a table: what happens around detection and measurement."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable
from astropy.wcs import WCS, Sip

from jaisp import DETRJEPA
from jaisp.catalog import (
    catalog_pair,
    deblended_image,
    decode_flags,
    plot_attention,
    read_catalog,
    slot_attention,
    write_catalog,
)
from jaisp.catalog.build import _measure_noise, _ranked, _widen_errors
from jaisp.catalog.drawing import aligned
from jaisp.catalog.offsets import OffsetField
from jaisp.catalog.table import provenance
from jaisp.exceptions import ConfigError, JaispWarning
from jaisp.io import align
from jaisp.models.config import DETRJEPAConfig
from jaisp.surveys import EUCLID, RUBIN

from .drawn import make_image

SHARP = 0.15  # arcsec: sigma of what Euclid sees


def test_the_threshold_is_the_smallest_activity_of_a_row():
    columns = {"id": [1, 2, 3, 4], "activity": [0.5, 0.4, 0.9, 0.7], "blend_id": [7, 7, 2, 7]}
    table = QTable(columns | {"n_blended": [3, 3, 1, 3], "flags": [0, 0, 0, 0]})
    everything = _ranked(table, 0.0)
    assert everything["n_blended"].tolist() == [1, 3, 3, 3]
    table = _ranked(table, 0.5)
    assert table["activity"].tolist() == [0.9, 0.7, 0.5]
    assert table["id"].tolist() == [1, 2, 3]
    # Blends are of the rows that there are.
    assert table["n_blended"].tolist() == [1, 2, 2]
    assert decode_flags(table["flags"]) == [[], ["blended"], ["blended"]]
    alone = _ranked(table, 0.7)
    assert alone["n_blended"].tolist() == [1, 1]


def test_a_model_in_training_mode_makes_the_same_catalogue_and_stays_as_it_is():
    """Batch statistics of a window would make other embeddings, and running ones would move."""
    rubin, euclid = make_image(RUBIN, {"i": 60}), make_image(EUCLID, {"VIS": 60}, sigma=SHARP)
    expected = DETRJEPA.from_pretrained().catalog(rubin, euclid, activity=0.1)
    model = DETRJEPA.from_pretrained().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = model.catalog(rubin, euclid, activity=0.1)
    slot_attention(model, found, (rubin, euclid))
    np.testing.assert_array_equal(found["embedding"], expected["embedding"])
    assert model.training
    assert model.heads.training
    for name, value in model.state_dict().items():
        assert value.equal(before[name]), name


def test_a_pair_that_is_aligned_already_gives_the_same_catalogue():
    model = DETRJEPA.from_pretrained()
    rubin, euclid = make_image(RUBIN, {"i": 60}), make_image(EUCLID, {"VIS": 60}, sigma=SHARP)
    table = model.catalog(rubin, euclid, region="euclid", activity=0.1)
    again = catalog_pair(model, align(rubin, euclid, region="euclid"), activity=0.1)
    assert len(again) == len(table) > 0
    assert again.colnames == table.colnames
    assert again["euclid_vis_flux"].value.tolist() == table["euclid_vis_flux"].value.tolist()
    # What was made when differs.
    assert {key for key in table.meta if again.meta[key] != table.meta[key]} <= {"date"}
    with pytest.raises(ConfigError, match=r"activity threshold is 1\.5"):
        catalog_pair(model, align(rubin, euclid), activity=1.5)


def test_an_unknown_offset_is_in_the_errors_of_rubins_positions():
    """Two sources are too few to measure it; Euclid has no pixels at the second one."""
    model, sources = DETRJEPA.from_pretrained(), ((-3.0, 0.0), (3.0, 0.0))
    rubin = make_image(RUBIN, {"i": 60}, sources=sources)
    euclid = make_image(EUCLID, {"VIS": 60}, sigma=SHARP, sources=sources)
    euclid.mask["VIS"][:, 60:] = True
    table = model.catalog(rubin, euclid)
    table.sort("x_centroid")
    assert len(table) == 2
    offset = table.meta["astrometric_offset"]
    assert offset["n_sources"] == offset["euclid_minus_rubin_ra_mas"] == 0
    assert offset["error_mas"] == offset["field"]["dx_err_mas"] == 60
    for name in ("ra_err", "dec_err"):
        seen, alone = table[name].to_value("mas")
        assert seen < 20
        assert 60 < alone < 65
    # Rubin without Euclid is its own reference.
    table = model.catalog(rubin)
    assert table.meta["astrometric_offset"]["error_mas"] == 0
    assert table["ra_err"].to_value("mas").max() < 20


def test_errors_of_positions_that_rest_on_rubin_hold_those_of_the_offset():
    snr = {"rubin": np.array([6.0, 30.0, 6.0, 60.0]), "euclid": np.array([0.0, 5.0, 50.0, 8.0])}
    places = SimpleNamespace(significance=snr.get, x=np.arange(4.0), y=np.arange(4.0))
    table = QTable({name: [10.0, 10.0, 10.0, 10.0] * u.mas for name in ("ra_err", "dec_err")})
    table["ra_err"].info.description = "kept"
    offset = OffsetField(covariance=np.full((2, 1, 1), 0.3**2), scale=9.0, n_matches=9)
    _widen_errors(table, places, offset, np.array([1.0, 0.9, 0.0, 0.7]))
    # Larger where faint, and .3 pixels; the third is placed by Euclid, the fourth for the most part by Rubin.
    expected = [np.hypot(11.5, 30), np.hypot(10, 30), 10, np.hypot(10, 21)]
    for name in ("ra_err", "dec_err"):
        np.testing.assert_allclose(table[name].to_value(u.mas), expected)
    assert table["ra_err"].info.description == "kept"


def test_images_are_aligned_as_the_catalogue_was(monkeypatch):
    """The field of offsets is a function of the grid's pixels, and tiles begin where the grid does."""
    rubin, euclid = make_image(RUBIN, {"i": 60}), make_image(EUCLID, {"VIS": 60}, sigma=SHARP)
    euclid.wcs.wcs.crpix -= 60, 0
    pair = align(rubin, euclid, region="overlap")
    model = DETRJEPA(DETRJEPAConfig.tiny())
    meta = provenance(model, pair, thresholds={}, offset={})
    table = QTable({"id": [1]}, meta=meta)
    assert aligned((rubin, euclid), table).shape == pair.shape != align(rubin, euclid).shape
    assert aligned(pair, table) is pair

    def told(*images, region):
        raise InterruptedError(region)

    monkeypatch.setattr("jaisp.io.align", told)
    for function in (
        lambda images: deblended_image(table, images, 1, "VIS"),
        lambda images: slot_attention(model, table, images),
        lambda images: plot_attention(model, table, images),
    ):
        with pytest.raises(InterruptedError, match="overlap"):
            function((rubin, euclid))


def test_findings_of_bands_that_align_left_out():
    rubin = make_image(RUBIN, {"g": 60, "r": 60, "i": 80})
    rubin.mask["r"][:, 10:] = True
    euclid = make_image(EUCLID, {"VIS": 60}, sigma=SHARP)
    euclid.wcs.wcs.crpix -= 60, 0
    pair = align(rubin, euclid, region="overlap")
    assert pair.rubin.bands == ("g", "i")
    _measure_noise(pair)
    # In the order of the survey, with the band that is not there.
    assert [finding.band for finding in pair.rubin.findings] == ["g", "r", "r", "i"]


def test_findings_that_leave_numbers_in_doubt_are_told_on_the_image_and_once():
    rubin, euclid = make_image(RUBIN, {"i": 60}), make_image(EUCLID, {"VIS": 60}, sigma=SHARP)
    rubin.wcs.wcs.crpix += 0.3, 0.2  # off the grid, so that a copy is measured
    rubin.variance["i"][:] = 1e4
    model = DETRJEPA.from_pretrained()
    for _ in range(2):
        with pytest.warns(
            JaispWarning, match="Rubin i: the noise of a source is 0.0.* check the variance"
        ) as told:
            model.catalog(rubin, euclid)
        assert len(told) == 1
        noise = [finding for finding in rubin.findings if finding.doubtful]
        assert len(noise) == 1
        assert "limited to 0.3 times" in str(noise[0])
    catalog_pair(model, align(rubin, euclid))  # without a warning: the command line prints all findings


@pytest.mark.parametrize("suffix", ["fits", "ecsv", "parquet"])
def test_metadata_hold_the_distortion_of_the_grid(tmp_path, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
        pytest.importorskip("pandas")
    euclid = make_image(EUCLID, {"VIS": 60}, sigma=SHARP)
    bent = np.zeros((3, 3))
    bent[2, 0] = 1e-4
    euclid.wcs.sip = Sip(bent, bent, None, None, euclid.wcs.wcs.crpix)
    euclid.wcs.wcs.set()
    pair = align(euclid=euclid)
    meta = provenance(DETRJEPA(DETRJEPAConfig.tiny()), pair, thresholds={}, offset={})
    write_catalog(QTable({"id": [1]}, meta=meta), tmp_path / f"catalog.{suffix}")
    wcs = WCS(read_catalog(tmp_path / f"catalog.{suffix}").meta["grid"]["wcs"])
    assert wcs.pixel_to_world(0, 0).separation(pair.wcs.pixel_to_world(0, 0)).mas < 0.01
