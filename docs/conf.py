# Licensed under a 3-clause BSD style license - see LICENSE
"""Configuration of Sphinx, on top of the shared one of Astropy's affiliated packages."""

import csv
import os
from importlib.metadata import metadata
from pathlib import Path

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

# Generated pages of names that are no longer public would be orphans.
for page in (Path(__file__).parent / "api").glob("*.rst"):
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

    folder = Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    with (folder / "flags.csv").open("w", newline="") as file:
        csv.writer(file).writerows((flag.value, f"``{flag.name}``", flag.description) for flag in FLAGS)


def setup(app):
    app.connect("builder-inited", write_flags)
