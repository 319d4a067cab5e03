# Licensed under a 3-clause BSD style license - see LICENSE
"""The strongest classical finder: a matched filter over all bands of both surveys with their PSFs."""

from typing import ClassVar

import numpy as np
from scipy.ndimage import map_coordinates, maximum_filter
from scipy.signal import oaconvolve
from scipy.spatial import cKDTree

from jaisp.evaluation._grids import (
    detection_grid,
    filled,
    local_background,
    pixel_map,
    resample,
    resample_valid,
)
from jaisp.evaluation._peer import Peer, detections, vis_flux
from jaisp.evaluation.peers import join_detections

__all__ = ["MatchedFilter"]

# Flux densities (f_nu, any scale) in u g r i z y VIS Y J H.
_TEMPLATES = {
    "flat": (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    "blue": (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 0.95, 1.25, 1.3, 1.35),
    "middle": (0.25, 0.35, 0.6, 0.85, 1.0, 1.1, 0.8, 1.3, 1.6, 1.9),
    "red": (0.03, 0.08, 0.25, 0.6, 0.9, 1.1, 0.55, 1.4, 1.9, 2.5),
}
_BANDS = ("u", "g", "r", "i", "z", "y", "VIS", "Y", "J", "H")
_LOWEST = 3.0  # signal-to-noise ratio below which no peak is kept
_DIP_REACH = 1.5  # arcsec within which a brighter peak may swallow a fainter one
_WING_REACH = 3.0  # arcsec within which a fainter peak may be part of a brighter one's wings


class MatchedFilter(Peer):
    """
    Peaks of the signal-to-noise map of a point source, all bands together.

    Each band is correlated with its PSF over its variance on its own grid; the maps are brought to the
    0.1 arcsec grid and combined.

    Notes
    -----
    The settings are

    - ``rule``: ``"flat"``, the optimal sum for a flat spectrum; ``"templates"``, the largest of the sums for
      four spectra; ``"chi"``, the root of the summed squares of the bands' positive S/N.
    - ``peaks``: of the ``"joint"`` map, or ``"joined"``: those of the Euclid map and those of the Rubin map
      that are farther than 0.4 arcsec from them.
    - ``window``: side in pixels of the square in which a peak must be the largest.
    - ``background``: side in arcsec of the boxes whose medians are subtracted from the map, without which
      every ripple in the halo of a bright star is a source.
    - ``dip``: how far, in sigma, the map must fall on the way from a peak to each brighter one nearby.
    - ``prominence``: the same, as a fraction of the peak.
    - ``contrast``: least ratio of a peak to the brighter ones within 3 arcsec.
    """

    name = "matched filter"
    grid: ClassVar[dict] = {
        "rule": ("flat", "templates", "chi"),
        "background": (3.2, 6.4),
        "peaks": ("joint", "joined"),
        "window": (3, 5, 7),
        "dip": (0.0, 2.0),
        "prominence": (0.0, 0.1, 0.3),
        "contrast": (0.0, 0.1),
    }
    radius = 0.4
    """Peaks of the two surveys closer than this, in arcsec, are one source."""

    def prepare(self, rubin, euclid):
        """Signal-to-noise maps of all bands on the 0.1 arcsec grid."""
        wcs, shape = detection_grid(rubin, euclid)
        surveys = {}
        for image in (rubin, euclid):
            if image is None:
                continue
            places = None if image.wcs is wcs else pixel_map(image.wcs, wcs, shape)
            surveys[image.survey.name] = {band: _band_map(image, band, places) for band in image.bands}
        scale = euclid.pixel_scale if euclid is not None else rubin.pixel_scale / 2
        return _Prepared(surveys, wcs, scale)

    def detect(self, prepared, **settings):
        """Find sources on what ``prepare`` returned; settings as in ``grid``."""
        settings = self.settings(**settings)
        groups = (
            [list(prepared.surveys)]
            if settings["peaks"] == "joint"
            else [[name] for name in prepared.surveys]
        )
        tables = [self._peaks(prepared, group, settings) for group in groups]
        if len(tables) == 1:
            return tables[0]
        rubin, euclid = tables
        return join_detections(prepared.wcs, euclid, rubin, self.radius / prepared.scale)

    def measured(self, prepared, **settings):
        """As ``detect``, with the flux in VIS that a point source at the place would have."""
        table = self.detect(prepared, **settings)
        if "VIS" not in prepared.surveys.get("euclid", {}):
            return table
        snr, root = prepared.surveys["euclid"]["VIS"]
        x, y = (
            np.rint(np.atleast_1d(v)).astype(int) for v in prepared.wcs.world_to_pixel(table["sky_centroid"])
        )
        snr, root = (plane[y.clip(0, snr.shape[0] - 1), x.clip(0, snr.shape[1] - 1)] for plane in (snr, root))
        with np.errstate(divide="ignore", invalid="ignore"):
            columns = vis_flux(snr / root, np.where(root > 0, 1 / root, np.nan))
        for name, values in columns.items():
            table[name] = values
        return table

    def _peaks(self, prepared, surveys, settings):
        x, y, snr, dip, ratio = prepared.peaks(
            tuple(surveys), *(settings[name] for name in ("rule", "background", "window"))
        )
        least = np.maximum(settings["dip"], settings["prominence"] * snr)
        keep = (dip >= least) & (ratio >= settings["contrast"])
        return detections(prepared.wcs, x[keep], y[keep], snr[keep])


class _Prepared:
    """Signal-to-noise maps of all bands, and what was made of them so far."""

    def __init__(self, surveys, wcs, scale):
        self.surveys, self.wcs, self.scale = surveys, wcs, scale
        self._found, self._map = {}, {}

    def peaks(self, surveys, rule, background, window):
        """Position, S/N, dip and contrast of all peaks of the combined map of some surveys."""
        key = (surveys, rule, background, window)
        if key not in self._found:
            image = self.combined(*key[:-1])
            x, y, snr = find_peaks(image, window)
            self._found[key] = (x, y, snr, *_neighbours(image, x, y, snr, self.scale))
        return self._found[key]

    def combined(self, surveys, rule, background):
        """Combined map of some surveys, less its background."""
        key = (surveys, rule, background)
        if key not in self._map:
            bands = {band: value for name in surveys for band, value in self.surveys[name].items()}
            image = combine(bands, rule)
            image = image - local_background(image, round(background / self.scale))
            self._map[key] = image.astype(np.float32)
        return self._map[key]


def _band_map(image, band, places):
    """
    Signal-to-noise ratio of a point source at each pixel, and the root of its information (1 / error).

    The first is (psf * d/v) / sqrt(psf^2 * 1/v), the second the denominator.
    """
    data, weight = filled(image, band)
    psf = image.psf[band][::-1, ::-1]  # correlation, not convolution
    signal = oaconvolve(data * weight, psf, mode="same")
    information = np.maximum(oaconvolve(weight, psf**2, mode="same"), 0)
    # Where bad pixels take most of the PSF, what is left is the edge of something else.
    valid = (weight > 0) & (information > 0.25 * np.median(information[weight > 0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(valid, signal / np.sqrt(information), 0).astype(np.float32)
    root = np.where(valid, np.sqrt(information), 0).astype(np.float32)
    if places is None:
        return snr, root
    valid = resample_valid(valid, places)
    return resample(snr, places) * valid, resample(root, places, order=1) * valid


def combine(bands, rule):
    """
    Combine the (S/N, root of information) maps of several bands into one S/N map.

    For a spectrum s the optimal sum is sum(s q n) / sqrt(sum(s^2 q^2)), with n the S/N and q the root.
    """
    if rule == "chi":
        return np.sqrt(sum(np.maximum(snr, 0) ** 2 for snr, _ in bands.values()))
    best = None
    for name in ("flat",) if rule == "flat" else _TEMPLATES:
        flux = dict(zip(_BANDS, _TEMPLATES[name], strict=True))
        total = sum(flux[band] * root * snr for band, (snr, root) in bands.items())
        norm = np.sqrt(sum((flux[band] * root) ** 2 for band, (_, root) in bands.items()))
        snr = np.divide(total, norm, out=np.zeros_like(total), where=norm > 0)
        best = snr if best is None else np.maximum(best, snr)
    return best


def find_peaks(image, window, *, lowest=_LOWEST):
    """
    Local maxima with sub-pixel positions.

    Parameters
    ----------
    image : `~numpy.ndarray` (ny, nx)
        Map of signal-to-noise ratios.
    window : int
        Side in pixels of the square in which a peak must be the largest.
    lowest : float
        Least value of a peak.

    Returns
    -------
    x, y, value : `~numpy.ndarray` (n,)
        Vertices of the parabolas through the neighbouring pixels, and their height.
    """
    y, x = np.nonzero(
        (image >= lowest) & (image == maximum_filter(image, window, mode="constant", cval=np.inf))
    )
    value = image[y, x]
    shifts, height = [], value.copy()
    for dy, dx in ((0, 1), (1, 0)):
        before, after = image[y - dy, x - dx], image[y + dy, x + dx]
        curvature = np.minimum(before + after - 2 * value, -1e-6 * value)
        shift = np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)
        height += 0.25 * (after - before) * shift
        shifts.append(shift)
    return x + shifts[0], y + shifts[1], height


def _neighbours(image, x, y, snr, scale):
    """How far the map falls between each peak and any brighter one, and its least ratio to a brighter one."""
    dip, ratio = np.full(len(x), np.inf), np.full(len(x), np.inf)
    if len(x) < 2:
        return dip, ratio
    places = np.column_stack([x, y])
    pairs = cKDTree(places).query_pairs(_WING_REACH / scale, output_type="ndarray")
    faint = np.where(snr[pairs[:, 0]] <= snr[pairs[:, 1]], pairs[:, 0], pairs[:, 1])
    bright = pairs.sum(axis=1) - faint
    np.minimum.at(ratio, faint, snr[faint] / snr[bright])
    near = np.hypot(*(places[faint] - places[bright]).T) < _DIP_REACH / scale
    faint, bright = faint[near], bright[near]
    steps = np.linspace(0, 1, 13)
    line = places[faint, :, None] + (places[bright] - places[faint])[:, :, None] * steps
    along = map_coordinates(image, [line[:, 1], line[:, 0]], order=1, mode="nearest")
    np.minimum.at(dip, faint, snr[faint] - along.min(axis=1))
    return dip, ratio
