# Licensed under a 3-clause BSD style license - see LICENSE
"""What the commands share: images they read, checks of outputs, progress, and argument types."""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

from jaisp.exceptions import ConfigError, FileError, suggest

__all__ = [
    "check_file",
    "check_folder",
    "count",
    "device_and_workers",
    "fraction",
    "image_arguments",
    "image_files",
    "progress_bar",
    "read_images",
    "set_workers",
    "tell_findings",
]


def check_file(path, *, inputs=(), suffixes=None):
    """
    Refuse an output file that could not be written, before the work that fills it.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file to be written; an existing file will be replaced.
    inputs : sequence of path-like
        Files that are read, and so must not be overwritten.
    suffixes : sequence of str, optional
        The allowed suffixes, each with its dot; any by default.

    Raises
    ------
    FileError
        If the suffix is unknown, the folder is missing or not writable, or the file is an input.
    """
    if suffixes is not None and path.suffix.lower() not in suffixes:
        raise FileError(
            f"cannot write {str(path)!r}: unknown suffix {path.suffix!r}{suggest(path.suffix, suffixes)}; "
            f"allowed: {', '.join(suffixes)}"
        )
    if path.is_dir():
        raise FileError(f"cannot write {str(path)!r}: it is a folder; give the name of a file")
    files = [Path(part) for name in inputs for part in (name, str(name).partition("=")[2])]  # "i=file.fits"
    if path.exists() and any(file.is_file() and path.samefile(file) for file in files):
        raise FileError(f"cannot write {str(path)!r}: it is an input; choose another name")
    _check_writable(path.parent, path)


def check_folder(path):
    """
    Refuse an output folder that could not be made or filled, before the work that fills it.

    Parameters
    ----------
    path : `~pathlib.Path`
        The folder; its last part may be missing.

    Raises
    ------
    FileError
        If it is a file, its parent is missing, or nothing can be written in it.
    """
    if path.exists() and not path.is_dir():
        raise FileError(f"cannot write into {str(path)!r}: it is a file; give the name of a folder")
    _check_writable(path if path.exists() else path.absolute().parent, path)


def _check_writable(folder, path):
    if not folder.is_dir():
        raise FileError(f"cannot write {str(path)!r}: folder {str(folder)!r} does not exist; make it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FileError(
            f"cannot write {str(path)!r}: folder {str(folder)!r} is not writable ({error.strerror})"
        ) from None


@contextlib.contextmanager
def progress_bar(description, *, unit):
    """
    Give a callback ``progress(done, total, ...)`` that draws a bar on stderr if that is a terminal.

    Parameters
    ----------
    description : str
        What is being done.
    unit : str
        What is counted.

    Yields
    ------
    progress : callable
        To be called with the number done and the number to do; what else it is told is ignored.
    """
    from tqdm import tqdm

    with tqdm(desc=description, unit=unit, disable=not sys.stderr.isatty(), leave=False) as bar:

        def progress(done, total, *_):
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def image_arguments(parser, rubin, euclid):
    """
    Add ``--rubin`` and ``--euclid``, and what may be said of these images.

    Parameters
    ----------
    parser : `~argparse.ArgumentParser`
    rubin, euclid : str
        What the images are, for the help.
    """
    for survey, text in (("rubin", rubin), ("euclid", euclid)):
        parser.add_argument(f"--{survey}", nargs="+", action="extend", default=[], metavar="FILE", help=text)
    for survey in ("rubin", "euclid"):
        parser.add_argument(
            f"--{survey}-psf", nargs="+", metavar="FILE",
            help="PSF images, in the order of the images, or one file for all (found in the files or beside "
            "them)",
        )  # fmt: skip
        parser.add_argument(
            f"--{survey}-zero-point", type=float, metavar="MAG",
            help="AB zero point of the pixels (from the files)",
        )  # fmt: skip


def image_files(args):
    """
    List the files that `image_arguments` were given.

    Raises
    ------
    ConfigError
        If something is said of a survey's images and there are none.
    """
    files = []
    for survey in ("rubin", "euclid"):
        images, psfs = getattr(args, survey), getattr(args, f"{survey}_psf") or []
        said = {"psf": bool(psfs), "zero-point": getattr(args, f"{survey}_zero_point") is not None}
        for name, given in said.items():
            if given and not images:
                raise ConfigError(
                    f"--{survey}-{name} is given, but no image that it is of; give --{survey} too"
                )
        files += [*images, *psfs]
    return files


def read_images(args):
    """Read what `image_arguments` were given: images of Rubin and of Euclid, None where there are none."""
    from jaisp.io import read_euclid, read_rubin

    rubin = euclid = None
    if args.rubin:
        rubin = read_rubin(args.rubin, psf=_psfs(args.rubin_psf), zero_point=args.rubin_zero_point)
    if args.euclid:
        euclid = read_euclid(args.euclid, psf=_psfs(args.euclid_psf), zero_point=args.euclid_zero_point)
    return rubin, euclid


def _psfs(paths):
    """Return PSF files as the readers take them: one alone may hold the PSFs of all bands."""
    return paths[0] if paths and len(paths) == 1 else paths


def device_and_workers(parser):
    """Add ``--device`` and ``--workers``, which every command that runs a model has."""
    parser.add_argument(
        "--device", choices=("cpu", "cuda", "auto"), default="auto", help="where the model runs (auto)"
    )
    parser.add_argument(
        "--workers", type=count, metavar="N", help="threads of the CPU to use (torch's default: all cores)"
    )


def set_workers(workers):
    """Let torch use ``workers`` threads; None leaves torch's default."""
    if workers is not None:
        import torch

        torch.set_num_threads(workers)


def tell_findings(*images):
    """Say on stderr what was found wrong with the images (or None) and mended."""
    for image in images:
        for finding in image.findings if image is not None else ():
            print(f"jaisp: note: {image.survey.label} {finding}", file=sys.stderr)


def count(text):
    """Argument type: a whole number of at least 1."""
    return _checked(text, int, lambda value: value >= 1, "a whole number of at least 1")


def fraction(text):
    """Argument type: a number from 0 to below 1."""
    return _checked(text, float, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def _checked(text, convert, allowed, what):
    try:
        value = convert(text)
    except ValueError:
        value = None
    if value is None or not allowed(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
