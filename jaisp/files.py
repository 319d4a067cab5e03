# Licensed under a 3-clause BSD style license - see LICENSE
"""Files that are written whole or not at all."""

from contextlib import contextmanager

__all__ = ["atomic_path"]


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
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
