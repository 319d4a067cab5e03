# Licensed under a 3-clause BSD style license - see LICENSE
"""
Fit the calibration of ``activity`` on skies that neither training nor the benchmark sees.

Writes the coefficients into the weights' ``config.json``, and prints the pulls of positions and fluxes on
which the model errors of `jaisp.catalog` were set. Example::

    python benchmarks/calibrate.py --folder skies --weights jaisp/data/weights/detr_jepa --fields 2
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
from detection import spread

from jaisp import DETRJEPA
from jaisp.catalog import ActivityCalibration
from jaisp.evaluation import DEPTHS, KINDS, Field, Skies, flux_residuals, match_catalog, position_residuals
from jaisp.evaluation.matching import IGNORED, TRUE
from jaisp.surveys import EUCLID, RUBIN, column_prefix


def joint_snr(catalog):
    """Joint S/N of the measured fluxes of each row."""
    total = np.zeros(len(catalog))
    for survey in (RUBIN, EUCLID):
        for band in survey.band_names:
            prefix = column_prefix(survey, band)
            ratio = np.nan_to_num((catalog[f"{prefix}_flux"] / catalog[f"{prefix}_flux_err"]).value)
            total += np.maximum(ratio, 0) ** 2
    return np.sqrt(total)


def collect_pulls(pulls, catalog, match):
    """Add the pulls of one field, of rows that are likelier real than not."""
    sure = match.ranking > 0.5
    columns = ("ranking", "outcome", "truth_index", "separation")
    match = dataclasses.replace(match, **{name: getattr(match, name)[sure] for name in columns})
    catalog = catalog[sure]
    ra, dec = position_residuals(catalog, match)
    pulls.setdefault("positions", []).extend([ra.pulls, dec.pulls])
    for survey in (RUBIN, EUCLID):
        for band in survey.band_names:
            prefix = column_prefix(survey, band)
            pulls.setdefault(prefix, []).append(flux_residuals(catalog, match, prefix).pulls)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--fields", type=int, default=2)
    parser.add_argument("--size", type=float, default=0.8)
    args = parser.parse_args(argv)
    model = DETRJEPA.from_pretrained(args.weights)
    notes = json.loads((args.weights / "config.json").read_text())["notes"]
    model.config = dataclasses.replace(model.config, calibration={})
    logits, snrs, errors, reals, pulls = [], [], [], [], {}
    for depth in DEPTHS:
        for kind in KINDS:
            for field in Skies(args.folder, "calibration", depth, kind, args.fields, args.size):
                for column, rubin, euclid in (
                    ("snr", field.rubin, field.euclid),
                    ("euclid_snr", None, field.euclid),
                    ("rubin_snr", field.rubin, None),
                ):
                    seen = Field(rubin, euclid, field.truth)
                    catalog = model.catalog(rubin, euclid, activity=0.0)
                    catalog, match = match_catalog(catalog, seen, snr_column=column)
                    known = match.outcome != IGNORED
                    probability = np.clip(match.ranking[known], 1e-6, 1 - 1e-6)
                    logits.append(np.log(probability / (1 - probability)))
                    snrs.append(joint_snr(catalog)[known])
                    error = np.hypot(catalog["ra_err"], catalog["dec_err"]) / np.sqrt(2)
                    errors.append(error[known].to_value("arcsec"))
                    reals.append(match.outcome[known] == TRUE)
                    if column == "snr":
                        collect_pulls(pulls, catalog, match)
                    print(depth, kind, column, len(catalog), flush=True)
    logit, snr, error, is_real = (np.concatenate(values) for values in (logits, snrs, errors, reals))
    fitted = ActivityCalibration.fit(logit, snr, error, is_real)
    for name, values in pulls.items():
        print(f"pulls of {name}: scatter {spread(np.concatenate(values)):.2f}")
    print(f"{len(logit)} candidates, {is_real.sum()} real: {fitted}")
    model.config = dataclasses.replace(model.config, calibration={"activity": fitted.to_dict()})
    model.save_pretrained(args.weights, notes=notes)


if __name__ == "__main__":
    main()
