# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp catalog``: from the files of one or both surveys to a catalogue."""

from pathlib import Path

from jaisp.cli._common import (
    check_file,
    device_and_workers,
    fraction,
    image_arguments,
    image_files,
    progress_bar,
    read_images,
    set_workers,
    tell_findings,
)
from jaisp.exceptions import ConfigError
from jaisp.files import atomic_path

__all__ = ["add_parser", "run"]

TABLE_SUFFIXES = (".fits", ".ecsv", ".parquet", ".vot", ".xml")
PICTURE_SUFFIXES = (".png", ".pdf", ".svg")


def add_parser(commands):
    """Add the command's parser to ``commands`` and return it."""
    parser = commands.add_parser(
        "catalog",
        help="make a catalogue from images of one or both surveys",
        description="Make a catalogue from images of Rubin, Euclid or both. Any subset of their bands works.",
        epilog="An existing output file is replaced, and only once the new one is complete.",
    )
    image_arguments(
        parser,
        "Rubin images, one file for each band or one that holds several; i=FILE names the band of a file "
        "that does not tell it",
        "Euclid images, likewise (VIS=FILE); a multi-band cutout may be given to both surveys",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT",
        help=f"the catalogue to write: {', '.join('OUT' + suffix for suffix in TABLE_SUFFIXES)}",
    )  # fmt: skip
    parser.add_argument(
        "--plot", type=Path, metavar="OUT.png", help="also draw the objects on a picture of both surveys"
    )
    parser.add_argument(
        "--region", choices=("union", "euclid", "overlap"), default="union",
        help="sky to search: that of either survey, of the Euclid image, or of both (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--weights", metavar="DIR", help="folder of a trained model (the bundled one)")
    parser.add_argument(
        "--activity", type=fraction, default=0.5, metavar="P",
        help="keep objects whose probability of being real is at least P (%(default)s)",
    )  # fmt: skip
    device_and_workers(parser)
    return parser


def run(args):
    """Run the command."""
    inputs = image_files(args)
    if not inputs:
        raise ConfigError("there is nothing to do: give --rubin, --euclid or both")
    check_file(args.output, inputs=inputs, suffixes=TABLE_SUFFIXES)
    if args.plot is not None:
        check_file(args.plot, inputs=inputs, suffixes=PICTURE_SUFFIXES)

    from jaisp import DETRJEPA
    from jaisp.catalog import catalog_pair, check_output, plots, write_catalog
    from jaisp.io import align

    check_output(args.output)  # what its format needs
    if args.plot is not None:
        plots.require_matplotlib()
    set_workers(args.workers)
    model = DETRJEPA.from_pretrained(args.weights, device=args.device)
    # The images as read are not kept in memory.
    pair = align(*read_images(args), region=args.region)
    with progress_bar("tiles", unit="tile") as progress:
        table = catalog_pair(model, pair, activity=args.activity, progress=progress)
    tell_findings(pair.rubin, pair.euclid)
    write_catalog(table, args.output)
    print(f"{args.output}: {summary(table)}")
    if args.plot is not None:
        save_figure(plots.plot_catalog(table, pair), args.plot)
        print(f"{args.plot}: picture of {len(table)} objects")


def summary(table):
    """Say in one line what a catalogue holds."""
    parts = [f"{len(table)} objects"]
    if len(table):
        blended = int((table["n_blended"] > 1).sum())
        unrecognized = int(table["rubin_unrecognized_blend"].sum())
        parts += [f"{blended} in blends", f"{unrecognized} in blends that Rubin alone does not resolve"]
    return ", ".join(parts)


def save_figure(figure, path):
    """Write a figure, leaving nothing behind if that fails."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
