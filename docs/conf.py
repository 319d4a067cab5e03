# Licensed under a 3-clause BSD style license - see LICENSE
"""Configuration of Sphinx, on top of the shared one of Astropy's affiliated packages."""

import contextlib
import csv
import io
import json
import math
import os
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path

from astropy.table import QTable
from matplotlib.figure import Figure
from sphinx.errors import ExtensionError
from sphinx_astropy.conf.v2 import *  # noqa: F403
from sphinx_astropy.conf.v2 import exclude_patterns, extensions

project = "jaisp"
author = metadata(project)["Author"]
copyright = f"2026, {author}"
release = metadata(project)["Version"]
version = ".".join(release.split(".")[:2])

# The sources of other projects' documentation are on the network: a build without one links nothing to them.
if not os.environ.get("READTHEDOCS"):
    intersphinx_mapping = {}

GENERATED = Path(__file__).parent / "api"
# Generated pages of names that are no longer public would be orphans.
for page in GENERATED.glob("*.rst"):
    page.unlink()

# Needs graphviz, and there is not much to inherit.
extensions.remove("sphinx.ext.inheritance_diagram")
automodapi_inheritance_diagram = False
automodsumm_inherited_members = False

exclude_patterns.extend(["_templates", "gallery/*.txt", "gallery/*.py"])
html_title = f"jaisp {release}"
html_show_sourcelink = False
html_static_path, html_css_files = ["static"], ["pages.css"]
# Pages stand side by side in the menu of the header: a column of their parts would be empty. Tables need its
# width.
html_sidebars = {"**": []}
numpydoc_xref_param_type = False
linkcheck_timeout = 10
linkcheck_retries = 1


BENCHMARK = Path(__file__).parent / "benchmark"  # what benchmarks/pages.py wrote
# How many sources there were to find, for the captions.
rst_epilog = "".join(
    f".. |{kind}_sources| replace:: {QTable.read(BENCHMARK / f'{kind}.ecsv')['n_sources'][0]}\n"
    for kind in ("plain", "hard")
)


def gallery_figures(block, block_vars, gallery_conf):
    """Save the figures that a block of an example made: jaisp makes them without pyplot."""
    from sphinx_gallery.scrapers import figure_rst

    seen = gallery_conf.setdefault("jaisp_seen", {})
    paths = []
    for value in list(block_vars["example_globals"].values()):
        if isinstance(value, Figure) and id(value) not in seen:
            seen[id(value)] = value  # held, so that its id stays its own
            paths.append(next(block_vars["image_path_iterator"]))
            value.savefig(paths[-1], dpi=90)
    return figure_rst(paths, gallery_conf["src_dir"])


extensions.append("sphinx_gallery.gen_gallery")
suppress_warnings = ["config.cache"]  # a function as a setting cannot be cached, and need not be
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "api/gallery",
    "image_scrapers": (gallery_figures,),
    "capture_repr": (),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "write_computation_times": False,
    "copyfile_regex": "",
    "remove_config_comments": True,
}


def write_flags(app):
    """Write the table of flags that the guide shows, from the registry."""
    from jaisp.catalog import FLAGS

    with (GENERATED / "flags.csv").open("w", newline="") as file:
        csv.writer(file).writerows((flag.value, f"``{flag.name}``", flag.description) for flag in FLAGS)


def write_columns(app):
    """Write the table of columns that the guide shows, from the registry."""
    from jaisp.catalog import COLUMNS

    # The ten bands have the same two columns.
    rows = {}
    for column in COLUMNS:
        name, text, ucd = column.name, column.description, column.ucd
        if "_flux" in name:
            name = f"<survey>_<band>_flux{'_err' if name.endswith('_err') else ''}"
            text = text.replace(" in Rubin u", "")
            ucd = ucd.replace("em.opt.U", "em...")
        rows.setdefault(name, (f"``{name}``", column.unit, text, f"``{ucd}``" if ucd else ""))
    with (GENERATED / "columns.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows.values())


def write_validation(app):
    """Write the last validation of the bundled weights, from the record beside them."""
    record = json.loads((files("jaisp") / "data" / "weights" / "detr_jepa" / "config.json").read_text())
    values = record["notes"]["validation"]
    with (GENERATED / "validation.csv").open("w", newline="") as file:
        csv.writer(file).writerows((f"``{name}``", f"{value:.3g}") for name, value in values.items())


def write_benchmark(app):
    """Write the tables of the benchmark's page from those that ``jaisp benchmark`` wrote."""

    def write(name, rows):
        with (GENERATED / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def cell(value, error=None, *, digits=3):
        text = "" if math.isnan(value) else f"{value:.{digits}f}"
        return text if error is None else f"{text}\u00a0±\u00a0{error:.{digits}f}"  # on one line

    for kind in ("plain", "hard"):
        table = QTable.read(BENCHMARK / f"{kind}.ecsv")
        heads = ("finder", "F1", "at .90", "at .95", "at .98", "blends, .95")
        heads += ("position (mas)", "VIS flux bias", "VIS flux error", "s", "MB")
        rows = [heads]
        rows += [
            (
                row["finder"],
                cell(row["best_f1"], row["best_f1_err"]),
                cell(row["completeness_90"]),
                cell(row["completeness_95"], row["completeness_95_err"]),
                cell(row["completeness_98"]),
                cell(row["blends_95"], row["blends_95_err"]),
                cell(row["position_mas"], digits=1),
                cell(row["vis_flux_bias"]),
                cell(row["vis_flux_error"]),
                cell(row["seconds"], digits=1),
                cell(row["memory_mb"], digits=0),
            )
            for row in table
        ]
        write(f"benchmark_{kind}", rows)
        write(f"tuning_{kind}", tuning_rows(QTable.read(BENCHMARK / f"{kind}_tuning.ecsv"), cell))
        partners = QTable.read(BENCHMARK / f"{kind}_partners.ecsv")
        names = ("separation", "retrieval", "chance", "nearest", "partner")
        rows = [("finder", "unit", "pairs", *names[:-1], "one-to-one")]
        rows += [
            (row["finder"], row["unit"], row["n_pairs"], *(cell(row[name]) for name in names))
            for row in partners
        ]
        write(f"partners_{kind}", rows)
        if kind == "plain":
            found = {row["finder"]: row for row in table}
            rows = [("approach", "F1", "at .95", "blends, .95", "unit", *names[:3])]
            for row in partners[:3]:
                own = found.get(row["finder"])
                figures = ("best_f1", "completeness_95", "blends_95")
                detection = [cell(own[name], own[f"{name}_err"]) if own else "" for name in figures]
                rows.append(
                    (row["finder"], *detection, row["unit"], *(cell(row[name]) for name in names[:3]))
                )
            write("approaches", rows)


def tuning_rows(tuning, cell):
    """One row for each peer: how many settings were tried, and what the best of them gained."""
    rows = [
        (
            "peer",
            "settings",
            "F1, defaults",
            "F1, tuned",
            "at .95, defaults",
            "at .95, tuned",
            "settings for F1",
        )
    ]
    for name in dict.fromkeys(tuning["finder"]):
        f1, pure = (
            tuning[(tuning["finder"] == name) & (tuning["figure"] == figure)][0]
            for figure in ("best_f1", "completeness_95")
        )
        figures = [cell(row[which]) for row in (f1, pure) for which in ("default", "tuned")]
        rows.append((name, f1["n_settings"], *figures, f"``{f1['settings']}``"))
    return rows


def run_demo(app):
    """Run ``jaisp demo``, whose output and pictures the pages show: what they say is what it does."""
    from jaisp.cli import main

    output = io.StringIO()
    with contextlib.chdir(GENERATED), contextlib.redirect_stdout(output):
        if main(["demo"]) != 0:
            raise ExtensionError("jaisp demo failed")
        Path("demo.txt").write_text(output.getvalue())


def setup(app):
    GENERATED.mkdir(exist_ok=True)
    app.connect("builder-inited", write_columns)
    app.connect("builder-inited", write_flags)
    app.connect("builder-inited", write_validation)
    app.connect("builder-inited", write_benchmark)
    app.connect("builder-inited", run_demo)
