# Licensed under a 3-clause BSD style license - see LICENSE
"""
Cosmic rays and hot pixels that no mask tells of: how many become rows of a catalogue.

Euclid's images alone of simulated fields, with pixels and tracks of five pixels added to VIS away from all
rows; also in how many bands pixels are masked where there are none. Example::

    python benchmarks/cosmic_rays.py -o results
"""

import numpy as np
from astropy.table import QTable
from field_sources import field_parser, field_sources
from scipy.spatial import cKDTree

from jaisp import DETRJEPA, SurveyImage
from jaisp.evaluation import markdown_table
from jaisp.simulation import simulate_field

EVENTS = 60  # in a field
HEIGHTS, LENGTHS = (10, 30, 100), (1, 5)  # in the noise of a pixel, and pixels
APART, AT = 10, 4  # pixels: nearest row, and where a row is one of the event
EDGE = 10


def rebuilt(image, data, mask):
    """The image with other pixels in VIS, made anew."""
    return SurveyImage(
        {**image.data, "VIS": data},
        image.wcs,
        survey="euclid",
        variance=dict(image.variance),
        mask={**image.mask, "VIS": mask},
        psf=dict(image.psf),
    )


def with_events(rng, image, rows, height, length):
    """VIS with events of a height and a length, and the pixels of each."""
    ny, nx = image.shape
    places = rng.uniform(EDGE, [nx - EDGE, ny - EDGE], (EVENTS, 2))
    places = places[cKDTree(rows).query(places)[0] > APART]
    angles = rng.uniform(0, np.pi, len(places))
    steps = np.arange(length)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)[:, None]
    pixels = (places[:, None] + steps).astype(int)
    data = image.data["VIS"].copy()
    for event in pixels:
        x, y = np.unique(event, axis=0).T
        data[y, x] += height * np.sqrt(image.variance["VIS"][y, x])
    return data, pixels


def places_of(table):
    return np.stack([table["x_centroid"].value, table["y_centroid"].value], axis=-1)


def main(argv=None):
    args = field_parser(__doc__, fields=2, size=1.0, seed=20261129).parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    model = DETRJEPA.from_pretrained(args.weights)
    counts, clean = {}, 0
    for number in range(args.fields):
        rng = np.random.default_rng([args.seed, number])
        rubin, euclid, _ = simulate_field(
            rng,
            size_arcmin=args.size,
            psf=("airy", "kolmogorov")[number % 2],
            galaxies=("knots", "sersic")[number % 2],
            sources=field_sources(rng, args.size),
        )
        clean += sum("sharper" in finding.what for image in (rubin, euclid) for finding in image.findings)
        rows = places_of(model.catalog(None, euclid))
        for height in HEIGHTS:
            for length in LENGTHS:
                data, pixels = with_events(rng, euclid, rows, height, length)
                masked = rebuilt(euclid, data, euclid.mask["VIS"])
                x, y = pixels.reshape(-1, 2).T
                share = masked.mask["VIS"][y, x]
                left = rebuilt(euclid, data, euclid.mask["VIS"])
                left.mask["VIS"][:] = euclid.mask["VIS"]  # as if nothing had been found
                became = [
                    int((cKDTree(places_of(model.catalog(None, one))).query(pixels[:, 0])[0] < AT).sum())
                    for one in (masked, left)
                ]
                total = counts.setdefault((height, length), np.zeros(5))
                total += len(pixels), share.sum(), share.size, *became
    table = QTable(
        rows=[
            {
                "pixel S/N": height,
                "pixels": length,
                "n": int(n),
                "pixels masked": float(hit / of),
                "become rows": int(rows),
                "become rows, not masked": int(others),
            }
            for (height, length), (n, hit, of, rows, others) in counts.items()
        ]
    )
    table.write(args.output / "cosmic_rays.csv", overwrite=True)
    print(markdown_table(table))
    print(f"bands without events in which pixels are masked as too sharp: {clean}")


if __name__ == "__main__":
    main()
