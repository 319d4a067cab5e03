# Licensed under a 3-clause BSD style license - see LICENSE
"""
How well jaisp measures, beside SEP, photutils and the Cramer-Rao bound on the same images.

Skies are drawn with GalSim into ``--folder``, where later runs find them again. Writes ``measurement.md``,
``measurement.ecsv`` and figures. Example::

    python benchmarks/measurement.py --folder skies --output results
"""

import argparse
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from astropy.table import QTable, vstack
from detection import spread
from matplotlib.figure import Figure
from measurement_checks import blend_pairs, merged_by_rubin, offset_field_check, wrong_inputs
from measurement_rows import BANDS, SEEDED, alone_field, catalogs, source_rows, truth_seeded

import jaisp
from jaisp.evaluation import (
    DEPTHS,
    KINDS,
    SPLITS,
    DetectionScore,
    Skies,
    activity_calibration,
    calibration,
    cross_match_outcomes,
    markdown_table,
    match_catalog,
)
from jaisp.exceptions import JaispError

ISOLATED, BLENDED = 1.5, 1.0  # arcsec to the nearest source of S/N above 5
LEAST_SNR = 10
ALONE_SEED = 500_000  # beyond the seeds of the split's other skies
VIS, I = BANDS.index("VIS"), BANDS.index("i")  # noqa: E741
PEER = {band: "SEP Euclid" if k >= VIS else "SEP Rubin" for k, band in enumerate(BANDS)}
METHODS = ("jaisp", "jaisp, Rubin alone", "SEP Euclid", "SEP Rubin", "photutils Euclid", "photutils Rubin")


def clean(values):
    return values[np.isfinite(values)]


def both(rows, name):
    """A column along east and north, joined."""
    return np.concatenate([np.asarray(rows[name.format(axis)], float) for axis in ("ra", "dec")])


def position_figures(rows, method):
    """Scatter of positions per axis, beside the bound and beside the claimed errors."""
    difference, bound = both(rows, f"{method}: {{}}"), both(rows, "bound_{}")
    pulls = difference / both(rows, f"{method}: {{}}_err")
    return {
        "found": np.isfinite(difference).mean() if len(difference) else np.nan,
        "scatter (mas)": spread(clean(difference)),
        "scatter / bound": spread(clean(difference / bound)),
        "pull": spread(clean(pulls)),
    }


def flux_figures(rows, method, k):
    """Scatter of fluxes in one band, beside the bound and the claimed errors, and the median bias."""
    true, flux = rows["true_flux"][:, k], rows[f"{method}: flux"][:, k]
    error = rows[f"{method}: flux_err"][:, k]
    difference = np.asarray(flux - true)
    bright = rows["band_snr"][:, k] > LEAST_SNR
    return {
        "scatter / bound": spread(clean(difference / rows["bound_flux"][:, k])),
        "bias": np.median(clean((difference / true)[bright])) if bright.any() else np.nan,
        "scatter": spread(clean((difference / true)[bright])),
        "pull": spread(clean(difference / error)),
    }


def isolated_tables(rows):
    """Positions by method and kind of source, and fluxes by band, of isolated sources."""
    rows = rows[(rows["nearest"] > ISOLATED) & (rows["band_snr"][:, VIS] > LEAST_SNR)]
    star = np.asarray(rows["is_star"], bool)
    kinds = {"all": np.ones(len(rows), bool), "stars": star, "galaxies": ~star}
    positions = [
        {"sources": kind, "n": int(chosen.sum()), "method": method} | position_figures(rows[chosen], method)
        for kind, chosen in kinds.items()
        for method in METHODS
    ]
    fluxes = []
    for k, band in enumerate(BANDS):
        own, peer = flux_figures(rows, "jaisp", k), flux_figures(rows, PEER[band], k)
        stars, galaxies = (flux_figures(rows[s], "jaisp", k)["scatter / bound"] for s in (star, ~star))
        fluxes.append(
            {"band": band}
            | own
            | {"stars: / bound": stars, "galaxies: / bound": galaxies}
            | {"SEP: / bound": peer["scatter / bound"], "SEP: bias": peer["bias"]}
        )
    return QTable(rows=positions), QTable(rows=fluxes)


def blend_table(rows):
    """Measured over true flux of sources with a neighbour within 1 arcsec, by band and method."""
    rows = rows[rows["nearest"] < BLENDED]
    table = []
    for k, band in enumerate(BANDS):
        for least in (LEAST_SNR, 30):
            chosen = rows[rows["band_snr"][:, k] > least]
            row = {"band": band, "S/N above": least, "n": len(chosen)}
            for label, method in (
                ("jaisp", "jaisp"),
                ("Rubin alone", "jaisp, Rubin alone"),
                ("SEP", PEER[band]),
            ):
                flux = np.asarray(chosen[f"{method}: flux"][:, k] / chosen["true_flux"][:, k])
                row[f"{label}: found"] = np.isfinite(flux).mean() if len(flux) else np.nan
                row[f"{label}: scatter"] = spread(clean(flux))
                row[f"{label}: bias"] = np.median(clean(flux)) - 1 if len(clean(flux)) else np.nan
            table.append(row)
    return QTable(rows=table)


def resolved_table(rows):
    """Measured over true flux of sources whose neighbours within 1 arcsec all have rows of their own."""
    rows = rows[(rows["nearest"] < BLENDED) & rows["jaisp: resolved"]]
    table = []
    for k, band in enumerate(BANDS):
        for least in (LEAST_SNR, 30):
            chosen = rows[rows["band_snr"][:, k] > least]
            flux = clean(np.asarray(chosen["jaisp: flux"][:, k] / chosen["true_flux"][:, k]))
            bias = np.median(flux) - 1 if len(flux) else np.nan
            table.append(
                {"band": band, "S/N above": least, "n": len(flux), "scatter": spread(flux), "bias": bias}
            )
    return QTable(rows=table)


def seeded_table(rows):
    """Fluxes of the catalogue, and of the fit that starts from the true sources, by signal to noise."""
    isolated, blended = rows["nearest"] > ISOLATED, rows["nearest"] < BLENDED
    table = []
    for band in ("g", "i", "VIS", "J"):
        k = BANDS.index(band)
        snr = np.asarray(rows["band_snr"][:, k])
        kinds = {
            f"isolated, S/N {low:g} to {high:g}": isolated & (snr > low) & (snr <= high)
            for low, high in pairwise((LEAST_SNR, 25, 60, np.inf))
        }
        kinds[f"neighbour within {BLENDED:g} arcsec, S/N above 30"] = blended & (snr > 30)
        for kind, chosen in kinds.items():
            row = {"band": band, "sources": kind.replace("60 to inf", "above 60"), "n": int(chosen.sum())}
            for label, method in (("catalogue", "jaisp"), ("truth-seeded", SEEDED)):
                figures = flux_figures(rows[chosen], method, k)
                row |= {f"{label}: {name}": figures[name] for name in ("scatter / bound", "scatter")}
            table.append(row)
    return QTable(rows=table)


def robustness_table(rows, names):
    """What wrong inputs do to positions and fluxes of all sources with VIS S/N above 10."""
    rows = rows[rows["band_snr"][:, VIS] > LEAST_SNR]
    table = []
    for name in names:
        position = position_figures(rows, name)
        vis, i = (flux_figures(rows, name, k) for k in (VIS, I))
        table.append(
            {"input": name}
            | position
            | {f"VIS {key}": vis[key] for key in ("bias", "scatter", "pull")}
            | {f"i {key}": i[key] for key in ("bias", "scatter", "pull")}
        )
    return QTable(rows=table)


def unrecognised_table(pairs, flagged):
    """What becomes of pairs that Rubin alone merges, by separation and difference of magnitude."""
    table = []
    difference = pairs["difference"]
    kinds = {
        "0-1 mag": difference < 1,
        "1-2 mag": (difference >= 1) & (difference < 2),
        "2-5 mag": difference >= 2,
        "all": np.ones(len(pairs), bool),
        "VIS S/N > 10": np.asarray(pairs["sharp"]),
    }
    for low, high in pairwise((0.2, 0.4, 0.6, 0.8, 1.0, 1.2)):
        apart = (pairs["separation"] >= low) & (pairs["separation"] < high)
        near = flagged[(flagged["nearest"] >= low) & (flagged["nearest"] < high)]
        for kind, chosen in kinds.items():
            lost = pairs[apart & chosen & pairs["unrecognised"]]
            table.append(
                {
                    "separation": f"{low}-{high}",
                    "pairs of": kind,
                    "number": int((apart & chosen).sum()),
                    "merged by Rubin": len(lost),
                    "of these resolved": np.mean(lost["resolved"]) if len(lost) else np.nan,
                    "of these flagged": np.mean(lost["flagged"]) if len(lost) else np.nan,
                    "purity of the flag": np.mean(near["right"]) if kind == "all" and len(near) else np.nan,
                }
            )
    return QTable(rows=table)


def calibration_row(depth, fields):
    """Calibration and wrong cross-matches of one depth; catalogue and match of each field."""
    activity = activity_calibration(DetectionScore([match for _, match in fields]))
    outcomes = [cross_match_outcomes(catalog, match.truth) for catalog, match in fields]
    probability, right = (np.concatenate(values) for values in zip(*outcomes, strict=True))
    sure = probability > 0.5
    merged = np.concatenate([merged_by_rubin(catalog, match.truth) for catalog, match in fields])
    return {
        "depth": depth,
        "activity ECE": activity.error,
        "match_probability ECE": calibration(probability, right).error,
        "matches": len(right),
        "wrong where probability > 0.5": np.mean(~right[sure]),
        "wrong, not merged by Rubin": np.mean(~right[sure] & ~merged[sure]),
    }


def offset_figures(result):
    """How much of the offset field is left, over a grid of places."""
    left = result["found"] - result["true"]
    return {
        "signal, rms (mas)": np.sqrt(np.mean(np.sum(result["true"] ** 2, axis=0))),
        "left per axis, rms (mas)": np.sqrt(np.mean(left**2)),
        "claimed, rms (mas)": np.sqrt(np.mean(result["error"] ** 2)),
        "left by one vector (mas)": np.sqrt(np.mean(result["true"].var(axis=1))),
        "degree": result["degree"],
        "objects": result["n_matches"],
    }


def write_csv(table, path):
    """Write a table for the documentation, three decimals."""
    formats = {name: "%.3f" for name in table.colnames if table[name].dtype.kind == "f"}
    table.write(path, format="ascii.csv", formats=formats, overwrite=True)


def draw_isolated(rows, path):
    """Scatter over bound against S/N, for positions and for the flux in VIS."""
    rows = rows[rows["nearest"] > ISOLATED]
    edges = np.array([7, 12, 20, 35, 70, 200, 2000.0])
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    place = np.digitize(rows["band_snr"][:, VIS], edges)
    middle = np.sqrt(edges[1:] * edges[:-1])
    for method, colour in (("jaisp", "C0"), ("SEP Euclid", "C1"), ("photutils Euclid", "C2")):
        bins = [rows[place == k] for k in range(1, len(edges))]
        position = [position_figures(one, method)["scatter / bound"] for one in bins]
        flux = [flux_figures(one, method, VIS)["scatter / bound"] for one in bins]
        for panel, values in ((left, position), (right, flux)):
            panel.plot(middle, values, "o-", color=colour, label=method)
    for panel, title in ((left, "positions"), (right, "flux in VIS")):
        panel.axhline(1, color="0.5", lw=0.8)
        panel.set(xscale="log", yscale="log", xlabel="S/N in VIS", title=title)
    left.set_ylabel("scatter / Cramér-Rao bound")
    left.legend(fontsize="small")
    figure.savefig(path, dpi=90)


def draw_unrecognised(table, path):
    """Share of pairs that Rubin merges, that the catalogue resolves, and that it flags, by separation."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    separation = [np.mean([float(v) for v in text.split("-")]) for text in table["separation"]]
    for panel, column, title in (
        (left, "of these resolved", "merged by Rubin alone: resolved in the catalogue"),
        (right, "of these flagged", "... and flagged"),
    ):
        for kind, colour in zip(dict.fromkeys(table["pairs of"]), ("C0", "C1", "C2", "k", "C3"), strict=True):
            use = np.asarray(table["pairs of"]) == kind
            panel.plot(np.array(separation)[use], table[column][use], "o-", color=colour, label=kind)
        panel.set(xlabel="separation (arcsec)", ylim=(0, 1.03), title=title)
        panel.title.set_fontsize(10)
    use = np.asarray(table["pairs of"]) == "all"
    right.plot(
        np.array(separation)[use],
        table["purity of the flag"][use],
        "s--",
        color="0.5",
        label="purity of the flag",
    )
    left.set_ylabel("fraction")
    right.legend(fontsize="small")
    figure.savefig(path, dpi=90)


def draw_offsets(result, path):
    """Field that was put in, and what is left of it."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for panel, values, title in zip(
        figure.subplots(1, 2, sharey=True),
        (result["true"], result["found"] - result["true"]),
        ("put in", "measured minus put in"),
        strict=True,
    ):
        arrows = panel.quiver(
            result["x"], result["y"], *values, angles="xy", scale_units="xy", scale=4, width=4e-3
        )
        panel.quiverkey(arrows, 0.85, 1.04, 40, "40 mas", labelpos="E")
        panel.set(aspect="equal", xlabel="x (arcsec)", title=title)
    figure.savefig(path, dpi=90)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the skies are kept between runs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for tables and figures")
    parser.add_argument("--fields", type=int, default=2, help="fields of each sky (%(default)s)")
    parser.add_argument("--size", type=float, default=1.28, help="side of a field in arcmin (%(default)s)")
    parser.add_argument("--depths", nargs="+", choices=DEPTHS, default=list(DEPTHS))
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument(
        "--split", choices=list(SPLITS), default="measurement", help="which skies; tune on calibration"
    )
    parser.add_argument("--weights", help="folder of a trained model (the bundled one)")
    parser.add_argument("--quick", action="store_true", help="one small field, for a test")
    args = parser.parse_args(argv)
    if args.quick:
        args.fields, args.size = 1, min(args.size, 0.5)
        args.depths, args.kinds = args.depths[:1], args.kinds[:1]
    return args


def measure_skies(args, model):
    """Rows, blends and calibration of all skies, and rows with wrong inputs on the first field."""
    rows, pairs, flagged, outcomes, wrong = [], [], [], {depth: [] for depth in args.depths}, None
    for depth, kind in product(args.depths, args.kinds):
        for field in Skies(args.folder, args.split, depth, kind, args.fields, args.size):
            found = catalogs(field, model)
            rows.append(source_rows(field, {**found, SEEDED: truth_seeded(field)}))
            rows[-1]["sky"] = f"{depth} {kind}"
            for one, target in zip(blend_pairs(field, found), (pairs, flagged), strict=True):
                target.append(one)
            outcomes[depth].append(match_catalog(found["jaisp"], field))
            if wrong is None:
                inputs = wrong_inputs(field)
                found = {name: model.catalog(*images) for name, images in inputs.items()}
                wrong = robustness_table(source_rows(field, found), list(inputs))
            print(depth, kind, len(rows[-1]), flush=True)
    tables = [vstack(part, metadata_conflicts="silent") for part in (rows, pairs, flagged)]
    return (*tables, outcomes, wrong)


def measure_alone(args, model):
    """Rows of sources that have nothing near."""
    seed, rows = SPLITS[args.split] + ALONE_SEED, []
    for depth, kind, _ in product(args.depths, args.kinds, range(args.fields)):
        galaxies = KINDS[kind]["galaxies"][0]
        field = alone_field(seed, depth=depth, size=args.size, number=len(rows), galaxies=galaxies)
        rows.append(source_rows(field, catalogs(field, model)))
        print("alone", depth, kind, len(rows[-1]), flush=True)
    return vstack(rows, metadata_conflicts="silent")


def main(argv=None):
    args = parse(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    try:
        model = jaisp.DETRJEPA.from_pretrained(args.weights)
        rows, pairs, flagged, outcomes, wrong = measure_skies(args, model)
        alone = measure_alone(args, model)
        offsets = offset_field_check(model, SPLITS[args.split], size=1.0 if args.quick else 3.0)
    except JaispError as error:
        raise SystemExit(f"measurement.py: {error}") from None
    rows.write(args.output / "measurement.ecsv", overwrite=True)
    alone.write(args.output / "alone.ecsv", overwrite=True)
    unrecognised = unrecognised_table(pairs, flagged)
    tables = {
        "positions": ("Positions of isolated sources", isolated_tables(rows)[0]),
        "fluxes": ("Fluxes of isolated sources", isolated_tables(rows)[1]),
        "alone_positions": ("Positions of sources with nothing near", isolated_tables(alone)[0]),
        "alone_fluxes": ("Fluxes of sources with nothing near", isolated_tables(alone)[1]),
        "blends": ("Sources with a neighbour within 1 arcsec: measured / true flux", blend_table(rows)),
        "resolved": ("The same where all neighbours have rows of their own", resolved_table(rows)),
        "seeded": ("Fluxes beside those of a fit that starts from the true sources", seeded_table(rows)),
        "unrecognised": ("Pairs that Rubin alone merges", unrecognised),
        "calibration": ("Calibration", QTable(rows=[calibration_row(*item) for item in outcomes.items()])),
        "offsets": ("Offset field", QTable(rows=[offset_figures(offsets)])),
        "wrong_inputs": ("Wrong inputs, one field", wrong),
    }
    for sky in dict.fromkeys(rows["sky"]):
        for name, table in zip(
            ("positions", "fluxes"), isolated_tables(rows[rows["sky"] == sky]), strict=True
        ):
            tables[f"{name}_{sky.replace(' ', '_')}"] = (
                f"{name.capitalize()} of isolated sources, {sky}",
                table,
            )
    text = f"# Measurement, jaisp {jaisp.__version__}\n\n{len(rows)} true sources of S/N above 5\n"
    for name, (title, table) in tables.items():
        text += f"\n## {title}\n\n" + markdown_table(table)
        write_csv(table, args.output / f"measurement_{name}.csv")
    (args.output / "measurement.md").write_text(text)
    draw_isolated(rows, args.output / "measurement_isolated.png")
    draw_unrecognised(unrecognised, args.output / "measurement_blends.png")
    draw_offsets(offsets, args.output / "measurement_offsets.png")
    print(text)


if __name__ == "__main__":
    main()
