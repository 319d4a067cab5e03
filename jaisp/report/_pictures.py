# Licensed under a 3-clause BSD style license - see LICENSE
"""Pictures for the page, as data URLs."""

import base64
import io

import numpy as np
from scipy.ndimage import binary_dilation, binary_erosion

from jaisp.catalog.plots import rgb
from jaisp.exceptions import MissingDependencyError

__all__ = ["LEVELS", "band_picture", "colour_picture", "require_pillow"]

#: Code 0 is "no data"; 24 to 255 are asinh(flux / 3 sky sd) between these two.
LEVELS = {"first": 24, "low": float(np.arcsinh(-2)), "high": float(np.arcsinh(1000)), "knee": 3.0}
_HOLE = 8  # pixels; smaller holes, as of bad columns, are not seen through
_LONGEST = 2400  # pixels; larger images are averaged down


def require_pillow():
    """Return `PIL.Image`, or say how to install it."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingDependencyError(
            "the pictures of a report need Pillow, which is not installed; run: pip install 'jaisp[plot]'"
        ) from None
    return Image


def _data_url(pixels, kind, **options):
    """Encode (ny, nx[, channels]) uint8, first row at the bottom as in FITS."""
    buffer = io.BytesIO()
    require_pillow().fromarray(pixels[::-1]).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def colour_picture(image):
    """Encode the colour composite of a survey's image, transparent where no band has a pixel."""
    picture = rgb(image)
    empty = np.logical_and.reduce(list(image.mask.values()))
    empty = binary_dilation(binary_erosion(empty, iterations=_HOLE, border_value=1), iterations=_HOLE)
    factor = image.shape[0] // picture.shape[0]
    ny, nx = picture.shape[:2]
    opaque = ~empty[: ny * factor : factor, : nx * factor : factor]
    pixels = np.dstack([np.round(255 * picture), 255 * opaque])
    return _data_url(pixels.astype(np.uint8), "webp", quality=90)


def band_picture(image, band):
    """Encode one band in levels of its noise, from which the page stretches each cut-out by itself."""
    data, mask = image.sky_subtracted(band), image.mask[band]
    factor = -(-max(data.shape) // _LONGEST)
    if factor > 1:
        ny, nx = (side // factor for side in data.shape)
        block = (ny, factor, nx, factor)
        cut = np.s_[: ny * factor, : nx * factor]
        data, mask = data[cut].reshape(block).mean((1, 3)), mask[cut].reshape(block).all((1, 3))
    level = np.arcsinh(data / (LEVELS["knee"] * image.noise[band].pixel_sd))
    fraction = (level - LEVELS["low"]) / (LEVELS["high"] - LEVELS["low"])
    code = LEVELS["first"] + (255 - LEVELS["first"]) * np.clip(fraction, 0, 1)
    return _data_url(np.where(mask, 0, np.round(code)).astype(np.uint8), "jpeg", quality=92)
