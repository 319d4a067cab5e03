# Licensed under a 3-clause BSD style license - see LICENSE
"""
At which step the catalogue loses sources, by the distance to their nearest neighbour.

On calibration skies, which no figure of merit is reported on. Each source of S/N above 5 is followed through
the heat map's peaks, the proposals, the decoder's slots, the measured rows and their ranking at purity 0.95;
the first step that leaves nothing within 0.3 arcsec lost it. Example::

    python benchmarks/close_sources.py --folder skies -o results --fields 3
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from astropy.table import QTable

from jaisp import DETRJEPA
from jaisp.catalog import detect
from jaisp.evaluation import DetectionScore, Skies, markdown_table, match_field
from jaisp.io import align
from jaisp.models.decoder import worth_a_query

SKIES = (("ten_year", "plain"), ("dp1", "plain"), ("deep", "plain"), ("ten_year", "hard"))
LEAST_SNR = 5.0
FAINTEST_PEAK = 0.02  # of the heat map's probability: below, there is nothing to speak of
CANDIDATE_LOGIT = -2.2  # of the catalogue's candidates
STEPS = (
    "no peak in the heat map",
    "weak or suppressed peak",
    "the decoder drops it",
    "the fit drops or moves it",
    "ranked too low",
    "found",
)
EDGES = (0.0, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, np.inf)


@torch.inference_mode()
def heat_map(model, pair):
    """Logits of the joint view's heat map on the whole grid, each pixel from the tile that owns it."""
    heat = torch.full((1, *pair.shape), -20.0)
    for tile in pair.tiles():
        tensors = {key: torch.from_numpy(value[None]) for key, value in tile.arrays.items()}
        found = model.encode(model.prepare(tensors))["heat"]
        x0, x1, y0, y1 = tile.own
        heat[:, y0:y1, x0:x1] = found[:, y0 - tile.y0 : y1 - tile.y0, x0 - tile.x0 : x1 - tile.x0]
    return heat


def found_by_step(model, field):
    """Whether each source has something near it after each step, and the match of the catalogue."""
    pair = align(field.rubin, field.euclid)

    def near(x, y):
        ranking = np.ones(len(x))
        return np.isfinite(match_field(pair.wcs.pixel_to_world(x, y), ranking, field.truth).found_at)

    heat = heat_map(model, pair)
    found = []
    for nms_size, threshold in ((3, FAINTEST_PEAK), (model.config.nms_size, model.config.proposal_threshold)):
        _, y, x = np.nonzero(worth_a_query(heat, nms_size=nms_size, threshold=threshold).numpy())
        found.append(near(x, y))
    slots = detect(model, pair)["joint"]
    slots = slots.select(slots.activity_logit > CANDIDATE_LOGIT)
    found.append(near(slots.x, slots.y))
    table = model.catalog(field.rubin, field.euclid, activity=0.0)
    match = match_field(table["sky_centroid"], np.asarray(table["activity"]), field.truth)
    return [*found, np.isfinite(match.found_at)], match


def nearest(truth, chosen):
    """Distance in arcsec of each chosen source to the nearest other one."""
    places = truth["sky_centroid"][chosen]
    return places.match_to_catalog_sky(places, nthneighbor=2)[1].arcsec


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the skies are kept between runs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the table")
    parser.add_argument("--fields", type=int, default=3, help="fields of each sky (%(default)s)")
    parser.add_argument("--size", type=float, default=1.28, help="side of a field in arcmin (%(default)s)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    model = DETRJEPA.from_pretrained()
    separations, euclids, lost = [], [], []
    for depth, kind in SKIES:
        followed = [
            (field, *found_by_step(model, field))
            for field in Skies(args.folder, "calibration", depth, kind, args.fields, args.size)
        ]
        threshold = DetectionScore([match for *_, match in followed]).threshold_at(0.95)
        for field, steps, match in followed:
            chosen = np.asarray(field.truth["snr"]) > LEAST_SNR
            kept = np.stack([*steps, match.found_at >= threshold])[:, chosen]
            separations.append(nearest(field.truth, chosen))
            euclids.append(np.asarray(field.truth["euclid_snr"])[chosen] > 0)
            lost.append(np.where(kept[-1], len(STEPS) - 1, first_missing(kept)))
        print(depth, kind, flush=True)
    table = tabulate(*(np.concatenate(values) for values in (separations, euclids, lost)))
    table.write(args.output / "close_sources.csv", overwrite=True)
    print(markdown_table(table))


def first_missing(kept):
    """First step, of those in rows, after which nothing is left of each source in columns."""
    gone = ~np.maximum.accumulate(kept[::-1])[::-1]  # what is found later was not lost before
    return gone.argmax(axis=0)


def tabulate(separation, on_euclid, lost):
    """Share of the sources that each step loses."""
    chosen = {
        f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}": on_euclid
        & (separation >= low)
        & (separation < high)
        for low, high in pairwise(EDGES)
    }
    chosen["within 1, no Euclid image"] = ~on_euclid & (separation < 1)
    rows = []
    for name, which in chosen.items():
        shares = np.bincount(lost[which], minlength=len(STEPS)) / max(which.sum(), 1)
        rows.append(
            {"sources": name, "n": int(which.sum())}
            | {step: f"{share:.2f}" for step, share in zip(STEPS, shares, strict=True)}
        )
    return QTable(rows=rows)


if __name__ == "__main__":
    main()
