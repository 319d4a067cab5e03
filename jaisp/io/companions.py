# Licensed under a 3-clause BSD style license - see LICENSE
"""Which of the files at hand are images, and which lie beside them: PSFs, masks, noise."""

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path

from jaisp.exceptions import FileError
from jaisp.io._bands import stem
from jaisp.io._fits import split_prefix

__all__ = ["file_list", "psf_beside", "siblings", "without_companions"]


def file_list(files):
    """List of (path, bands in front of it) from a path, a sequence of paths, or a mapping by band."""
    if isinstance(files, Mapping):
        pairs = [(os.fspath(path), [band]) for band, path in files.items()]
    else:
        if isinstance(files, (str, os.PathLike)):
            files = [files]
        try:
            files = list(files)
        except TypeError:
            raise FileError(f"files is a {type(files).__name__}; give a path or a list of paths") from None
        pairs = []
        for name in files:
            if not isinstance(name, (str, os.PathLike)):
                raise FileError(
                    f"files holds a {type(name).__name__}; give paths, or make a SurveyImage from arrays"
                )
            asked, path = split_prefix(name)
            pairs.append((path, asked))
    if not pairs:
        raise FileError("no file given; give at least one FITS file")
    return pairs


def without_companions(files, kinds):
    """
    Drop what a shell pattern has caught along with the images: the readers find it anyway.

    Parameters
    ----------
    files : list of (path, bands)
        As `file_list` makes it; a file with bands in front of it stays.
    kinds : sequence of str
        Endings, in any case: with ``euclid_vis.fits`` among the files, ``euclid_vis_rms.fits`` is of the kind
        ``rms`` and ``psf_euclid_vis.fits`` of the kind ``psf``.
    """
    images = {(Path(path).parent, stem(path)) for path, _ in files}
    name = re.compile(rf"(?:psf_(?P<of>.+)|(?P<image>.+)_(?:{'|'.join(kinds)}))", re.IGNORECASE)

    def is_companion(path):
        match = name.fullmatch(stem(path))
        return match is not None and (Path(path).parent, match["of"] or match["image"]) in images

    return [(path, asked) for path, asked in files if asked is not None or not is_companion(path)]


def siblings(path, pattern):
    """
    FITS files beside ``path`` whose names match a glob pattern, those first that share most with its own name
    (the same cutout of a tile), then the newest by the dates in their names.
    """

    def rank(other):
        name = stem(other)
        date = re.search(r"[0-9]{8}T[0-9]{6}[.0-9]*", name)
        return len(words & _words(name)), date[0] if date else "", name

    words = _words(stem(path))
    # Not its checksum, its header as text or its picture.
    found = [other for other in Path(path).parent.glob(pattern) if stem(other) != other.name]
    return [os.fspath(other) for other in sorted(found, key=rank, reverse=True)]


def _words(name):
    return set(re.findall("[A-Za-z0-9]+", name))


def psf_beside(path):
    """PSF file beside an image, as a mapping from kind to path."""
    name = glob.escape(stem(path))
    for pattern in (f"{name}_[pP][sS][fF].fits*", f"[pP][sS][fF]_{name}.fits*"):
        if others := siblings(path, pattern):
            return {"psf": others}
    return {}
