# Licensed under a 3-clause BSD style license - see LICENSE
"""
How well jaisp finds sources, beside SEP and a multi-band matched filter on the same files.

Skies are drawn with GalSim and written as survey files into ``--folder``, where later runs find them
again. The peers are tuned on validation fields, separately for each sky and each figure, and scored on
test fields. Example::

    python benchmarks/detection.py --folder skies --output results --fields 6
"""

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable, vstack

import jaisp
from jaisp.evaluation import (
    DEPTHS,
    KINDS,
    Folders,
    MatchedFilter,
    Skies,
    ab_magnitude,
    activity_calibration,
    compare,
    cross_match_calibration,
    flux_residuals,
    markdown_table,
    plot_curves,
    position_residuals,
    sep_peers,
)
from jaisp.exceptions import JaispError, MissingDependencyError
from jaisp.surveys import EUCLID, RUBIN

NAME = "jaisp"
_TOO_FEW = 0.1  # of a peer's completeness: a ratio to it says nothing


def quick(peer):
    """Cut the sweep of a peer down to two values of each setting."""
    peer.grid = {key: values[:2] for key, values in peer.grid.items()}
    return peer


def peers_for(args):
    rubin, euclid = (
        args.surveys in ("both", survey.name) and has_band(args.bands, survey) for survey in (RUBIN, EUCLID)
    )
    try:
        peers = [*sep_peers(rubin=rubin, euclid=euclid), MatchedFilter()]
        import sep  # noqa: F401
    except (ImportError, MissingDependencyError):
        print("sep is not installed: only the matched filter is run")
        peers = [MatchedFilter()]
    return [quick(peer) for peer in peers] if args.quick else peers


def has_band(bands, survey):
    return not bands or any(band in survey.band_names for band in bands)


def finders_for(args):
    if args.no_model:
        return {}
    model = jaisp.DETRJEPA.from_pretrained(args.weights)
    return {NAME: lambda rubin, euclid: model.catalog(rubin, euclid, activity=args.lowest_activity)}


def ratios(table):
    """What jaisp reaches relative to the best SEP and to the matched filter."""
    names = list(table["finder"])
    if NAME not in names:
        return None
    own = table[names.index(NAME)]
    is_sep = np.array([name.startswith("SEP") for name in names])
    is_peer = np.array([name != NAME for name in names])
    filters = table[np.array([name == "matched filter" for name in names])]
    rows = []

    def add(figure, value, target):
        rows.append({"figure": figure, "reached": float(value), "aim": target})

    if is_sep.any():
        best = table[is_sep]
        add(
            "completeness at purity 0.95 / best SEP",
            own["completeness_95"] / max(best["completeness_95"]),
            1.5,
        )
        add("blends at purity 0.95 / best SEP", own["blends_95"] / max(best["blends_95"]), 1.6)
    if len(filters):
        add(
            "completeness at purity 0.95 / matched filter",
            own["completeness_95"] / filters["completeness_95"][0],
            1.2,
        )
    if is_peer.any():
        add("best F1 - best peer", own["best_f1"] - max(table["best_f1"][is_peer]), 0.1)
    return QTable(rows=rows) if rows else None


def details(result, name):
    """Completeness by magnitude, separation and S/N of one finder at purity 0.95, as Markdown."""
    score = result.scores[name]["completeness_95"]
    text = ""
    for label, values, edges in (
        ("VIS magnitude", ab_magnitude("euclid_vis_flux"), np.arange(18, 29, 1.0)),
        ("S/N", "snr", [5, 7, 10, 15, 25, 50, 100, 1e9]),
        ("separation (arcsec)", "nearest", [0, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 3.0, 100]),
    ):
        text += f"\n{name}, completeness by {label} at purity 0.95\n\n"
        text += markdown_table(score.completeness_by(values, edges))
    return text


def calibration_errors(result):
    """Expected calibration errors of ``activity``, and of ``match_probability`` as a mean over fields."""
    score, catalogs = result.scores[NAME]["best_f1"], result.catalogs[NAME]
    match_error = np.nan
    if all("match_probability" in catalog.colnames for catalog in catalogs):
        pairs = [
            (cross_match_calibration(catalog, match.truth).error, len(catalog))
            for catalog, match in zip(catalogs, score.fields, strict=True)
        ]
        pairs = [pair for pair in pairs if np.isfinite(pair[0])]
        if pairs:
            errors, counts = zip(*pairs, strict=True)
            match_error = np.average(errors, weights=counts)
    return activity_calibration(score).error, match_error


def measurements(result):
    """Calibration, position residuals and flux pulls of jaisp, as Markdown."""
    score, catalogs = result.scores[NAME]["best_f1"], result.catalogs[NAME]
    text = "".join(
        f"\nExpected calibration error of {name}: {error:.3f}\n"
        for name, error in zip(("activity", "match_probability"), calibration_errors(result), strict=True)
        if np.isfinite(error)
    )
    rows = []
    for low, high in ((5, 10), (10, 20), (20, 50), (50, 200), (200, np.inf)):
        ra = [
            position_residuals(catalog, match)[0]
            for catalog, match in zip(catalogs, score.fields, strict=True)
        ]
        chosen = [item.select((item.snr >= low) & (item.snr < high)) for item in ra]
        difference = np.concatenate([item.difference.to_value(u.mas) for item in chosen])
        if len(difference):
            pulls = np.concatenate([item.pulls for item in chosen])
            rows.append(
                {
                    "S/N": f"{low}-{high}",
                    "n": len(difference),
                    "RA scatter (mas)": spread(difference),
                    "RA pull scatter": spread(pulls),
                }
            )
    text += "\nPositions\n\n" + markdown_table(QTable(rows=rows)) if rows else ""
    rows = []
    for survey in (RUBIN, EUCLID):
        for band in survey.band_names:
            prefix = f"{survey.name}_{band.lower()}"
            items = [
                flux_residuals(catalog, match, prefix)
                for catalog, match in zip(catalogs, score.fields, strict=True)
            ]
            snr = np.concatenate([item.snr for item in items])
            pulls = np.concatenate([item.pulls for item in items])
            relative = np.concatenate([item.relative for item in items])
            if not len(pulls):
                continue
            bright = snr > 20
            rows.append(
                {
                    "band": prefix,
                    "n": len(pulls),
                    "pull median": float(np.median(pulls)),
                    "pull scatter": spread(pulls),
                    "relative bias (S/N > 20)": float(np.median(relative[bright]))
                    if bright.any()
                    else np.nan,
                    "relative scatter (S/N > 20)": spread(relative[bright]),
                }
            )
    return text + ("\nFluxes\n\n" + markdown_table(QTable(rows=rows)) if rows else "")


def spread(values):
    return float(np.diff(np.percentile(values, [15.865, 84.135]))[0] / 2) if len(values) else np.nan


def run_one(label, validation, test, args, finders):
    """Compare on one kind of sky; return the table and the Markdown, and draw the curves."""
    print(f"== {label}", flush=True)
    peers = [] if args.no_peers else peers_for(args)
    result = compare(finders, peers, validation, test)
    table = result.to_table(bootstrap=20 if args.quick else 100)
    text = f"\n## {label}\n\n" + markdown_table(table)
    if (reached := ratios(table)) is not None:
        text += "\n" + markdown_table(reached)
    if NAME in result.scores:
        text += details(result, NAME) + measurements(result)
    if "matched filter" in result.scores:
        text += details(result, "matched filter")
    if result.settings:
        text += "\nSettings of the peers, tuned on the validation fields\n\n"
        for name, settings in result.settings.items():
            text += "".join(
                f"- {name}, {what}: `{json.dumps(chosen)}`\n" for what, chosen in settings.items()
            )
    print(text, flush=True)
    try:
        curves = {name: by["best_f1"] for name, by in result.scores.items()}
        plot_curves(curves, args.output / f"curves_{label.replace(' ', '_')}.png", title=label)
    except MissingDependencyError as error:
        print(error)
    table.add_column([label] * len(table), name="sky", index=0)
    errors = calibration_errors(result) if NAME in result.scores else (np.nan, np.nan)
    for name, error in zip(("activity_error", "match_error"), errors, strict=True):
        table[name] = np.where(table["finder"] == NAME, error, np.nan)
    return table, text


def write_pages(table, output):
    """Write the tables of the documentation: ``finders.csv``, and jaisp over its peers, ``ratios.csv``."""
    shown = {"sky": "sky", "finder": "finder", "best_f1": "best F1", "completeness_90": "at .90",
             "completeness_95": "at .95", "blends_95": "blends"}  # fmt: skip
    finders = table[list(shown)]
    for name, title in shown.items():
        if name not in ("sky", "finder"):
            finders[name].info.format = "%.3f"
        finders.rename_column(name, title)
    finders.write(output / "finders.csv", overwrite=True)
    rows = []
    for sky in dict.fromkeys(table["sky"]):
        one = table[table["sky"] == sky]
        own, peers = one[one["finder"] == NAME], one[one["finder"] != NAME]
        sep = np.array([name.startswith("SEP") for name in peers["finder"]], bool)
        if not len(own) or not sep.any() or sep.all():
            continue

        def ratio(column, chosen, own=own, peers=peers):
            best = peers[column][chosen].max()
            return f"{own[column][0] / best:.2f}" if best >= _TOO_FEW else "-"

        rows.append(
            {
                "sky": sky,
                "F1 gained": f"{own['best_f1'][0] - peers['best_f1'].max():.3f}",
                "SEP .90": ratio("completeness_90", sep),
                "SEP .95": ratio("completeness_95", sep),
                "filter .90": ratio("completeness_90", ~sep),
                "filter .95": ratio("completeness_95", ~sep),
                "blends / SEP": ratio("blends_95", sep),
                "ECE of activity": f"{own['activity_error'][0]:.3f}",
                "of match": f"{own['match_error'][0]:.3f}",
            }
        )
    if rows:
        QTable(rows=rows).write(output / "ratios.csv", overwrite=True)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the skies are kept between runs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for table and figures")
    parser.add_argument(
        "--fields", type=int, default=6, help="test fields, and as many to tune on (%(default)s)"
    )
    parser.add_argument("--size", type=float, default=1.28, help="side of a field in arcmin (%(default)s)")
    parser.add_argument("--depths", nargs="+", choices=DEPTHS, default=list(DEPTHS))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument(
        "--fields-from", type=Path, nargs="+", help="score these field folders instead of drawing any"
    )
    parser.add_argument(
        "--tune-on", type=Path, nargs="+", help="with --fields-from: folders to tune the peers on"
    )
    parser.add_argument("--surveys", choices=["both", "rubin", "euclid"], default="both")
    parser.add_argument(
        "--bands", nargs="+", default=[], help="use only these, e.g. g i VIS H (case tells y from Y)"
    )
    parser.add_argument("--weights", help="folder of a trained model (the bundled one)")
    parser.add_argument(
        "--lowest-activity", type=float, default=0.02, help="lowest activity ranked (%(default)s)"
    )
    parser.add_argument("--no-model", action="store_true", help="run the peers only")
    parser.add_argument("--no-peers", action="store_true", help="run jaisp only")
    parser.add_argument("--quick", action="store_true", help="two fields, ten-year depth, short sweeps")
    args = parser.parse_args(argv)
    if args.quick:
        args.fields, args.depths = min(args.fields, 2), args.depths[:1]
    for band in args.bands:
        if band not in RUBIN.band_names + EUCLID.band_names:
            parser.error(f"unknown band {band!r}; allowed: {', '.join(RUBIN.band_names + EUCLID.band_names)}")
    if args.fields_from and not (args.tune_on or args.no_peers):
        parser.error(
            "--fields-from needs --tune-on, so that no peer is tuned on what is reported, or --no-peers"
        )
    return args


def main(argv=None):
    args = parse(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    chosen = {"surveys": args.surveys, "bands": tuple(args.bands)}
    try:
        finders = finders_for(args)
        if args.fields_from:
            skies = {
                "given fields": (Folders(args.tune_on or [], **chosen), Folders(args.fields_from, **chosen))
            }
        else:
            skies = {}
            for depth, kind in product(args.depths, args.kinds):
                pair = [
                    Skies(args.folder, split, depth, kind, args.fields, args.size, **chosen)
                    for split in ("validation", "test")
                ]
                skies[f"{depth} {kind}"] = pair
        parts = [run_one(label, *pair, args, finders) for label, pair in skies.items()]
    except JaispError as error:
        raise SystemExit(f"detection.py: {error}") from None
    table = vstack([part[0] for part in parts])
    table.meta |= {
        "jaisp": jaisp.__version__,
        "surveys": args.surveys,
        "bands": " ".join(args.bands) or "all",
    }
    table.write(args.output / "detection.ecsv", overwrite=True)
    write_pages(table, args.output)
    head = f"# Detection, jaisp {jaisp.__version__}, surveys: {args.surveys}, bands: {table.meta['bands']}\n"
    (args.output / "detection.md").write_text(head + "".join(part[1] for part in parts))
    print(args.output / "detection.md")


if __name__ == "__main__":
    main()
