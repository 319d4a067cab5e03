# Licensed under a 3-clause BSD style license - see LICENSE
"""A pair with three known sources and a catalogue of it, for the tests of pictures."""

import numpy as np
from astropy import units as u
from astropy.table import MaskedColumn, QTable
from astropy.wcs import WCS

from jaisp.image import SurveyImage
from jaisp.io import align
from jaisp.surveys import EUCLID, RUBIN, column_prefix

SIZES = {"rubin": 60, "euclid": 120}


def tan_wcs(scale, size):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 53.0, -28.0
    wcs.wcs.crpix = (size + 1) / 2, (size + 1) / 2
    wcs.wcs.cdelt = -scale / 3600, scale / 3600
    return wcs


def make_image(survey, fluxes, *, sources=((0.0, 0.0),), sigma=0.35):
    """Gaussian sources (offsets in arcsec, sigma in arcsec) on unit noise; ``fluxes`` names the bands."""
    size, scale = SIZES[survey.name], survey.pixel_scale
    rng = np.random.default_rng(3)
    grid = (np.arange(size) - (size - 1) / 2) * scale
    shape = sum(np.exp(-((grid - x) ** 2 + (grid[:, None] - y) ** 2) / 2 / sigma**2) for x, y in sources)
    data = {band: flux * shape + rng.normal(size=(size, size)) for band, flux in fluxes.items()}
    ones = {band: np.ones((size, size)) for band in fluxes}
    psf = np.exp(-((np.arange(21) - 10) ** 2 + (np.arange(21)[:, None] - 10) ** 2) / 2 / (sigma / scale) ** 2)
    return SurveyImage(
        data, tan_wcs(scale, size), survey=survey, variance=ones, psf=dict.fromkeys(fluxes, psf)
    )


SOURCES = ((-2.0, -2.0), (2.5, 1.0), (0.0, 3.0))


def drawn_pair():
    return align(
        make_image(RUBIN, {"g": 60, "r": 60, "i": 80}, sources=SOURCES),
        make_image(EUCLID, {"VIS": 60, "Y": 60}, sources=SOURCES),
        region="euclid",
    )


def drawn_table(pair):
    n = len(SOURCES)
    x, y = (np.array(SOURCES).T / 0.1) + (SIZES["euclid"] - 1) / 2
    table = QTable({"id": np.arange(1, n + 1), "sky_centroid": pair.wcs.pixel_to_world(x, y)})
    table["activity"] = [0.99, 0.8, 0.55]
    table["semimajor_axis"] = [0.4, 0.3, np.nan] * u.arcsec
    table["semiminor_axis"] = [0.2, 0.3, np.nan] * u.arcsec
    table["orientation"] = [30.0, 0.0, np.nan] * u.deg
    table["rubin_slot"] = MaskedColumn([4, 5, 0], mask=[False, False, True])
    table["euclid_slot"] = MaskedColumn([7, 8, 9], mask=[False, False, False])
    table["match_similarity"] = MaskedColumn([0.9, 0.8, 0.0], mask=[False, False, True])
    table["euclid_sky_centroid"] = table["sky_centroid"]
    table["rubin_sky_centroid"] = table["sky_centroid"].spherical_offsets_by(30 * u.mas, -10 * u.mas)
    for image in (pair.rubin, pair.euclid):
        for band in image.bands:
            prefix = column_prefix(image.survey, band)
            table[f"{prefix}_flux"] = [100.0, 50.0, np.nan] * u.nJy
            table[f"{prefix}_flux_err"] = [2.0, 2.0, np.nan] * u.nJy
    return table
