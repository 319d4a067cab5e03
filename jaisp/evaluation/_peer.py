# Licensed under a 3-clause BSD style license - see LICENSE
"""What all peers have in common."""

from itertools import product
from typing import ClassVar

import numpy as np
from astropy import units as u
from astropy.table import QTable

from jaisp.exceptions import ConfigError, suggest


class Peer:
    """
    A classical finder with settings to sweep.

    Subclasses set ``name``, ``grid`` (setting to its values, the first being the default) and define
    ``prepare`` (what does not depend on the settings) and ``detect``.
    """

    name = ""
    grid: ClassVar[dict] = {}

    def __call__(self, rubin=None, euclid=None, **settings):
        """
        Find sources.

        Parameters
        ----------
        rubin, euclid : `~jaisp.image.SurveyImage`, optional
            Images of one or both surveys.
        **settings
            Any of ``grid``; its first value by default.

        Returns
        -------
        `~astropy.table.QTable`
            ``sky_centroid`` and ``snr``, in descending order of ``snr``.
        """
        return self.detect(self.prepare(rubin, euclid), **settings)

    def settings(self, **given):
        """All settings, defaults filled in; unknown ones are an error."""
        for key in given:
            if key not in self.grid:
                raise ConfigError(
                    f"unknown setting {key!r} of {self.name}{suggest(key, self.grid)}; "
                    f"allowed: {', '.join(self.grid)}"
                )
        return {key: given.get(key, values[0]) for key, values in self.grid.items()}

    def sweep(self):
        """All combinations of the settings in ``grid``, as dicts."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]

    def prepare(self, rubin, euclid):
        raise NotImplementedError

    def detect(self, prepared, **settings):
        raise NotImplementedError

    def measured(self, prepared, **settings):
        """As ``detect``, with ``euclid_vis_flux`` and its error where the peer can measure them."""
        return self.detect(prepared, **settings)

    def __repr__(self):
        return f"<{type(self).__name__} {self.name!r}, {len(self.sweep())} settings>"


def detections(wcs, x, y, snr, **columns):
    """Table of detections in descending order of signal-to-noise ratio; ``columns`` are sorted along."""
    order = np.argsort(-np.asarray(snr), kind="stable")
    return QTable(
        {
            "sky_centroid": wcs.pixel_to_world(*(np.asarray(place, float)[order] for place in (x, y))).icrs,
            "snr": np.asarray(snr, float)[order],
            **{name: values[order] for name, values in columns.items()},
        }
    )


def vis_flux(flux, error):
    """Columns of a measured VIS flux and its error in nJy, NaN where it failed."""
    flux, error = np.asarray(flux, float), np.asarray(error, float)
    good = np.isfinite(flux) & (error > 0)
    return {
        "euclid_vis_flux": np.where(good, flux, np.nan) * u.nJy,
        "euclid_vis_flux_err": np.where(good, error, np.nan) * u.nJy,
    }
