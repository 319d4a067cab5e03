# Licensed under a 3-clause BSD style license - see LICENSE
"""How well matched sources are measured: position residuals and flux pulls."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u

from jaisp.evaluation.matching import TRUE

__all__ = ["Residuals", "flux_residuals", "position_residuals"]


@dataclass(frozen=True)
class Residuals:
    """
    Measured minus true values of matched sources.

    Parameters
    ----------
    difference : `~astropy.units.Quantity` (n,)
        Measured minus true.
    error : `~astropy.units.Quantity` (n,) or None
        Claimed 1-sigma errors.
    snr : `~numpy.ndarray` (n,)
        Signal-to-noise ratio of the sources.
    relative : `~numpy.ndarray` (n,) or None
        Difference over the true value.
    """

    difference: u.Quantity
    error: u.Quantity | None
    snr: np.ndarray
    relative: np.ndarray | None = None

    @property
    def pulls(self):
        """Differences in units of their claimed errors (n,), or None without errors."""
        return None if self.error is None else (self.difference / self.error).to_value(u.one)

    def select(self, chosen):
        """Residuals of the chosen sources (bool array or indices)."""
        pick = [
            None if v is None else v[chosen] for v in (self.difference, self.error, self.snr, self.relative)
        ]
        return Residuals(*pick)

    def summary(self):
        """Dict of the count, median (bias), robust scatter, and median and scatter of the pulls."""
        figures = {
            "n": len(self.difference),
            "median": _median(self.difference),
            "scatter": _scatter(self.difference),
        }
        if self.error is not None:
            figures |= {"pull_median": _median(self.pulls), "pull_scatter": _scatter(self.pulls)}
        if self.relative is not None:
            figures |= {
                "relative_median": _median(self.relative),
                "relative_scatter": _scatter(self.relative),
            }
        return figures


def position_residuals(catalog, match, *, column="sky_centroid"):
    """
    Differences of positions along right ascension (times cos dec) and declination.

    Parameters
    ----------
    catalog : `~astropy.table.QTable`
        The catalogue that was matched, in the same order.
    match : `~jaisp.evaluation.FieldMatch`
        Its match; only detections of sources that were to be found enter.
    column : str
        Position column. Errors are taken from ``ra_err`` and ``dec_err`` if it is ``sky_centroid``.

    Returns
    -------
    ra, dec : `Residuals`
        In mas.
    """
    rows, sources = _matched(match)
    truth = match.truth["sky_centroid"][sources].icrs
    offsets = truth.spherical_offsets_to(catalog[column][rows].icrs)
    snr = _values(match.truth["snr"])[sources]
    residuals = []
    for offset, name in zip(offsets, ("ra_err", "dec_err"), strict=True):
        error = (
            u.Quantity(catalog[name][rows]) if column == "sky_centroid" and name in catalog.colnames else None
        )
        residuals.append(Residuals(u.Quantity(offset).to(u.mas), error, snr))
    return tuple(residuals)


def flux_residuals(catalog, match, prefix):
    """
    Differences of fluxes in one band; detections without a finite flux are left out.

    Parameters
    ----------
    catalog : `~astropy.table.QTable`
        The catalogue that was matched, in the same order, with ``<prefix>_flux`` and ``<prefix>_flux_err``.
    match : `~jaisp.evaluation.FieldMatch`
        Its match; only detections of sources that were to be found enter.
    prefix : str
        E.g. ``euclid_vis``; `jaisp.surveys.column_prefix` makes it.

    Returns
    -------
    `Residuals`
        In nJy. ``snr`` is that of the band where the truth has ``<prefix>_snr``, else of all bands.
    """
    rows, sources = _matched(match)
    flux = _values(catalog[f"{prefix}_flux"], u.nJy)[rows]
    error = _values(catalog[f"{prefix}_flux_err"], u.nJy)[rows]
    true = _values(match.truth[f"{prefix}_flux"], u.nJy)[sources]
    snr_column = f"{prefix}_snr" if f"{prefix}_snr" in match.truth.colnames else "snr"
    snr = _values(match.truth[snr_column])[sources]
    good = np.isfinite(flux) & np.isfinite(error) & (error > 0) & (true != 0)
    difference = flux[good] - true[good]
    return Residuals(difference * u.nJy, error[good] * u.nJy, snr[good], difference / true[good])


def _matched(match):
    rows = np.flatnonzero(match.outcome == TRUE)
    return rows, match.truth_index[rows]


def _values(column, unit=u.one):
    """Plain float array of a column that may be masked, have a unit, or both; NaN where masked."""
    if hasattr(column, "mask"):
        column = column.filled(np.nan)
    return np.asarray(u.Quantity(column, unit).value, dtype=float)


def _median(values):
    return np.median(values) if len(values) else np.nan


def _scatter(values):
    """Standard deviation from the 16th and 84th percentiles."""
    if not len(values):
        return np.nan
    low, high = np.percentile(values, [15.865, 84.135])
    return (high - low) / 2
