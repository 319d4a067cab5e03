# Licensed under a 3-clause BSD style license - see LICENSE
"""
Skies that are rare in a survey: crowds of stars, discs seen edge-on, bright stars, large galaxies, and none.

Each kind is drawn by GalSim; half of the fields have an Airy-like PSF, and Rubin is turned. Of the sources
with a S/N above 10 in Euclid and none within 0.5" the share that has a row of activity above 0.5, and how
many rows per square arcminute are of no source; beside SEP above 5 sigma on VIS. Example::

    python benchmarks/unusual_skies.py -o results
"""

import numpy as np
from astropy import units as u
from astropy.table import QTable
from field_sources import field_parser, field_sources, vis_magnitude

from jaisp import DETRJEPA
from jaisp.evaluation import SEPEuclid, markdown_table, match_field
from jaisp.simulation import simulate_field

LEAST_SNR = 10.0
APART = 0.5  # arcsec between sources that are asked for
SEP_SETTINGS = {"threshold": 1.5, "kernel": "psf", "ranking": "isophotal", "background": 6.4}
SEP_SNR = 5.0
BRIGHT = (14.5, 17.5)  # VIS magnitude
BRIGHT_PER_ARCMIN2 = 4.0
NEIGHBOURS = 40  # of a bright star
NEIGHBOUR_AT = (1.5, 8.0)  # arcsec


def crowd(rng, size):
    """450 stars and 50 galaxies per square arcminute, to VIS 26.5: the sky has about 8 and 92."""
    return field_sources(rng, size, density=500.0, star_fraction=0.9, faint_limit=26.5)


def edge_on(rng, size):
    """All galaxies with axis ratios of 0.12 to 0.3."""
    return field_sources(rng, size, thin=1.0)


def large_galaxies(rng, size):
    """Eight large galaxies per square arcminute: 160 times as many as on other simulated skies."""
    return field_sources(rng, size, large=8.0)


def bright_stars(rng, size):
    """Bright stars, their cores masked, with sources about them."""
    sources = field_sources(rng, size)
    order = rng.permutation(np.flatnonzero((sources.x > 0) & (sources.y > 0)))
    inside = [k for k in order if max(sources.x[k], sources.y[k]) < 60 * size]
    stars = [k for k in inside if sources.is_star[k]][: round(BRIGHT_PER_ARCMIN2 * size**2)]
    wanted = 10 ** (0.4 * (31.4 - rng.uniform(*BRIGHT, len(stars))))
    sources.bulge_flux[stars] *= (wanted / sources.flux[stars, 6])[:, None]
    faint = [k for k in inside if k not in stars and 20 < vis_magnitude(sources)[k] < 26]
    for number, k in enumerate(faint[: NEIGHBOURS * len(stars)]):
        star = stars[number % len(stars)]
        distance, angle = np.exp(rng.uniform(*np.log(NEIGHBOUR_AT))), rng.uniform(0, 2 * np.pi)
        sources.x[k] = sources.x[star] + distance * np.cos(angle)
        sources.y[k] = sources.y[star] + distance * np.sin(angle)
    return sources


def next_to_empty(rng, size):
    """A twentieth of the sky's sources."""
    return field_sources(rng, size, density=5.0)


KINDS = (crowd, edge_on, large_galaxies, bright_stars, next_to_empty)


def measured(kind, model, args):
    """Shares found and false rows of one kind of sky."""
    found, false = {"jaisp": [], "Euclid alone": [], "SEP": []}, {}
    for number in range(args.fields):
        rng = np.random.default_rng([args.seed, KINDS.index(kind), number])
        rubin, euclid, truth = simulate_field(
            rng,
            size_arcmin=args.size,
            psf=("airy", "kolmogorov")[number % 2],
            galaxies=("knots", "sersic")[number % 2],
            rotation=35.0 * (1 + number),
            sources=kind(rng, args.size),
        )
        chosen = (np.asarray(truth["euclid_snr"]) > LEAST_SNR) & (truth["nearest"] > APART * u.arcsec)
        peer = SEPEuclid()(None, euclid, **SEP_SETTINGS)
        catalogs = {
            name: (table["sky_centroid"], np.asarray(table["activity"]))
            for name, table in (
                ("jaisp", model.catalog(rubin, euclid, region="euclid")),
                ("Euclid alone", model.catalog(None, euclid)),
            )
        } | {"SEP": (peer["sky_centroid"], np.asarray(peer["snr"]))}
        for name, (place, score) in catalogs.items():
            sure = score > (SEP_SNR if name == "SEP" else 0.5)
            match = match_field(place[sure], score[sure], truth)
            found[name].append(np.isfinite(match.found_at)[chosen])
            false[name] = false.get(name, 0) + int((match.outcome == 0).sum())
    shares = {name: np.concatenate(group) for name, group in found.items()}
    row = {"sky": kind.__name__.replace("_", " "), "n": len(shares["jaisp"])}
    row |= {name: float(values.mean()) for name, values in shares.items()}
    return row | {f"{name}, false": count / (args.fields * args.size**2) for name, count in false.items()}


def main(argv=None):
    args = field_parser(__doc__, fields=2, size=1.0, seed=20261127).parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    model = DETRJEPA.from_pretrained(args.weights)
    rows = []
    for kind in KINDS:
        rows.append(measured(kind, model, args))
        print(rows[-1], flush=True)
    table = QTable(rows=rows)
    table.write(args.output / "unusual.csv", overwrite=True)
    print(markdown_table(table))


if __name__ == "__main__":
    main()
