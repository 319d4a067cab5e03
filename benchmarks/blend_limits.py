# Licensed under a 3-clause BSD style license - see LICENSE
"""
How many blended sources could be found, by the signal to noise that their neighbours leave of them.

On the test skies. Of each source to be found that has a neighbour within 1 arcsec (the blends of
``detection.py``) the script works out what is left when the fluxes, places and shapes of all that is near
have to be fitted (`jaisp.evaluation.blended_snr`), and compares, at purity 0.95, what is found of these with
what is found of sources of the same S/N that nothing is near. Example::

    python benchmarks/blend_limits.py --folder skies -o results --fields 6
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.table import QTable
from measurement_rows import band_models, profiles

from jaisp import DETRJEPA
from jaisp.evaluation import DetectionScore, Skies, blended_snr, markdown_table, match_catalog

DEPTHS = ("ten_year", "dp1", "deep")
EDGES = (0.0, 3.0, 5.0, 7.0, 10.0, 15.0, 30.0, np.inf)
FITTED = 3.0  # joint S/N of neighbours that a fit would hold
BLENDED, ALONE = 1.0, 1.5  # arcsec to the nearest neighbour


def rows_of(field, match, inside, threshold):
    """Sources that are blended or alone: S/N left of each, whether blended, whether found at a threshold."""
    truth = match.truth
    snr = np.asarray(truth["snr"])
    centre = truth["sky_centroid"][0]
    x, y = (side.to_value(u.arcsec) for side in centre.spherical_offsets_to(truth["sky_centroid"]))
    nearest = u.Quantity(truth["nearest"], u.arcsec).value
    blended = match.wanted & (nearest < BLENDED)
    fitted = snr > FITTED
    left = snr.copy()
    left[blended] = blended_snr(
        band_models(field),
        *profiles(truth[fitted]),
        x[fitted],
        y[fitted],
        sources=np.flatnonzero(blended[fitted]),
    )
    kept = blended | (inside & (nearest > ALONE))
    return left[kept], blended[kept], match.found_at[kept] >= threshold


def tabulate(depth, left, blended, found):
    """Share found of blended sources and of those alone, by S/N; at last of blended ones, were they alone."""
    rows, expected = [], 0.0
    for low, high in pairwise(EDGES):
        here = (left >= low) & (left < high)
        alone, near = found[here & ~blended], found[here & blended]
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"above {low:g}"
        rows.append((name, len(near), near, alone))
        expected += len(near) * (alone.mean() if len(alone) else 0.0)
    rows.append(("all", blended.sum(), found[blended], np.array([expected / max(blended.sum(), 1)])))
    return [
        {"S/N left": name, f"{depth}: n": int(n)}
        | {
            f"{depth}: {kind}": f"{values.mean():.2f}" if len(values) else ""
            for kind, values in (("blended", near), ("alone", alone))
        }
        for name, n, near, alone in rows
    ]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="where the skies are kept between runs")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the table")
    parser.add_argument("--fields", type=int, default=6, help="fields of each sky (%(default)s)")
    parser.add_argument("--size", type=float, default=1.28, help="side of a field in arcmin (%(default)s)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    model = DETRJEPA.from_pretrained()
    rows = [{} for _ in EDGES]
    for depth in DEPTHS:
        seen = []
        for field in Skies(args.folder, "test", depth, "plain", args.fields, args.size):
            table = model.catalog(field.rubin, field.euclid, activity=0.0)
            _, match = match_catalog(table, field)
            _, every = match_catalog(table, field, min_snr=0.0)
            seen.append((field, match, every.wanted))
        threshold = DetectionScore([match for _, match, _ in seen]).threshold_at(0.95)
        parts = [rows_of(*one, threshold) for one in seen]
        sources = (np.concatenate(part) for part in zip(*parts, strict=True))
        rows = [row | more for row, more in zip(rows, tabulate(depth, *sources), strict=True)]
        print(depth, len(parts), flush=True)
    table = QTable(rows=rows)
    table.write(args.output / "blend_limits.csv", overwrite=True)
    print(markdown_table(table))


if __name__ == "__main__":
    main()
