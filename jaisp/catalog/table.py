# Licensed under a 3-clause BSD style license - see LICENSE
"""Columns of the catalogue: units, frames, masks and flags."""

from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable
from astropy.utils.masked import Masked
from scipy.special import expit

from jaisp import __version__
from jaisp.catalog._edges import near_edge
from jaisp.catalog.columns import describe_columns
from jaisp.catalog.deblending import blended_fraction
from jaisp.catalog.flags import set_flag
from jaisp.image import psf_fwhm
from jaisp.io.grid import sky_jacobian
from jaisp.surveys import EUCLID, RUBIN, column_prefix

__all__ = ["build_table", "provenance"]


def _sky(pair, x, y, mask=None):
    """Grid pixels as ICRS coordinates, masked where asked."""
    sky = pair.wcs.pixel_to_world(x, y).icrs
    if mask is None:
        return sky
    ra, dec = (Masked(angle.to(u.deg), mask=mask) for angle in (sky.ra, sky.dec))
    return SkyCoord(ra, dec, frame="icrs")


def _errors_on_sky(pair, x_err, y_err, covariance):
    """Pixel errors as errors along RA times cos(dec), and along declination."""
    middle = [(side - 1) / 2 for side in pair.shape[::-1]]
    matrix = sky_jacobian(pair.wcs, *middle) * u.arcsec.to(u.mas)
    variance = matrix**2 @ np.stack([x_err, y_err]) ** 2
    variance += 2 * np.prod(matrix, axis=1)[:, None] * covariance
    return np.sqrt(variance) * u.mas


def _slot_columns(table, survey, slots, index, pair, activity):
    """Activity, position and number of a survey's own slot."""
    none = index < 0
    safe = np.maximum(index, 0)
    if slots is None or not len(slots):
        x = y = number = np.zeros(len(index))
        none = np.ones(len(index), bool)
    else:
        x, y, number = slots.x[safe], slots.y[safe], slots.slot[safe]
    table[f"{survey.name}_activity"] = np.where(none, 0.0, activity)
    # Where there is no slot the place below the mask is the field's own, so that no reader meets a NaN.
    x, y = np.where(none, 0.0, x), np.where(none, 0.0, y)
    table[f"{survey.name}_sky_centroid"] = _sky(pair, x, y, none)
    table[f"{survey.name}_slot"] = MaskedColumn(np.where(none, 0, number).astype(np.int64), mask=none)


def build_table(pair, joint, measurement, link, probabilities):
    """
    Assemble the table, one row an object, in the order of the slots given.

    Parameters
    ----------
    pair : `~jaisp.io.AlignedPair`
    joint : `~jaisp.catalog.FieldSlots`
        The joint slots, n of them.
    measurement : `~jaisp.catalog.Measurement`
        Of the same n.
    link : `~jaisp.catalog.SurveyLinks`
        Each row's own slots in the two surveys, and their match.
    probabilities : dict
        ``activity``, ``rubin_activity``, ``euclid_activity``, each (n,).

    Returns
    -------
    `~astropy.table.QTable`
    """
    n = len(joint)
    table = QTable()
    table["id"] = np.arange(1, n + 1)
    table["sky_centroid"] = _sky(pair, measurement.x, measurement.y)
    table["ra_err"], table["dec_err"] = _errors_on_sky(
        pair, measurement.x_err, measurement.y_err, measurement.xy_covariance
    )
    x, y = pair.to_reference(measurement.x, measurement.y)
    table["x_centroid"], table["y_centroid"] = x * u.pix, y * u.pix
    table["activity"] = probabilities["activity"]
    for survey, slots, index in (
        (RUBIN, link.rubin, link.rubin_index),
        (EUCLID, link.euclid, link.euclid_index),
    ):
        _slot_columns(table, survey, slots, index, pair, probabilities[f"{survey.name}_activity"])
    table["tile"] = MaskedColumn(joint.tile.astype(np.int64), mask=np.zeros(n, bool))
    unmatched = ~link.matched
    table["match_similarity"] = MaskedColumn(np.where(unmatched, 0.0, link.similarity), mask=unmatched)
    table["match_probability"] = np.where(unmatched, 0.0, link.probability)
    table["separation"] = Masked(np.where(unmatched, 0.0, link.separation) * 1e3 * u.mas, mask=unmatched)
    channel = 0
    for survey in (RUBIN, EUCLID):
        for band in survey.band_names:
            prefix = column_prefix(survey, band)
            table[f"{prefix}_flux"] = measurement.flux[:, channel] * u.nJy
            table[f"{prefix}_flux_err"] = measurement.flux_err[:, channel] * u.nJy
            channel += 1
    ellipticity = np.hypot(measurement.e1, measurement.e2)
    ratio = np.sqrt((1 - ellipticity) / (1 + ellipticity))
    table["half_light_radius"] = measurement.half_light_radius * u.arcsec
    table["semimajor_axis"] = measurement.half_light_radius / ratio * u.arcsec
    table["semiminor_axis"] = measurement.half_light_radius * ratio * u.arcsec
    angle = np.degrees(0.5 * np.arctan2(measurement.e2, measurement.e1))
    table["orientation"] = angle * u.deg
    table["bulge_fraction"] = measurement.bulge_fraction
    table["sersic_index"] = measurement.sersic_index
    table["star_probability"] = expit(joint.star_logit.astype(float))
    table["blend_id"] = measurement.group
    table["n_blended"] = measurement.n_group
    table["rubin_blended_fraction"] = _blended_fraction(pair, measurement, probabilities["activity"])
    table["rubin_unrecognized_blend"] = link.unrecognized_blend
    table["embedding"] = joint.embedding.astype(np.float32)
    table["flags"] = _flags(pair, joint, measurement, link)
    describe_columns(table)
    return table


def _blended_fraction(pair, measurement, activity):
    """Share of (likely) neighbours' light in Rubin, over its bands by their weight."""
    if pair.rubin is None:
        return np.full(len(activity), np.nan)
    flux, error = (values[:, : len(RUBIN.bands)] for values in (measurement.flux, measurement.flux_err))
    seen = np.isfinite(error).any(axis=0)
    flux = np.nansum(flux[:, seen] / np.nanmedian(error[:, seen], axis=0) ** 2, axis=1)
    fwhm = np.median([psf_fwhm(psf) for psf in pair.rubin.psf.values()]) * pair.rubin.pixel_scale
    x, y = (EUCLID.pixel_scale * values for values in (measurement.x, measurement.y))
    return blended_fraction(x, y, flux, measurement.half_light_radius, activity > 0.5, fwhm=fwhm)


def _flags(pair, joint, measurement, link):
    flags = np.zeros(len(joint), np.int64)
    reach = np.maximum(8.0, 20 * measurement.half_light_radius)
    set_flag(flags, "edge", near_edge(pair, measurement.x, measurement.y, reach))
    coverage = measurement.coverage
    # Core light on bad pixels; the edges of images have none at all.
    set_flag(flags, "masked_pixels", (coverage < 0.9).any(axis=1))
    set_flag(flags, "band_missing", np.isnan(coverage).any(axis=1))
    set_flag(flags, "flux_not_measurable", (np.isnan(measurement.flux) & ~np.isnan(coverage)).any(axis=1))
    sources = {
        kind for image in (pair.rubin, pair.euclid) if image is not None for kind in image.psf_source.values()
    }
    set_flag(flags, "psf_from_stars", np.full(len(joint), "stars" in sources))
    set_flag(flags, "psf_from_survey", np.full(len(joint), "survey" in sources))
    set_flag(flags, "slots_saturated", joint.saturated)
    set_flag(flags, "rubin_only", (link.rubin_index >= 0) & (link.euclid_index < 0))
    set_flag(flags, "euclid_only", (link.euclid_index >= 0) & (link.rubin_index < 0))
    set_flag(flags, "unrecognized_blend", link.unrecognized_blend)
    set_flag(flags, "refinement_failed", measurement.failed)
    set_flag(flags, "large_source", measurement.large)
    set_flag(flags, "negative_light", measurement.negative)
    return flags


def _version(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def provenance(model, pair, *, thresholds, offset):
    """
    Metadata of a catalogue: when, with what, from which bands, how deep, on which grid.

    Returns
    -------
    dict
        Plain values only, so that every format can keep it.
    """
    bands = {}
    for survey, image in ((RUBIN, pair.rubin), (EUCLID, pair.euclid)):
        for band in image.bands if image is not None else ():
            noise = image.noise[band]
            bands[column_prefix(survey, band)] = {
                "depth_5sigma_ab": round(float(noise.depth), 3),
                "noise_scale": round(float(noise.scale), 4),
                "psf_source": image.psf_source[band],
            }
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "jaisp": __version__,
            **{name: _version(name) for name in ("astropy", "numpy", "torch")},
        },
        "weights": dict(model.weights_info or {"name": "none", "sha256": ""}),
        "model": type(model).__name__,
        "config": model.config.to_dict(),
        "bands": bands,
        "grid": {
            "reference": pair.reference,
            "region": pair.region,
            "shape": [int(side) for side in pair.shape],
            "pixel_scale_arcsec": EUCLID.pixel_scale,
            # Ellipses are turned against its axes. Relaxed, lest distortion (SIP) be left out.
            "wcs": dict(pair.wcs.to_header(relax=True)),
        },
        "thresholds": thresholds,
        "astrometric_offset": offset,
    }
