# Licensed under a 3-clause BSD style license - see LICENSE
"""
Flags of the catalogue: one registry from which constants, documentation and decoding are made.

Every flag is a module constant in capitals, e.g. ``jaisp.catalog.flags.MASKED_PIXELS``.
"""

from dataclasses import dataclass

import numpy as np

from jaisp.exceptions import ConfigError, suggest

__all__ = ["FLAGS", "Flag", "decode_flags", "flag_bit", "flag_table"]


@dataclass(frozen=True)
class Flag:
    """
    One bit of the ``flags`` column.

    Parameters
    ----------
    bit : int
        Position of the bit, from 0.
    name : str
        Lower-case name.
    description : str
        What it means when set.
    """

    bit: int
    name: str
    description: str

    @property
    def value(self):
        """The integer with only this bit set."""
        return 1 << self.bit


#: All flags, in order of their bits. Bits are never given a new meaning.
FLAGS = tuple(
    Flag(bit, name, description)
    for bit, (name, description) in enumerate(
        (
            ("edge", "the object's light reaches the edge of the image in some band"),
            ("masked_pixels", "some of the object's light falls on masked pixels in some band"),
            ("core_masked", "the object's central pixel is masked in some band"),
            ("saturated", "the object is saturated in some band"),
            ("band_missing", "a band of the surveys was not given or has no data here"),
            (
                "flux_not_measurable",
                "the flux in a band that was given is NaN: too little of the light is on valid pixels",
            ),
            ("blended", "the object's light overlaps that of another object"),
            ("unrecognized_blend", "one Rubin slot faces several Euclid objects"),
            (
                "rubin_only",
                "no Euclid slot was matched: the object was found by Rubin alone, or only jointly with it",
            ),
            (
                "euclid_only",
                "no Rubin slot was matched: the object was found by Euclid alone, or only jointly with it",
            ),
            ("joint_only", "neither survey's own slots hold the object; it is significant in both together"),
            (
                "refinement_failed",
                "position and shape are the network's: the likelihood fit did not improve on them",
            ),
            ("large_source", "the object is larger than the largest stamp: its flux and size are uncertain"),
            ("psf_from_survey", "no PSF was given or found in a band: the survey's typical PSF was used"),
            ("psf_from_stars", "the PSF of a band was estimated from stars in the image"),
            (
                "slots_saturated",
                "the tile had more proposals than slots: faint objects may be missing near here",
            ),
            ("ambiguous_match", "the object's match between the surveys had a rival of similar probability"),
            (
                "close_pair",
                "another object lies within 0.3 arcsec: fluxes of the two are strongly correlated",
            ),
        )
    )
)

_BY_NAME = {flag.name: flag for flag in FLAGS}

for _flag in FLAGS:
    globals()[_flag.name.upper()] = _flag.value
__all__ += sorted(flag.name.upper() for flag in FLAGS)


def flag_bit(name):
    """
    Return the integer with only the bit of the flag called ``name`` set.

    Examples
    --------
    >>> from jaisp.catalog import flag_bit
    >>> flag_bit("masked_pixels")
    2
    """
    try:
        return _BY_NAME[name].value
    except KeyError:
        raise ConfigError(
            f"unknown flag {name!r}{suggest(name, _BY_NAME)}; allowed: {', '.join(_BY_NAME)}"
        ) from None


def decode_flags(flags, *, return_bit_values=False):
    """
    Names of the flags that are set.

    Parameters
    ----------
    flags : int or array of int
        One value or a column of the catalogue.
    return_bit_values : bool, optional
        Return the integer of each bit instead of its name.

    Returns
    -------
    names : list of str (or int), or list of such lists
        One list for a scalar, else one for each row. Empty where no bit is set.

    Examples
    --------
    >>> from jaisp.catalog import decode_flags
    >>> decode_flags(66)
    ['masked_pixels', 'blended']
    >>> decode_flags([0, 1])
    [[], ['edge']]
    """
    values = np.asarray(flags)
    if values.dtype.kind not in "iu":
        raise ConfigError(f"flags of type {values.dtype}; allowed: integers, as in the flags column")
    known = sum(flag.value for flag in FLAGS)
    if np.any(values < 0) or np.any(values & ~known):
        bad = int(values[(values < 0) | (values & ~known != 0)].ravel()[0]) if values.ndim else int(values)
        raise ConfigError(f"flags value {bad} has unknown bits; allowed: 0 to {known}")

    def decode(value):
        return [flag.value if return_bit_values else flag.name for flag in FLAGS if value & flag.value]

    if values.ndim == 0:
        return decode(int(values))
    return [decode(int(value)) for value in values.ravel()]


def flag_table():
    """
    Table of all flags, for the documentation.

    Returns
    -------
    table : `~astropy.table.Table`
        Columns ``bit``, ``value``, ``name`` and ``description``.
    """
    from astropy.table import Table

    rows = [(flag.bit, flag.value, flag.name, flag.description) for flag in FLAGS]
    return Table(rows=rows, names=("bit", "value", "name", "description"))
