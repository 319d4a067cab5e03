# Licensed under a 3-clause BSD style license - see LICENSE
"""MER mosaics, of Euclid's own bands and of ground bands on its grid: what belongs together."""

from pathlib import Path

from jaisp.exceptions import FileError
from jaisp.io._bands import MER_NAME
from jaisp.io.companions import file_list, siblings, without_companions

__all__ = ["images_only", "is_mer", "mer_companions"]


def is_mer(path):
    """Tell whether a file is named as those of MER are."""
    return MER_NAME.search(Path(path).name) is not None


def images_only(files, kinds):
    """
    List images without the companions that a shell pattern has caught along: they are found anyway.

    Parameters
    ----------
    files : path, sequence of paths, or mapping of band to path
        As the readers take them.
    kinds : sequence of str
        Endings of companions that are not named by MER, as for `without_companions`.
    """
    pairs = without_companions(file_list(files), kinds)
    images = [pair for pair in pairs if not _is_companion(pair[0])]
    if not images:
        raise FileError(
            f"{pairs[0][0]}: is an RMS, FLAG, PSF or background file; give the mosaic that it belongs to"
        )
    return images


def _is_companion(path):
    match = MER_NAME.search(Path(path).name)
    return match is not None and (match["kind"] is not None or "MOSAIC" not in match["product"].upper())


def mer_companions(path):
    """RMS, FLAG and PSF files beside a mosaic, by kind, the likeliest first."""
    match = MER_NAME.search(Path(path).name)
    band, tile = match["band"], match["tile"]
    patterns = {
        "rms": [f"EUC_MER_MOSAIC-{band}-RMS_TILE{tile}*.fits*"],
        "mask": [f"EUC_MER_MOSAIC-{band}-FLAG_TILE{tile}*.fits*"],
        "psf": [
            f"EUC_MER_GRID-PSF-{band}_TILE{tile}*.fits*",
            f"EUC_MER_CATALOG-PSF-{band}_TILE{tile}*.fits*",
        ],
    }
    found = {
        kind: [other for pattern in choices for other in siblings(path, pattern)]
        for kind, choices in patterns.items()
    }
    return {kind: others for kind, others in found.items() if others}
