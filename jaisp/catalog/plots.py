# Licensed under a 3-clause BSD style license - see LICENSE
"""Pictures of images and catalogues: colour composites, cut-outs, and the cross-match of the surveys."""

import numpy as np
from astropy import units as u

from jaisp.catalog import drawing
from jaisp.catalog.columns import arcsec
from jaisp.exceptions import ConfigError, ImageError, MissingDependencyError

__all__ = ["plot_catalog", "plot_crossmatch", "plot_cutouts", "require_matplotlib", "rgb"]

_MAX_LABELS = 60  # objects that are numbered on a picture
_MAX_ROWS = 8  # objects whose cut-outs are drawn unless they are named


def require_matplotlib():
    """
    Return the class `matplotlib.figure.Figure`, or say how to install it.

    Returns
    -------
    figure_class : type
        The pictures are made without ``pyplot``, so that they leave no global state behind.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "pictures need matplotlib, which is not installed; run: pip install 'jaisp[plot]'"
        ) from None
    return Figure


def rgb(image, bands=None, *, stretch=3.0, saturation=1.0):
    """
    Make a colour composite of one survey's image.

    Brightness is the noise-weighted mean of the bands, so that the sharpest and deepest band shows. Colour
    is that of the smoothed channels, and fades to grey where noise would make it up. A mean galaxy (flux
    density rising with wavelength) looks white in whatever bands, so that colours can be compared between
    images.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`
        The image. Masked pixels are filled from those around them; larger holes are dark.
    bands : sequence of three (str or sequence of str), optional
        Bands of the blue, green and red channel; a channel is the noise-weighted mean of its bands. By
        default all bands, in order of wavelength.
    stretch : float, optional
        Brightness, in units of the noise per pixel, above which the picture turns from linear to
        logarithmic.
    saturation : float, optional
        Strength of the colours; 0 is grey.

    Returns
    -------
    picture : `~numpy.ndarray` (ny, nx, 3), float32
        Red, green and blue from 0 to 1. Row 0 is the first row of the image, so draw it with
        ``origin="lower"``. An image with a side longer than 1600 pixels is averaged down by a whole number.

    Raises
    ------
    BandError
        If a band is not in the image.
    ConfigError
        If ``bands`` is not three channels.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.wcs import WCS
    >>> from jaisp.catalog.plots import rgb
    >>> from jaisp.image import SurveyImage
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    >>> wcs.wcs.cdelt = -0.1 / 3600, 0.1 / 3600
    >>> pixels = np.random.default_rng(1).normal(size=(64, 64))
    >>> rgb(SurveyImage({"VIS": pixels}, wcs, survey="euclid")).shape
    (64, 64, 3)
    """
    parts = [drawing.channel(image, names) for names in drawing.channels(image, bands)]
    planes, noises = zip(*parts, strict=True)
    return drawing.composite(np.array(planes), np.array(noises), stretch=stretch, saturation=saturation)


def plot_catalog(table, images, *, label=None, title=None):
    """
    Draw the objects of a catalogue on colour composites of both surveys, side by side.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    images : `~jaisp.io.AlignedPair` or tuple
        The images it was made from. A tuple ``(rubin, euclid)`` of `~jaisp.image.SurveyImage`, either of
        which may be None, is aligned first.
    label : bool, optional
        Whether to number the objects. By default only if there are at most 60.
    title : str, optional
        Title of the figure.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        An ellipse for each object, coloured by its activity; dotted where this survey's own slots do not
        hold the object, so that only the other survey shows it.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure_class = require_matplotlib()
    surveys = drawing.survey_images(images, table)
    figure = figure_class(
        figsize=(6.4 * len(surveys) + 0.9, 6.9), dpi=150, layout="constrained", facecolor=drawing.PAPER
    )
    panels = figure.subplots(1, len(surveys), squeeze=False)[0]
    colours = drawing.activity_colours()
    label = len(table) <= _MAX_LABELS if label is None else label
    for panel, image in zip(panels, surveys, strict=True):
        shrink = drawing.draw_composite(panel, rgb(image), image)
        drawing.draw_objects(panel, table, image, shrink, colours, label=label)
    bar = figure.colorbar(colours, ax=panels, fraction=0.025, pad=0.01, aspect=40)
    bar.set_label("activity", color=drawing.INK)
    bar.ax.tick_params(colors=drawing.INK)
    bar.outline.set_visible(False)
    if title:
        figure.suptitle(title, color=drawing.INK)
    return figure


def plot_cutouts(table, images, ids=None, *, size=4 * u.arcsec):
    """
    Draw cut-outs of objects in every band.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    images : `~jaisp.io.AlignedPair` or tuple
        The images it was made from, as in `plot_catalog`.
    ids : sequence of int, optional
        Values of the column ``id``, one row of the figure for each. By default the first eight.
    size : `~astropy.units.Quantity`, optional
        Side of a cut-out, an angle.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        One row for each object and one column for each band, with the flux in units of its error. Grey
        levels run from the sky to the object's peak; hatched panels lie outside the image.

    Raises
    ------
    ConfigError
        If an id is not in the table, there is none, the table has no rows, or ``size`` is no angle.
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure_class = require_matplotlib()
    if len(table) == 0:
        raise ConfigError("the catalogue has no objects, so there are no cut-outs to draw")
    rows = drawing.chosen_rows(table, ids, _MAX_ROWS)
    if not rows:
        raise ConfigError("no object is asked for, so there are no cut-outs to draw; give at least one id")
    columns = [(image, band) for image in drawing.survey_images(images, table) for band in image.bands]
    figure = figure_class(
        figsize=(1.15 * len(columns) + 0.6, 1.15 * len(rows) + 0.5),
        dpi=150,
        layout="constrained",
        facecolor=drawing.PAPER,
    )
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for (image, band), panel in zip(columns, panels[0], strict=True):
        panel.set_title(f"{image.survey.label}\n{band}", color=drawing.INK, fontsize=8)
    half = float(arcsec(size, "size")) / 2
    for row, line in zip(rows, panels, strict=True):
        line[0].set_ylabel(str(row["id"]), color=drawing.INK, rotation=0, ha="right", va="center")
        for (image, band), panel in zip(columns, line, strict=True):
            drawing.draw_cutout(panel, image, band, row, half)
    return figure


def plot_crossmatch(table, *, scale=None):
    """
    Draw how the two surveys' own slots agree: positions, their map on the sky, and similarity.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue of a pair. Rows that are not matched are counted but not drawn.
    scale : float, optional
        Half width of the panel of residuals in mas. By default it holds 95 % of them.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        Euclid-minus-Rubin residuals with their median; the same as arrows on the sky; and the similarity
        of the matched embeddings against the separation.

    Raises
    ------
    ImageError
        If no row of the table is matched between the surveys.
    MissingDependencyError
        If matplotlib is not installed.
    """
    figure_class = require_matplotlib()
    matched = drawing.matched(table)
    if not matched.any():
        raise ImageError(
            "no object of this catalogue is matched between the two surveys, so there is no cross-match to "
            "draw; make the catalogue from images of both"
        )
    east, north, position = drawing.residuals(table[matched])
    similarity = drawing.values(table["match_similarity"][matched])
    figure = figure_class(figsize=(15, 4.8), dpi=120, layout="constrained", facecolor="white")
    left, middle, right = figure.subplots(1, 3)
    points = drawing.draw_residuals(left, east, north, similarity, scale)
    figure.colorbar(points, ax=left, label="match similarity")
    drawing.draw_arrows(middle, east, north, position)
    separation = np.hypot(east, north)
    right.scatter(separation, similarity, s=14, alpha=0.6, color=drawing.BLUE, linewidths=0)
    right.set(xscale="log", xlim=drawing.log_limits(separation))
    right.set(xlabel="separation (mas)", ylabel="match similarity")
    right.grid(alpha=0.25)
    figure.suptitle(f"{matched.sum()} of {len(table)} objects are matched between the surveys")
    return figure
