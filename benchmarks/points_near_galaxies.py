# Licensed under a 3-clause BSD style license - see LICENSE
"""
Whether compact sources near galaxies are found, or taken for star-forming knots of these.

On simulated skies, drawn by GalSim with more compact sources than the sky has, half of them around galaxies
(half of the fields have galaxies with knots); and on real VIS images, into which points are injected around
their bright galaxies, with the PSF that the file states. Example::

    python benchmarks/points_near_galaxies.py -o results --real ../shared/realdata/euclid_q1/*.fits
"""

from itertools import pairwise
from pathlib import Path

import galsim
import numpy as np
import sep
from astropy import units as u
from astropy.table import QTable
from field_sources import field_parser, field_sources
from scipy.spatial import cKDTree

from jaisp import DETRJEPA
from jaisp.evaluation import SEPEuclid, markdown_table, match_field, match_one_to_one
from jaisp.image import SurveyImage
from jaisp.io import read_euclid
from jaisp.simulation import simulate_field

COMPACT = 0.13  # arcsec
LEAST_SNR = 8.0
BRIGHTER = 3.0  # times as bright in VIS is what a source is said to lie near to
EDGES = (0.0, 1.0, 2.0, 4.0, np.inf)  # arcsec
SEP_SETTINGS = {"threshold": 1.5, "kernel": "psf", "ranking": "isophotal", "background": 6.4}
SEP_SNR = 5.0
NEAREST, FARTHEST = 0.8, 4.0  # arcsec from a bright galaxy of a real image
POINTS_SNR = 8.0, 30.0
EDGE = 10  # pixels


def compact_field(seed, number, *, size, compact=12.0):
    """A field with many compact sources, and whether its galaxies have knots."""
    rng = np.random.default_rng([seed, number])
    sources = field_sources(rng, size, compact=compact)
    kind = ("knots", "sersic")[number % 2]
    psf = ("kolmogorov", "airy", "moffat")[number % 3]
    field = simulate_field(
        rng, size_arcmin=size, psf=psf, galaxies=kind, rotation=25.0 * number, sources=sources
    )
    return *field, kind


def nearest_brighter(truth):
    """Distance in arcsec of each source to the nearest galaxy that is much brighter."""
    x, y = 0.1 * truth["x"].value, 0.1 * truth["y"].value
    flux, star = truth["euclid_vis_flux"].value, np.asarray(truth["is_star"], bool)
    distance = np.hypot(x[:, None] - x, y[:, None] - y)
    return np.where((flux > BRIGHTER * flux[:, None]) & ~star, distance, np.inf).min(axis=1)


def simulated(model, args):
    """Share of the compact sources found, by distance to a brighter galaxy, and false rows."""
    found = {"jaisp": [], "SEP": []}
    distances, false, area = [], {"jaisp": 0, "SEP": 0}, 0.0
    for number in range(args.fields):
        rubin, euclid, truth, kind = compact_field(args.seed, number, size=args.size)
        vis = np.asarray(truth["euclid_vis_snr"])
        chosen = (truth["half_light_radius"].to_value(u.arcsec) < COMPACT) & (vis > LEAST_SNR)
        distances.append(nearest_brighter(truth)[chosen])
        area += args.size**2
        jaisp = model.catalog(rubin, euclid, region="euclid")
        peer = SEPEuclid()(None, euclid, **SEP_SETTINGS)
        catalogs = {
            "jaisp": (jaisp["sky_centroid"], np.asarray(jaisp["activity"])),
            "SEP": (peer["sky_centroid"], np.asarray(peer["snr"])),
        }
        for name, (place, score) in catalogs.items():
            sure = score > (0.5 if name == "jaisp" else SEP_SNR)
            match = match_field(place[sure], score[sure], truth)
            found[name].append(np.isfinite(match.found_at)[chosen])
            false[name] += int((match.outcome == 0).sum())
        print(f"field {number + 1} of {args.fields}: {kind}", flush=True)
    distance = np.concatenate(distances)
    rows = []
    for low, high in pairwise(EDGES):
        here = (distance >= low) & (distance < high)
        row = {"galaxy at (arcsec)": f"{low:g} to {high:g}", "n": int(here.sum())}
        row |= {name: float(np.concatenate(group)[here].mean()) for name, group in found.items()}
        rows.append(row)
    rows.append(
        {"galaxy at (arcsec)": "false rows per arcmin2", "n": 0}
        | {name: count / area for name, count in false.items()}
    )
    return QTable(rows=rows)


def bright_galaxies(image):
    """Pixels x, y of the bright extended sources of a real image."""
    data = np.ascontiguousarray(image.sky_subtracted("VIS"))
    noise, bad = np.sqrt(image.variance["VIS"]), image.mask["VIS"]
    found = sep.extract(data, 1.5, err=noise, mask=bad, minarea=5, filter_type="matched")
    flux, error, _ = sep.sum_circle(data, found["x"], found["y"], 8.0, err=noise, mask=bad)
    keep = (flux > 20 * error) & (found["a"] > 2.2)
    return found["x"][keep], found["y"][keep], np.stack([found["x"], found["y"]], axis=-1)


def with_points(image, rng, n):
    """The image with points around its bright galaxies, away from all that is there; and their places."""
    gx, gy, known = bright_galaxies(image)
    ny, nx = image.shape
    places = np.zeros((0, 2))
    for _ in range(200 * n if len(gx) else 0):
        if len(places) == n:
            break
        host = rng.integers(len(gx))
        reach, angle = 10 * rng.uniform(NEAREST, FARTHEST), rng.uniform(0, 2 * np.pi)
        place = np.array([gx[host] + reach * np.cos(angle), gy[host] + reach * np.sin(angle)])
        inside = (place > EDGE).all() and place[0] < nx - EDGE and place[1] < ny - EDGE
        if inside and cKDTree(np.concatenate([known, places])).query(place)[0] > 10 * NEAREST:
            places = np.concatenate([places, place[None]])
    psf = image.psf["VIS"].astype(float)
    point = galsim.InterpolatedImage(galsim.Image(psf, scale=0.1))
    noise = np.sqrt(np.median(image.variance["VIS"][~image.mask["VIS"]]))
    flux = np.exp(rng.uniform(*np.log(POINTS_SNR), len(places))) * noise / np.sqrt((psf**2).sum())
    drawn = galsim.Image(nx, ny, scale=0.1, xmin=0, ymin=0)
    for (x, y), light in zip(places, flux, strict=True):
        half = psf.shape[0] // 2 + 1
        bounds = galsim.BoundsI(int(x) - half, int(x) + half, int(y) - half, int(y) + half) & drawn.bounds
        point.withFlux(light).drawImage(
            drawn[bounds], center=galsim.PositionD(x, y), method="no_pixel", add_to_image=True
        )
    return (image.data["VIS"] + drawn.array).astype(np.float32), places


def real(path, model, args):
    """Points found around the bright galaxies of a real image, VIS alone."""
    image = read_euclid([path], bands=["VIS"])
    total, found = 0, {"jaisp": 0, "SEP": 0}
    for number in range(args.realisations):
        rng = np.random.default_rng([args.seed, 99, number])
        data, places = with_points(image, rng, args.points)
        variance, psf = {"VIS": image.variance["VIS"]}, {"VIS": image.psf["VIS"]}
        injected = SurveyImage(
            {"VIS": data}, image.wcs, survey="euclid", variance=variance, mask=dict(image.mask), psf=psf
        )
        sky = image.wcs.pixel_to_world(*places.T)
        jaisp, peer = model.catalog(None, injected), SEPEuclid()(None, injected, **SEP_SETTINGS)
        for name, place in (
            ("jaisp", jaisp["sky_centroid"]),
            ("SEP", peer["sky_centroid"][np.asarray(peer["snr"]) > SEP_SNR]),
        ):
            found[name] += int((match_one_to_one(place, sky)[0] >= 0).sum())
        total += len(places)
    return {"image": Path(path).name, "points": total} | {
        name: count / max(total, 1) for name, count in found.items()
    }


def main(argv=None):
    parser = field_parser(__doc__, fields=6, size=1.28, seed=20261126)
    parser.add_argument("--real", type=Path, nargs="*", default=[], help="real images with a VIS band")
    parser.add_argument(
        "--realisations", type=int, default=10, help="injections into each real image (%(default)s)"
    )
    parser.add_argument("--points", type=int, default=5, help="points a realisation (%(default)s)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    model = DETRJEPA.from_pretrained(args.weights)
    tables = (
        {"points_real": QTable(rows=[real(path, model, args) for path in args.real])} if args.real else {}
    )
    if args.fields:
        tables["points_simulated"] = simulated(model, args)
    for name, table in tables.items():
        table.write(args.output / f"{name}.csv", overwrite=True)
        print(markdown_table(table))


if __name__ == "__main__":
    main()
