# Licensed under a 3-clause BSD style license - see LICENSE
"""What is public, and that the files of the project agree with one another."""

import importlib
import json
import re
import tomllib
from pathlib import Path

import pytest

import jaisp

ROOT = Path(__file__).parents[1]
SURFACE = json.loads((ROOT / "tests" / "api_surface.json").read_text())


def _lines(name):
    return (ROOT / name).read_text().splitlines()


@pytest.mark.parametrize("name", SURFACE)
def test_public_names(name):
    """A public name is added or removed on purpose: by an edit of api_surface.json."""
    module = importlib.import_module(name)
    assert sorted(module.__all__) == SURFACE[name]
    for public in module.__all__:
        assert getattr(module, public) is not None


def test_lazy_names_are_listed():
    assert set(jaisp._LAZY) <= set(dir(jaisp))
    with pytest.raises(AttributeError, match="no attribute 'Catalog'"):
        jaisp.Catalog  # noqa: B018


def test_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert jaisp.__version__ == version
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "CHANGES.rst").read_text().startswith(version)


def test_constraints_pin_what_the_package_needs():
    """Each dependency is pinned to one version of the index, none to a file or an address."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    pins = {line.partition("==")[0]: line for line in lines}
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lines)
    extras = project["optional-dependencies"]
    needed = list(project["dependencies"])
    for extra in ("plot", "parquet", "simulate", "test"):
        needed += extras[extra]
    names = {re.match(r"[a-z0-9-]+", need)[0] for need in needed} - {"jaisp"}
    assert names <= set(pins)


def test_readme_begins_with_the_two_commands():
    """Its first two code blocks are one line each; continuous integration runs them as they stand."""
    blocks = re.findall(
        r"^```.*?\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE
    )
    assert [block.count("\n") for block in blocks[:2]] == [1, 1]
    assert "jaisp demo" in blocks[0]
    assert "pytest" in blocks[1]
