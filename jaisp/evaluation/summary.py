# Licensed under a 3-clause BSD style license - see LICENSE
"""The benchmark for the reader: one Markdown page, and a picture of the bins."""

from pathlib import Path

import numpy as np
from astropy.table import QTable

from jaisp import __version__
from jaisp.evaluation.benchmark import BOUND
from jaisp.evaluation.report import markdown_table, new_figure

__all__ = ["benchmark_markdown", "plot_bins"]

_PANELS = (
    ("completeness", "VIS magnitude"),
    ("purity", "VIS magnitude"),
    ("completeness", "separation (arcsec)"),
    ("completeness", "S/N"),
    ("purity", "S/N"),
    ("position (mas per axis)", "S/N"),
    ("VIS flux (relative error)", "VIS S/N"),
)
_RULES = """
One-to-one matching within 0.3 arcsec; sources with a joint S/N above 5 are to be found; a detection matched
to a fainter one is neither true nor false. Each peer is tuned on other fields, for F1 and for completeness at
purity 0.95. Errors: bootstrap over quarters of the fields. `position_mas` and `vis_flux_error`: what 68 % of
the differences stay below, for sources with S/N above 20. `seconds`: processor time a field; `memory_mb`:
growth of the process's peak memory. PatchJEPA knows no objects and makes no catalogue.
"""
_PARTNERS = """
Each survey is looked at alone; sources with S/N above 10 in both. `separation`: mean cosine of the two
embeddings of one source less that of different ones; `retrieval`: share of sources whose partner is the most
similar object of the field (tile of all fields), beside `chance`; `nearest`: the partner is the nearest
object on the sky; `partner`: it is found by one-to-one matching, with the embeddings where there are any.
"""


def benchmark_markdown(tables, title):
    """
    Write the tables of the benchmark as one Markdown page.

    Parameters
    ----------
    tables : dict of str to `~astropy.table.QTable`
        ``benchmark`` (`headline`), ``benchmark_partners``, ``benchmark_bins`` (`binned`),
        ``benchmark_tuning`` (`tuning_table`).
    title : str
        The skies.

    Returns
    -------
    str
    """
    text = f"# jaisp benchmark\n\njaisp {__version__}; {title}\n{_RULES}\n"
    text += markdown_table(tables["benchmark"]) + "\n## Partners across the surveys\n" + _PARTNERS + "\n"
    text += markdown_table(tables["benchmark_partners"])
    for figure, by in _PANELS:
        text += f"\n## {figure[0].upper()}{figure[1:]} by {by}, at best F1\n\n"
        text += markdown_table(_wide(tables["benchmark_bins"], figure, by))
    text += "\n## Tuning of the peers, on the validation fields\n\n" + markdown_table(
        tables["benchmark_tuning"]
    )
    return text


def _wide(bins, figure, by):
    """One row for each bin, one column for each finder."""
    chosen = bins[(bins["figure"] == figure) & (bins["by"] == by)]
    edges = sorted({(row["low"], row["high"]) for row in chosen})
    table = QTable(
        {by: [f"{low:g} - {high:g}" if np.isfinite(high) else f"> {low:g}" for low, high in edges]}
    )
    if figure == "completeness":
        first = chosen[chosen["finder"] == chosen["finder"][0]]
        table["n"] = [int(first["n"][first["low"] == low][0]) for low, _ in edges]
    for finder in dict.fromkeys(chosen["finder"]):
        own = chosen[chosen["finder"] == finder]
        table[finder] = [float(own["value"][own["low"] == low][0]) for low, _ in edges]
    return table


def plot_bins(bins, path, *, title=""):
    """
    Draw completeness, purity and errors in their bins into a file.

    Parameters
    ----------
    bins : `~astropy.table.QTable`
        From `~jaisp.evaluation.binned`.
    path : path-like
        Output file; its suffix tells the format.
    title : str
        Written above.

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    """
    figure = new_figure(figsize=(13, 6.5))
    axes = figure.subplots(2, 4).ravel()
    finders = list(dict.fromkeys(bins["finder"]))
    for axis, (name, by) in zip(axes, _PANELS, strict=False):
        chosen = bins[(bins["figure"] == name) & (bins["by"] == by)]
        for k, finder in enumerate(finders):
            own = chosen[(chosen["finder"] == finder) & (chosen["n"] > 0)]
            if len(own):
                low, high = np.asarray(own["low"]), np.asarray(own["high"])
                middle = np.where(
                    np.isfinite(high), 0.5 * (low + np.where(np.isfinite(high), high, 0)), 1.5 * low
                )
                style = {"color": "0.4", "ls": "--"} if finder == BOUND else {"color": f"C{k}", "marker": "."}
                axis.plot(middle, own["value"], label=finder, **style)
        axis.set(xlabel=by, ylabel=name)
        if "S/N" in by:
            axis.set_xscale("log")
        if name in ("completeness", "purity"):
            axis.set_ylim(0, 1.02)
        else:
            axis.set_yscale("log")
    handles = {}
    for axis in axes:
        handles |= dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    axes[-1].axis("off")
    axes[-1].legend(handles.values(), handles.keys(), loc="center", frameon=False)
    figure.suptitle(title)
    figure.savefig(Path(path), dpi=90)
