# Licensed under a 3-clause BSD style license - see LICENSE
"""The demo's pair and a catalogue of it with known contents, made without the network."""

from importlib.resources import as_file, files

import astropy.units as u
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable
from astropy.utils.masked import Masked

from jaisp.catalog import flag_value
from jaisp.io import align, read_euclid, read_rubin
from jaisp.surveys import EUCLID, RUBIN, column_prefix

N = 12


@pytest.fixture(scope="session")
def pair():
    with as_file(files("jaisp") / "data" / "demo") as folder:
        rubin = read_rubin([folder / "rubin_g.fits.gz", folder / "rubin_i.fits.gz"])
        euclid = read_euclid([folder / "euclid_VIS.fits.gz", folder / "euclid_H.fits.gz"])
    return align(rubin, euclid)


@pytest.fixture(scope="session")
def table(pair):
    """Twelve true sources, bright in both; embeddings of 1 and 2, of 3 and 4, ... point the same way."""
    with as_file(files("jaisp") / "data" / "demo") as folder:
        truth = QTable.read(folder / "truth.fits")
    truth = truth[np.argsort(-np.minimum(truth["rubin_snr"], truth["euclid_snr"]))[:N]]
    rng = np.random.default_rng(2)
    mask = np.arange(N) % 4 == 3
    table = QTable({"id": np.arange(1, N + 1), "sky_centroid": truth["sky_centroid"]})
    x, y = pair.wcs.world_to_pixel(truth["sky_centroid"])
    table["x_centroid"], table["y_centroid"] = x * u.pix, y * u.pix
    table["ra_err"] = table["dec_err"] = np.full(N, 5.0) * u.mas
    table["activity"] = np.linspace(0.99, 0.55, N)
    for survey in (RUBIN, EUCLID):
        name = survey.name
        table[f"{name}_activity"] = table["activity"]
        table[f"{name}_sky_centroid"] = table["sky_centroid"]
        table[f"{name}_slot"] = MaskedColumn(
            np.arange(N), mask=mask if survey is EUCLID else np.zeros(N, bool)
        )
        for k, band in enumerate(survey.band_names):
            prefix = column_prefix(survey, band)
            table[f"{prefix}_flux"] = np.linspace(100, 5000, N) * (1 + k) * u.nJy
            table[f"{prefix}_flux_err"] = np.full(N, 20.0) * u.nJy
    table["euclid_vis_flux"][2] = np.nan * u.nJy
    table["tile"] = MaskedColumn(np.zeros(N, int), mask=np.zeros(N, bool))
    table["match_similarity"] = MaskedColumn(np.full(N, 0.9), mask=mask)
    table["match_probability"] = np.where(mask, 0, 0.9)
    table["separation"] = Masked(np.full(N, 30.0) * u.mas, mask=mask)
    for name in ("half_light_radius", "semimajor_axis", "semiminor_axis"):
        table[name] = np.full(N, 0.3) * u.arcsec
    table["orientation"] = np.zeros(N) * u.deg
    table["star_probability"] = table["bulge_fraction"] = np.linspace(0, 1, N)
    table["sersic_index"] = np.ones(N)
    table["blend_id"], table["n_blended"] = np.arange(N), np.ones(N, int)
    table["rubin_blended_fraction"] = np.zeros(N)
    table["rubin_unrecognized_blend"] = np.zeros(N, bool)
    vectors = np.repeat(rng.normal(size=(N // 2, 16)), 2, axis=0) + 0.05 * rng.normal(size=(N, 16))
    table["embedding"] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    table["flags"] = np.where(mask, flag_value("rubin_only"), 0)
    table.meta = {
        "date": "2026-11-24T00:00:00+00:00",
        "weights": {"name": "detr_jepa", "sha256": "0123456789abcdef"},
        "versions": {"jaisp": "0.1.0"},
        "bands": {"euclid_vis": {"depth_5sigma_ab": 26.1, "noise_scale": 1.4, "psf_source": "given"}},
        "grid": {"reference": "euclid", "pixel_scale_arcsec": 0.1, "wcs": dict(pair.wcs.to_header())},
        "astrometric_offset": {
            "euclid_minus_rubin_ra_mas": 12.5,
            "euclid_minus_rubin_dec_mas": -7.5,
            "error_mas": 1.5,
            "n_sources": 9,
        },
    }
    return table
