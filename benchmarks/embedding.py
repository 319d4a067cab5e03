# Licensed under a 3-clause BSD style license - see LICENSE
"""
What the embedding knows: gauges beside their nulls, and linear probes beside the same probes on fluxes.

On two kinds of sky that no training saw: scenes of the training's own renderer, and fields drawn with GalSim,
which are kept as survey files in ``--folder``. Writes tables (CSV), figures and ``embedding.json`` with every
number. Example::

    python benchmarks/embedding.py --weights RUN/weights -o results
"""

import argparse
import csv
import dataclasses
import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
from astropy.table import QTable
from embedding_skies import SCENE_SEED, VIEWS, black_box, see_fields, see_scenes, with_vector

import jaisp
from jaisp.evaluation import (
    DEPTHS,
    KINDS,
    Objects,
    Skies,
    bootstrap_groups,
    effective_rank,
    explained_variance,
    flux_features,
    markdown_table,
    match_by_similarity,
    match_on_sky,
    probe,
    quadratic_features,
    ranking_quality,
    retrieval,
    right_partner,
    true_pairs,
)
from jaisp.exceptions import JaispError

SHIFTS = range(1, 6)


# --- gauges


def objects(seen, keep, dim):
    """Objects of a view for the gauges: the chosen ones, their embedding without the decoder's vector."""
    return Objects(
        seen["embedding"][keep, :dim],
        seen["xy"][keep],
        seen["error"][keep],
        seen["tile"][keep],
        seen["source"][keep],
    )


def without_offset(rubin, euclid):
    """Rubin's objects less the median offset of each tile's true pairs, as a measured offset would do."""
    pairs = true_pairs(rubin, euclid)
    shift, tile = rubin.xy[pairs.first] - euclid.xy[pairs.second], rubin.tile[pairs.first]
    xy = rubin.xy.copy()
    for name in np.unique(tile):
        xy[rubin.tile == name] -= np.median(shift[tile == name], axis=0)
    return dataclasses.replace(rubin, xy=xy)


def gauges_of(seen, dim):
    """Every gauge of one kind of sky, and what the figures need."""
    strong = {view: objects(seen[view], seen[view]["snr"] > 10, dim) for view in VIEWS}
    active = {view: objects(seen[view], seen[view]["activity"] > 0.5, dim) for view in VIEWS}
    rubin, euclid = strong["rubin"], strong["euclid"]
    pairs = true_pairs(rubin, euclid)
    found = {"objects in both surveys with S/N > 10": len(pairs.first)}
    found["similarity, one source"] = pairs.mean
    figure = {"true": pairs.similarity}
    every = rubin.embedding[pairs.first] @ euclid.embedding[pairs.second].T
    other = every[~np.eye(len(every), dtype=bool)]
    found["similarity, two sources"] = float(other.mean())
    figure["other"] = other
    for name, match, both in (
        ("on the sky", match_on_sky, active),
        ("by similarity", match_by_similarity, strong),
    ):
        own = match(both["rubin"], both["euclid"])
        nulls = [match(both["rubin"], both["euclid"], shift=shift) for shift in SHIFTS]
        similarity = np.concatenate([null.similarity for null in nulls])
        found[f"similarity, matched {name}"] = own.mean
        found[f"similarity, matched {name}, shuffled"] = float(similarity.mean())
        found[f"matched fraction {name}"] = own.fraction
        found[f"matched fraction {name}, shuffled"] = float(np.mean([null.fraction for null in nulls]))
        figure[f"shuffled {name}"] = similarity
    figure["snr"] = seen["rubin"]["snr"][seen["rubin"]["snr"] > 10][pairs.first]
    for within in ("tile", "sky"):
        result = retrieval(rubin, euclid, within=within)
        for k in (1, 5):
            found[f"top-{k} in the {within}, by embedding"] = result.top(k)
            found[f"top-{k} in the {within}, chance"] = result.chance(k)
        if within == "tile":
            figure["rank"] = result.rank
            found["top-1 in the tile, by embedding, error"] = bootstrap_groups(
                lambda rank: np.mean(rank < 1), result.tile, result.rank
            )
    apart = [
        objects(seen[f"{view} elsewhere"], seen[f"{view} elsewhere"]["snr"] > 10, dim)
        for view in ("rubin", "euclid")
    ]
    found["similarity, one source, elsewhere"] = true_pairs(*apart).mean
    for within in ("tile", "sky"):
        elsewhere = retrieval(*apart, within=within)
        found[f"top-1 in the {within}, by embedding, elsewhere"] = elsewhere.top(1)
        found[f"top-1 in the {within}, chance, elsewhere"] = elsewhere.chance(1)
    aligned = without_offset(rubin, euclid)
    blend = seen["rubin"]["blend"][seen["rubin"]["snr"] > 10][pairs.first]
    for label, offset, systematic in (("offset removed", 0.0, 0.03), ("60 mas unknown", 0.06, 0.06)):
        for how in ("nearest", "position", "both"):
            right = right_partner(aligned, euclid, how=how, offset=offset, systematic=systematic)
            found[f"right partner, {how}, {label}"] = float(right.mean())
            found[f"right partner, {how}, {label}, blends"] = float(right[blend].mean())
    for view in VIEWS:
        found[f"effective rank, {view}"] = effective_rank(strong[view].embedding)
    values = np.linalg.svd(rubin.embedding - rubin.embedding.mean(axis=0), compute_uv=False) ** 2
    figure["spectrum"] = values / values.sum()
    return found, figure


# --- probes


def rubin_features(rows, dim):
    """What a catalogue of Rubin alone says of its objects, as features of probes."""
    fluxes = flux_features(rows["flux"], rows["flux_err"])
    embedding, vector = rows["embedding"][:, :dim], rows["embedding"][:, dim:]
    return {
        "Rubin fluxes": fluxes,
        "Rubin fluxes, quadratic": quadratic_features(fluxes),
        "Rubin embedding": embedding,
        "Rubin embedding + fluxes": np.concatenate([embedding, fluxes], axis=1),
        "Rubin decoder vector": vector,
        "Rubin decoder vector + fluxes": np.concatenate([vector, fluxes], axis=1),
    }


def targets_of(rows):
    """True values, which objects have them, and the measure of a prediction's quality, by target."""
    galaxy, every = ~rows["is_star"], np.ones(len(rows["is_star"]), bool)
    return {
        "radius": (rows["log_radius"], galaxy, explained_variance),
        "VIS - H": (rows["colour"], every, explained_variance),
        "star": (rows["is_star"], every, ranking_quality),
        "redshift": (rows["log_redshift"], galaxy, explained_variance),
    }


def predict_all(features, targets, sky):
    """Predictions by features and target."""
    return {
        (name, target): probe(values[use], truth[use], sky[use])
        for name, values in features.items()
        for target, (truth, use, _) in targets.items()
    }


def probe_table(seen, rows, dim):
    """Linear probes on fluxes, embeddings and decoder vectors, for objects that all views found."""
    place = {
        view: dict(zip(seen[view]["source"], range(len(seen[view]["source"])), strict=True)) for view in VIEWS
    }
    chosen = np.array([all(source in place[view] for view in VIEWS) for source in rows["source"]])
    rows = {name: values[chosen] for name, values in rows.items()}
    ideal = flux_features(rows["ideal_flux"], rows["ideal_flux_err"])
    features = rubin_features(rows, dim)
    features["Rubin fluxes of perfect photometry, quadratic"] = quadratic_features(ideal)
    for view in ("euclid", "joint"):
        vectors = seen[view]["embedding"][[place[view][source] for source in rows["source"]]]
        label = view.replace("euclid", "Euclid")
        features |= {f"{label} embedding": vectors[:, :dim], f"{label} decoder vector": vectors[:, dim:]}
    targets, table = targets_of(rows), []
    predictions = predict_all(features, targets, rows["sky"])
    for name in features:
        row = {"features": name}
        for target, (truth, use, quality) in targets.items():
            prediction = predictions[name, target]
            row[target] = quality(truth[use], prediction)
            row[f"{target} err"] = bootstrap_groups(quality, rows["sky"][use], truth[use], prediction)
        table.append(row)
        print(row, flush=True)
    return QTable(rows=table), {"objects": len(rows["sky"]), "stars": int(rows["is_star"].sum())}


def gain_table(rows, dim):
    """What probes on Rubin's embeddings gain over those on its fluxes, for all objects of Rubin alone."""
    features, targets, table = rubin_features(rows, dim), targets_of(rows), []
    predictions = predict_all(features, targets, rows["sky"])
    rivals = {"the same": ["Rubin fluxes"], "the better": ["Rubin fluxes", "Rubin fluxes, quadratic"]}
    for name, (rival, allowed) in product(
        [n for n in features if n not in rivals["the better"]], rivals.items()
    ):
        row = {"gain of": name, "over which probe on Rubin fluxes": rival}
        for target, (truth, use, quality) in targets.items():
            flux = max(allowed, key=lambda n: quality(truth[use], predictions[n, target]))

            def gain(truth, ours, theirs, quality=quality):
                return quality(truth, ours) - quality(truth, theirs)

            arrays = (truth[use], predictions[name, target], predictions[flux, target])
            row[target] = gain(*arrays)
            row[f"{target} err"] = bootstrap_groups(gain, rows["sky"][use], *arrays)
        table.append(row)
    return QTable(rows=table)


# --- tables and figures


def gauge_rows(scenes, fields):
    """Lines of the table of gauges: what, the value on scenes and on GalSim fields, its null on both."""
    lines = [
        (
            "cosine of one object's embeddings",
            "similarity, one source",
            "similarity, two sources",
            "two objects",
        ),
        (
            "the same, at another place in its tile",
            "similarity, one source, elsewhere",
            "similarity, two sources",
            "two objects",
        ),
        (
            "cosine of pairs matched on the sky",
            "similarity, matched on the sky",
            "similarity, matched on the sky, shuffled",
            "shuffled images",
        ),
        (
            "matched fraction on the sky",
            "matched fraction on the sky",
            "matched fraction on the sky, shuffled",
            "shuffled images",
        ),
        (
            "cosine of pairs matched by similarity alone",
            "similarity, matched by similarity",
            "similarity, matched by similarity, shuffled",
            "shuffled images",
        ),
    ]
    for within, k in product(("tile", "sky"), (1, 5)):
        name = f"top-{k} in the {within}"
        where = "tile" if within == "tile" else "whole sky"
        label = (
            f"partner among the {k} most similar, {where}"
            if k > 1
            else f"partner is the most similar, {where}"
        )
        lines.append((label, f"{name}, by embedding", f"{name}, chance", "chance"))
    for within, where in (("tile", "tile"), ("sky", "whole sky")):
        lines.append(
            (
                f"partner is the most similar, {where}, at another place in its tile",
                f"top-1 in the {within}, by embedding, elsewhere",
                f"top-1 in the {within}, chance, elsewhere",
                "chance",
            )
        )
    for offset, part in product(("offset removed", "60 mas unknown"), ("", ", blends")):
        lines.append(
            (
                f"partner by position and embedding, {offset}{part}",
                f"right partner, both, {offset}{part}",
                f"right partner, nearest, {offset}{part}",
                "nearest neighbour",
            )
        )
    lines += [(f"effective rank of {view}", f"effective rank, {view}", None, "") for view in VIEWS]
    return [
        {
            "gauge": label,
            "scenes": scenes[name],
            "GalSim": fields[name],
            "null": null_label,
            "null, scenes": scenes[null] if null else np.nan,
            "null, GalSim": fields[null] if null else np.nan,
        }
        for label, name, null, null_label in lines
    ]


def write_table(table, path):
    """CSV with three decimals, for the documentation."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.colnames)
        for row in table:
            writer.writerow(
                ("" if np.isnan(value) else f"{value:.3f}") if isinstance(value, float) else value
                for value in row.values()
            )


def with_errors(table, sign=""):
    """Merge each column with that of its errors."""
    names = [name for name in table.colnames if not name.endswith(" err")]
    rows = [
        {
            name: f"{row[name]:{sign}.3f} ± {row[f'{name} err']:.3f}"
            if f"{name} err" in table.colnames
            else row[name]
            for name in names
        }
        for row in table
    ]
    return QTable(rows=rows)


def draw_gauges(figures, path):
    """Similarities beside their nulls, retrieval by S/N, and how the variance spreads over directions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    similar, by_snr, spectrum = figure.subplots(1, 3)
    bins = np.linspace(-0.6, 1, 49)
    for name, label in (
        ("true", "one object"),
        ("other", "two objects"),
        ("shuffled on the sky", "shuffled images, matched on the sky"),
        ("shuffled by similarity", "shuffled, most similar pairs"),
    ):
        similar.hist(figures["GalSim"][name], bins, density=True, histtype="step", label=label)
    similar.set(xlabel="cosine (Rubin, Euclid), GalSim", ylabel="density")
    similar.legend(fontsize="x-small", loc="upper left")
    edges = np.array([10, 15, 20, 30, 50, 100, 1000])
    for sky, data in figures.items():
        values = [
            np.mean(data["rank"][(data["snr"] >= a) & (data["snr"] < b)] < 1) for a, b in pairwise(edges)
        ]
        by_snr.plot(np.sqrt(edges[:-1] * edges[1:]), values, "o-", label=sky)
        spectrum.semilogy(
            np.arange(1, len(data["spectrum"]) + 1), np.maximum(data["spectrum"], 1e-6), label=sky
        )
    by_snr.set_xscale("log")
    by_snr.set_xticks([10, 30, 100, 300], ["10", "30", "100", "300"])
    by_snr.set_xticks([], minor=True)
    by_snr.set(ylim=(0, 1), xlabel="Rubin S/N", ylabel="top-1 in the tile, by embedding alone")
    spectrum.set(xlabel="direction", ylabel="share of the variance, Rubin")
    for axes in (by_snr, spectrum):
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def draw_probes(table, path):
    """One panel for each target: quality of every probe with its error."""
    from matplotlib.figure import Figure

    targets = {
        "radius": "half-light radius, R²",
        "VIS - H": "VIS - H, R²",
        "star": "star, AUC",
        "redshift": "redshift, R²",
    }
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    place = np.arange(len(table))[::-1]
    colours = [
        "C7" if "embedding" not in name and "vector" not in name else "C0" for name in table["features"]
    ]
    colours = [
        "C1" if name.startswith(("Euclid", "joint")) else c
        for name, c in zip(table["features"], colours, strict=True)
    ]
    for axes, (target, label) in zip(figure.subplots(1, 4, sharey=True), targets.items(), strict=True):
        axes.barh(place, table[target], xerr=table[f"{target} err"], color=colours, height=0.7)
        axes.set(xlabel=label, xlim=(0.5, 1) if target == "star" else (0, 1))
        axes.set_yticks(place, list(table["features"]), fontsize="small")
    figure.savefig(path, dpi=110)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for tables and figures")
    parser.add_argument("--weights", type=Path, help="folder of a trained model (the bundled one)")
    parser.add_argument("--folder", type=Path, help="where the fields are kept between runs (OUTPUT/skies)")
    parser.add_argument("--scenes", type=int, default=192, help="number of scenes (%(default)s)")
    parser.add_argument(
        "--fields",
        type=int,
        default=3,
        help="GalSim fields of each depth and kind (%(default)s); 0 for the gauges on scenes alone",
    )
    parser.add_argument("--size", type=float, default=1.28, help="side of a field in arcmin (%(default)s)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    folder = args.folder or args.output / "skies"
    try:
        skies = [
            Skies(folder, "embedding", depth, kind, args.fields, args.size)
            for depth, kind in product(DEPTHS, KINDS)
            if args.fields
        ]
        model = with_vector(jaisp.DETRJEPA.from_pretrained(args.weights))
        dim = model.config.embedding_dim
        seen, nulls = see_scenes(model, args.scenes, SCENE_SEED)
        scenes, figure_scenes = gauges_of(seen, dim)
        if not args.fields:
            record = {
                "jaisp": jaisp.__version__,
                "weights": model.weights_info,
                "scenes": scenes,
                "nulls": nulls,
            }
            text = json.dumps(record, indent=1, default=float)
            (args.output / "embedding.json").write_text(text + "\n")
            print(text)
            return
        seen, rows = see_fields(model, skies)
        fields, figure_fields = gauges_of(seen, dim)
        rows = {name: values[rows["snr"] > 10] for name, values in rows.items()}
        probes, counts = probe_table(seen, rows, dim)
        gains, counts["objects of Rubin alone"] = gain_table(rows, dim), len(rows["sky"])
        plain = [sky for sky in skies if sky.kind == "plain"]
        nulls |= black_box(plain, args.output / "black_box", args.weights)
    except JaispError as error:
        raise SystemExit(f"embedding.py: {error}") from None
    gauges = QTable(rows=gauge_rows(scenes, fields))
    record = {
        "jaisp": jaisp.__version__,
        "weights": model.weights_info,
        "scenes": scenes,
        "GalSim": fields,
        "nulls": nulls,
        "probes": [dict(row) for row in probes],
        "gains": [dict(row) for row in gains],
        "probed": counts,
    }
    (args.output / "embedding.json").write_text(json.dumps(record, indent=1, default=float) + "\n")
    tables = {
        "gauges": gauges,
        "nulls": QTable(
            rows=[
                {"figure": name, "value": f"{value:.{0 if float(value).is_integer() else 3}f}"}
                for name, value in nulls.items()
            ]
        ),
        "probes": with_errors(probes),
        "gains": with_errors(gains, "+"),
    }
    for name, table in tables.items():
        write_table(table, args.output / f"{name}.csv")
        print(f"\n{name}\n\n{markdown_table(table)}")
    draw_gauges({"scenes": figure_scenes, "GalSim": figure_fields}, args.output / "gauges.png")
    draw_probes(probes, args.output / "probes.png")
    print(counts)


if __name__ == "__main__":
    main()
