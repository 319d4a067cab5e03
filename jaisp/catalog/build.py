# Licensed under a 3-clause BSD style license - see LICENSE
"""The way from images to a table: align, detect, link, measure, calibrate."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import astropy.units as u
import numpy as np
import torch
from scipy.spatial import cKDTree

from jaisp.catalog.calibration import ActivityCalibration
from jaisp.catalog.detection import detect, outside_own_sky
from jaisp.catalog.flags import set_flag
from jaisp.catalog.links import UNKNOWN_OFFSET, link_surveys, measure_offset
from jaisp.catalog.measurement import Sources, measure
from jaisp.catalog.offsets import OffsetField
from jaisp.catalog.table import build_table, provenance
from jaisp.catalog.write import Catalog
from jaisp.exceptions import ConfigError, ImageError, JaispWarning
from jaisp.image import SurveyImage, psf_fwhm
from jaisp.io import align
from jaisp.io.grid import sky_jacobian
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["catalog_pair", "make_catalog"]

_CANDIDATE_LOGIT = -2.2  # network probability 0.1: below, nothing becomes a row
_LIKELY = 0.5  # activity from which a candidate takes light from its neighbours
_PLACED_SNR = 6.0  # below it Euclid has no say in where a source is
# Of positions that rest on Rubin alone: S/N, and what errors lack there by pulls on the calibration skies.
_FAINT = ((16.0, 24.0), (1.15, 1.0))
_DOUBLE = 1.2  # pixels: two joint slots nearer than this are one object


def _check(rubin, euclid):
    if rubin is None and euclid is None:
        raise ImageError("no image given; give rubin, euclid or both")
    for name, image in (("rubin", rubin), ("euclid", euclid)):
        if image is None:
            continue
        if not isinstance(image, SurveyImage):
            raise ImageError(f"{name} is a {type(image).__name__}; give a SurveyImage, e.g. from read_{name}")
        if image.survey.name != name:
            raise ImageError(f"{name} is an image of {image.survey.label}; were the two exchanged?")


def _check_activity(activity):
    if not 0 <= activity < 1:
        raise ConfigError(f"activity threshold is {activity}; give a probability, 0 <= activity < 1")


def _without_doubles(slots):
    """Drop the weaker of two slots on one spot."""
    pairs = cKDTree(np.stack([slots.x, slots.y], axis=-1)).query_pairs(_DOUBLE, output_type="ndarray")
    keep = np.ones(len(slots), bool)
    order = np.argsort(-slots.activity_logit[pairs].max(axis=1), kind="stable") if len(pairs) else []
    for i, j in pairs[order] if len(pairs) else ():
        if keep[i] and keep[j]:
            keep[j if slots.activity_logit[i] >= slots.activity_logit[j] else i] = False
    return slots.select(keep)


def _position_err(x_err, y_err):
    """1 sigma per axis in arcsec."""
    return EUCLID.pixel_scale * np.hypot(x_err, y_err) / np.sqrt(2)


def _survey_activity(calibration, slots, index, snr):
    """Calibrated activity of each object's own slot in a survey."""
    if slots is None or not len(slots):
        return np.zeros(len(index))
    own = slots.select(np.maximum(index, 0))
    return calibration(own.activity_logit, snr, _position_err(own.x_err, own.y_err))


def make_catalog(model, rubin=None, euclid=None, *, activity=0.5, region="union", **options):
    """
    Make the catalogue of a pair of images, or of one survey alone.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
        Ready for inference.
    rubin, euclid : `~jaisp.image.SurveyImage`, optional
        At least one; any subset of bands.
    activity : float
        Smallest calibrated probability of a row.
    region : {"union", "euclid", "overlap"}
        Sky to cover; see `~jaisp.io.align`.
    **options
        ``refine``, ``batch_size`` and ``progress``; see `catalog_pair`.

    Returns
    -------
    `~jaisp.catalog.Catalog`
        A `~astropy.table.QTable` with one row for each active object, ranked by ``activity``; columns in the
        user guide.

    Warns
    -----
    JaispWarning
        Of findings in the images that leave the numbers in doubt.
    """
    _check(rubin, euclid)
    _check_activity(activity)
    pair = align(rubin, euclid, region=region)
    table = catalog_pair(model, pair, activity=activity, **options)
    for image in filter(None, pair):
        for finding in image.findings:
            if finding.doubtful:
                warnings.warn(f"{image.survey.label} {finding}", JaispWarning, stacklevel=3)
    return table


def catalog_pair(model, pair, *, activity=0.5, refine=True, batch_size=2, progress=None):
    """
    Make the catalogue of an aligned pair: `make_catalog` from where the images lie on one grid.

    Who aligns first need not keep the images as they were read in memory.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPA`
        Ready for inference.
    pair : `~jaisp.io.AlignedPair`
        From `~jaisp.io.align`.
    activity : float
        Smallest calibrated probability of a row.
    refine : bool
        Whether positions and shapes are fitted to the pixels; fluxes always are.
    batch_size : int
        Tiles that go through the network at a time.
    progress : callable, optional
        Called as ``progress(done, total)`` with tiles.

    Returns
    -------
    `~jaisp.catalog.Catalog`
        As of `make_catalog`.
    """
    _check_activity(activity)
    _measure_noise(pair)
    slots = detect(model, pair, batch_size=batch_size, progress=progress)
    thresholds = {"activity": float(activity)}
    if "joint" not in slots:
        raise ImageError("no tile has a valid pixel; every pixel is masked or NaN")
    joint = slots["joint"].select(slots["joint"].activity_logit > _CANDIDATE_LOGIT)
    joint = _without_doubles(joint)
    surveys = {
        name: slots[name].select(slots[name].activity_logit > 0) if name in slots else None
        for name in ("rubin", "euclid")
    }
    offset = measure_offset(surveys["rubin"], surveys["euclid"])
    if pair.rubin is not None and pair.euclid is not None:
        _to_euclid_frame(pair, joint, offset)
    link = link_surveys(joint, surveys["rubin"], surveys["euclid"], offset)
    sources = Sources(
        x=joint.x.astype(float),
        y=joint.y.astype(float),
        position_err=np.hypot(joint.x_err, joint.y_err) / np.sqrt(2),
        half_light_radius=joint.half_light_radius.astype(float),
        e1=joint.e1.astype(float),
        e2=joint.e2.astype(float),
        is_point=joint.star_logit > 0,
    )
    calibration = ActivityCalibration(**model.config.calibration.get("activity", {}))
    measurement, likely = _measure(
        pair, sources, joint.activity_logit, calibration, refine=refine, offset=offset
    )
    probabilities = {
        "activity": calibration(
            joint.activity_logit,
            measurement.significance(),
            _position_err(measurement.x_err, measurement.y_err),
        ),
        **{
            f"{name}_activity": _survey_activity(
                calibration, surveys[name], getattr(link, f"{name}_index"), measurement.significance(name)
            )
            for name in ("rubin", "euclid")
        },
    }
    table = build_table(pair, joint, measurement, link, probabilities)
    offset = measurement.offset
    if pair.rubin is not None and pair.euclid is not None and not offset.n_matches:
        offset = OffsetField(covariance=np.full((2, 1, 1), (UNKNOWN_OFFSET / EUCLID.pixel_scale) ** 2))
    set_flag(table["flags"], "first_look", ~likely)
    _widen_errors(table, measurement, offset, _share_of_rubin(pair, measurement))
    offset = _offset_on_sky(pair, offset)
    table.meta.update(provenance(model, pair, thresholds=thresholds, offset=offset))
    return _ranked(table, activity)


def _ranked(table, activity):
    """Rows of at least some activity, the most active first, numbered from 1; blends are of rows."""
    table = table[table["activity"] >= activity]
    table = table[np.argsort(-table["activity"], kind="stable")]
    table["id"][:] = np.arange(1, len(table) + 1)
    _, group, count = np.unique(table["blend_id"], return_inverse=True, return_counts=True)
    table["n_blended"][:] = count[group]
    set_flag(table["flags"], "blended", count[group] > 1)
    return Catalog(table, copy=False)


def _measure_noise(pair):
    """Measure background and noise of all bands ahead, as many at a time as torch has threads."""
    images = [image for image in (pair.rubin, pair.euclid) if image is not None]
    bands = [(image, band) for image in images for band in image.bands]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(lambda one: one[0].noise[one[1]], bands))
    for image in images:
        # Of all bands of the survey: align keeps the finding of a band that it left out.
        image.findings.sort(key=lambda finding: image.survey.index(finding.band))


def _to_euclid_frame(pair, slots, offset):
    """Move slots of the sky that only Rubin shows by the offset, in place."""
    of_rubin = outside_own_sky(pair, slots.x, slots.y)["rubin"] < 0
    for at, shift in zip((slots.x, slots.y), offset(slots.x, slots.y), strict=True):
        at += np.where(of_rubin, shift, 0.0).astype(at.dtype)


def _measure(pair, sources, logit, calibration, *, refine, offset):
    """
    Measure all candidates, then those that are likely real once more, without the others.

    A large galaxy has candidates on its arms and flanks that are not worth a row of the table: solved for
    together with it they would take its light all the same. Returns the measurement, and which are likely.
    """
    first = measure(pair, sources, refine=False, iterations=0, offset=offset)
    first = first.with_model_errors(sources.is_point)
    # Whether there is light, wherever exactly: to ask for sharp positions here loses close pairs.
    likely = np.flatnonzero(calibration(logit, first.significance()) > _LIKELY)
    chosen = sources.select(likely)
    final = measure(pair, chosen, refine=refine, offset=offset).with_model_errors(chosen.is_point)
    result = replace(first, offset=final.offset, group=first.group + len(likely))
    for name, values in vars(final).items():
        if isinstance(values, np.ndarray):
            getattr(result, name)[likely] = values
    return result, np.isin(np.arange(len(sources)), likely)


def _share_of_rubin(pair, measurement):
    """Rubin's share in what is known of each position."""
    knows = {RUBIN.name: 0.0, EUCLID.name: 0.0}
    ratio = np.maximum(np.nan_to_num(measurement.flux / measurement.flux_err), 0)
    for image, first in ((pair.rubin, 0), (pair.euclid, len(RUBIN.bands))):
        for band in () if image is None else image.bands:
            fwhm = psf_fwhm(image.psf[band]) * image.pixel_scale
            width = np.hypot(fwhm, 2 * measurement.half_light_radius)
            knows[image.survey.name] += (ratio[:, first + image.survey.index(band)] / width) ** 2
    return knows[RUBIN.name] / np.maximum(knows[RUBIN.name] + knows[EUCLID.name], 1e-30)


def _widen_errors(table, measurement, offset, share):
    """
    Errors of positions with that of the offset, by Rubin's share; larger of faint sources of Rubin alone.

    After ``activity``, which was calibrated with the errors of the fit and of the network.
    """
    alone = measurement.significance("euclid") < _PLACED_SNR
    factor = np.where(alone, np.interp(measurement.significance("rubin"), *_FAINT), 1.0)
    of_offset = np.hypot(*offset.uncertainty(measurement.x, measurement.y)) / np.sqrt(2)
    of_offset = EUCLID.pixel_scale * np.where(alone, 1.0, share) * of_offset * u.arcsec
    for name in ("ra_err", "dec_err"):
        table[name][:] = np.hypot(factor * table[name], of_offset)


def _offset_on_sky(pair, offset):
    """Euclid minus Rubin for the metadata: in mas on the sky at the field's centre, and the whole field."""
    middle = [(side - 1) / 2 for side in pair.shape[::-1]]
    east, north = sky_jacobian(pair.wcs, *middle) * u.arcsec.to(u.mas) @ np.array(offset(*middle))
    error = EUCLID.pixel_scale * 1000 * np.max(offset.uncertainty(*middle))
    return {
        "euclid_minus_rubin_ra_mas": round(float(east), 2),
        "euclid_minus_rubin_dec_mas": round(float(north), 2),
        "error_mas": round(float(error), 2),
        "n_sources": offset.n_matches,
        "field": offset.to_dict(),
    }
