# Licensed under a 3-clause BSD style license - see LICENSE
"""Which bits of a survey's mask make a pixel useless."""

import numpy as np

from jaisp.exceptions import ImageError

__all__ = ["BAD_FLAG_BITS", "BAD_MASK_PLANES", "INVALID", "flag_numbers", "flagged", "plane_mask"]

# Mask planes whose pixels are not used, with the names that DP2 has for three of them. DETECTED is every
# source, INTRP is mended well.
BAD_MASK_PLANES = (
    "BAD", "SAT", "CR", "EDGE", "NO_DATA", "UNMASKEDNAN", "SENSOR_EDGE",
    "SATURATED", "COSMIC_RAY", "DETECTION_EDGE",
)  # fmt: skip
# Numbers of Rubin DP1, for masks that have bits but no cards to tell them.
_DP1_BITS = {"BAD": 0, "SAT": 1, "CR": 3, "EDGE": 4, "NO_DATA": 8, "SENSOR_EDGE": 17, "UNMASKEDNAN": 18}
# Bit of Euclid's FLAG that holds whatever must not be used for anything.
INVALID = 0
# Bits of FLAG whose pixels are not used (VIS flag map of the Euclid data product description): INVALID, and
# for VIS the saturated (SAT) and the missing (NO_DATA). Others (cosmic rays, ghosts, ...) are set where only
# one of the exposures is touched. For NISP, INVALID alone.
BAD_FLAG_BITS = {"VIS": (INVALID, 3, 22), "NISP": (INVALID,)}


def flag_numbers(band):
    """Numbers of the bits of FLAG whose pixels are not used in a band of Euclid."""
    return BAD_FLAG_BITS["VIS" if band == "VIS" else "NISP"]


def flagged(bits, numbers):
    """Pixels with one of the bits of these numbers; a mask of 0 and 1 means what it says."""
    if _plain(bits):
        return bits != 0
    return _any_bit(bits, sum(1 << number for number in numbers))


def plane_mask(bits, header, where, numbers=None):
    """
    Pixels of which a bit is set that makes them useless, by the cards of their mask.

    Parameters
    ----------
    bits : 2-D array
        Integers, or bool.
    header : mapping
        Header of the mask: ``MP_SAT = 1``, or ``MSKN0001 = SAT`` and ``MSKM0001 = 2``. The numbers differ
        from file to file.
    where : str
        What to call the mask's owner in messages.
    numbers : sequence of int, optional
        Bits that count where no card tells; those of Rubin DP1 by default.

    Returns
    -------
    bad : 2-D bool array
    assumed : bool
        Whether the numbers of DP1 had to be assumed.
    """
    values = _plane_values(header, where)
    if values:
        return _any_bit(bits, sum(value for name, value in values.items() if name in BAD_MASK_PLANES)), False
    if numbers is not None:
        return flagged(bits, numbers), False
    return flagged(bits, _DP1_BITS.values()), not _plain(bits)


def _plain(bits):
    """Tell whether a mask holds nothing but 0 and 1."""
    return bits.dtype.kind == "b" or bits.max(initial=0) <= 1


def _any_bit(bits, value):
    return (bits.astype(np.int64) & value) != 0


def _plane_values(header, where):
    """Bits of the mask planes as the cards of a mask say; 0 for planes that do not matter."""
    values = {}
    for key, value in header.items():
        key = key.upper()
        if key.startswith("MP_"):
            name, shift = key[3:], True
        elif key.startswith("MSKN"):
            name, shift = str(value).strip().upper(), False
            key = f"MSKM{key[4:]}"
            value = header.get(key)
        else:
            continue
        values[name] = _bits_of(value, shift, key, where) if name in BAD_MASK_PLANES else 0
    return values


def _bits_of(value, shift, card, where):
    """Value of a mask plane from its card, which holds the number of its bit if ``shift``."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = -1
    if shift and 0 <= number < 63:
        return 1 << number
    if not shift and 0 < number < 1 << 63:
        return number
    allowed = "the number of a bit, 0 to 62" if shift else "the value of a bit, 1 to 2**62"
    raise ImageError(f"{where}: {card} of its mask is {value!r}; allowed: {allowed}")
