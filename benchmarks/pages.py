# Licensed under a 3-clause BSD style license - see LICENSE
"""
Make the tables and figures of the documentation's pages anew, from seeds.

``docs/conf.py`` makes the pages' tables from what is written here. Skies are drawn once, into ``--work``::

    python benchmarks/pages.py benchmark --work work           # pages benchmark and approaches
    python benchmarks/pages.py performance measurement embedding --work work
    python benchmarks/pages.py benchmark --quick --work work -o somewhere    # a check that it all runs
"""

import argparse
import importlib.util
import shutil
from pathlib import Path

from jaisp.cli import main as jaisp

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
KINDS = ("plain", "hard")
BENCHMARK = {
    "benchmark.ecsv": ".ecsv",
    "benchmark_partners.ecsv": "_partners.ecsv",
    "benchmark_tuning.ecsv": "_tuning.ecsv",
    "benchmark.md": ".md",
    "curves.png": "_curves.png",
    "bins.png": "_bins.png",
}


def script(name):
    """Another script of this folder."""
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def benchmark(work, quick):
    """``jaisp benchmark`` on plain and hard skies; yield what it wrote and the names that the pages read."""
    for kind in KINDS:
        made = work / f"benchmark_{kind}{'_quick' * quick}"
        made.parent.mkdir(parents=True, exist_ok=True)
        options = ["--kind", kind, "--skies", str(work / f"skies{'_quick' * quick}")]
        if jaisp(["benchmark", "-o", str(made), *options, *["--quick"] * quick]):
            raise SystemExit(f"pages.py: jaisp benchmark on {kind} skies failed")
        for name, suffix in BENCHMARK.items():
            yield made / name, f"{kind}{suffix}"


def measurement(work, quick):
    """``measurement.py`` and ``profiles.py``; yield likewise."""
    made = work / f"measurement{'_quick' * quick}"
    script("profiles")(["-o", str(made), *["--number", "1"] * quick])
    script("measurement")(["--folder", str(work / "skies"), "-o", str(made), *["--quick"] * quick])
    names = [path.name for path in (DOCS / "measurement").iterdir()]
    for name in sorted(names):
        yield made / f"measurement_{name}", name


def embedding(work, quick):
    """``embedding.py``; yield likewise."""
    made = work / f"embedding{'_quick' * quick}"
    small = ["--scenes", "8", "--fields", "1", "--size", "0.3"] if quick else []
    script("embedding")(["--folder", str(work / "skies"), "-o", str(made), *small])
    for name in sorted(path.name for path in (DOCS / "embedding").iterdir()):
        yield made / name, name


def performance(work, quick):
    """Detection, close sources and limits of blends; yield the tables of the page on performance."""
    made = work / f"performance{'_quick' * quick}"
    places = ["--folder", str(work / "skies"), "-o", str(made)]
    small = ["--fields", "1", "--size", "0.3"] if quick else []
    script("detection")([*places, *small, *["--quick"] * quick])
    script("close_sources")([*places, *small])
    script("blend_limits")([*places, *small])
    for name in ("finders.csv", "ratios.csv", "close_sources.csv", "blend_limits.csv"):
        yield made / name, name


PAGES = {
    "performance": performance,
    "benchmark": benchmark,
    "measurement": measurement,
    "embedding": embedding,
}


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("pages", nargs="+", choices=list(PAGES), help="whose tables and figures")
    parser.add_argument("--work", type=Path, required=True, help="where skies and results are kept")
    parser.add_argument("-o", "--output", type=Path, help="documentation to write into (docs/ beside this)")
    parser.add_argument("--quick", action="store_true", help="one small field; not into docs/, but into -o")
    args = parser.parse_args(argv)
    if args.quick and args.output is None:
        parser.error("--quick is no measurement: give -o, so that it does not replace the pages' figures")
    return args


def main(argv=None):
    args = parse(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    for page in args.pages:
        # All of a page or nothing: its tables belong together.
        pairs = list(PAGES[page](args.work, args.quick))
        folder = (args.output or DOCS) / page
        folder.mkdir(parents=True, exist_ok=True)
        for made, name in pairs:
            shutil.copy(made, folder / name)
            print(folder / name)


if __name__ == "__main__":
    main()
