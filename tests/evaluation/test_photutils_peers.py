# Licensed under a 3-clause BSD style license - see LICENSE
"""The peers of photutils find and measure stars whose fluxes are known."""

import importlib.util

import numpy as np
import pytest
from astropy import units as u

from jaisp.evaluation import PhotutilsPSF, PhotutilsSegmentation, match_one_to_one
from jaisp.exceptions import BandError, ConfigError, MissingDependencyError

from .helpers import sky, star_field

pytest.importorskip("skimage")
FLUX = np.array([150.0, 300.0, 600.0, 1200.0, 2400.0])
PLACES = sky([-8.0, -4.0, 0.0, 4.0, 8.0], [6.0, -6.0, 3.0, -3.0, 0.0])
PEERS = [PhotutilsSegmentation(), PhotutilsPSF()]
CLEAR = 8.0  # a threshold above what the stack's correlated noise reaches


def pair(flux=FLUX, places=PLACES, bands=("VIS", "H")):
    fwhm = {"VIS": 0.2, "H": 0.5}
    euclid = star_field(
        "euclid", {band: fwhm[band] for band in bands}, places, flux, size=256, scale=0.1, seed=3
    )
    return star_field("rubin", {"i": 0.7}, places, flux, size=128, scale=0.2, turn=20, seed=2), euclid


@pytest.fixture(scope="module")
def stars():
    return pair()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_stars_are_found_where_they_are_and_with_their_fluxes(stars, peer):
    found = peer.measured(peer.prepare(*stars), threshold=CLEAR)
    assert (np.diff(found["snr"]) <= 0).all()
    index, separation = match_one_to_one(found["sky_centroid"], PLACES)
    assert sorted(index[index >= 0]) == [0, 1, 2, 3, 4]
    assert (index >= 0).sum() == len(found)
    assert np.nanmax(separation) < 0.05
    flux, error = found["euclid_vis_flux"], found["euclid_vis_flux_err"]
    assert flux.unit == u.nJy
    # Kron apertures lose some per cent of the light; a PSF of two pixels is not interpolated exactly.
    systematic = 0.10 if peer.name.endswith("segmentation") else 0.015
    assert (np.abs(flux.value - FLUX[index]) < 4 * error.value + systematic * FLUX[index]).all()
    assert (error.value < 0.1 * FLUX[index]).all()
    assert (error.value > 0).all()


def test_error_of_a_fitted_star_is_that_of_theory(stars):
    """White noise of 1 nJy per pixel: sigma = 1 / sqrt(sum psf^2) over the 5 x 5 pixels of the fit."""
    peer = PhotutilsPSF()
    prepared = peer.prepare(*stars)
    found = peer.detect(prepared, threshold=CLEAR)
    psf = stars[1].psf["VIS"]
    middle = psf.shape[0] // 2
    core = psf[middle - 2 : middle + 3, middle - 2 : middle + 3]
    expected = 1 / np.sqrt(np.sum(core.astype(float) ** 2))
    np.testing.assert_allclose(found["euclid_vis_flux_err"].value, expected, rtol=0.15)


def test_ranking_by_the_fit_is_flux_over_error(stars):
    peer = PhotutilsPSF()
    found = peer(*stars, ranking="fit", threshold=CLEAR)
    ratio = (found["euclid_vis_flux"] / found["euclid_vis_flux_err"]).value
    np.testing.assert_allclose(found["snr"], ratio)
    index, _ = match_one_to_one(found["sky_centroid"], PLACES)
    assert index.tolist() == [4, 3, 2, 1, 0]


def test_lower_thresholds_find_fainter_stars():
    stars = pair(np.full(5, 15.0))
    peer = PhotutilsSegmentation()
    prepared = peer.prepare(*stars)
    found = {t: peer.detect(prepared, threshold=t) for t in (3.0, CLEAR)}
    right = {t: (match_one_to_one(table["sky_centroid"], PLACES)[0] >= 0).sum() for t, table in found.items()}
    assert right[3.0] > right[CLEAR]


def test_touching_stars_are_deblended():
    places = sky([0.0, 0.6], [0.0, 0.0])
    found = PhotutilsPSF()(*pair(np.array([800.0, 600.0]), places), threshold=CLEAR)
    index, separation = match_one_to_one(found["sky_centroid"], places)
    assert sorted(index) == [0, 1]
    assert np.max(separation) < 0.03


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_an_empty_sky_gives_an_empty_table(peer):
    found = peer.measured(peer.prepare(*pair(np.array([0.0]), sky([0.0]))), threshold=8.0)
    assert len(found) == 0
    assert "snr" in found.colnames


def test_refusals(stars, monkeypatch):
    rubin, euclid = stars
    with pytest.raises(ConfigError, match=r"unknown setting 'contrasts' .*did you mean 'contrast'"):
        PhotutilsSegmentation()(rubin, euclid, contrasts=0.1)
    with pytest.raises(BandError, match="'photutils PSF photometry' needs VIS; give a Euclid image"):
        PhotutilsPSF()(rubin, None)
    with pytest.raises(BandError, match="needs VIS"):
        PhotutilsPSF()(rubin, pair(bands=("H",))[1])
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "skimage" else find(name, *rest)
    )
    with pytest.raises(MissingDependencyError, match=r"scikit-image.*pip install 'jaisp\[benchmark\]'"):
        PhotutilsSegmentation()(rubin, euclid)
