# Licensed under a 3-clause BSD style license - see LICENSE
"""Fields of populations other than the sky's: their sources, and the options of benchmarks that draw them."""

import argparse
from pathlib import Path

import numpy as np

from jaisp.simulation import draw_sources

__all__ = ["field_parser", "field_sources", "vis_magnitude"]

FAINTEST_UNSATURATED = 18.5  # VIS magnitude


def vis_magnitude(sources):
    """VIS magnitudes of `Sources`."""
    return 31.4 - 2.5 * np.log10(sources.flux[:, 6])


def field_sources(rng, size, **options):
    """
    Draw sources about a field without bright stars.

    Parameters
    ----------
    rng : `numpy.random.Generator`
    size : float
        Side of the Euclid image in arcmin; the sources cover the turned Rubin image too.
    **options
        Of `jaisp.simulation.draw_sources`.

    Returns
    -------
    `~jaisp.simulation.Sources`
        For `jaisp.simulation.simulate_field`.
    """
    margin = 0.3 * size
    sources = draw_sources(rng, (size + 2 * margin) ** 2, **options)
    sources = sources.select(~(sources.is_star & (vis_magnitude(sources) < FAINTEST_UNSATURATED)))
    sources.x, sources.y = sources.x - 60 * margin, sources.y - 60 * margin
    return sources


def field_parser(doc, *, fields, size, seed):
    """Parser with the options that all such scripts have, and their defaults."""
    parser = argparse.ArgumentParser(description=doc.strip().splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the tables")
    parser.add_argument("--fields", type=int, default=fields, help="simulated fields (%(default)s)")
    parser.add_argument("--size", type=float, default=size, help="side of a field in arcmin (%(default)s)")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--weights", help="folder of a trained model (the bundled one)")
    return parser
