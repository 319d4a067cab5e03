# Licensed under a 3-clause BSD style license - see LICENSE
"""Which slots of the two surveys belong to an object, and how the surveys' frames are shifted."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from jaisp.catalog.crossmatching import match_positions
from jaisp.catalog.detection import FieldSlots
from jaisp.catalog.offsets import OffsetField, fit_offsets

__all__ = ["SurveyLinks", "link_surveys", "measure_offset"]

_PIXEL = 0.1  # arcsec
_FEWEST = 5  # matches from which an offset is measured
UNKNOWN_OFFSET = 0.06  # arcsec per axis: how far the surveys' frames may be apart where it is not
_ERROR_SCALE = 0.75  # of the network's position errors, for separations: measured on the calibration skies
_SHARPEST = 0.01  # arcsec: systematic error where the offset is measured
_UNRESOLVED = 12.0  # pixels: Euclid objects this near to one Rubin slot are one object to Rubin


@dataclass
class SurveyLinks:
    """
    For each object its own slot in each survey, and the match between the two.

    Attributes
    ----------
    rubin, euclid : `FieldSlots` or None
        Slots of the surveys.
    rubin_index, euclid_index : ndarray of int, shape (n,)
        Index into them, -1 without one.
    matched : ndarray of bool, shape (n,)
        Both surveys have a slot, and the two were matched.
    separation, similarity, probability : ndarray, shape (n,)
        Of the match; arcsec, after the offset.
    unrecognized_blend : ndarray of bool, shape (n,)
        The object shares its Rubin slot with another one.
    """

    rubin: FieldSlots | None
    euclid: FieldSlots | None
    rubin_index: np.ndarray
    euclid_index: np.ndarray
    matched: np.ndarray
    separation: np.ndarray
    similarity: np.ndarray
    probability: np.ndarray
    unrecognized_blend: np.ndarray


def _positions(slots):
    if slots is None:
        return np.zeros((0, 2))
    return np.stack([slots.x, slots.y], axis=-1).astype(float)


def _errors(slots):
    return _PIXEL * np.hypot(slots.x_err, slots.y_err) / np.sqrt(2)


def measure_offset(rubin, euclid):
    """
    Offset between the surveys from slots that are clearly the same object.

    Parameters
    ----------
    rubin, euclid : `FieldSlots`
        Active slots.

    Returns
    -------
    `~jaisp.catalog.OffsetField`
        Euclid minus Rubin; zero, with ``n_matches`` 0, where fewer than five objects match.
    """
    if rubin is None or euclid is None or not len(rubin) or not len(euclid):
        return OffsetField()
    a, b = _positions(rubin), _positions(euclid)
    matches = match_positions(
        _PIXEL * a,
        _PIXEL * b,
        error1=np.hypot(_errors(rubin), 0.05),
        error2=_errors(euclid),
        embedding1=rubin.embedding,
        embedding2=euclid.embedding,
    )
    error = np.hypot(_errors(rubin)[matches.first], _errors(euclid)[matches.second]) / _PIXEL
    sharp = error < 1.0
    if sharp.sum() < _FEWEST:
        return OffsetField()
    offset, error = (b[matches.second] - a[matches.first])[sharp], np.hypot(error[sharp], 0.2)
    return fit_offsets(*b[matches.second][sharp].T, *offset.T, error, error)


def _own_slots(joint, slots, xy):
    """Index of each joint slot's own slot in a survey, -1 without one."""
    index = np.full(len(joint), -1)
    if slots is None or not len(slots) or not len(joint):
        return index
    matches = match_positions(
        _PIXEL * _positions(joint),
        _PIXEL * xy,
        error1=np.hypot(_errors(joint), 0.03),
        error2=np.hypot(_errors(slots), 0.03),
        embedding1=joint.embedding,
        embedding2=slots.embedding,
        radius=0.6,
    )
    index[matches.first] = matches.second
    return index


def link_surveys(joint, rubin, euclid, offset):
    """
    Find each object's slots in the two surveys, match these, and find unrecognised blends.

    Parameters
    ----------
    joint : `FieldSlots`
        The objects.
    rubin, euclid : `FieldSlots` or None
        Active slots of the surveys.
    offset : `~jaisp.catalog.OffsetField`
        Euclid minus Rubin, e.g. from `measure_offset`.

    Returns
    -------
    `SurveyLinks`
    """
    n = len(joint)
    rubin_xy, euclid_xy = (_positions(slots) for slots in (rubin, euclid))
    rubin_xy = rubin_xy + np.stack(offset(*rubin_xy.T), axis=-1)
    rubin_index = _own_slots(joint, rubin, rubin_xy)
    euclid_index = _own_slots(joint, euclid, euclid_xy)
    matched, blend = np.zeros(n, bool), np.zeros(n, bool)
    separation, similarity, probability = (np.full(n, np.nan) for _ in range(3))
    if rubin is not None and euclid is not None and len(rubin) and len(euclid):
        matches = match_positions(
            _PIXEL * rubin_xy,
            _PIXEL * euclid_xy,
            error1=_ERROR_SCALE * _errors(rubin),
            error2=_ERROR_SCALE * _errors(euclid),
            embedding1=rubin.embedding,
            embedding2=euclid.embedding,
            systematic=_SHARPEST if offset.n_matches else UNKNOWN_OFFSET,
        )
        partner = np.full(len(rubin), -1)
        partner[matches.first] = np.arange(len(matches.first))
        pair = np.where(rubin_index >= 0, partner[rubin_index], -1)
        matched = (pair >= 0) & (euclid_index >= 0)
        matched[matched] = matches.second[pair[matched]] == euclid_index[matched]
        separation[matched] = matches.separation[pair[matched]]
        similarity[matched] = matches.similarity[pair[matched]]
        probability[matched] = matches.probability[pair[matched]]
        blend = _unrecognized(joint, rubin_xy, rubin_index)
    return SurveyLinks(
        rubin, euclid, rubin_index, euclid_index, matched, separation, similarity, probability, blend
    )


def _unrecognized(joint, rubin_xy, rubin_index):
    """Likely objects that share one Rubin slot: at least one of them Rubin alone does not hold."""
    likely = joint.activity_logit > 0
    orphans = np.flatnonzero(likely & (rubin_index < 0))
    blend = np.zeros(len(joint), bool)
    if not len(orphans):
        return blend
    distance, slot = cKDTree(rubin_xy).query(_positions(joint)[orphans], distance_upper_bound=_UNRESOLVED)
    near = np.isfinite(distance)
    owner = np.isin(rubin_index, slot[near]) & (rubin_index >= 0) & likely
    # The slot must be some likely object's own.
    owned = np.isin(slot, rubin_index[owner]) & near
    blend[orphans] = owned
    blend[owner] = True
    return blend
