# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp simulate``: paired fields with their truth, in the surveys' own file layouts."""

from pathlib import Path

from jaisp.cli._common import check_folder, count, progress_bar

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command's parser to ``commands`` and return it."""
    parser = commands.add_parser(
        "simulate",
        help="draw paired Rubin and Euclid fields with their truth",
        description="Draw paired fields with GalSim and write them in the surveys' own file layouts, "
        "with the true sources beside them.",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder to write, one folder per tile"
    )
    parser.add_argument(
        "--n-tiles", type=count, default=1, metavar="N", help="number of fields (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the draw (%(default)s)")
    parser.add_argument(
        "--size", type=float, default=0.64, metavar="ARCMIN", help="side of a field in arcmin (%(default)s)"
    )
    parser.add_argument(
        "--depth", default="ten_year", help="Rubin's depth: one_year, ten_year, dp1 or deep (%(default)s)"
    )
    parser.add_argument("--psf", default="kolmogorov", help="PSFs: kolmogorov, airy or moffat (%(default)s)")
    parser.add_argument(
        "--galaxies", default="sersic", help="profiles of galaxies: sersic or knots (%(default)s)"
    )
    parser.add_argument(
        "--rotation", type=float, metavar="DEG", help="angle of Rubin against Euclid (drawn for each field)"
    )
    parser.add_argument(
        "--layout", default="single", help="of Euclid's files: single, mer or cutout (%(default)s)"
    )
    return parser


def run(args):
    """Run the command."""
    check_folder(args.output)

    from jaisp.simulation import simulate

    options = {name: getattr(args, name) for name in ("depth", "psf", "galaxies", "layout")}
    if args.rotation is not None:
        options["rotation"] = args.rotation
    with progress_bar("fields", unit="field") as progress:
        folders = simulate(
            args.output,
            n_tiles=args.n_tiles,
            seed=args.seed,
            size_arcmin=args.size,
            progress=progress,
            **options,
        )
    for folder in folders:
        print(folder)
