# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp benchmark``: the three approaches beside classical finders, on the same simulated skies."""

import importlib.util
import tempfile
from pathlib import Path

from jaisp.cli._common import check_folder, count, device_and_workers, progress_bar, set_workers
from jaisp.exceptions import MissingDependencyError

__all__ = ["add_parser", "run"]

_CLIPPED = 0.02  # lowest activity that is ranked
_PACKAGES = {"galsim": "galsim", "sep": "sep", "skimage": "scikit-image"}


def add_parser(commands):
    """Add the command's parser to ``commands`` and return it."""
    parser = commands.add_parser(
        "benchmark",
        help="compare the three approaches with classical finders",
        description="Run PatchJEPA, ObjectJEPA and DETRJEPA, SEP, a multi-band matched filter and photutils "
        "on the same simulated fields and compare them with the truth. The classical finders are tuned on "
        "other fields first. Writes tables (benchmark.md, benchmark*.ecsv) and figures into DIR.",
        epilog="The fields are drawn once and kept in DIR/skies (or --skies), about 20 MB each.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the results"
    )
    parser.add_argument(
        "--fields", type=count, metavar="N", help="test fields, and as many to tune on (6; 1 if --quick)"
    )
    parser.add_argument(
        "--size", type=float, metavar="ARCMIN", help="side of a field in arcmin (1.28; 0.45 if --quick)"
    )
    parser.add_argument(
        "--depth", default="ten_year", help="Rubin's depth: ten_year, dp1 or deep (%(default)s)"
    )
    parser.add_argument(
        "--kind", default="plain", help="plain, or hard: with bright stars and knotty galaxies (%(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="other skies than those of S = 0 (%(default)s)"
    )
    parser.add_argument("--skies", type=Path, metavar="DIR", help="where the fields are kept (DIR/skies)")
    parser.add_argument("--weights", metavar="DIR", help="weights of DETRJEPA (the bundled ones)")
    parser.add_argument(
        "--quick", action="store_true", help="few settings on one small field: a check that it all runs"
    )
    device_and_workers(parser)
    return parser


def run(args):
    """Run the command."""
    _need_packages()
    check_folder(args.output)
    if args.skies is not None:
        check_folder(args.skies)

    from jaisp import DETRJEPA, ObjectJEPA, PatchJEPA
    from jaisp.catalog.plots import require_matplotlib
    from jaisp.evaluation import Skies

    require_matplotlib()
    set_workers(args.workers)
    n_fields = args.fields or (1 if args.quick else 6)
    size = args.size if args.size is not None else 0.45 if args.quick else 1.28
    skies = {
        split: Skies(
            args.skies or args.output / "skies", split, args.depth, args.kind, n_fields, size, seed=args.seed
        )
        for split in ("validation", "test")
    }
    models = {
        "DETRJEPA": DETRJEPA.from_pretrained(args.weights, device=args.device),
        "ObjectJEPA": ObjectJEPA.from_pretrained(device=args.device),
    }
    patch = PatchJEPA.from_pretrained(device=args.device)
    peers = _peers(args.quick)
    args.output.mkdir(exist_ok=True)
    total = 2 * n_fields + n_fields * (len(models) + 2 * len(peers) + 4)
    with progress_bar("benchmark", unit="field") as progress:
        ticker = _Ticker(progress, total)
        for split in skies.values():
            for _ in ticker.over(split.paths()):
                pass
        fields = {split: ticker.passes(sky) for split, sky in skies.items()}
        result, tables = _measure(models, patch, peers, fields, quick=args.quick)
    number = "1 field" if n_fields == 1 else f"{n_fields} fields"
    title = f"{args.depth}, {args.kind}, {number} of {size:g} arcmin, seed {args.seed}"
    _write(args.output, result, tables, title)


def _need_packages():
    """Say what is not installed before minutes are spent on what is."""
    missing = [name for module, name in _PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingDependencyError(
            f"the benchmark needs {', '.join(missing)}, not installed; "
            "install it with: pip install 'jaisp[benchmark]'"
        )


def _peers(quick):
    """Peers; with few settings each if quick."""
    from jaisp.evaluation import MatchedFilter, PhotutilsPSF, PhotutilsSegmentation, sep_peers

    peers = [*sep_peers(), MatchedFilter(), PhotutilsSegmentation(), PhotutilsPSF()]
    if quick:
        for peer in peers:
            peer.grid = {
                key: values[: 2 if key in ("threshold", "rule") else 1] for key, values in peer.grid.items()
            }
    return peers


def _measure(models, patch, peers, fields, *, quick):
    """Run everything; return the comparison and the tables."""
    from astropy.table import QTable, vstack

    from jaisp import evaluation

    finders = {
        name: lambda rubin, euclid, model=model: model.catalog(rubin, euclid, activity=_CLIPPED)
        for name, model in models.items()
    }
    result = evaluation.compare(finders, peers, fields["validation"], fields["test"], blocks=2)
    bounds = vstack([evaluation.field_bounds(field) for field in fields["test"]])
    rows = evaluation.object_gauges(models, fields["test"])
    rows.append(evaluation.tile_gauges("PatchJEPA", patch, fields["test"]))
    alone = {
        peer.name: (peer, result.settings[peer.name]["best_f1"])
        for peer in peers
        if isinstance(peer, (evaluation.SEPStack, evaluation.MatchedFilter))
    }
    rows += evaluation.peer_partners(alone, fields["test"])
    tables = {
        "benchmark": evaluation.headline(result, bootstrap=20 if quick else 200),
        "benchmark_partners": QTable(rows=rows),
        "benchmark_bins": evaluation.binned(result, bounds),
        "benchmark_tuning": evaluation.tuning_table(result),
    }
    return result, tables


def _write(output, result, tables, title):
    """Write tables and figures beside their places, and put them there when all are whole."""
    from jaisp import __version__
    from jaisp.evaluation import benchmark_markdown, plot_bins, plot_curves

    with tempfile.TemporaryDirectory(dir=output, prefix=".part-") as temporary:
        folder = Path(temporary)
        for name, table in tables.items():
            table.meta |= {"jaisp": __version__, "skies": title}
            table.write(folder / f"{name}.ecsv")
        (folder / "benchmark.md").write_text(benchmark_markdown(tables, title))
        plot_curves(
            {name: by["best_f1"] for name, by in result.scores.items()}, folder / "curves.png", title=title
        )
        plot_bins(tables["benchmark_bins"], folder / "bins.png", title=title)
        for path in sorted(folder.iterdir()):
            path.replace(output / path.name)
            print(output / path.name)


class _Ticker:
    """Counts the fields that were gone through, in however many passes."""

    def __init__(self, progress, total):
        self.progress, self.total, self.done = progress, total, 0

    def over(self, items):
        """Yield the items, counting each."""
        for item in items:
            yield item
            self.done += 1
            self.progress(self.done, max(self.total, self.done))

    def passes(self, fields):
        """An iterable that counts in each pass over it."""
        return _Counted(self, fields)


class _Counted:
    def __init__(self, ticker, fields):
        self.ticker, self.fields = ticker, fields

    def __iter__(self):
        return self.ticker.over(self.fields)

    def __len__(self):
        return len(self.fields)
