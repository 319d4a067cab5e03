# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp demo``: the main job on a bundled example pair."""

from importlib.resources import as_file, files
from pathlib import Path

from jaisp.cli._common import check_folder, device_and_workers, progress_bar, set_workers
from jaisp.cli.catalog import save_figure, summary
from jaisp.exceptions import MissingDependencyError

__all__ = ["add_parser", "run"]

_SNR_BINS = ((5, 10), (10, 30), (30, float("inf")))


def add_parser(commands):
    """Add the command's parser to ``commands`` and return it."""
    parser = commands.add_parser(
        "demo",
        help="make a catalogue, pictures and a report of a bundled example",
        description="Run the main job on a small simulated ten-band pair that comes with the package, and "
        "compare what is found with its truth.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("jaisp-demo"), metavar="DIR", help="folder (%(default)s)"
    )
    device_and_workers(parser)
    return parser


def run(args):
    """Run the command."""
    check_folder(args.output)

    from astropy.table import QTable

    from jaisp import DETRJEPA
    from jaisp.catalog import write_catalog
    from jaisp.io import align, read_euclid, read_rubin

    set_workers(args.workers)
    model = DETRJEPA.from_pretrained(device=args.device)
    with as_file(files("jaisp") / "data" / "demo") as folder:
        rubin = read_rubin(sorted(folder.glob("rubin_*.fits*")))
        euclid = read_euclid(sorted(folder.glob("euclid_*.fits*")))
        truth = QTable.read(folder / "truth.fits")
    with progress_bar("tiles", unit="tile") as progress:
        table = model.catalog(rubin, euclid, progress=progress)
    args.output.mkdir(exist_ok=True)
    for name in ("catalog.fits", "catalog.ecsv"):
        write_catalog(table, args.output / name)
        print(args.output / name)
    pair = align(rubin, euclid)
    for path in _pictures(table, pair, args.output):
        print(path)
    print(f"\n{summary(table)}\n")
    print("\n".join(_report(table, truth)))


def _pictures(table, pair, folder):
    """Draw the pictures, or say what is missing for it; yield the files."""
    from jaisp.catalog import plots
    from jaisp.report import write_report

    try:
        plots.require_matplotlib()
    except MissingDependencyError as error:
        print(f"no pictures: {error}")
        return
    blends = table[table["n_blended"] > 1]["id"][:8]
    for name, figure in (
        ("catalog.png", plots.plot_catalog(table, pair)),
        ("cutouts.png", plots.plot_cutouts(table, pair, blends if len(blends) else None)),
        ("crossmatch.png", plots.plot_crossmatch(table)),
    ):
        save_figure(figure, folder / name)
        yield folder / name
    write_report(table, folder / "report.html", pair, title="jaisp demo")
    yield f"{folder / 'report.html'} (open it in a browser)"


def _report(table, truth):
    """Compare the catalogue with the true sources; yield lines."""
    import numpy as np

    from jaisp.evaluation import match_field

    match = match_field(table["sky_centroid"], table["activity"], truth)
    found = np.isfinite(match.found_at)
    snr = np.asarray(truth["snr"], float)
    close = truth["nearest"].to_value("arcsec") < 1
    yield "against the truth (one-to-one within 0.3 arcsec):"
    yield f"  {'true sources':<34}{'number':>8}{'found':>8}"
    for low, high in _SNR_BINS:
        name = f"joint S/N {low} to {high}" if np.isfinite(high) else f"joint S/N above {low}"
        chosen = (snr > low) & (snr <= high)
        yield f"  {name:<34}{chosen.sum():>8}{found[chosen].sum():>8}"
    chosen = match.wanted & close
    yield f"  {'with a neighbour within 1 arcsec':<34}{chosen.sum():>8}{found[chosen].sum():>8}"
    false = int((match.outcome == 0).sum())
    yield f"  {'objects that are no true source':<34}{'':>8}{false:>8}"
    true = match.outcome == 1
    if true.any():
        yield f"  median distance to the true position: {1000 * np.median(match.separation[true]):.0f} mas"
