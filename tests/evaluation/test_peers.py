# Licensed under a 3-clause BSD style license - see LICENSE
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable
from astropy.wcs import Sip

from jaisp.evaluation import (
    Field,
    MatchedFilter,
    SEPEuclid,
    SEPJoined,
    SEPRubin,
    SEPStack,
    compare,
    evaluate,
    markdown_table,
    match_catalog,
    match_field,
    plot_curves,
    sep_peers,
    tune,
)
from jaisp.evaluation._grids import detection_grid, pixel_map, resample
from jaisp.evaluation._peer import detections
from jaisp.evaluation.matched_filter import _neighbours, combine, find_peaks
from jaisp.exceptions import BandError, ConfigError, MissingDependencyError

from .helpers import sky, star_field, tangent

SIZE = 256
PEERS = [SEPEuclid(), SEPRubin(), SEPStack(), SEPJoined(), MatchedFilter()]
EUCLID_BANDS = {"VIS": 0.2, "H": 0.5}
RUBIN_BANDS = {"g": 0.8, "i": 0.7}


def stars(n, seed):
    x, y = np.random.default_rng(seed).uniform(-10, 10, (2, n))
    return sky(x, y)


def field(flux, *, n=12, seed=1, turn=20.0):
    """Stars in both surveys; flux 200 is an S/N near 50 in VIS (sigma 0.85 px, noise 1 nJy per pixel)."""
    places = stars(n, seed)
    rubin = star_field(
        "rubin", RUBIN_BANDS, places, np.full(n, flux), size=SIZE // 2, scale=0.2, turn=turn, seed=2
    )
    euclid = star_field("euclid", EUCLID_BANDS, places, np.full(n, flux), size=SIZE, scale=0.1, seed=3)
    truth = QTable({"sky_centroid": places, "snr": np.full(n, 50.0), "nearest": np.full(n, 5.0) * u.arcsec})
    return Field(rubin, euclid, truth)


@pytest.fixture(scope="module")
def bright():
    return field(200.0)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_bright_stars_are_found_where_they_are(bright, peer):
    found = peer(bright.rubin, bright.euclid)
    match = match_field(found["sky_centroid"], found["snr"], bright.truth)
    assert (match.outcome == 1).sum() >= 11  # two of them may touch
    assert np.nanmedian(match.separation) < (0.03 if isinstance(peer, (SEPRubin, SEPStack)) else 0.015)
    assert (np.diff(found["snr"]) <= 0).all()


def test_snr_of_the_matched_filter_is_that_of_theory():
    # one star per field: a neighbour within the PSF would add to the peak
    place = sky([1.0], [2.0])
    rubin = star_field("rubin", RUBIN_BANDS, place, [200.0], size=SIZE // 2, scale=0.2, turn=20, seed=2)
    euclid = star_field("euclid", EUCLID_BANDS, place, [200.0], size=SIZE, scale=0.1, seed=3)
    expected = 0
    for image in (rubin, euclid):
        for band in image.bands:
            expected += 200**2 * np.sum(image.psf[band].astype(float) ** 2) / image.noise[band].scale ** 2
    found = MatchedFilter()(rubin, euclid)
    assert found["snr"][0] == pytest.approx(np.sqrt(expected), rel=0.06)
    assert found["sky_centroid"][0].separation(place[0]) < 0.02 * u.arcsec


def test_two_surveys_reach_fainter_than_one():
    faint = field(15.0, n=60, seed=4)
    n_found = {}
    for name, pair in {
        "both": faint[:2],
        "rubin": (faint.rubin, None),
        "euclid": (None, faint.euclid),
    }.items():
        found = MatchedFilter()(*pair)
        found = found[found["snr"] > 5]
        n_found[name] = (match_field(found["sky_centroid"], found["snr"], faint.truth).outcome == 1).sum()
    assert n_found["both"] > n_found["rubin"]
    assert n_found["both"] > n_found["euclid"]


def test_joined_peaks_are_not_doubled(bright):
    found = MatchedFilter()(bright.rubin, bright.euclid, peaks="joined", dip=2.0)
    match = match_field(found["sky_centroid"], found["snr"], bright.truth)
    assert (match.outcome[found["snr"] > 20] == 1).all()


def test_contrast_and_dip_drop_peaks_beside_brighter_ones():
    image = np.zeros((80, 80))
    axis = np.arange(80)
    for x, height in ((40, 100.0), (48, 30.0), (20, 4.0)):
        image += height * np.exp(-((axis - x) ** 2 + (axis[:, None] - 40) ** 2) / 8)
    x, y, value = find_peaks(image, 3)
    np.testing.assert_allclose(np.sort(x), [20, 40, 48], atol=0.15)
    np.testing.assert_allclose(y, 40, atol=1e-6)
    dip, ratio = _neighbours(image, x, y, value, 0.1)
    order = np.argsort(-value)
    assert dip[order[0]] == np.inf
    assert 10 < dip[order[1]] < 28
    np.testing.assert_allclose(ratio[order], [np.inf, 0.3, 0.04], rtol=0.05)


def test_peaks_are_sub_pixel():
    axis = np.arange(40)
    image = 10 * np.exp(-((axis - 20.3) ** 2 + (axis[:, None] - 18.8) ** 2) / 18)
    x, y, value = find_peaks(image, 5)
    assert (x[0], y[0]) == (pytest.approx(20.3, abs=0.02), pytest.approx(18.8, abs=0.02))
    assert len(value) == 1


def test_rules_of_combination():
    one = np.array([[3.0]])
    bands = {"g": (one, one), "VIS": (4 * one / 3, one)}
    assert combine(bands, "chi")[0, 0] == pytest.approx(5)
    assert combine(bands, "flat")[0, 0] == pytest.approx(7 / np.sqrt(2))
    assert combine(bands, "templates")[0, 0] >= combine(bands, "flat")[0, 0]


@pytest.mark.parametrize("frame", ["icrs", "galactic"])
def test_maps_land_on_the_right_pixels(frame):
    wcs, target = tangent(0.2, 64, turn=33), tangent(0.1, 128)
    if frame == "galactic":
        place = wcs.pixel_to_world(31.5, 31.5).galactic
        wcs.wcs.ctype = "GLON-TAN", "GLAT-TAN"
        wcs.wcs.crval = place.l.deg, place.b.deg
        wcs.wcs.set()
    places = pixel_map(wcs, target, (128, 128))
    y, x = np.mgrid[:128, :128]
    exact = wcs.world_to_pixel(target.pixel_to_world(x, y))
    np.testing.assert_allclose(places[1], exact[0], atol=1e-5)
    np.testing.assert_allclose(places[0], exact[1], atol=1e-5)
    ramp = resample(np.mgrid[:64, :64][1].astype(float), places)
    assert np.isfinite(places).all()
    inside = (places > 4).all(axis=0) & (places < 59).all(axis=0)
    np.testing.assert_allclose(ramp[inside], places[1][inside], atol=1e-3)


def test_detections_are_where_a_wcs_of_any_frame_says():
    wcs = tangent(0.1, 64)
    place = wcs.pixel_to_world(10.0, 20.0)
    wcs.wcs.ctype = "GLON-TAN", "GLAT-TAN"
    wcs.wcs.crpix, wcs.wcs.crval = (11, 21), (place.galactic.l.deg, place.galactic.b.deg)
    wcs.wcs.set()
    found = detections(wcs, [10.0], [20.0], [5.0])
    assert found["sky_centroid"].separation(place)[0] < 1e-6 * u.arcsec


def test_rubin_alone_is_looked_at_on_finer_pixels(bright):
    wcs, shape = detection_grid(bright.rubin, None)
    assert shape == (SIZE, SIZE)
    x, y = wcs.world_to_pixel(bright.rubin.wcs.pixel_to_world(7.0, 9.0))
    assert (x, y) == (pytest.approx(14.5, abs=1e-6), pytest.approx(18.5, abs=1e-6))
    assert detection_grid(bright.rubin, bright.euclid)[0] is bright.euclid.wcs
    # Distortion goes along.
    bent = SimpleNamespace(wcs=bright.rubin.wcs.deepcopy(), shape=bright.rubin.shape)
    polynomial = np.zeros((3, 3))
    polynomial[2, 0] = 1e-4
    bent.wcs.sip = Sip(polynomial, polynomial, None, None, bent.wcs.wcs.crpix)
    wcs, _ = detection_grid(bent, None)
    # The middle of the first pixel is where four of its parts meet.
    assert wcs.pixel_to_world(0.5, 0.5).separation(bent.wcs.pixel_to_world(0, 0)).mas < 0.01


def test_tuning_picks_the_settings_with_the_best_figure(bright):
    peer = SEPEuclid()
    peer.grid = peer.grid | {"threshold": (40.0, 3.0), "kernel": ("default",), "deblend_nthresh": (32,)}
    tuning = tune(peer, [bright])
    assert len(tuning.settings) == len(tuning.scores) == 2 * 3 * 3
    best = tuning.best("best_f1")
    assert best["threshold"] == 3
    assert evaluate(peer, [bright], [best])[0].best_f1 == max(score.best_f1 for score in tuning.scores)
    with pytest.raises(ConfigError, match="unknown statistic 'f1'"):
        tuning.best("f1")


def test_comparison_makes_a_table_and_a_figure(bright, tmp_path):
    peer = SEPEuclid()
    peer.grid = {key: values[:1] for key, values in peer.grid.items()}

    def perfect(rubin, euclid):
        return QTable({"sky_centroid": bright.truth["sky_centroid"], "activity": np.ones(len(bright.truth))})

    result = compare({"perfect": perfect}, [peer], [bright], [bright, bright])
    table = result.to_table(bootstrap=5)
    assert list(table["finder"]) == ["perfect", "SEP on VIS"]
    assert list(table["n_fields"]) == [2, 2]
    assert table["completeness_95"][0] == 1
    assert len(result.catalogs["perfect"]) == 2
    text = markdown_table(table)
    assert text.splitlines()[2].startswith("| perfect | 2 | 24 | 1.000 |")
    plot_curves({name: by["best_f1"] for name, by in result.scores.items()}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_the_edge_is_not_scored(bright):
    x = np.array([10.0, 5.0, -3.0, 100.0])  # one inside, at the edge, and outside
    catalog = QTable(
        {"sky_centroid": bright.euclid.wcs.pixel_to_world(x, 40 + 0 * x), "activity": np.ones(4)}
    )
    truth = QTable({"sky_centroid": catalog["sky_centroid"], "snr": np.full(4, 50.0)})
    kept, match = match_catalog(catalog, Field(None, bright.euclid, truth), margin=0.8 * u.arcsec)
    assert len(kept) == 2
    assert list(match.outcome) == [1, 1]
    assert list(match.wanted) == [True, False, False, True]
    # a row inside may match a source outside, and is then neither true nor false
    near = QTable({"sky_centroid": bright.euclid.wcs.pixel_to_world([8.5], [40.0]), "activity": [1.0]})
    truth["sky_centroid"] = bright.euclid.wcs.pixel_to_world(x + [100, 2, 0, 0], 40 + 0 * x)
    assert list(match_catalog(near, Field(None, bright.euclid, truth), margin=0.8 * u.arcsec)[1].outcome) == [
        -1
    ]


def test_peers_at_hand():
    assert [type(peer) for peer in sep_peers()] == [SEPEuclid, SEPStack, SEPJoined]
    assert [type(peer) for peer in sep_peers(euclid=False)] == [SEPRubin, SEPStack]
    assert [type(peer) for peer in sep_peers(rubin=False)] == [SEPEuclid]
    assert "432 settings" in repr(MatchedFilter())


def test_mistakes_are_named(bright, monkeypatch):
    with pytest.raises(BandError, match="'SEP on VIS' needs a euclid image"):
        SEPEuclid()(bright.rubin, None)
    with pytest.raises(
        ConfigError, match=r"unknown setting 'kernl' of SEP on VIS \(did you mean 'kernel'\?\)"
    ):
        SEPEuclid()(None, bright.euclid, kernl="psf")
    monkeypatch.setitem(sys.modules, "sep", None)
    with pytest.raises(MissingDependencyError, match="pip install sep"):
        SEPEuclid()(None, bright.euclid)
