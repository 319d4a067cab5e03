# Licensed under a 3-clause BSD style license - see LICENSE
"""Differentiable scenes: PSF-convolved sources rendered with torch, for likelihoods and for training."""

from jaisp.scene.profiles import (
    DE_VAUCOULEURS,
    EXPONENTIAL,
    SERSIC_INDICES,
    Profile,
    half_light_factor,
)
from jaisp.scene.psf import PSFTransform, psf_transform
from jaisp.scene.render import (
    STAMP_SIZES,
    render_derivatives,
    render_image,
    render_stamps,
    stamp_size,
)

__all__ = [
    "DE_VAUCOULEURS",
    "EXPONENTIAL",
    "SERSIC_INDICES",
    "STAMP_SIZES",
    "PSFTransform",
    "Profile",
    "half_light_factor",
    "psf_transform",
    "render_derivatives",
    "render_image",
    "render_stamps",
    "stamp_size",
]
