# Licensed under a 3-clause BSD style license - see LICENSE
"""Configuration of Sphinx, on top of the shared one of Astropy's affiliated packages."""

import os
from importlib.metadata import metadata

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
