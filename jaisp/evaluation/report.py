# Licensed under a 3-clause BSD style license - see LICENSE
"""Finders side by side on the same fields: a table, Markdown, and purity-completeness curves."""

import contextlib
import ctypes
import dataclasses
import gc
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import QTable

from jaisp.evaluation.detection import DetectionScore
from jaisp.evaluation.tuning import match_catalog, sky_blocks, tune
from jaisp.exceptions import MissingDependencyError

__all__ = ["Comparison", "compare", "markdown_table", "plot_curves"]


@dataclass
class Comparison:
    """
    Scores of several finders on the same test fields.

    Parameters
    ----------
    scores : dict of str to dict of str to `~jaisp.evaluation.DetectionScore`
        Name of the finder, then the statistic it was tuned for (the same score under each for a finder
        that was not tuned).
    settings : dict of str to dict of str to dict
        Settings chosen, likewise; empty for finders that were not tuned.
    catalogs : dict of str to list
        Tables of what was found, one for each test field (or piece of it), cut to the part that is scored: in
        the order of ``scores[name]["best_f1"].fields``.
    tunings : dict of str to `~jaisp.evaluation.Tuning`
        Sweeps on the validation fields of the finders that were tuned.
    costs : dict of str to dict
        ``seconds`` of processor time a test field, all threads together, and ``memory_mb`` by which the
        process's peak memory grew (NaN but on Linux).
    """

    scores: dict
    settings: dict = dataclasses.field(default_factory=dict)
    catalogs: dict = dataclasses.field(default_factory=dict)
    tunings: dict = dataclasses.field(default_factory=dict)
    costs: dict = dataclasses.field(default_factory=dict)

    def to_table(self, *, bootstrap=100, rng=0):
        """
        One row for each finder; each figure at the settings tuned for it.

        Parameters
        ----------
        bootstrap : int
            Resamples of the fields for the errors; 0 for none.
        rng : `~numpy.random.Generator` or int
            Source of randomness.

        Returns
        -------
        `~astropy.table.QTable`
        """
        rows = []
        for name, by_statistic in self.scores.items():
            f1, pure = by_statistic["best_f1"], by_statistic["completeness_95"]
            row = {
                "finder": name,
                "n_fields": len(f1.fields),
                "n_sources": f1.n_wanted,
                "best_f1": f1.best_f1,
            }
            row["average_precision"] = by_statistic["average_precision"].average_precision
            row |= {f"completeness_{100 * p:.0f}": pure.completeness_at(p) for p in (0.9, 0.95, 0.98)}
            if all("nearest" in match.truth.colnames for match in pure.fields):
                row["blends_95"] = pure.blend_completeness_at(0.95)
            if bootstrap:
                row["best_f1_err"] = f1.bootstrap(lambda score: score.best_f1, n_resamples=bootstrap, rng=rng)
                row["completeness_95_err"] = pure.bootstrap(
                    lambda score: score.completeness_at(0.95), n_resamples=bootstrap, rng=rng
                )
            rows.append(row)
        return QTable(rows=rows)


def compare(finders, peers, validation, test, *, blocks=1, **options):
    """
    Tune the peers on validation fields and score everything on test fields.

    Parameters
    ----------
    finders : dict of str to callable
        Each takes ``(rubin, euclid)`` and returns a catalogue ranked by its column ``activity``.
    peers : list
        Finders with settings to tune, as from `~jaisp.evaluation.sep_peers`.
    validation, test : iterable of `~jaisp.evaluation.Field`
        Fields; each is gone through once for each finder, so generators will not do. Loading fields in
        ``__iter__`` keeps memory small.
    blocks : int
        Each test field is cut into so many pieces along each side after the matching, for errors by
        bootstrap over pieces of sky instead of over fields.
    **options
        As in `~jaisp.evaluation.match_catalog`.

    Returns
    -------
    `Comparison`
    """
    statistics = ("best_f1", "completeness_95", "average_precision")
    result = Comparison({})
    for name, finder in finders.items():
        pieces, costs = [], []
        for field in test:
            with _Cost() as cost:
                found = finder(field.rubin, field.euclid)
            costs.append(cost)
            pieces += _match(found, field, blocks, options)
        result.scores[name] = dict.fromkeys(statistics, DetectionScore([match for _, match in pieces]))
        result.catalogs[name] = [catalog for catalog, _ in pieces]
        result.costs[name] = _mean_cost(costs)
    for peer in peers:
        tuning = tune(peer, validation, **options)
        chosen = {statistic: tuning.best(statistic) for statistic in statistics}
        pieces, costs = {statistic: [] for statistic in statistics}, []
        for field in test:
            with _Cost() as cost:
                prepared = peer.prepare(field.rubin, field.euclid)
                found = {"best_f1": peer.measured(prepared, **chosen["best_f1"])}
            costs.append(cost)
            found |= {name: peer.detect(prepared, **chosen[name]) for name in statistics[1:]}
            for statistic, table in found.items():
                pieces[statistic] += _match(table, field, blocks, {"ranking": "snr", **options})
        result.tunings[peer.name], result.settings[peer.name] = tuning, chosen
        result.scores[peer.name] = {
            statistic: DetectionScore([match for _, match in matched])
            for statistic, matched in pieces.items()
        }
        result.catalogs[peer.name] = [catalog for catalog, _ in pieces["best_f1"]]
        result.costs[peer.name] = _mean_cost(costs)
    return result


def _match(found, field, blocks, options):
    """Pieces of catalogue and match of one field."""
    catalog, match = match_catalog(found, field, **options)
    return sky_blocks(catalog, match, field, blocks) if blocks > 1 else [(catalog, match)]


class _Cost:
    """Processor time in seconds and growth of the peak memory in MB of what runs inside."""

    def __enter__(self):
        gc.collect()
        # Memory that was freed is given back, and the high-water mark put down to what is held now.
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._memory, self._start = _status("VmRSS"), time.process_time()
        return self

    def __exit__(self, *_):
        self.seconds = time.process_time() - self._start
        self.memory = _status("VmHWM") - self._memory


def _status(name):
    """Memory of this process in MB as Linux tells it, else NaN."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    return np.nan


def _mean_cost(costs):
    return {
        "seconds": float(np.mean([cost.seconds for cost in costs])),
        "memory_mb": float(max(cost.memory for cost in costs)),
    }


def markdown_table(table):
    """
    A table as Markdown, numbers with three decimals.

    Parameters
    ----------
    table : `~astropy.table.Table`
        Any table of strings and numbers.

    Returns
    -------
    str
    """
    lines = ["| " + " | ".join(table.colnames) + " |", "|" + "---|" * len(table.colnames)]
    for row in table:
        cells = []
        for value in row.values():
            number = isinstance(value, (float, np.floating))
            cells.append(("-" if np.isnan(value) else f"{value:.3f}") if number else str(value))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot_curves(scores, path, *, title="", purity=0.95):
    """
    Draw purity against completeness of several finders into a file.

    Parameters
    ----------
    scores : dict of str to `~jaisp.evaluation.DetectionScore`
        The finders.
    path : path-like
        Output file; its suffix tells the format.
    title : str
        Written above the axes.
    purity : float
        Drawn as a line.

    Raises
    ------
    MissingDependencyError
        Without matplotlib.
    """
    figure = new_figure(figsize=(6, 4.5))
    axes = figure.add_subplot()
    for name, score in scores.items():
        axes.plot(score.completeness, score.purity, label=f"{name} ({score.best_f1:.3f})", lw=1.5)
    axes.axhline(purity, color="0.6", lw=0.8, ls="--")
    axes.set(xlabel="completeness", ylabel="purity", xlim=(0, 1), ylim=(0.5, 1.01), title=title)
    axes.legend(title="finder (best F1)", fontsize="small", loc="lower left")
    figure.savefig(Path(path), dpi=150)


def new_figure(**options):
    """Return an empty figure, or say how to get matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError(
            "figures need matplotlib, which is not installed; install it with: pip install 'jaisp[plot]'"
        ) from None
    figure = Figure(layout="constrained", **options)
    FigureCanvasAgg(figure)
    return figure
