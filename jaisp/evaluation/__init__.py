# Licensed under a 3-clause BSD style license - see LICENSE
"""Catalogues against truth: completeness and purity, calibration, residuals, and the classical peers."""

from jaisp.evaluation.bounds import BandModel, Bounds, cramer_rao
from jaisp.evaluation.calibration import (
    Calibration,
    activity_calibration,
    calibration,
    cross_match_calibration,
)
from jaisp.evaluation.detection import DetectionScore, ab_magnitude, score
from jaisp.evaluation.matched_filter import MatchedFilter
from jaisp.evaluation.matching import FieldMatch, match_field, match_one_to_one
from jaisp.evaluation.measurement import Residuals, flux_residuals, position_residuals
from jaisp.evaluation.peers import SEPEuclid, SEPJoined, SEPRubin, SEPStack, sep_peers
from jaisp.evaluation.report import Comparison, compare, markdown_table, plot_curves
from jaisp.evaluation.tuning import Field, Tuning, evaluate, match_catalog, tune

__all__ = [
    "BandModel",
    "Bounds",
    "Calibration",
    "Comparison",
    "DetectionScore",
    "Field",
    "FieldMatch",
    "MatchedFilter",
    "Residuals",
    "SEPEuclid",
    "SEPJoined",
    "SEPRubin",
    "SEPStack",
    "Tuning",
    "ab_magnitude",
    "activity_calibration",
    "calibration",
    "compare",
    "cramer_rao",
    "cross_match_calibration",
    "evaluate",
    "flux_residuals",
    "markdown_table",
    "match_catalog",
    "match_field",
    "match_one_to_one",
    "plot_curves",
    "position_residuals",
    "score",
    "sep_peers",
    "tune",
]
