# Licensed under a 3-clause BSD style license - see LICENSE
"""Picture of the offset between the surveys."""

import numpy as np
from astropy import units as u

from jaisp.catalog import drawing
from jaisp.catalog.offsets import offset_field
from jaisp.catalog.plots import require_matplotlib
from jaisp.exceptions import ConfigError

__all__ = ["plot_offsets"]

_ARROWS = 15  # along each side


def plot_offsets(table):
    """
    Draw the measured offset between the surveys as arrows, and its uncertainty.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        A catalogue of both surveys.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Arrows from where Rubin's frame has an object to where Euclid's has it, and the 1 sigma of the offset
        (per axis) as their colour; dots are the objects whose own slots in both surveys matched.

    Raises
    ------
    ConfigError
        If the table's meta data hold no measured offset, or it has no rows.
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure_class = require_matplotlib()
    field, wcs = offset_field(table)
    if not len(table):
        raise ConfigError("the catalogue has no objects, so there is no sky on which to draw the offset")
    x, y = wcs.world_to_pixel(table["sky_centroid"])
    u_grid, v_grid = (np.linspace(values.min(), values.max(), _ARROWS) for values in (x, y))
    u_grid, v_grid = (axis.ravel() for axis in np.meshgrid(u_grid, v_grid))
    frame = table["sky_centroid"][0].skyoffset_frame()
    start = wcs.pixel_to_world(u_grid, v_grid).icrs
    end = wcs.pixel_to_world(*(np.array(field(u_grid, v_grid)) + [u_grid, v_grid])).icrs
    east, north = (offset.to_value(u.mas) for offset in start.spherical_offsets_to(end))
    error = 100 * np.max(field.uncertainty(u_grid, v_grid), axis=0)

    figure = figure_class(figsize=(7, 5.8), dpi=120, layout="constrained", facecolor="white")
    panel = figure.add_subplot()
    matched = drawing.matched(table)
    places = [start.transform_to(frame), table["sky_centroid"][matched].icrs.transform_to(frame)]
    (xs, ys), dots = ((place.lon.wrap_at("180d").arcsec, place.lat.arcsec) for place in places)
    panel.scatter(*dots, s=3, color="0.75", linewidths=0)
    typical = max(np.hypot(east, north).max(), 1e-3)
    spacing = max(np.ptp(xs), np.ptp(ys), 1e-3) / _ARROWS
    arrows = panel.quiver(
        xs, ys, east, north, error, angles="xy", scale_units="xy", scale=typical / spacing, cmap="viridis"
    )
    panel.quiverkey(arrows, 0.85, 1.03, typical, f"{typical:.0f} mas", labelpos="E")
    figure.colorbar(arrows, ax=panel, label="1 sigma of the offset per axis (mas)")
    panel.invert_xaxis()
    panel.set(aspect="equal", xlabel="east (arcsec)", ylabel="north (arcsec)")
    panel.set_title(f"Euclid minus Rubin, degree {field.degree}, {field.n_matches} objects", loc="left")
    return figure
