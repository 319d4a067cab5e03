# Licensed under a 3-clause BSD style license - see LICENSE
"""The parser of ``jaisp`` and the one place where errors become exit codes."""

import argparse
import contextlib
import logging
import signal
import sys
import threading
import warnings

from jaisp import __version__
from jaisp.cli import benchmark, catalog, demo, report, simulate, train
from jaisp.exceptions import JaispError, JaispWarning

__all__ = ["build_parser", "main"]

_COMMANDS = (demo, catalog, report, simulate, train, benchmark)
_BAD_INPUT = 2
_INTERRUPTED = 130
_TERMINATED = 143


class _Parser(argparse.ArgumentParser):
    """An argument parser that refuses in one line, as the rest of the package does."""

    def error(self, message):
        raise JaispError(f"{message} (see '{self.prog} --help')")


def build_parser():
    """
    Build the parser of the command line.

    Returns
    -------
    parser : `argparse.ArgumentParser`
        One subparser for each command; each sets ``run``, a function of the parsed arguments.
    """
    parser = _Parser(
        prog="jaisp",
        description="One catalogue of objects from Rubin and Euclid images of the same sky.",
        epilog="'jaisp COMMAND --help' tells the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"jaisp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        subparser = command.add_parser(commands)
        subparser.add_argument(
            "-v", "--verbose", action="store_true", help="show the log and third-party warnings"
        )
        subparser.set_defaults(run=command.run)
    return parser


def main(argv=None):
    """
    Run the command line.

    Parameters
    ----------
    argv : list of str, optional
        Arguments without the program's name; those of the process by default.

    Returns
    -------
    status : int
        0 on success, 2 for a mistake in the input or too little memory (one line on stderr), 130 or 143 if
        interrupted.
    """
    previous = _terminate_cleanly()
    try:
        args = build_parser().parse_args(argv)
        with _reporting(verbose=args.verbose):
            args.run(args)
    except (JaispError, OSError) as error:
        # OSError: a full disk or a vanished file, which no check beforehand can rule out.
        return _say(str(error), _BAD_INPUT)
    except MemoryError as error:
        said = f" ({error})" if str(error) else ""
        hint = "cut the images out first or give fewer bands"
        return _say(f"not enough memory{said}; {hint}", _BAD_INPUT)
    except KeyboardInterrupt:
        return _say("interrupted", _INTERRUPTED)
    except _TerminatedError:
        return _say("terminated", _TERMINATED)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
    return 0


class _TerminatedError(BaseException):
    """SIGTERM, raised as an exception so that temporary files are removed."""


def _terminate_cleanly():
    """Turn SIGTERM into an exception; return the previous handler (None outside the main thread)."""
    if threading.current_thread() is not threading.main_thread():
        return None

    def handler(signum, frame):
        raise _TerminatedError

    return signal.signal(signal.SIGTERM, handler)


def _say(message, status):
    kind = "error: " if status == _BAD_INPUT else ""
    print(f"jaisp: {kind}{' '.join(message.split())}", file=sys.stderr)
    return status


@contextlib.contextmanager
def _reporting(*, verbose):
    """Show the package's warnings as one line each on stderr, and others only if verbose."""
    logger = logging.getLogger("jaisp")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("jaisp: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO if verbose else logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("once" if verbose else "ignore")
            warnings.simplefilter("once", JaispWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"jaisp: warning: {' '.join(str(message).split())}", file=sys.stderr)
