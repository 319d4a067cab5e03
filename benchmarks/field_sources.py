# Licensed under a 3-clause BSD style license - see LICENSE
"""Sources of populations other than the sky's, for the fields of benchmarks."""

import numpy as np

from jaisp.simulation import draw_sources

__all__ = ["field_sources", "vis_magnitude"]

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
