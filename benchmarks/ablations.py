# Licensed under a 3-clause BSD style license - see LICENSE
"""
What each part of the training brings: short runs that differ in one thing, judged by the same gauges.

All runs see the same scenes under the same noise, in the same order for the same seed. Those that ask how to
find sources start anew; those that ask how the surveys' slots come to agree start from one model that was
trained to find. Runs that exist are not run again, and an interrupted one is resumed. Writes
``finding.csv``, ``agreeing.csv``, ``ablations.md`` and ``ablations.png``. Example::

    python benchmarks/ablations.py -o results --cache scenes
"""

import argparse
import csv
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from ablation_gauges import OF_SOURCES, judge
from ablation_objectives import LearnedModel
from astropy.table import QTable

from jaisp.evaluation import markdown_table
from jaisp.training import TrainingConfig, train
from jaisp.training.data import load_scenes
from jaisp.training.objectives import objective_class

MODULE = "ablation_objectives:"
RATE = "train/model_tiles_per_second"
START = "mode B"  # whose weights the runs of the second kind start from


@dataclass(frozen=True)
class Scale:
    """How much is trained and judged."""

    model: dict
    find: int  # steps of runs that start anew
    agree: int  # steps of runs that start from a model that finds
    n_scenes: int
    n_validation: int
    batch_size: int = 8
    scenes: dict = field(default_factory=dict)


FULL = Scale(
    model={"channels": (16, 32, 48), "dim": 96, "n_backbone_layers": 2, "nms_size": 5},
    find=240,
    agree=60,
    n_scenes=1800,
    n_validation=64,
)
TINY = Scale(
    model={"channels": (8, 8, 8), "dim": 32, "n_backbone_layers": 1, "n_decoder_layers": 1},
    find=2,
    agree=2,
    n_scenes=4,
    n_validation=4,
    batch_size=2,
    scenes={"size": 128, "psf_sets": 2},
)


@dataclass(frozen=True)
class Variant:
    """
    One run, apart from its seed.

    ``group`` is the question that it belongs to; ``start`` names the run whose weights it starts from;
    ``share`` of the steps that its kind of run has.
    """

    group: str
    name: str
    kind: str = MODULE + "Shared"
    start: str = ""
    loss: dict = field(default_factory=dict)
    model: dict = field(default_factory=dict)
    seeds: int = 1
    share: float = 1.0


def agree(group, name, seeds=2, kind="Shared", start=START, **loss):
    """A run of the second kind."""
    return Variant(group, name, kind=MODULE + kind, start=start, loss=loss, seeds=seeds)


# Of the papers' weights where they are not SIGReg's; none was tuned here.
VARIANTS = [
    Variant("label", START),
    agree("regulariser", "SIGReg, matched by both"),
    Variant("queries", "first idea", kind=MODULE + "Verbatim", loss={"matching": "similarity"}, share=0.5),
    Variant("queries", "learned, finding", kind=MODULE + "LearnedQueries", loss={"heat": 0.0}),
    agree(
        "queries",
        "learned, agreeing",
        1,
        "LearnedQueries",
        "learned, finding",
        matching="similarity",
        heat=0.0,
    ),
    agree("regulariser", "none", regularizer_kind="none"),
    agree("regulariser", "VICReg", regularizer_kind="vicreg", regularizer=1.0),
    agree("regulariser", "VISReg", regularizer_kind="visreg", regularizer=1.0),
    agree("matching", "position", matching="position"),
    agree("matching", "similarity", matching="similarity"),
    agree("JEPA", "weight 0", kind="Views"),
    agree("window", "whole tiles", window=1.0),
    Variant("patch", '3.2"', model={"patch_size": 32}),
    Variant("patch", '0.8"', model={"patch_size": 8}),
    Variant("survey", "Rubin alone", kind=MODULE + "RubinAlone", loss={"survey_dropout": 0.0}),
    Variant("survey", "Euclid alone", kind=MODULE + "EuclidAlone", loss={"survey_dropout": 0.0}),
    Variant("label", "mode A", kind="labelfree", loss={"render_start": 1.0}),
    Variant(
        "label",
        "rendering only",
        kind=MODULE + "RenderingOnly",
        loss={"confirm_start": 0.0},
        model={"proposal_threshold": 1e-6},
        share=0.25,  # of the steps, about as long as the others take
    ),
]


def configuration(variant, seed, scale, cache, weights):
    """The run as `jaisp train` would read it."""
    steps = max(1, round(variant.share * (scale.agree if variant.start else scale.find)))
    # The first idea has nothing to find: it agrees from its first step.
    with_jepa = bool(variant.start) or variant.kind.endswith("Verbatim")
    values = {
        "objective": {"kind": variant.kind, "weights": str(weights) if weights else ""},
        "data": {
            "n_scenes": scale.n_scenes,
            "n_validation": scale.n_validation,
            "seed": 20261130,
            "cache": str(cache),
            "workers": 0,
            "scenes": scale.scenes,
        },
        "loss": variant.loss,
        "optimizer": {
            "batch_size": scale.batch_size,
            "steps": steps,
            "jepa_start": 0.0 if with_jepa else 1.0,
            "learning_rate": 6e-4 if variant.start else 1e-3,
            "warmup": max(1, steps // 8),
            "ema": 0.97,
            "threads": 1,
            "device": "cpu",
            "seed": seed + (100 if variant.start else 0),
            "log_every": 10,
            "validate_every": 1000,
        },
    }
    if not weights:
        values["model"] = scale.model | variant.model
    return TrainingConfig.from_dict(values)


def run(variant, seed, scale, folder, cache):
    """Train and judge one variant, or read what was judged before."""
    place = run_place(variant, seed, folder)
    result = place / "judged.json"
    if not result.exists():
        started = [other for other in VARIANTS if other.name == variant.start]
        weights = run_place(started[0], 0, folder) / "weights" if started else None
        config = configuration(variant, seed, scale, cache, weights)
        if place.exists() and not (place / "checkpoint.pt").exists():
            shutil.rmtree(place)
        train(config, place, resume=place.exists())
        bank = load_scenes(config.data, cache, seed=config.data.seed + 1, n=scale.n_validation)
        model_class = objective_class(variant.kind).model_class
        model = model_class.from_pretrained(place / "weights")
        figures = log_of(place / "metrics.jsonl")
        figures |= judge(model, bank, all_active=model_class is LearnedModel)
        record = {"group": variant.group, "name": variant.name, "seed": seed, "config": config.to_dict()}
        result.write_text(json.dumps(record | {"figures": figures}, indent=1) + "\n")
    return json.loads(result.read_text())


def run_place(variant, seed, folder):
    """Folder of a run."""
    name = f"{variant.group} {variant.name} {seed}".replace(" ", "_").replace('"', "").replace(",", "")
    return folder / "runs" / name


def log_of(metrics):
    """Steps of a run, tiles that a second of training took (drawing left out), and its last validation."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    rates = [line[RATE] for line in lines if RATE in line]
    last = [line for line in lines if "val/f1_joint" in line][-1]
    names = ("f1_joint", "f1_rubin", "f1_euclid", *OF_SOURCES)
    figures = {name: last.get(f"val/{name}") for name in names}
    return figures | {"steps": last["step"], "tiles_per_second": float(np.median(rates))}


COLUMNS = {
    "f1_joint": "F1",
    "f1_rubin": "F1 Rubin",
    "f1_euclid": "F1 Euclid",
    "similarity": "one source",
    "similarity_elsewhere": "elsewhere",
    "matched": "matched",
    "shuffled": "shuffled",
    "noise": "noise",
    "noise_slots": "active on noise",
    "retrieval_top1": "top-1",
    "retrieval_chance": "chance",
    "retrieval_elsewhere": "top-1 elsewhere",
    "effective_rank": "rank",
    "spread": "spread",
    "std": "std",
    "steps": "steps",
    "tiles_per_second": "tiles/s",
}

# As they are shown.
QUESTIONS = ("label", "queries", "patch", "survey", "regulariser", "matching", "JEPA", "window")
#: The tables: questions in the rows, gauges in the columns.
TABLES = {
    "finding": (
        ("label", "queries", "patch", "survey"),
        ("F1", "F1 Rubin", "F1 Euclid", "active on noise", "steps", "tiles/s"),
    ),
    "agreeing": (
        ("queries", "regulariser", "matching", "JEPA", "window"),
        (
            "F1",
            "one source",
            "elsewhere",
            "top-1",
            "top-1 elsewhere",
            "chance",
            "matched",
            "shuffled",
            "noise",
            "rank",
            "spread",
            "std",
            "tiles/s",
        ),
    ),
}


def table_of(records):
    """One row for each variant: the mean over its seeds, and half their difference where there are two."""
    rows = []
    for variant in sorted(VARIANTS, key=lambda one: QUESTIONS.index(one.group)):
        found = [
            record["figures"]
            for record in records
            if (record["group"], record["name"]) == (variant.group, variant.name)
        ]
        if not found:
            continue
        row = {"what": variant.group, "variant": variant.name, "seeds": len(found)}
        for key, label in COLUMNS.items():
            values = [np.nan if one.get(key) is None else one[key] for one in found]
            row[label], row[f"{label} ±"] = np.mean(values), np.ptp(values) / 2
        rows.append(row)
    return QTable(rows=rows)


def text_of(table, questions, labels):
    """Numbers of some questions as the documentation shows them; empty where a variant has none."""
    rows = []
    for row in table:
        if row["what"] not in questions:
            continue
        cells = {"what": row["what"], "variant": row["variant"]}
        for label in labels:
            value, half = row[label], row[f"{label} ±"]
            digits = {"steps": 0, "tiles/s": 1, "rank": 1, "active on noise": 2}.get(label, 3)
            cell = "" if np.isnan(value) else f"{value:.{digits}f}"
            if cell and row["seeds"] > 1 and label not in ("steps", "tiles/s", "chance"):
                cell += f" ± {half:.{digits}f}"
            cells[label] = cell
        rows.append(cells)
    return QTable(rows=rows, names=["what", "variant", *labels])


def draw(table, path):
    """One panel for each gauge, one bar for each variant, ticks where both seeds lie."""
    from matplotlib.figure import Figure

    panels = {
        "F1": "F1, both surveys",
        "top-1 elsewhere": "partner found, elsewhere",
        "rank": "effective rank",
        "spread": "spread of a slot over images",
    }
    figure = Figure(figsize=(11, 0.3 * len(table) + 1.2), layout="constrained")
    place = np.arange(len(table))[::-1]
    groups = list(dict.fromkeys(table["what"]))
    colours = [f"C{groups.index(group)}" for group in table["what"]]
    for axes, (label, title) in zip(
        figure.subplots(1, len(panels), sharey=True), panels.items(), strict=True
    ):
        axes.barh(
            place,
            np.nan_to_num(table[label]),
            xerr=np.nan_to_num(table[f"{label} ±"]),
            color=colours,
            height=0.7,
        )
        axes.set(xlabel=title)
        names = [f"{row['what']}: {row['variant']}" for row in table]
        axes.set_yticks(place, names, fontsize="small")
    figure.savefig(path, dpi=110)


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for runs, table and figure")
    parser.add_argument("--cache", type=Path, help="where scenes and batches are kept (OUTPUT/cache)")
    parser.add_argument("--only", nargs="+", default=[], help="run variants with these words in their names")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="seeds to run (%(default)s)")
    parser.add_argument("--tiny", action="store_true", help="the smallest runs that go all the way")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    scale, cache = (TINY if args.tiny else FULL), args.cache or args.output / "cache"
    torch.set_num_threads(1)
    records = []
    for seed in args.seeds:
        for variant in VARIANTS:
            wanted = not args.only or any(word in f"{variant.group}: {variant.name}" for word in args.only)
            done = (run_place(variant, seed, args.output) / "judged.json").exists()
            if seed < variant.seeds and (wanted or done):
                records.append(run(variant, seed, scale, args.output, cache))
                print(variant.group, variant.name, seed, records[-1]["figures"], flush=True)
    table = table_of(records)
    report = ""
    for name, layout in TABLES.items():
        text = text_of(table, *layout)
        with (args.output / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(text.colnames)
            writer.writerows(row.values() for row in text)
        report += f"\n## {name}\n\n{markdown_table(text)}"
    (args.output / "ablations.md").write_text(report.lstrip())
    draw(table, args.output / "ablations.png")
    print(report)


if __name__ == "__main__":
    main()
