# Licensed under a 3-clause BSD style license - see LICENSE
"""
How jaisp ranks on real sky: sources injected into blank parts of VIS images, and negative images.

For each real image with a VIS band:

- stars and galaxies, convolved with the image's own PSF, are added to its blank parts; VIS alone, without a
  PSF, goes to jaisp and to SEP, and the average precision of both rankings is compared;
- the negative image, which holds no sources but the same noise, tells how many rows are false;
- positions and VIS fluxes of the bright sources are compared with SEP's.

Example::

    python benchmarks/realsky.py ../shared/realdata/euclid_q1/*.fits --output results
"""

import argparse
from pathlib import Path

import galsim
import numpy as np
import sep
from astropy import units as u
from astropy.table import QTable
from scipy.ndimage import binary_dilation

import jaisp
from jaisp.evaluation import DetectionScore, SEPEuclid, markdown_table, match_field
from jaisp.exceptions import JaispError
from jaisp.image import SurveyImage
from jaisp.io import read_euclid

SCALE = 0.1
EDGE = 10  # pixels
REACH = 8  # pixels around real sources that are not blank
RANKINGS = ("isophotal", "aperture", "peak")


def read_vis(path):
    """VIS image of a file, with the PSF and the RMS that the file states."""
    return read_euclid([path], bands=["VIS"])


def without_psf(image, data=None):
    """The same sky as a user without a PSF brings it; other pixels if given."""
    data = image.data["VIS"] if data is None else data
    variance = {"VIS": image.variance["VIS"]}
    return SurveyImage({"VIS": data}, image.wcs, survey="euclid", variance=variance, mask=dict(image.mask))


def blank_sky(image):
    """Pixels without real sources, away from edges and bad pixels."""
    data = np.ascontiguousarray(image.sky_subtracted("VIS"))
    noise = np.sqrt(image.variance["VIS"])
    _, segments = sep.extract(
        data, 1.2, err=noise, mask=image.mask["VIS"], minarea=4, segmentation_map=True, filter_type="matched"
    )
    blank = ~binary_dilation((segments > 0) | image.mask["VIS"], iterations=REACH)
    blank[:EDGE], blank[-EDGE:], blank[:, :EDGE], blank[:, -EDGE:] = False, False, False, False
    return blank


def inject(image, blank, rng, *, density, faintest):
    """
    Add sources to the blank sky.

    Returns
    -------
    data : `~numpy.ndarray`
        The image with the sources.
    truth : `~astropy.table.QTable`
        Positions, fluxes, radii and S/N for the RMS that the file states.
    """
    n = rng.poisson(density * blank.sum() * SCALE**2 / 3600)
    place = rng.choice(np.flatnonzero(blank), size=n)
    y, x = np.array(np.unravel_index(place, blank.shape)) + rng.uniform(-0.5, 0.5, (2, n))
    magnitude = faintest + np.log10(rng.uniform(10 ** (0.3 * (22 - faintest)), 1, n)) / 0.3
    flux = 10 ** ((31.4 - magnitude) / 2.5)
    radius = np.where(rng.uniform(size=n) < 0.2, 0, np.clip(rng.lognormal(np.log(0.25), 0.4, n), 0.05, 1.0))
    psf = galsim.InterpolatedImage(galsim.Image(image.psf["VIS"].astype(float), scale=SCALE), flux=1.0)
    data = image.data["VIS"].astype(float)
    snr = np.zeros(n)
    for k in range(n):
        source = psf
        if radius[k] > 0:
            disc = galsim.Exponential(half_light_radius=radius[k])
            disc = disc.shear(q=rng.uniform(0.3, 1.0), beta=rng.uniform(0, 180) * galsim.degrees)
            source = galsim.Convolve(disc, psf)
        stamp = galsim.Image(data.shape[1], data.shape[0], scale=SCALE, xmin=0, ymin=0)
        half = 25
        bounds = (
            galsim.BoundsI(int(x[k]) - half, int(x[k]) + half, int(y[k]) - half, int(y[k]) + half)
            & stamp.bounds
        )
        part = stamp[bounds]
        source.withFlux(flux[k]).drawImage(part, center=galsim.PositionD(x[k], y[k]), method="no_pixel")
        rows = slice(bounds.ymin, bounds.ymax + 1), slice(bounds.xmin, bounds.xmax + 1)
        data[rows] += part.array
        snr[k] = np.sqrt(np.sum(part.array**2 / image.variance["VIS"][rows]))
    data[image.mask["VIS"]] = image.data["VIS"][image.mask["VIS"]]
    truth = QTable(
        {"sky_centroid": image.wcs.pixel_to_world(x, y), "snr": snr, "flux": flux * u.nJy, "radius": radius}
    )
    return data.astype(np.float32), truth


def in_blank(image, blank, table):
    """Rows of a catalogue that lie on blank sky."""
    x, y = np.rint(image.wcs.world_to_pixel(table["sky_centroid"])).astype(int)
    inside = (x >= 0) & (x < blank.shape[1]) & (y >= 0) & (y < blank.shape[0])
    inside[inside] = blank[y[inside], x[inside]]
    return table[inside]


def finders(model):
    """Name to function from an image to a table ranked by ``score``."""
    found = {}
    if model is not None:
        found["jaisp"] = lambda image: ranked(model.catalog(None, image, activity=0.02), "activity")
    for ranking in RANKINGS:
        for kernel in ("default", "psf"):
            settings = {"threshold": 1.0, "kernel": kernel, "ranking": ranking, "background": 6.4}
            found[f"SEP {kernel}, {ranking} S/N"] = lambda image, settings=settings: ranked(
                SEPEuclid()(None, image, **settings), "snr"
            )
    return found


def ranked(table, column):
    return QTable({"sky_centroid": table["sky_centroid"], "score": np.asarray(table[column], float)})


def injection_test(image, blank, model, args):
    """Average precision and completeness of each ranking over the realisations."""
    matches = {name: [] for name in finders(model)}
    for k in range(args.realisations):
        rng = np.random.default_rng([args.seed, k])
        data, truth = inject(image, blank, rng, density=args.density, faintest=27.5)
        injected = without_psf(image, data)
        for name, finder in finders(model).items():
            table = in_blank(image, blank, finder(injected))
            matches[name].append(match_field(table["sky_centroid"], table["score"], truth))
    rows = []
    for name, group in matches.items():
        score = DetectionScore(group)
        rows.append(
            {
                "finder": name,
                "n_sources": score.n_wanted,
                "average_precision": score.average_precision,
                "average_precision_err": score.bootstrap(lambda item: item.average_precision, rng=0),
                "best_f1": score.best_f1,
                "completeness_95": score.completeness_at(0.95),
            }
        )
    return QTable(rows=rows)


def negative_test(image, blank, model):
    """Rows on blank sky of the image turned upside down, for each square arcminute."""
    area = blank.sum() * SCALE**2 / 3600
    upside_down = without_psf(image, -image.data["VIS"])
    rows = []
    for name, finder in finders(model).items():
        limits = (0.5, 0.8, 0.95) if name == "jaisp" else (3, 4, 5)
        counts = [in_blank(image, blank, finder(each))["score"] for each in (image, upside_down)]
        for limit in limits:
            upright, negative = (int(np.sum(np.asarray(count) > limit)) for count in counts)
            rows.append(
                {
                    "finder": name,
                    "above": float(limit),
                    "upright": upright,
                    "negative": negative,
                    "negative per arcmin2": negative / area,
                }
            )
    return QTable(rows=rows)


def bright_test(image, model):
    """Positions and fluxes of bright sources, jaisp against SEP apertures."""
    data = np.ascontiguousarray(image.sky_subtracted("VIS"))
    noise, bad = np.sqrt(image.variance["VIS"]), image.mask["VIS"]
    found = sep.extract(data, 1.5, err=noise, mask=bad, minarea=5, filter_type="matched")
    radius = 6 * found["a"]
    flux, error, _ = sep.sum_ellipse(
        data, found["x"], found["y"], found["a"], found["b"], found["theta"], 6.0, err=noise, mask=bad
    )
    ny, nx = data.shape
    keep = (flux > 20 * error) & (found["x"] > EDGE) & (found["x"] < nx - EDGE)
    keep &= (found["y"] > EDGE) & (found["y"] < ny - EDGE) & (radius < 40)
    place = image.wcs.pixel_to_world(found["x"][keep], found["y"][keep])
    catalog = model.catalog(None, image)
    light = catalog["euclid_vis_flux"].to_value(u.nJy)
    rows = []
    for centre, total, reach in zip(place, flux[keep], radius[keep] * SCALE, strict=True):
        separation = centre.separation(catalog["sky_centroid"]).arcsec
        inside = separation < reach
        nearest = int(np.argmin(separation)) if inside.any() else None
        rows.append(
            {
                "ra": centre.ra.deg,
                "dec": centre.dec.deg,
                "separation (arcsec)": float(separation[nearest]) if inside.any() else np.nan,
                "activity": float(catalog["activity"][nearest]) if inside.any() else np.nan,
                # SEP joins what jaisp deblends: the light of all rows in the aperture is compared.
                "rows in aperture": int(inside.sum()),
                "jaisp / SEP flux": float(np.nansum(light[inside]) / total),
            }
        )
    return QTable(rows=rows) if rows else None


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", help="real images with a VIS band, PSF and RMS")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the tables")
    parser.add_argument(
        "--realisations", type=int, default=10, help="injections into each image (%(default)s)"
    )
    parser.add_argument(
        "--density", type=float, default=150.0, help="sources per square arcminute (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--weights", help="folder of a trained model (the bundled one)")
    parser.add_argument("--no-model", action="store_true", help="run SEP only")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    text = f"# Real sky, jaisp {jaisp.__version__}\n"
    try:
        model = None if args.no_model else jaisp.DETRJEPA.from_pretrained(args.weights)
        for path in args.files:
            image = read_vis(path)
            blank = blank_sky(image)
            noise = image.noise["VIS"]
            text += f"\n## {path.name}\n\n{blank.sum() * SCALE**2:.0f} square arcsec of blank sky; "
            text += f"noise at the scale of a source / stated RMS: {noise.scale:.3f}\n\n"
            tables = {"Injected sources, VIS alone, no PSF given": injection_test(image, blank, model, args)}
            tables["Rows on blank sky, upright and negative"] = negative_test(image, blank, model)
            if model is not None:
                tables["Bright sources"] = bright_test(image, model)
            for title, table in tables.items():
                if table is not None:
                    text += f"{title}\n\n{markdown_table(table)}\n"
                    table.write(args.output / f"{path.stem}_{title.split()[0].lower()}.ecsv", overwrite=True)
    except JaispError as error:
        raise SystemExit(f"realsky.py: {error}") from None
    print(text)
    (args.output / "realsky.md").write_text(text)


if __name__ == "__main__":
    main()
