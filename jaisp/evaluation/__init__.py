# Licensed under a 3-clause BSD style license - see LICENSE
"""Catalogues and embeddings against truth and against their nulls, and the classical peers."""

from jaisp.evaluation.benchmark import binned, field_bounds, headline, tuning_table
from jaisp.evaluation.bounds import BandModel, Bounds, blended_snr, cramer_rao
from jaisp.evaluation.calibration import (
    Calibration,
    activity_calibration,
    calibration,
    cross_match_calibration,
    cross_match_outcomes,
)
from jaisp.evaluation.detection import DetectionScore, ab_magnitude, score
from jaisp.evaluation.embedding import (
    Objects,
    Pairs,
    Retrieval,
    effective_rank,
    match_by_similarity,
    match_on_sky,
    retrieval,
    right_partner,
    slot_spread,
    true_pairs,
)
from jaisp.evaluation.matched_filter import MatchedFilter
from jaisp.evaluation.matching import FieldMatch, match_field, match_one_to_one
from jaisp.evaluation.measurement import Residuals, flux_residuals, position_residuals
from jaisp.evaluation.partners import object_gauges, peer_partners, tile_gauges
from jaisp.evaluation.peers import SEPEuclid, SEPJoined, SEPRubin, SEPStack, sep_peers
from jaisp.evaluation.photutils_peers import PhotutilsPSF, PhotutilsSegmentation
from jaisp.evaluation.plots import plot_completeness
from jaisp.evaluation.probes import (
    bootstrap_groups,
    explained_variance,
    flux_features,
    probe,
    quadratic_features,
    ranking_quality,
)
from jaisp.evaluation.report import Comparison, compare, markdown_table, plot_curves
from jaisp.evaluation.skies import DEPTHS, KINDS, SPLITS, Folders, Skies, read_field
from jaisp.evaluation.summary import benchmark_markdown, plot_bins
from jaisp.evaluation.tuning import Field, Tuning, evaluate, match_catalog, sky_blocks, tune

__all__ = [
    "DEPTHS",
    "KINDS",
    "SPLITS",
    "BandModel",
    "Bounds",
    "Calibration",
    "Comparison",
    "DetectionScore",
    "Field",
    "FieldMatch",
    "Folders",
    "MatchedFilter",
    "Objects",
    "Pairs",
    "PhotutilsPSF",
    "PhotutilsSegmentation",
    "Residuals",
    "Retrieval",
    "SEPEuclid",
    "SEPJoined",
    "SEPRubin",
    "SEPStack",
    "Skies",
    "Tuning",
    "ab_magnitude",
    "activity_calibration",
    "benchmark_markdown",
    "binned",
    "blended_snr",
    "bootstrap_groups",
    "calibration",
    "compare",
    "cramer_rao",
    "cross_match_calibration",
    "cross_match_outcomes",
    "effective_rank",
    "evaluate",
    "explained_variance",
    "field_bounds",
    "flux_features",
    "flux_residuals",
    "headline",
    "markdown_table",
    "match_by_similarity",
    "match_catalog",
    "match_field",
    "match_on_sky",
    "match_one_to_one",
    "object_gauges",
    "peer_partners",
    "plot_bins",
    "plot_completeness",
    "plot_curves",
    "position_residuals",
    "probe",
    "quadratic_features",
    "ranking_quality",
    "read_field",
    "retrieval",
    "right_partner",
    "score",
    "sep_peers",
    "sky_blocks",
    "slot_spread",
    "tile_gauges",
    "true_pairs",
    "tune",
    "tuning_table",
]
