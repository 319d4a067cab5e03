# Licensed under a 3-clause BSD style license - see LICENSE
"""Errors and warnings of jaisp: every user mistake ends in one of these, in one line."""

import difflib

from astropy.utils.exceptions import AstropyUserWarning

__all__ = [
    "BandError",
    "ConfigError",
    "FileError",
    "ImageError",
    "JaispError",
    "JaispWarning",
    "MissingDependencyError",
    "OverlapError",
    "WCSError",
    "WeightsError",
    "suggest",
]


class JaispError(Exception):
    """Base of every error that jaisp raises for a mistake in its input."""


class FileError(JaispError, OSError):
    """A file that is missing, unreadable, not of the expected format, or not writable."""


class ImageError(JaispError, ValueError):
    """Image data with a wrong shape, unit, variance, mask or PSF."""


class BandError(JaispError, ValueError):
    """An unknown band, a band of another survey, or a band given twice."""


class WCSError(JaispError, ValueError):
    """A missing or unusable world coordinate system."""


class OverlapError(JaispError, ValueError):
    """Two images that share no sky."""


class ConfigError(JaispError, ValueError):
    """An unknown or contradictory configuration value."""


class WeightsError(JaispError, OSError):
    """A weights folder that is missing, empty, or made for another model."""


class MissingDependencyError(JaispError, ImportError):
    """An optional package that the requested feature needs is not installed."""


class JaispWarning(AstropyUserWarning):
    """Base of the warnings of jaisp."""


def suggest(given, allowed):
    """Return ``" (did you mean 'x'?)"`` for the nearest allowed name, else ``""``."""
    near = difflib.get_close_matches(str(given), [str(name) for name in allowed], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
