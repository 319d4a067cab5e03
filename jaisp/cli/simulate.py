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
    return parser


def run(args):
    """Run the command."""
    from jaisp.simulation import simulate

    check_folder(args.output)
    with progress_bar("fields", unit="field") as progress:
        simulate(args.output, n_tiles=args.n_tiles, seed=args.seed, progress=progress)
    print(f"{args.output}: {args.n_tiles} fields, seed {args.seed}")
