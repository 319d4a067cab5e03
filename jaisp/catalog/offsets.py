# Licensed under a 3-clause BSD style license - see LICENSE
"""The astrometric offset between the surveys: Euclid minus Rubin, as a smooth field over the grid."""

from dataclasses import dataclass, field

import numpy as np

from jaisp.catalog.columns import stored_wcs
from jaisp.exceptions import ConfigError

__all__ = ["OffsetField", "correct_offset", "fit_offsets", "offset_field"]

# Matches that are needed before a term of the next degree is tried.
_MATCHES_FOR_DEGREE = {0: 3, 1: 30, 2: 80, 3: 160}
_GRID_SCALE = 0.1
# Pixels: by how much a field may change beyond its matches, in half their extent (or 30 arcsec), and in all.
_BEYOND, _UNKNOWN, _LEAST_SCALE = 0.3, 0.6, 300.0


def _terms(x, y, degree):
    """Polynomial terms of total degree up to ``degree``, shape (n, terms)."""
    return np.stack([x**i * y**j for total in range(degree + 1) for i, j in _powers(total)], axis=-1)


def _powers(total):
    return [(total - j, j) for j in range(total + 1)]


@dataclass(frozen=True, eq=False)
class OffsetField:
    """
    Position in the Euclid frame minus position in the Rubin frame, of the same object.

    Parameters
    ----------
    degree : int
        Degree of the polynomial; 0 is one vector for the whole field.
    coefficients : `~numpy.ndarray`, shape (terms, 2)
        Along x and y, in pixels of the 0.1 arcsec grid, of the terms 1, u, v, u**2, u v, v**2, ... where
        ``(u, v) = ((x, y) - centre) / scale``.
    covariance : `~numpy.ndarray`, shape (2, terms, terms)
        Covariance of the coefficients along x and along y.
    centre : tuple of float
        Pixels of the grid.
    scale : float
        Pixels.
    n_matches : int
        Matched objects that were used.
    scatter : float
        Scatter between objects beyond their errors, pixels.
    """

    degree: int = 0
    coefficients: np.ndarray = field(default_factory=lambda: np.zeros((1, 2)))
    covariance: np.ndarray = field(default_factory=lambda: np.zeros((2, 1, 1)))
    centre: tuple = (0.0, 0.0)
    scale: float = 1.0
    n_matches: int = 0
    scatter: float = 0.0

    def _design(self, x, y):
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        return _terms((x - self.centre[0]) / self.scale, (y - self.centre[1]) / self.scale, self.degree)

    def __call__(self, x, y):
        """
        Offset at positions on the grid.

        Parameters
        ----------
        x, y : float or array
            Pixels of the 0.1 arcsec grid.

        Returns
        -------
        dx, dy : array
            Euclid minus Rubin, pixels of the grid.
        """
        value = self._design(x, y) @ self.coefficients
        return value[..., 0], value[..., 1]

    def uncertainty(self, x, y):
        """
        1 sigma of the offset along x and y, in pixels of the grid, at positions on the grid.

        Beyond the matches it grows by 30 mas for each half of their extent, or 30 arcsec, up to 60 mas: a
        polynomial says nothing there.
        """
        design = self._design(x, y)
        variance = [np.einsum("...i,ij,...j->...", design, one, design) for one in self.covariance]
        if self.n_matches:
            away = [np.abs(np.asarray(at, float) - c) for at, c in zip((x, y), self.centre, strict=True)]
            beyond = np.maximum(np.maximum(*away) - self.scale, 0) / max(self.scale, _LEAST_SCALE)
            variance = [one + np.minimum(_BEYOND * beyond, _UNKNOWN) ** 2 for one in variance]
        return np.sqrt(variance[0]), np.sqrt(variance[1])

    def to_dict(self, wcs=None):
        """
        Everything, for ``table.meta``: plain numbers, strings and lists.

        Parameters
        ----------
        wcs : `~astropy.wcs.WCS`, optional
            WCS of the grid; with it the offset at the centre is also given along RA and Dec.

        Returns
        -------
        dict
        """
        mas = 1000 * _GRID_SCALE
        dx, dy = (float(value) for value in self(*self.centre))
        dx_err, dy_err = (float(value) for value in self.uncertainty(*self.centre))
        result = {
            "meaning": "Euclid minus Rubin position of the same object",
            "degree": self.degree,
            "coefficients_px": self.coefficients.tolist(),
            "covariance_px2": self.covariance.tolist(),
            "centre_px": [float(value) for value in self.centre],
            "scale_px": float(self.scale),
            "n_matches": int(self.n_matches),
            "scatter_mas": float(self.scatter * mas),
            "dx_mas": dx * mas,
            "dy_mas": dy * mas,
            "dx_err_mas": dx_err * mas,
            "dy_err_mas": dy_err * mas,
        }
        if wcs is not None:
            here = wcs.pixel_to_world(*self.centre).icrs
            there = wcs.pixel_to_world(self.centre[0] + dx, self.centre[1] + dy).icrs
            ra, dec = here.spherical_offsets_to(there)
            result["dra_cosdec_mas"], result["ddec_mas"] = (
                float(ra.to_value("mas")),
                float(dec.to_value("mas")),
            )
        return result

    @classmethod
    def from_dict(cls, values):
        """Return the field that `to_dict` described."""
        return cls(
            degree=int(values["degree"]),
            coefficients=np.array(values["coefficients_px"], float),
            covariance=np.array(values["covariance_px2"], float),
            centre=tuple(values["centre_px"]),
            scale=float(values["scale_px"]),
            n_matches=int(values["n_matches"]),
            scatter=float(values["scatter_mas"]) / (1000 * _GRID_SCALE),
        )


def fit_offsets(x, y, dx, dy, dx_err, dy_err, *, max_degree=3):
    """
    Fit a smooth offset field to matched objects, some of which may be wrong.

    Parameters
    ----------
    x, y : array, shape (n,)
        Positions in pixels of the 0.1 arcsec grid.
    dx, dy : array, shape (n,)
        Euclid minus Rubin position of each object, pixels. Objects that are not finite are left out.
    dx_err, dy_err : array, shape (n,)
        1 sigma of these.
    max_degree : int, optional
        Highest degree of the polynomial: 0 to 3. A degree is only reached with enough matches (3, 30, 80,
        160) and if the Bayesian information criterion prefers it.

    Returns
    -------
    field : `OffsetField`
        Zero, with ``n_matches`` 0, if fewer than three objects match.

    Examples
    --------
    >>> import numpy as np
    >>> from jaisp.catalog.offsets import fit_offsets
    >>> x, y = np.meshgrid(np.arange(0, 400, 80.0), np.arange(0, 400, 80.0))
    >>> one = np.ones(x.size)
    >>> field = fit_offsets(x.ravel(), y.ravel(), 0.3 * one, -0.2 * one, 0.1 * one, 0.1 * one)
    >>> field.degree, field.n_matches
    (0, 25)
    >>> [round(float(value), 3) for value in field(10, 20)]
    [0.3, -0.2]
    """
    if max_degree not in _MATCHES_FOR_DEGREE:
        raise ConfigError(f"max_degree={max_degree!r}; allowed: {', '.join(map(str, _MATCHES_FOR_DEGREE))}")
    x, y, dx, dy, dx_err, dy_err = (np.asarray(value, float) for value in (x, y, dx, dy, dx_err, dy_err))
    good = np.all(np.isfinite([x, y, dx, dy, dx_err, dy_err]), axis=0) & (dx_err > 0) & (dy_err > 0)
    x, y = x[good], y[good]
    offset = np.stack([dx[good], dy[good]], axis=-1)
    error = np.stack([dx_err[good], dy_err[good]], axis=-1)
    if len(x) < _MATCHES_FOR_DEGREE[0]:
        return OffsetField()
    centre = (float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2)
    scale = max(float(np.ptp(x)), float(np.ptp(y)), 1.0) / 2
    u, v = (x - centre[0]) / scale, (y - centre[1]) / scale
    best = None
    for degree in range(max_degree + 1):
        if len(x) < _MATCHES_FOR_DEGREE[degree]:
            break
        design = _terms(u, v, degree)
        coefficients, covariance, scatter, misfit = _robust_fit(design, offset, error)
        criterion = misfit + 2 * design.shape[1] * np.log(len(x))
        if best is None or criterion < best[0]:
            best = (criterion, degree, coefficients, covariance, scatter)
    _, degree, coefficients, covariance, scatter = best
    return OffsetField(degree, coefficients, covariance, centre, scale, len(x), scatter)


def offset_field(table):
    """
    Return the offset between the surveys that was measured with a catalogue, and its grid.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        A catalogue of both surveys, as made or as read from a file.

    Returns
    -------
    field : `OffsetField`
        Euclid minus Rubin.
    wcs : `~astropy.wcs.WCS`
        Of the grid whose pixels ``field`` is a function of.
    """
    try:
        values, wcs = table.meta["astrometric_offset"]["field"], stored_wcs(table)
    except (KeyError, TypeError):
        wcs = None
    if wcs is None:
        raise ConfigError(
            "this table's meta data hold no offset field; give a catalogue that jaisp made from both surveys"
        )
    field = OffsetField.from_dict(values)
    if not field.n_matches:
        raise ConfigError("no offset between the surveys was measured: too few objects were matched")
    return field, wcs


def correct_offset(sky, table):
    """
    Move positions from Rubin's frame into Euclid's, by the offset measured with a catalogue.

    Parameters
    ----------
    sky : `~astropy.coordinates.SkyCoord`
        Positions on Rubin's images, e.g. ``table["rubin_sky_centroid"]`` or another catalogue of Rubin's.
    table : `~astropy.table.QTable`
        A catalogue of both surveys; see `offset_field`.

    Returns
    -------
    `~astropy.coordinates.SkyCoord`
        ICRS. Far outside the catalogue's images the polynomial means nothing.
    """
    field, wcs = offset_field(table)
    x, y = wcs.world_to_pixel(sky)
    dx, dy = field(x, y)
    return wcs.pixel_to_world(x + dx, y + dy).icrs


def _robust_fit(design, offset, error):
    """
    Weighted least squares with Student-t weights and a common scatter beyond the errors.

    Returns coefficients (terms, 2), covariance (2, terms, terms), scatter and -2 log likelihood.
    """
    freedom = 3.0
    coefficients = np.zeros((design.shape[1], 2))
    coefficients[0] = np.median(offset, axis=0)
    scatter = 0.0
    for _ in range(30):
        residual = offset - design @ coefficients
        # Median absolute residual of matches, less what the errors explain.
        spread = 1.4826 * np.median(np.abs(residual))
        scatter = float(np.sqrt(max(spread**2 - np.median(error) ** 2, 0.0)))
        variance = error**2 + scatter**2
        weight = (freedom + 1) / (freedom + residual**2 / variance)
        new = np.empty_like(coefficients)
        covariance = []
        for axis in range(2):
            scaled = design * (weight[:, axis] / variance[:, axis])[:, None]
            normal = scaled.T @ design
            new[:, axis] = np.linalg.lstsq(normal, scaled.T @ offset[:, axis], rcond=None)[0]
            # The loss of efficiency of the t weights, (freedom + 3) / (freedom + 1), is in the covariance.
            bread = design / variance[:, axis, None]
            information = design.T @ bread * (freedom + 1) / (freedom + 3)
            covariance.append(np.linalg.pinv(information))
        done = np.allclose(new, coefficients, atol=1e-7, rtol=0)
        coefficients = new
        if done:
            break
    residual = offset - design @ coefficients
    misfit = np.sum((freedom + 1) * np.log1p(residual**2 / (freedom * variance)) + np.log(variance))
    return coefficients, np.array(covariance), scatter, float(misfit)
