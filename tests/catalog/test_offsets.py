# Licensed under a 3-clause BSD style license - see LICENSE
import json
from types import SimpleNamespace

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable
from astropy.wcs import WCS

from jaisp.catalog.build import _offset_on_sky
from jaisp.catalog.offsets import OffsetField, correct_offset, fit_offsets, offset_field
from jaisp.catalog.table import _errors_on_sky, _sky
from jaisp.exceptions import ConfigError


def _matches(rng, n, *, outliers=0.1, error=0.2, gradient=(0.0, 0.0)):
    x, y = rng.uniform(0, 3000, (2, n))
    err = error * rng.uniform(0.5, 2, (2, n))
    dx = 0.35 + gradient[0] * (x - 1500) / 1500 + err[0] * rng.normal(size=n)
    dy = -0.2 + gradient[1] * (y - 1500) / 1500 + err[1] * rng.normal(size=n)
    wrong = rng.random(n) < outliers
    dx[wrong] = rng.uniform(-10, 10, wrong.sum())
    dy[wrong] = rng.uniform(-10, 10, wrong.sum())
    return x, y, dx, dy, *err


def _wcs(kind="plain"):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 53.0, -28.0
    wcs.wcs.crpix = 1500, 1500
    wcs.wcs.cdelt = -0.1 / 3600, 0.1 / 3600
    if kind == "axes swapped":
        wcs.wcs.ctype = "DEC--TAN", "RA---TAN"
        wcs.wcs.crval = -28.0, 53.0
    elif kind == "galactic":
        place = SkyCoord(53.0, -28.0, unit="deg").galactic
        wcs.wcs.ctype = "GLON-TAN", "GLAT-TAN"
        wcs.wcs.crval = place.l.deg, place.b.deg
    elif kind == "pole turned":
        wcs.wcs.lonpole = 150.0
    return wcs


_KINDS = ["plain", "axes swapped", "galactic", "pole turned"]


def test_constant_vector_and_its_error():
    pulls = []
    for seed in range(200):
        field = fit_offsets(*_matches(np.random.default_rng(seed), 25))
        assert field.degree == 0
        value, error = np.array(field(1000, 1000)), np.array(field.uncertainty(1000, 1000))
        pulls.append((value - (0.35, -0.2)) / error)
    pulls = np.array(pulls)
    assert np.abs(pulls.mean(0)).max() < 0.25
    assert 0.75 < pulls.std() < 1.25


def test_a_field_is_uncertain_beyond_its_matches():
    field = fit_offsets(*_matches(np.random.default_rng(0), 25))
    inside = field.uncertainty(*field.centre)[0]
    x = field.centre[0] + field.scale * np.array([0.9, 1.5, 2.0, 9.0])
    outside = field.uncertainty(x, field.centre[1])[0]
    np.testing.assert_allclose(np.sqrt(outside**2 - inside**2), [0.0, 0.15, 0.3, 0.6], atol=1e-6)


@pytest.mark.parametrize("gradient", [(0.0, 0.0), (0.3, -0.3)])
def test_degree_follows_the_data(gradient):
    field = fit_offsets(*_matches(np.random.default_rng(3), 300, gradient=gradient))
    assert field.degree == (1 if any(gradient) else 0)
    dx, dy = field(np.array([0.0, 3000.0]), np.array([0.0, 3000.0]))
    np.testing.assert_allclose(dx, 0.35 + gradient[0] * np.array([-1, 1]), atol=0.08)
    np.testing.assert_allclose(dy, -0.2 + gradient[1] * np.array([-1, 1]), atol=0.08)


def test_outliers_do_not_matter():
    field = fit_offsets(*_matches(np.random.default_rng(4), 100, outliers=0.3))
    np.testing.assert_allclose(field(5, 5), (0.35, -0.2), atol=0.15)


@pytest.mark.parametrize("n", [0, 2])
def test_too_few_matches_give_zero(n):
    field = fit_offsets(*_matches(np.random.default_rng(1), n))
    assert field.n_matches == 0
    assert [float(value) for value in field(3, 4)] == [0, 0]


def test_unusable_matches_are_left_out():
    values = np.array(_matches(np.random.default_rng(1), 10, outliers=0))
    values[2, 0] = np.nan
    values[4, 1] = 0
    assert fit_offsets(*values).n_matches == 8


def test_dictionary_round_trip_and_sky_offset():
    wcs = _wcs()
    field = fit_offsets(*_matches(np.random.default_rng(3), 300, gradient=(0.3, 0.3)))
    values = json.loads(json.dumps(field.to_dict(wcs)))
    again = OffsetField.from_dict(values)
    np.testing.assert_allclose(again(100, 2000), field(100, 2000))
    np.testing.assert_allclose(again.uncertainty(100, 2000), field.uncertainty(100, 2000))
    assert values["dra_cosdec_mas"] == pytest.approx(-values["dx_mas"], abs=0.1)
    assert values["ddec_mas"] == pytest.approx(values["dy_mas"], abs=0.1)


def test_unknown_degree():
    with pytest.raises(ConfigError, match="max_degree=7"):
        fit_offsets(*np.ones((6, 5)), max_degree=7)


def _catalogue(wcs, field):
    meta = {"astrometric_offset": {"field": field.to_dict()}, "grid": {"wcs": dict(wcs.to_header())}}
    return QTable(meta=json.loads(json.dumps(meta)))


@pytest.mark.parametrize("kind", _KINDS)
def test_errors_and_offset_are_along_ra_and_dec(kind):
    """Whatever the axes of the WCS are: as found by moving a pixel's place on the sky."""
    pair = SimpleNamespace(wcs=_wcs(kind), shape=(2999, 2999))
    field = fit_offsets(*_matches(np.random.default_rng(3), 300))
    here = pair.wcs.pixel_to_world(1499, 1499).icrs

    def moved(dx, dy):
        offsets = here.spherical_offsets_to(pair.wcs.pixel_to_world(1499 + dx, 1499 + dy).icrs)
        return np.array([offset.to_value(u.mas) for offset in offsets])

    one, none = np.array([1.0, 0.0]), np.zeros(2)
    along_x, along_y = _errors_on_sky(pair, one, one[::-1], none).to_value(u.mas).T
    np.testing.assert_allclose(along_x, np.abs(moved(1, 0)), atol=1e-3)
    np.testing.assert_allclose(along_y, np.abs(moved(0, 1)), atol=1e-3)
    # Of errors along one direction of the pixels: those of a step in it.
    (along,) = _errors_on_sky(pair, np.array([0.6]), np.array([0.8]), np.array([0.48])).to_value(u.mas).T
    np.testing.assert_allclose(along, np.abs(moved(0.6, 0.8)), atol=1e-3)
    meta = _offset_on_sky(pair, field)
    found = [meta[f"euclid_minus_rubin_{axis}_mas"] for axis in ("ra", "dec")]
    np.testing.assert_allclose(found, moved(*field(1499, 1499)), atol=0.01)


@pytest.mark.parametrize("kind", _KINDS)
def test_positions_of_rubin_are_moved_into_the_frame_of_euclid(kind):
    wcs = _wcs(kind)
    field = fit_offsets(*_matches(np.random.default_rng(3), 300, gradient=(0.3, 0.3)))
    x, y = np.random.default_rng(1).uniform(0, 3000, (2, 20))
    dx, dy = field(x, y)
    rubin, euclid = wcs.pixel_to_world(x, y), wcs.pixel_to_world(x + dx, y + dy)
    assert rubin.separation(euclid).mas.max() > 30
    corrected = correct_offset(rubin, _catalogue(wcs, field))
    assert corrected.separation(euclid).mas.max() < 0.01
    assert corrected.frame.name == "icrs"
    # Positions of objects that Rubin has not are masked.
    masked = _sky(SimpleNamespace(wcs=wcs), x, y, np.arange(20) > 3)
    corrected = correct_offset(masked, _catalogue(wcs, field))[:4]
    assert corrected.separation(euclid[:4]).mas.max() < 0.01


@pytest.mark.parametrize(("n", "message"), [(None, "hold no offset field"), (1, "too few objects")])
def test_catalogues_without_an_offset(n, message):
    table = QTable() if n is None else _catalogue(_wcs(), fit_offsets(*_matches(np.random.default_rng(1), n)))
    with pytest.raises(ConfigError, match=message):
        offset_field(table)


def test_a_field_that_bends():
    """A smooth field that is no polynomial is followed to a tenth, and its error bar tells by how much."""
    rng = np.random.default_rng(8)
    x, y, *_, dx_err, dy_err = _matches(rng, 500, outliers=0)
    wave = 0.4 * np.sin(x / 1200), 0.3 * np.cos(y / 1000)
    noisy = [
        value + error * rng.normal(size=500) for value, error in zip(wave, (dx_err, dy_err), strict=True)
    ]
    field = fit_offsets(x, y, *noisy, dx_err, dy_err)
    assert field.degree >= 2
    left = np.concatenate([found - true for found, true in zip(field(x, y), wave, strict=True)])
    assert left.std() < 0.05
    error = np.concatenate(field.uncertainty(x, y))
    assert 0.5 < np.median(np.abs(left)) / np.median(error) < 2


def test_picture_of_the_field():
    pytest.importorskip("matplotlib")
    from jaisp.catalog import plot_offsets

    wcs = _wcs()
    table = _catalogue(wcs, fit_offsets(*_matches(np.random.default_rng(3), 300, gradient=(0.3, 0.3))))
    x, y = np.random.default_rng(1).uniform(0, 3000, (2, 20))
    table["sky_centroid"] = wcs.pixel_to_world(x, y)
    for survey in ("rubin", "euclid"):
        table[f"{survey}_slot"] = np.arange(20)
    table["match_similarity"] = MaskedColumn(np.ones(20), mask=np.arange(20) % 2 == 0)
    figure = plot_offsets(table)
    figure.canvas.draw()
    panel = figure.axes[0]
    assert "degree 1, 300 objects" in panel.get_title(loc="left")
    assert len(panel.collections[0].get_offsets()) == 10
    (quiver,) = (item for item in panel.collections if hasattr(item, "U"))
    # East is -x on this grid, and to the left.
    assert quiver.U.mean() == pytest.approx(-35, abs=4)
    assert quiver.V.mean() == pytest.approx(-20, abs=4)
    assert panel.get_xlim()[0] > panel.get_xlim()[1]
    with pytest.raises(ConfigError, match="has no objects, so there is no sky"):
        plot_offsets(table[:0])
