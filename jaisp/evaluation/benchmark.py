# Licensed under a 3-clause BSD style license - see LICENSE
"""The tables of ``jaisp benchmark``: what each finder finds, and how well it measures."""

import dataclasses
from itertools import pairwise

import numpy as np
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation.bounds import BandModel, cramer_rao
from jaisp.evaluation.detection import ab_magnitude
from jaisp.evaluation.matching import FALSE, TRUE
from jaisp.evaluation.measurement import flux_residuals, position_residuals
from jaisp.evaluation.tuning import STATISTICS
from jaisp.surveys import EUCLID, RUBIN, column_prefix

__all__ = ["binned", "field_bounds", "headline", "tuning_table"]

SNR_EDGES = (5, 7, 10, 20, 50, 200, np.inf)
MAGNITUDE_EDGES = (18, 20, 22, 23, 24, 25, 26, 27, 28)
SEPARATION_EDGES = (0, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 3.0, np.inf)
BOUND = "Cramer-Rao bound"
_POSITION, _FLUX = "position (mas per axis)", "VIS flux (relative error)"
_BRIGHT = 20  # S/N


def headline(result, *, bootstrap=100, rng=0):
    """
    One row for each finder: detection with its errors, measurement, time and memory.

    Parameters
    ----------
    result : `~jaisp.evaluation.Comparison`
        From `~jaisp.evaluation.compare`; its fields are what the bootstrap resamples.
    bootstrap : int
        Resamples.
    rng : int
        Seed of the resampling.

    Returns
    -------
    `~astropy.table.QTable`
        As `Comparison.to_table`, with ``blends_95_err``; ``position_mas``, below which 68 % of the
        differences per axis stay for sources with S/N above 20; ``vis_flux_bias`` (median) and
        ``vis_flux_error`` (68 %), relative, of sources whose VIS flux has S/N above 20 (NaN where a finder
        measures none); ``seconds`` and ``memory_mb``.
    """
    table = result.to_table(bootstrap=bootstrap, rng=rng)
    table.rename_column("n_fields", "n_blocks")
    rows = []
    for name in table["finder"]:
        scores, catalogs = result.scores[name], result.catalogs[name]
        error = np.nan
        if bootstrap and "blends_95" in table.colnames:
            error = scores["completeness_95"].bootstrap(
                lambda score: score.blend_completeness_at(0.95), n_resamples=bootstrap, rng=rng
            )
        shifts, snr = _shifts(scores["best_f1"], catalogs)
        row = {"blends_95_err": error, "position_mas": _error(shifts[:, snr > _BRIGHT])}
        relative, flux_snr = _relative_flux(scores["best_f1"], catalogs)
        bright = relative[flux_snr > _BRIGHT]
        row["vis_flux_bias"] = float(np.median(bright)) if len(bright) else np.nan
        row["vis_flux_error"] = _error(bright)
        rows.append(row | result.costs[name])
    for column in rows[0]:
        table[column] = [row[column] for row in rows]
    return table


def _shifts(score, catalogs):
    """Position residuals (2, n) in mas and S/N (n,) of the sources found at the best F1."""
    shifts, snr = [np.zeros((2, 0))], [np.zeros(0)]
    for catalog, match in zip(catalogs, _above(score), strict=True):
        ra, dec = position_residuals(catalog, match)
        shifts.append(np.stack([ra.difference.to_value(u.mas), dec.difference.to_value(u.mas)]))
        snr.append(ra.snr)
    return np.concatenate(shifts, axis=1), np.concatenate(snr)


def _relative_flux(score, catalogs):
    """Relative residuals of the VIS flux, and its true S/N."""
    relative, snr = [np.zeros(0)], [np.zeros(0)]
    for catalog, match in zip(catalogs, _above(score), strict=True):
        if "euclid_vis_flux" in catalog.colnames:
            residuals = flux_residuals(catalog, match, "euclid_vis")
            relative.append(residuals.relative)
            snr.append(residuals.snr)
    return np.concatenate(relative), np.concatenate(snr)


def _above(score):
    """Matches whose detections below the threshold of the best F1 count as nothing."""
    threshold = score.best_f1_threshold
    for match in score.fields:
        low = match.ranking < threshold
        yield dataclasses.replace(match, outcome=np.where(low, -2, match.outcome))


def _error(values):
    """What 68.3 % of the absolute differences stay below, biases included; NaN without values."""
    values = np.abs(np.ravel(values))
    return float(np.percentile(values, 68.27)) if len(values) else np.nan


def binned(result, bounds=None):
    """
    Completeness, purity, position and flux errors of every finder in bins, at its best F1.

    Parameters
    ----------
    result : `~jaisp.evaluation.Comparison`
        From `~jaisp.evaluation.compare`.
    bounds : `~astropy.table.QTable`, optional
        From `field_bounds`: adds what no unbiased measurement of isolated sources can surpass.

    Returns
    -------
    `~astropy.table.QTable`
        Columns ``figure``, ``by``, ``finder``, ``low``, ``high``, ``n`` and ``value``. Completeness is by
        true properties, purity by the finder's own VIS magnitude and S/N.
    """
    rows = []

    def add(figure, by, finder, edges, counts, values):
        names = ("figure", "by", "finder", "low", "high", "n", "value")
        for (low, high), n, value in zip(pairwise(edges), counts, values, strict=True):
            row = (figure, by, finder, float(low), float(high), int(n), float(value))
            rows.append(dict(zip(names, row, strict=True)))

    for finder, scores in result.scores.items():
        score, catalogs = scores["best_f1"], result.catalogs[finder]
        for by, column, edges in (
            ("VIS magnitude", ab_magnitude("euclid_vis_flux"), MAGNITUDE_EDGES),
            ("S/N", "snr", SNR_EDGES),
            ("separation (arcsec)", "nearest", SEPARATION_EDGES),
        ):
            table = score.completeness_by(column, edges, threshold=score.best_f1_threshold)
            add("completeness", by, finder, edges, table["n_sources"], table["completeness"])
        for by, get, edges in (
            ("VIS magnitude", _own_magnitude, MAGNITUDE_EDGES),
            ("S/N", _own_snr, SNR_EDGES),
        ):
            add("purity", by, finder, edges, *_purity(score, catalogs, get, edges))
        shifts, snr = _shifts(score, catalogs)
        add(_POSITION, "S/N", finder, SNR_EDGES, *_by(snr, shifts.T, SNR_EDGES, _error))
        relative, snr = _relative_flux(score, catalogs)
        add(_FLUX, "VIS S/N", finder, SNR_EDGES, *_by(snr, relative, SNR_EDGES, _error))
    if bounds is not None:
        for figure, by, snr, value in (
            (_POSITION, "S/N", "snr", "position"),
            (_FLUX, "VIS S/N", "vis_snr", "vis_flux"),
        ):
            add(figure, by, BOUND, SNR_EDGES, *_by(bounds[snr], bounds[value], SNR_EDGES, _median))
    return QTable(rows=rows)


def _median(values):
    return float(np.median(values)) if len(values) else np.nan


def _by(place, values, edges, statistic):
    """Count, and statistic of the values, in bins of ``place``."""
    inside = [(place >= low) & (place < high) for low, high in pairwise(edges)]
    return [int(mask.sum()) for mask in inside], [statistic(values[mask]) for mask in inside]


def _own_magnitude(catalog):
    if "euclid_vis_flux" not in catalog.colnames:
        return np.full(len(catalog), np.nan)
    return ab_magnitude("euclid_vis_flux")(catalog)


def _own_snr(catalog):
    """S/N that a catalogue claims: its own, or that of its ten fluxes together."""
    if "snr" in catalog.colnames:
        return np.asarray(catalog["snr"], float)
    total = np.zeros(len(catalog))
    for name in catalog.colnames:
        if f"{name}_err" in catalog.colnames and name.endswith("_flux"):
            ratio = np.asarray(catalog[name].value / catalog[f"{name}_err"].value, float)
            total += np.maximum(np.nan_to_num(ratio), 0) ** 2
    return np.sqrt(total)


def _purity(score, catalogs, get, edges):
    """Number of true and false detections in bins of what the catalogue says, and the share of true ones."""
    place, outcome = [np.zeros(0)], [np.zeros(0)]
    for catalog, match in zip(catalogs, _above(score), strict=True):
        counted = (match.outcome == TRUE) | (match.outcome == FALSE)
        place.append(np.asarray(get(catalog), float)[counted])
        outcome.append(match.outcome[counted] == TRUE)
    return _by(
        np.concatenate(place), np.concatenate(outcome), edges, lambda v: v.mean() if len(v) else np.nan
    )


def field_bounds(field):
    """
    Cramer-Rao bounds of the sources of a field, each taken for an isolated exponential disc or a point.

    Parameters
    ----------
    field : `~jaisp.evaluation.Field`
        With a Euclid image, in whose frame the truth is.

    Returns
    -------
    `~astropy.table.QTable`
        ``snr`` and ``vis_snr`` of each source; ``position`` in mas per axis, ``vis_flux`` relative.
    """
    truth = field.truth[np.asarray(field.truth["snr"], float) > SNR_EDGES[0]]
    frame = field.euclid.wcs.celestial.pixel_scale_matrix / field.euclid.pixel_scale
    models, flux = [], []
    for survey, image in ((RUBIN, field.rubin), (EUCLID, field.euclid)):
        for band in image.bands if image is not None else ():
            variance = image.source_variance(band)
            models.append(
                BandModel(
                    psf=image.psf[band],
                    noise=float(np.sqrt(np.median(variance[np.isfinite(variance)]))),
                    jacobian=np.linalg.inv(image.wcs.celestial.pixel_scale_matrix) @ frame,
                )
            )
            flux.append(u.Quantity(truth[f"{column_prefix(survey, band)}_flux"], u.nJy).value)
    radius = u.Quantity(truth["half_light_radius"], u.arcsec).value
    shapes = [np.asarray(truth[name], float) for name in ("e1", "e2", "is_star")]
    bounds = cramer_rao(models, [(np.stack(flux, axis=1), radius, 0)], *shapes[:2], shapes[2].astype(bool))
    vis = len(field.rubin.bands if field.rubin is not None else ()) + field.euclid.bands.index("VIS")
    return QTable(
        {
            "snr": np.asarray(truth["snr"], float),
            "vis_snr": np.asarray(truth["euclid_vis_snr"], float),
            "position": 1e3 * np.hypot(bounds.x, bounds.y) / np.sqrt(2),
            "vis_flux": bounds.flux[:, vis] / flux[vis],
        }
    )


def tuning_table(result):
    """What tuning did to each peer: figures on the validation fields with its first settings and the best."""
    rows = []
    for name, tuning in result.tunings.items():
        for statistic in ("best_f1", "completeness_95"):
            values = [STATISTICS[statistic](score) for score in tuning.scores]
            rows.append(
                {
                    "finder": name,
                    "figure": statistic,
                    "n_settings": len(values),
                    "default": float(values[0]),
                    "tuned": float(max(values)),
                    "settings": ", ".join(f"{k}={v}" for k, v in tuning.best(statistic).items()),
                }
            )
    return QTable(rows=rows)
