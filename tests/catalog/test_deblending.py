# Licensed under a 3-clause BSD style license - see LICENSE
"""Neighbours' light: its share at an object's place, and images without it."""

from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.table import QTable

from jaisp.catalog import OffsetField, deblended_image, drawing
from jaisp.catalog.deblending import _places, blended_fraction
from jaisp.exceptions import BandError, ConfigError
from jaisp.io import align
from jaisp.surveys import EUCLID, RUBIN, column_prefix

from .helpers import draw


def test_share_of_a_neighbour():
    every = np.ones(3, bool)
    x = np.array([0.0, 0.0, 30.0])
    share = blended_fraction(x, np.zeros(3), [3.0, 1.0, 1.0], np.zeros(3), every, fwhm=0.8)
    assert share == pytest.approx([0.25, 0.75, 0])
    # Two Gaussians of variance s each, d apart: exp(-d**2 / 4 s) of the light of one lies on the other.
    near = blended_fraction(
        np.array([0.0, 0.5, 30.0]), np.zeros(3), [1.0, 1.0, np.nan], np.zeros(3), every, fwhm=0.8
    )
    light = np.exp(-(0.5**2) / (4 * (0.8 / 2.355) ** 2))
    assert near[:2] == pytest.approx([light / (1 + light)] * 2)
    assert np.isnan(near[2])
    # An object that is not believed in takes nothing from its neighbour's share.
    unlikely = blended_fraction(
        x, np.zeros(3), [3.0, 1.0, 1.0], np.zeros(3), np.array([True, False, True]), fwhm=0.8
    )
    assert unlikely[0] == 0
    assert len(blended_fraction([], [], [], [], [], fwhm=0.8)) == 0


@pytest.fixture(scope="module")
def scene():
    """A point and, 0.9 arcsec away, a disc, in both surveys; Rubin is 50 mas off; the true catalogue."""
    pytest.importorskip("galsim")
    rng = np.random.default_rng(2)
    sources = [(100.0, 100.0, 900.0, 0.0), (108.0, 104.0, 1500.0, 0.3), (30.0, 150.0, 400.0, 0.0)]
    offset = (0.5, 0.0)
    pair = align(
        draw("rubin", ["i"], sources, 120, rng, sigma=0.5, offset=offset),
        draw("euclid", ["VIS"], sources, 240, rng, sigma=0.2),
    )
    x, y, flux, radius = np.array(sources).T
    table = QTable({"id": [1, 2, 3], "sky_centroid": pair.wcs.pixel_to_world(x, y)})
    for name in ("half_light_radius", "semimajor_axis", "semiminor_axis"):
        table[name] = radius * u.arcsec
    table["orientation"] = np.zeros(3) * u.deg
    table["bulge_fraction"], table["sersic_index"] = np.zeros(3), np.ones(3)
    for survey, band in ((RUBIN, "i"), (EUCLID, "VIS")):
        table[f"{column_prefix(survey, band)}_flux"] = flux * u.nJy
    field = OffsetField(coefficients=-np.array([offset]), n_matches=9)
    table.meta["astrometric_offset"] = {"field": field.to_dict()}
    table.meta["grid"] = {"wcs": dict(pair.wcs.to_header())}
    return table, pair


@pytest.mark.parametrize("band", ["i", "VIS"])
def test_an_object_without_its_neighbours(scene, band):
    table, pair = scene
    image = deblended_image(table, pair, 1, band, size=8 * u.arcsec)
    assert image.unit == u.nJy
    side = image.shape[0]
    x, y = image.wcs.world_to_pixel(table["sky_centroid"][0])
    assert (x, y) == pytest.approx((side / 2, side / 2), abs=1.5)
    assert image.data.sum() == pytest.approx(900, rel=0.06)
    # What is left is what GalSim draws of the object alone; the neighbour was twice as bright.
    survey, n = ("rubin", 120) if band == "i" else ("euclid", 240)
    shift = (0.5, 0.0) if band == "i" else (0.0, 0.0)
    rng = np.random.default_rng(3)
    alone = draw(survey, [band], [(100.0, 100.0, 900.0, 0.0)], n, rng, sigma=1e-3, offset=shift)
    cut = deblended_image(table[[0]], align(**{survey: alone}), 1, band, size=8 * u.arcsec)
    noise = image.uncertainty.array
    assert np.abs(image.data - cut.data).max() < 0.03 * alone.data[band].max() + 5 * noise.max()
    assert (image.uncertainty.array > 0).all()


def test_wings_of_a_galaxy_are_subtracted_as_far_as_its_index_tells():
    """In a stamp made for exponential ones the wings come in again from the other side."""
    galsim = pytest.importorskip("galsim")
    rng = np.random.default_rng(5)
    pair = align(euclid=draw("euclid", ["VIS"], [(150.0, 150.0, 300.0, 0.0)], 300, rng, sigma=0.5))
    galaxy = galsim.Convolve(
        galsim.Sersic(4, half_light_radius=0.5, flux=1e5), galsim.Moffat(beta=3.5, fwhm=0.35)
    )
    x = np.array([110.0, 150.0])
    light = (
        galaxy.shift(-4.0, 0.0).drawImage(nx=300, ny=300, scale=0.1, center=galsim.PositionD(151, 151)).array
    )
    pair.euclid.data["VIS"] += light
    table = QTable({"id": [1, 2], "sky_centroid": pair.wcs.pixel_to_world(x, [150.0, 150.0])})
    for name in ("half_light_radius", "semimajor_axis", "semiminor_axis"):
        table[name] = [0.5, 0.0] * u.arcsec
    table["orientation"], table["bulge_fraction"] = np.zeros(2) * u.deg, np.zeros(2)
    table["sersic_index"] = [4.0, 1.0]
    table["euclid_vis_flux"] = [1e5, 300.0] * u.nJy
    image = deblended_image(table, pair, 2, "VIS", size=2.1 * u.arcsec)
    assert abs(image.data.sum() - 300) < 0.2 * light[140:161, 140:161].sum()


def test_wings_of_a_star_are_subtracted_as_far_as_its_psf_tells():
    pytest.importorskip("galsim")
    rng = np.random.default_rng(4)
    sources = [(70.0, 100.0, 3e7, 0.0), (112.0, 103.0, 300.0, 0.0), (20.0, 20.0, 300.0, 0.0)]
    pair = align(euclid=draw("euclid", ["VIS"], sources, 200, rng, sigma=0.5, psf_side=121))
    x, y, flux, radius = np.array(sources).T
    table = QTable({"id": [1, 2, 3], "sky_centroid": pair.wcs.pixel_to_world(x, y)})
    for name in ("half_light_radius", "semimajor_axis", "semiminor_axis"):
        table[name] = radius * u.arcsec
    table["orientation"], table["bulge_fraction"] = np.zeros(3) * u.deg, np.zeros(3)
    table["sersic_index"] = np.ones(3)
    table["euclid_vis_flux"] = flux * u.nJy
    image = deblended_image(table, pair, 2, "VIS", size=2.1 * u.arcsec)
    assert image.meta["subtracted"] == 1  # the third is too far
    star = draw("euclid", ["VIS"], sources[:1], 200, rng, sigma=1e-3, psf_side=121)
    here = np.s_[93:114, 102:123]
    removed = pair.euclid.sky_subtracted("VIS")[here].sum() - image.data.sum()
    assert removed == pytest.approx(star.data["VIS"][here].sum(), rel=0.05)
    assert removed > 100  # nJy, a third of the object's light


def test_rubin_alone_lies_turned(scene):
    """Of a catalogue of both surveys: objects and their ellipses are where they are with both images."""
    table, pair = scene
    turned = pair.rubin.wcs.deepcopy()
    turned.wcs.pc = turned.wcs.get_pc() @ [[0, -1], [1, 0]]
    image = SimpleNamespace(wcs=turned, survey=RUBIN)
    both, alone = (one.wcs.pixel_to_world(*_places(table, one)) for one in (pair.rubin, image))
    assert both.separation(alone).max() < 1e-3 * u.mas
    assert both.separation(table["sky_centroid"]).to_value(u.mas) == pytest.approx(50, abs=0.1)
    assert drawing.grid_angle(table, pair.rubin.wcs) == pytest.approx(0, abs=1e-6)
    assert abs(drawing.grid_angle(table, turned)) == pytest.approx(90)


def test_the_edge_and_mistakes(scene):
    table, pair = scene
    image = deblended_image(table, pair, 3, "VIS", size=8 * u.arcsec)
    assert image.mask.any()
    assert np.isnan(image.data[image.mask]).all()
    # Beyond the left edge too, neighbours are subtracted where they are.
    edge = table[[2, 2]]
    edge["id"] = [1, 2]
    edge["sky_centroid"] = pair.wcs.pixel_to_world([18.0, 30.0], [150.0, 150.0])
    image = deblended_image(edge, pair, 1, "VIS", size=8 * u.arcsec)
    assert np.nanmax(image.data) < 0.1 * pair.euclid.data["VIS"][150, 30]
    edge["sky_centroid"] = pair.wcs.pixel_to_world([-2000.0, 30.0], [150.0, 150.0])
    with pytest.raises(ConfigError, match="object 1 lies outside the image of VIS"):
        deblended_image(edge, pair, 1, "VIS")
    with pytest.raises(ConfigError, match="no object 7 in this catalogue of 3"):
        deblended_image(table, pair, 7, "VIS")
    with pytest.raises(BandError, match="'H' is not in these images; allowed: i, VIS"):
        deblended_image(table, pair, 1, "H")
    for size, given in ((5, "without a unit"), (5 * u.pix, "in 'pix'")):
        with pytest.raises(ConfigError, match=f"size is {given}; allowed: an angle"):
            deblended_image(table, pair, 1, "VIS", size=size)
