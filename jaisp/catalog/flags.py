# Licensed under a 3-clause BSD style license - see LICENSE
"""Flags of the catalogue: one registry makes the constants, the documentation and the decoder."""

from dataclasses import dataclass

import numpy as np

from jaisp.exceptions import ConfigError, suggest

__all__ = ["FLAGS", "Flag", "decode_flags", "flag_value", "set_flag"]


@dataclass(frozen=True)
class Flag:
    """
    One bit of the ``flags`` column.

    Parameters
    ----------
    bit : int
        Position of the bit; the value is ``2**bit``.
    name : str
        Short name, as `decode_flags` gives it.
    description : str
        What it means for a user.
    """

    bit: int
    name: str
    description: str

    @property
    def value(self):
        """Value of the bit."""
        return 1 << self.bit


_DESCRIPTIONS = {
    "edge": "nearer to the edge of an image than the light of the object reaches",
    "masked_pixels": "bad pixels within the object's core in at least one band",
    "band_missing": "at least one of the ten bands has no image here",
    "flux_not_measurable": "the flux of a band with an image could not be measured and is NaN",
    "psf_from_stars": "the PSF of at least one band was estimated from stars in the image",
    "psf_from_survey": "no PSF was given for at least one band; the survey's median PSF was used",
    "slots_saturated": "more candidates than query slots here, even after splitting the tile",
    "rubin_only": "seen by Rubin alone: no Euclid slot, or no Euclid image here",
    "euclid_only": "seen by Euclid alone: no Rubin slot, or no Rubin image here",
    "blended": "the light of a neighbour overlaps; fluxes were solved together",
    "unrecognized_blend": "one Rubin slot faces several Euclid objects",
    "refinement_failed": "position and shape are the network's, the likelihood found no better ones; fluxes "
    "are the less certain, as their errors tell",
    "large_source": "larger than the stamp on which it was measured; the flux may be low",
    "negative_light": "in some band the fit asked for a flux below -5 sigma, which was set to 0: not all "
    "light here is that of rows, as beside a saturated star",
    "first_look": "too unlikely to be measured together with the others: place and shape are the network's, "
    "fluxes a first look that may hold light of neighbours, and their fluxes light of this",
}

#: Every flag, in order of its bit.
FLAGS = tuple(Flag(bit, name, text) for bit, (name, text) in enumerate(_DESCRIPTIONS.items()))
_BY_NAME = {flag.name: flag for flag in FLAGS}


def flag_value(name):
    """
    Value of the flag called ``name``.

    Examples
    --------
    >>> from jaisp.catalog import flag_value
    >>> flag_value("masked_pixels")
    2
    """
    try:
        return _BY_NAME[name].value
    except KeyError:
        raise ConfigError(
            f"unknown flag {name!r}{suggest(name, _BY_NAME)}; allowed: {', '.join(_BY_NAME)}"
        ) from None


def set_flag(flags, name, where):
    """Set a flag in the integer array ``flags``, in place, where ``where`` is True."""
    flags[np.asarray(where, bool)] |= flag_value(name)


def decode_flags(flags):
    """
    Names of the flags that are set.

    Parameters
    ----------
    flags : int or array of int

    Returns
    -------
    list of str, or list of list of str for an array

    Examples
    --------
    >>> from jaisp.catalog import decode_flags
    >>> decode_flags(3)
    ['edge', 'masked_pixels']
    """
    if np.ndim(flags) == 0:
        return [flag.name for flag in FLAGS if int(flags) & flag.value]
    return [decode_flags(value) for value in np.asarray(flags).ravel()]
