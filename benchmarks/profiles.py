# Licensed under a 3-clause BSD style license - see LICENSE
"""
What the fit makes of galaxies that are one Sersic profile, which no simulated sky holds.

Each is drawn with GalSim in VIS with known noise, alone and with a star of a twentieth of its flux 2 arcsec
away, and fitted from a start that is wrong by some ten per cent. Writes ``measurement_profiles.csv``::

    python benchmarks/profiles.py -o results
"""

import argparse
from itertools import product
from pathlib import Path

import galsim
import numpy as np
from astropy.table import QTable
from astropy.wcs import WCS

from jaisp.catalog.measurement import Sources, measure
from jaisp.evaluation import markdown_table
from jaisp.image import SurveyImage
from jaisp.io import align
from jaisp.surveys import EUCLID

INDICES, RADII, SNR = (0.5, 1.0, 1.5, 2.5, 4.0, 6.0), (0.3, 0.8, 1.4, 3.0), (40, 200)
SIDE, NOISE = 360, 2.0  # pixels, nJy
STAR, APART = 0.05, 2.0  # of the galaxy's flux; arcsec
PSF = galsim.Moffat(beta=3.5, fwhm=0.18)


def euclid_image(scene, rng):
    """The scene in the middle of an image with white noise."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = (
        ("RA---TAN", "DEC--TAN"),
        (53.0, -28.0),
        (SIDE / 2, SIDE / 2),
    )
    wcs.wcs.cdelt = -EUCLID.pixel_scale / 3600, EUCLID.pixel_scale / 3600
    data = scene.drawImage(nx=SIDE, ny=SIDE, scale=EUCLID.pixel_scale).array + rng.normal(
        0, NOISE, (SIDE, SIDE)
    )
    psf = PSF.drawImage(nx=81, ny=81, scale=EUCLID.pixel_scale).array
    return SurveyImage(
        {"VIS": data},
        wcs,
        survey=EUCLID,
        variance={"VIS": np.full(data.shape, NOISE**2)},
        psf={"VIS": psf / psf.sum()},
    )


def fitted(index, radius, snr, rng):
    """Relative errors of the flux of a galaxy alone and of a star beside it, each with the one stated."""
    shape = {"q": rng.uniform(0.4, 1.0), "beta": rng.uniform(0, np.pi) * galsim.radians}
    place = rng.uniform(-0.05, 0.05, 2)
    galaxy = galsim.Convolve(galsim.Sersic(index, half_light_radius=radius).shear(**shape).shift(*place), PSF)
    light = galaxy.drawImage(nx=SIDE, ny=SIDE, scale=EUCLID.pixel_scale).array
    flux = snr * NOISE / np.sqrt(np.square(light, dtype=float).sum())
    turn = rng.uniform(0, 2 * np.pi)
    apart = APART * np.cos(turn), APART * np.sin(turn)
    found = []
    for n, scene in ((1, galaxy * flux), (2, galaxy * flux + PSF.shift(*apart) * (STAR * flux))):
        offsets = np.array([place, apart])[:n] / EUCLID.pixel_scale
        start = Sources(
            *((SIDE - 1) / 2 + offsets + rng.normal(0, 0.2, (n, 2))).T,
            position_err=np.full(n, 0.3),
            half_light_radius=np.array([radius * rng.uniform(0.85, 1.15), 0.0])[:n],
            e1=np.zeros(n),
            e2=np.zeros(n),
            is_point=np.array([False, True])[:n],
        )
        result = measure(align(euclid=euclid_image(scene, rng)), start).with_model_errors(start.is_point)
        true = (flux, STAR * flux)[n - 1]
        found += [result.flux[-1, 6] / true - 1, result.flux_err[-1, 6] / true]
    return found


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the table")
    parser.add_argument("--number", type=int, default=9, help="galaxies of each kind (%(default)s)")
    args = parser.parse_args(argv)
    args.output.mkdir(parents=True, exist_ok=True)
    rows, rng = [], np.random.default_rng(20261126)
    for snr, radius, index in product(SNR, RADII, INDICES):
        galaxy, stated, star, star_stated = np.median(
            [fitted(index, radius, snr, rng) for _ in range(args.number)], axis=0
        )
        rows.append(
            {"S/N": snr, "half-light radius": radius, "Sersic index": index}
            | {"flux, median error": galaxy, "stated": stated}
            | {"star, median error": star, "star, stated": star_stated}
        )
        print(rows[-1], flush=True)
    table = QTable(rows=rows)
    formats = dict.fromkeys(table.colnames[3:], "%.3f")
    table.write(args.output / "measurement_profiles.csv", format="ascii.csv", formats=formats, overwrite=True)
    print(markdown_table(table))


if __name__ == "__main__":
    main()
