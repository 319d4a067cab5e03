# Licensed under a 3-clause BSD style license - see LICENSE
"""Pictures of scores."""

import numpy as np
from astropy.stats import binom_conf_interval

from jaisp.evaluation.report import new_figure
from jaisp.exceptions import ConfigError

__all__ = ["plot_completeness"]


def plot_completeness(scores, values="snr", edges=(5, 7, 10, 20, 50, 200), *, threshold=None, label=None):
    """
    Draw completeness in bins of a property of the true sources.

    Parameters
    ----------
    scores : `DetectionScore` or dict of str to `DetectionScore`
        From `score`, of one catalogue or of several by name.
    values : str or callable
        Column of the truth, or a function of the truth table, as `ab_magnitude` makes one.
    edges : array_like (k + 1,)
        Edges of the bins, in the unit of the column.
    threshold : float, optional
        Lowest activity that counts; by default everything that was given.
    label : str, optional
        Of the axis of ``values``; by default the column's name.

    Returns
    -------
    figure : `~matplotlib.figure.Figure`
        A step for each bin, with the 68 % interval of Wilson as its error: it is that of a binomial fraction,
        without what varies from sky to sky. Grey bars are the numbers of sources. Empty bins are left out.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        If there is no score, or no source in any bin.
    `~jaisp.exceptions.MissingDependencyError`
        If matplotlib is not installed.

    Examples
    --------
    >>> from astropy.coordinates import SkyCoord
    >>> from astropy.table import QTable
    >>> from jaisp.evaluation import plot_completeness, score
    >>> places = SkyCoord([0, 5, 9], [0, 0, 0], unit="arcsec")
    >>> truth = QTable({"sky_centroid": places, "snr": [50.0, 8.0, 6.0]})
    >>> result = score(places[:2], [0.9, 0.7], truth)
    >>> figure = plot_completeness({"mine": result}, edges=[5, 10, 100])
    """
    scores = scores if isinstance(scores, dict) else {"": scores}
    if not scores:
        raise ConfigError("there is no score to draw; give one, or a dictionary of names and scores")
    threshold = np.finfo(float).min if threshold is None else threshold
    edges = np.asarray(edges, float)
    tables = {name: one.completeness_by(values, edges, threshold=threshold) for name, one in scores.items()}
    most = max(table["n_sources"].max() for table in tables.values())
    if most == 0:
        raise ConfigError(f"no true source lies between {edges[0]:g} and {edges[-1]:g}; give other edges")
    figure = new_figure(figsize=(6, 4.2))
    panel = figure.add_subplot()
    numbers = panel.twinx()
    for k, (name, table) in enumerate(tables.items()):
        full = table[table["n_sources"] > 0]
        middle = (full["low"] + full["high"]) / 2
        low, high = binom_conf_interval(full["n_found"], full["n_sources"], interval="wilson")
        rates = np.asarray(full["completeness"])
        style = {"color": f"C{k}", "ls": "none", "lw": 1.6}
        panel.errorbar(
            middle,
            rates,
            yerr=[np.maximum(rates - low, 0), np.maximum(high - rates, 0)],
            xerr=(full["high"] - full["low"]) / 2,
            label=name,
            **style,
        )
        if k == 0:
            numbers.bar(
                full["low"], full["n_sources"], full["high"] - full["low"], align="edge", color="0.9", lw=0
            )
    numbers.set(ylim=(0, 4 * most), ylabel="true sources (bars)")
    numbers.yaxis.label.set_color("0.5")
    numbers.tick_params(colors="0.5")
    numbers.set_zorder(panel.get_zorder() - 1)
    panel.patch.set_visible(False)
    name = values if isinstance(values, str) else ""
    panel.set(xlabel=label or name, ylabel="completeness", ylim=(0, 1.05))
    if edges[0] > 0 and edges[-1] / edges[0] > 10:
        panel.set_xscale("log")
    panel.grid(alpha=0.25)
    if any(tables):
        panel.legend(frameon=False)
    return figure
