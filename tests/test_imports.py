# Licensed under a 3-clause BSD style license - see LICENSE
"""The arrows between the folders run one way, and light parts stay light."""

import ast
import csv
import subprocess
import sys
from pathlib import Path

import pytest

import jaisp

PACKAGE = Path(jaisp.__file__).parent
TABLE = Path(__file__).parents[1] / "docs" / "allowed_imports.csv"  # the developer page shows the same table
HEAVY = {"torch", "matplotlib", "galsim", "pandas", "pyarrow", "reproject", "photutils", "sep"}
LIGHT = {
    "jaisp": HEAVY | {"scipy"},
    "jaisp.surveys": HEAVY,
    "jaisp.image": {"torch", "matplotlib", "galsim", "pandas", "pyarrow"},
    "jaisp.io": {"torch", "matplotlib", "galsim", "pandas", "pyarrow"},
    "jaisp.cli": HEAVY | {"scipy", "jaisp.image", "jaisp.models", "jaisp.simulation", "jaisp.training"},
}


def allowed_imports():
    with TABLE.open(newline="") as file:
        return {row["folder"]: set(row["may import from jaisp"].split()) for row in csv.DictReader(file)}


def owner(path):
    """The part of the package that a module belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(path):
    """Absolute names of all that a module imports anywhere, functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            # "from jaisp import io" names a folder as well as "from jaisp.io import align" does
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


MODULES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if owner(path) not in ("__init__", "__main__", "data")
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_table(path):
    table = allowed_imports()
    folder = owner(path)
    assert folder in table, f"{folder} has no row in {TABLE.name}"
    public = {name: module.split(".")[1] for name, module in jaisp._LAZY.items()}
    parts = {name.split(".")[1] for name in imported_modules(path) if name.startswith("jaisp.")}
    parts = {public.get(part, part) for part in parts} - {folder, "__version__"}
    assert parts <= table[folder], f"{folder} must not import {sorted(parts - table[folder])}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_underscores_stay_in_their_folder(path):
    """A name with an underscore in front may change without a look at the other folders."""
    own = f"jaisp.{owner(path)}."
    for name in imported_modules(path):
        if name.startswith("jaisp.") and not name.startswith(own):
            assert not any(part.startswith("_") and not part.startswith("__") for part in name.split(".")), (
                name
            )


def test_the_table_has_no_cycle():
    table = allowed_imports()
    for folder, parts in table.items():
        for part in parts:
            assert folder not in table[part]
            assert table[part] <= parts, f"{folder} may import {part}, so also what {part} imports"


@pytest.mark.parametrize("module", LIGHT)
def test_light_imports(module):
    """What must start fast loads none of the slow packages (the modules are looked at, not the clock)."""
    code = f"import sys, {module}; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & LIGHT[module]


def test_help_is_light():
    code = (
        "import sys\nfrom jaisp.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "catalog" in done.stdout
    assert not set(done.stderr.split()) & LIGHT["jaisp.cli"]
