# Licensed under a 3-clause BSD style license - see LICENSE
"""The curves of a run."""

from matplotlib.figure import Figure

__all__ = ["plot_metrics"]

_PANELS = {
    "loss": ("train/loss",),
    "similarity": (
        "train/similarity",
        "val/similarity",
        "train/unmatched_similarity",
        "val/shuffled_similarity",
    ),
    "slots of a tile": ("train/n_objects", "train/n_queries"),
    "F1 and retrieval": ("val/f1_joint", "val/f1_rubin", "val/f1_euclid", "val/retrieval_top1"),
}


def plot_metrics(lines):
    """
    Plot what a run logged against the step: loss, similarity and its nulls, slots, scores of the validation.

    Parameters
    ----------
    lines : list of dict
        Lines of ``metrics.jsonl``; each has ``step``.

    Returns
    -------
    `matplotlib.figure.Figure`
        Panels of which nothing was logged are left out.
    """
    logged = {name for line in lines for name in line}
    panels = {title: [n for n in names if n in logged] for title, names in _PANELS.items()}
    known = {name for names in _PANELS.values() for name in names}
    panels["other validation"] = sorted(n for n in logged - known if n.startswith("val/"))
    panels = {title: names for title, names in panels.items() if names}
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            axis.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "", label=name)
        axis.set(title=title, xlabel="step")
        axis.legend(fontsize="x-small")
    if "train/loss" in logged:
        axes[0].set_yscale("symlog", linthresh=1.0)
    return figure
