# Licensed under a 3-clause BSD style license - see LICENSE
"""Configuration of Sphinx, on top of the shared one of Astropy's affiliated packages."""

import contextlib
import csv
import io
import json
import os
from importlib.metadata import metadata
from importlib.resources import files
from pathlib import Path

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

exclude_patterns.append("_templates")
html_title = f"jaisp {release}"
html_show_sourcelink = False
numpydoc_xref_param_type = False
linkcheck_timeout = 10
linkcheck_retries = 1


def write_flags(app):
    """Write the table of flags that the guide shows, from the registry."""
    from jaisp.catalog import FLAGS

    with (GENERATED / "flags.csv").open("w", newline="") as file:
        csv.writer(file).writerows((flag.value, f"``{flag.name}``", flag.description) for flag in FLAGS)


def write_validation(app):
    """Write the last validation of the bundled weights, from the record beside them."""
    record = json.loads((files("jaisp") / "data" / "weights" / "detr_jepa" / "config.json").read_text())
    values = record["notes"]["validation"]
    with (GENERATED / "validation.csv").open("w", newline="") as file:
        csv.writer(file).writerows((f"``{name}``", f"{value:.3g}") for name, value in values.items())


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
    app.connect("builder-inited", write_flags)
    app.connect("builder-inited", write_validation)
    app.connect("builder-inited", run_demo)
