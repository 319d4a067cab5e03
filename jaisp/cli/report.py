# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp report``: a catalogue as one page for the browser."""

from pathlib import Path

from jaisp.cli._common import (
    check_file,
    count,
    image_arguments,
    image_files,
    read_images,
    tell_findings,
)

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command's parser to ``commands`` and return it."""
    parser = commands.add_parser(
        "report",
        help="show a catalogue as one page for the browser",
        description="Write one HTML file, which needs no network, with the picture of the sky, the table, a "
        "map of the embeddings, and for each object its cut-outs, fluxes and nearest kin.",
    )
    parser.add_argument("catalog", type=Path, metavar="CATALOG", help="a catalogue that jaisp wrote")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="REPORT.html", help="the page to write"
    )
    image_arguments(
        parser,
        *(
            f"{label} images that the catalogue was made from (without images the page has no pictures)"
            for label in ("Rubin", "Euclid")
        ),
    )
    parser.add_argument("--title", metavar="TEXT", help="heading of the page (the name of the catalogue)")
    parser.add_argument(
        "--max-objects", type=count, default=5000, metavar="N",
        help="show at most N objects, the most active (%(default)s)",
    )  # fmt: skip
    return parser


def run(args):
    """Run the command."""
    inputs = [args.catalog, *image_files(args)]
    check_file(args.output, inputs=inputs, suffixes=(".html", ".htm"))

    from jaisp.catalog import read_catalog
    from jaisp.report import write_report

    table = read_catalog(args.catalog)
    images = read_images(args)
    tell_findings(*images)
    images = images if inputs[1:] else None
    title = args.title or args.catalog.name
    write_report(table, args.output, images, title=title, max_objects=args.max_objects)
    print(f"{args.output}: {len(table)} objects, {args.output.stat().st_size / 1e6:.1f} MB")
