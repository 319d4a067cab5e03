# Licensed under a 3-clause BSD style license - see LICENSE
"""Files and folders that are written whole or not at all."""

import shutil
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

__all__ = ["atomic_path", "whole_folder"]


@contextmanager
def atomic_path(path):
    """
    Give a temporary name beside ``path`` that becomes ``path`` if all goes well, and is removed if not.

    Parameters
    ----------
    path : `~pathlib.Path`
        The file to be written.

    Yields
    ------
    temporary : `~pathlib.Path`
        A new name with the same suffix in the same folder.
    """
    temporary = path.with_name(f".{path.stem}-{uuid4().hex[:8]}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder, marker):
    """
    Folder beside ``folder`` that takes its place when the block ends well, and is removed when it does not.

    Parameters
    ----------
    folder : path-like
        Its parents are made if missing. What it holds already is kept, but for files of the same names.
    marker : str
        Name of the file that tells that all is there.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}-{uuid4().hex[:8]}")
    partial.mkdir()
    try:
        yield partial
        try:
            partial.replace(folder)
        except OSError:
            if not folder.is_dir():
                raise
            # It holds something. Files that another run has mapped live on where they are replaced.
            (folder / marker).unlink(missing_ok=True)
            for path in sorted(partial.iterdir(), key=lambda path: path.name == marker):
                path.replace(folder / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
