# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp train``: train a model as a configuration file says."""

from pathlib import Path

from jaisp.cli._common import check_folder, progress_bar
from jaisp.exceptions import ConfigError

__all__ = ["add_parser", "run"]


def add_parser(commands):
    """Add the command's parser to ``commands`` and return it."""
    parser = commands.add_parser(
        "train",
        help="train a model",
        description="Train a model as CONFIG.toml says. RUN/metrics.jsonl is the log; RUN/weights is "
        "a folder that 'jaisp catalog --weights' takes.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="configuration of the training")
    parser.add_argument("-o", "--output", type=Path, metavar="RUN", help="folder of the run")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in RUN")
    parser.add_argument(
        "--check", action="store_true", help="only check the configuration and the data with one step"
    )
    return parser


def run(args):
    """Run the command."""
    if args.output is None and not args.check:
        raise ConfigError("the run needs a folder: give -o RUN (or --check to check the configuration only)")

    from jaisp.training import check, load_config, train

    config = load_config(args.config)
    if not args.check:
        check_folder(args.output)
    with progress_bar("data", unit="scene") as data_progress:
        if args.check:
            metrics = check(config, data_progress=data_progress)
            loader, model = (metrics[f"train/{name}_tiles_per_second"] for name in ("loader", "model"))
            print(
                f"{args.config}: one step went well; the model takes {model:.1f} tiles/s, one process of the "
                f"loader gives {loader:.1f}"
            )
            return
        with progress_bar("training", unit="step") as progress:
            weights = train(
                config, args.output, resume=args.resume, progress=progress, data_progress=data_progress
            )
    print(f"{args.output / 'metrics.jsonl'}: log\n{weights}: model")
