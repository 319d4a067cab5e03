# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable


def sky(x, y=None):
    """Positions in arcsec east and north of a point at declination -30."""
    x = np.asarray(x, float)
    y = np.zeros_like(x) if y is None else np.asarray(y, float)
    return SkyCoord(50 + x / 3600 / np.cos(np.radians(-30)), -30 + y / 3600, unit="deg")


def truth_table(x, snr, **columns):
    return QTable({"sky_centroid": sky(x), "snr": np.asarray(snr, float), **columns})
