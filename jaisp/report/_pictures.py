# Licensed under a 3-clause BSD style license - see LICENSE
"""Pictures for the page, as JPEG in data URLs."""

import base64
import io

import numpy as np

from jaisp.catalog.plots import rgb
from jaisp.exceptions import MissingDependencyError

__all__ = ["LEVELS", "band_picture", "colour_picture", "require_pillow"]

#: Code 0 is "no data"; 24 to 255 are asinh(flux / 3 sky sd) between these two.
LEVELS = {"first": 24, "low": float(np.arcsinh(-2)), "high": float(np.arcsinh(1000)), "knee": 3.0}
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


def _data_url(pixels):
    """Encode (ny, nx[, 3]) uint8, first row at the bottom as in FITS."""
    buffer = io.BytesIO()
    require_pillow().fromarray(pixels[::-1]).save(buffer, "JPEG", quality=92, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def colour_picture(image):
    """Encode the colour composite of a survey's image."""
    return _data_url(np.round(255 * rgb(image)).astype(np.uint8))


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
    return _data_url(np.where(mask, 0, np.round(code)).astype(np.uint8))
