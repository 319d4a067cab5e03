# Licensed under a 3-clause BSD style license - see LICENSE
"""The pages name what there is: public modules, messages, extras and recipes."""

import importlib.util
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest

from jaisp.training import load_config

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = re.findall(r"automodapi:: (\S+)", (DOCS / "reference.rst").read_text())


def test_every_public_module_is_in_the_reference():
    """`jaisp` offers names of others again, and so does `jaisp.catalog.plots`."""
    public = set(json.loads((ROOT / "tests" / "api_surface.json").read_text()))
    assert public - {"jaisp", "jaisp.catalog.plots"} <= set(REFERENCE)


@pytest.mark.parametrize("name", REFERENCE)
def test_every_public_object_has_a_docstring(name):
    module = importlib.import_module(name)
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isroutine(value):
            assert inspect.getdoc(value), f"{name}.{public}"


def test_quoted_messages_are_those_of_the_package():
    """What the page of errors explains is what a user gets to read."""
    text = (DOCS / "errors.rst").read_text()
    section = text[text.index("What a message means") : text.index("Frequent questions\n")]
    quoted = re.findall(r"^``(.+?)``$", section, flags=re.MULTILINE)
    assert len(quoted) > 10
    source = "\n".join(path.read_text() for path in sorted((ROOT / "jaisp").rglob("*.py")))
    # Messages are joined from pieces of source, whose seams and variables are not in the quotation.
    source = re.sub(r'"\s*\n\s*f?["\']', "", source)
    source = re.sub(r"\{[^{}]*\}", "<>", source)
    for message in quoted:
        words = re.sub(r"\b(Rubin|Euclid)\b", "<>", message)
        assert words in source or message in source, message


def test_extras_in_the_installation_page():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = re.findall(r"^   \* - ``(\w+)``", (DOCS / "install.rst").read_text(), flags=re.MULTILINE)
    assert set(listed) == set(extras)


@pytest.mark.parametrize("path", sorted((DOCS / "recipes").iterdir()), ids=lambda path: path.name)
def test_recipes_are_configurations(path):
    assert load_config(path).optimizer.steps > 0


def test_link_checker(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("check_links", DOCS / "check_links.py")
    check_links = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check_links)
    (tmp_path / "a.html").write_text(
        '<a href="b.html#here"></a><a href="b.html#not"></a><img src="no.png"><a href="#top"></a>'
        '<a href="https://example.org/x#y"></a><p id="top">'
    )
    (tmp_path / "b.html").write_text('<p id="here"><a href="a.html">')
    assert check_links.main([str(tmp_path)]) == "2 links lead nowhere"
    assert capsys.readouterr().out == "a.html: b.html#not\na.html: no.png\n"
    (tmp_path / "a.html").write_text('<a href="b.html#here">')
    assert check_links.main([str(tmp_path)]) == 0
    assert "usage" in check_links.main([])
