# Licensed under a 3-clause BSD style license - see LICENSE
"""
Fit what separations and similarities say of slots being one object, on skies apart from all others.

Prints the power of the positions' odds, and the slope and the middle of the log odds of the cosine, that make
``match_probability`` most likely for the pairs of Rubin and Euclid slots within an arcsec: the constants of
``jaisp/catalog/crossmatching.py``. They belong to the embedding of the weights. Example::

    python benchmarks/calibrate_match.py --folder skies --fields 2
"""

import argparse
from pathlib import Path

import astropy.units as u
import numpy as np
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from jaisp import DETRJEPA
from jaisp.catalog import detect, measure_offset
from jaisp.catalog.crossmatching import _SIMILARITY, _TRUST, pair_density, pair_odds, pair_probability
from jaisp.catalog.links import _ERROR_SCALE, _SHARPEST, UNKNOWN_OFFSET
from jaisp.evaluation import DEPTHS, KINDS, Skies, calibration, match_one_to_one
from jaisp.io import align
from jaisp.surveys import EUCLID

PIXEL = EUCLID.pixel_scale
RADIUS = 0.5 * u.arcsec  # as `jaisp.evaluation.cross_match_outcomes`


def pairs_of(model, field):
    """Pairs of slots within an arcsec, as `pair_odds` and `pair_probability` take them; which are right."""
    pair = align(field.rubin, field.euclid)
    slots = detect(model, pair)
    rubin, euclid = (slots[name].select(slots[name].activity_logit > 0) for name in ("rubin", "euclid"))
    offset = measure_offset(rubin, euclid)
    xy = {"euclid": np.stack([euclid.x, euclid.y], axis=-1).astype(float)}
    place = np.stack([rubin.x, rubin.y], axis=-1).astype(float)
    xy["rubin"] = place + np.stack(offset(*place.T), axis=-1)
    source = {
        name: match_one_to_one(pair.wcs.pixel_to_world(*at.T), field.truth["sky_centroid"], radius=RADIUS)[0]
        for name, at in xy.items()
    }
    first, second = PIXEL * xy["rubin"], PIXEL * xy["euclid"]
    near = cKDTree(first).sparse_distance_matrix(cKDTree(second), 1.0, output_type="coo_matrix")
    i, j = near.row, near.col
    error = [_ERROR_SCALE * PIXEL * np.hypot(one.x_err, one.y_err) / np.sqrt(2) for one in (rubin, euclid)]
    systematic = _SHARPEST if offset.n_matches else UNKNOWN_OFFSET
    variance = error[0][i] ** 2 + error[1][j] ** 2 + systematic**2
    density = pair_density(first, second, i, j, radius=1.0)
    cosine = np.einsum("kd,kd->k", rubin.embedding[i], euclid.embedding[j]).astype(float)
    right = (source["rubin"][i] == source["euclid"][j]) & (source["rubin"][i] >= 0)
    odds = (near.data**2 / variance, variance, density, cosine)
    return odds, (i, j, len(first), len(second)), right


def probabilities(fields, trust, slope, middle):
    """Of all pairs of all fields."""
    found = []
    for odds, (i, j, n, m), _ in fields:
        log_odds = pair_odds(*odds, trust=trust, similarity=(slope, middle))
        found.append(pair_probability(i, j, log_odds, n, m))
    return np.concatenate(found)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--weights", help="bundled ones by default")
    parser.add_argument("--fields", type=int, default=2)
    parser.add_argument("--size", type=float, default=0.8)
    args = parser.parse_args(argv)
    model = DETRJEPA.from_pretrained(args.weights).eval()
    fields = []
    for depth in DEPTHS:
        for kind in KINDS:
            for field in Skies(args.folder, "calibration", depth, kind, args.fields, args.size):
                fields.append(pairs_of(model, field))
                print(depth, kind, len(fields[-1][-1]), "pairs", flush=True)
    right = np.concatenate([one[-1] for one in fields])

    def loss(values):
        probability = np.clip(probabilities(fields, *values), 1e-6, 1 - 1e-6)
        return -np.mean(np.log(np.where(right, probability, 1 - probability)))

    start = (_TRUST, *_SIMILARITY)
    for name, values in (("now", start), ("fitted", minimize(loss, start, method="Nelder-Mead").x)):
        probability = probabilities(fields, *values)
        error = calibration(probability[probability > 0.2], right[probability > 0.2]).error
        print(f"{name}: trust {values[0]:.2f}, slope {values[1]:.2f}, middle {values[2]:.2f};", end=" ")
        print(f"log loss {loss(values):.4f}, calibration error of likely pairs {error:.3f}")


if __name__ == "__main__":
    main()
