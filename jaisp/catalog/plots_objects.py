# Licensed under a 3-clause BSD style license - see LICENSE
"""Pictures of what was measured: the fluxes of one object, and the manifold of all."""

import astropy.units as u
import numpy as np

from jaisp.catalog.columns import values
from jaisp.catalog.drawing import BLUE, chosen_rows
from jaisp.catalog.manifold import embedding_map
from jaisp.catalog.plots import require_matplotlib
from jaisp.exceptions import ConfigError, suggest
from jaisp.surveys import EUCLID, RUBIN, column_prefix

__all__ = ["plot_embedding", "plot_sed"]

_STYLES = {"rubin": {"color": "#d97706", "marker": "o"}, "euclid": {"color": BLUE, "marker": "s"}}


def plot_sed(table, ids):
    """
    Draw the fluxes of objects against wavelength.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    ids : int or sequence of int
        Values of the column ``id``, one panel for each.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Flux density in nJy with its 1 sigma, Rubin as discs and Euclid as squares. Bands without a flux
        are left out.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        If an id is not in the table, or there is none.
    `~jaisp.exceptions.MissingDependencyError`
        If matplotlib is not installed.
    """
    figure_class = require_matplotlib()
    rows = chosen_rows(table, ids, len(table))
    if not rows:
        raise ConfigError("no object is asked for, so there are no fluxes to draw; give at least one id")
    columns = min(len(rows), 3)
    lines = -(-len(rows) // columns)
    figure = figure_class(figsize=(5 * columns, 3.6 * lines), layout="constrained", facecolor="white")
    for panel, row in zip(figure.subplots(lines, columns, squeeze=False).flat, rows, strict=False):
        _draw_sed(panel, row, f"object {row['id']}")
    for panel in figure.axes[len(rows) : lines * columns]:
        panel.remove()
    return figure


def _draw_sed(panel, row, title):
    for survey in (RUBIN, EUCLID):
        prefixes = [column_prefix(survey, band) for band in survey.band_names]
        flux, error = (
            np.array([float(values(row[f"{prefix}_{what}"], u.nJy)) for prefix in prefixes])
            for what in ("flux", "flux_err")
        )
        wavelength = np.array([band.wavelength for band in survey.bands])
        good = np.isfinite(flux)
        style = {"ls": "none", "capsize": 2, "label": survey.label} | _STYLES[survey.name]
        panel.errorbar(wavelength[good], flux[good], error[good], **style)
        for band, x, y in zip(survey.bands, wavelength, flux, strict=True):
            if np.isfinite(y):
                panel.annotate(band.name, (x, y), (4, 6), textcoords="offset points", fontsize=8)
    panel.axhline(0, color="0.7", lw=0.8, zorder=0)
    panel.set(
        xscale="log", xlim=(320, 2050), title=title, xlabel="wavelength (nm)", ylabel="flux density (nJy)"
    )
    panel.set_xticks([400, 600, 1000, 1500], ["400", "600", "1000", "1500"])
    panel.set_xticks([], minor=True)
    panel.legend(loc="upper left", fontsize=8, frameon=False)


def plot_embedding(table, color_by="activity", *, method="pca", label=()):
    """
    Draw the manifold of embeddings in two dimensions.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    color_by : str or array
        A column of numbers, by which the points are coloured, or the numbers themselves.
    method : {"pca", "umap"}
        See `embedding_map`.
    label : sequence of int
        Values of ``id`` to write beside their points.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Colours run from the 2nd to the 98th percentile; grey where there is no number.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        If there is no such column, it does not hold one number for each row, or an id to label is not there.
    `~jaisp.exceptions.MissingDependencyError`
        If matplotlib, or for UMAP umap-learn, is not installed.
    """
    figure_class = require_matplotlib()
    name = color_by if isinstance(color_by, str) else ""
    if name and name not in table.colnames:
        raise ConfigError(f"there is no column {name!r} to colour by{suggest(name, table.colnames)}")
    column = table[name] if name else color_by
    if np.shape(column) != (len(table),) or not (hasattr(column, "dtype") and column.dtype.kind in "biuf"):
        raise ConfigError(f"{name or 'color_by'} does not hold one number for each of {len(table)} objects")
    labelled = [row.index for row in chosen_rows(table, label, 0)]
    unit = getattr(column, "unit", None)
    numbers = values(column, unit)
    places = embedding_map(table, method=method)
    good = np.isfinite(numbers)
    figure = figure_class(figsize=(6.4, 5.2), layout="constrained", facecolor="white")
    panel = figure.subplots()
    panel.scatter(*places[~good].T, s=14, color="0.8", linewidths=0)
    low, high = np.percentile(numbers[good], [2, 98]) if good.any() else (0, 1)
    points = panel.scatter(
        *places[good].T, c=numbers[good], s=22, vmin=low, vmax=high, cmap="viridis", linewidths=0
    )
    figure.colorbar(points, ax=panel, label=f"{name} ({unit})" if unit else name)
    for number, row in zip(label, labelled, strict=True):
        panel.annotate(str(number), places[row], (4, 4), textcoords="offset points", fontsize=8)
    axis = "principal component" if method == "pca" else "UMAP axis"
    panel.set(xlabel=f"{axis} 1", ylabel=f"{axis} 2")
    return figure
