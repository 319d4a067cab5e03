# Licensed under a 3-clause BSD style license - see LICENSE
"""Which band a file holds: from filter names as observatories write them, or from the file's name."""

import re
from pathlib import Path

from jaisp.exceptions import BandError
from jaisp.surveys import EUCLID, RUBIN, SURVEYS

__all__ = [
    "BAND_KEYS",
    "MER_NAME",
    "band_of_file",
    "band_of_label",
    "says_lower_y",
    "stem",
    "survey_of_label",
]

BAND_KEYS = (
    "BAND",
    "LSST BUTLER DATAID BAND",
    "FILTER",
    "LSST BUTLER DATAID PHYSICAL_FILTER",
    "FILTER1",
    "FILTER01",
)

# Cameras whose ugrizy bands are near enough to Rubin's, as they prefix filter names.
_GROUND = (
    r"LSST(?:Cam|ComCam|20[0-9]{2})?|ComCam|Rubin|HSC|MegaCam|MegaPrime|CFHT|CFIS|UNIONS|DES|DECam|SDSS|PS1|PanSTARRS|"
    r"JPCAM|WISHES|Sloan|VST|OmegaCAM|KiDS|Subaru|W-S|SkyMapper|BASS"
)
_RUBIN_LABEL = re.compile(
    # "HSC-I2", "LSST_g", "ComCam_g_01", "MEGACAM_U", "W-S-I+", "i_03", "r2";
    # "g DECam SDSS c0001 4720.0 1520.0", "i_PS1", "i_sim_1.4"
    rf"^(?:(?:(?:{_GROUND})[-_. ]?)(?P<ground>[ugrizy])(?:_?[0-9]{{1,2}}|\+)?"
    rf"|(?P<plain>[ugrizy])(?:_?[0-9]{{1,2}}|\+)?"
    rf"|(?P<long>[ugrizy])[-_. ](?:{_GROUND}|MP9|sim)(?![a-z])[\w .]*)$",
    re.IGNORECASE,
)
_EUCLID_LABEL = re.compile(
    # "VIS", "VIS_IE", "I_E", "EUC_VIS", "NIR_Y", "NISP-P-Y", "YE", "H_E", "H_NISP"
    r"^(?:(?:Euclid|EUC)[-_./ ]?)?(?:(?P<vis>VIS|(?:VIS[-_. ]?)?I_?E)"
    r"|(?:(?:NISP|NIR)[-_. ]?(?:[PS][-_. ])?)?(?P<nisp>[YJH])(?:_?E)?"
    r"|(?P<before>[YJH])[-_. ](?:NISP|NIR))$",
    re.IGNORECASE,
)
MER_NAME = re.compile(
    r"EUC_MER_(?P<product>BGSUB-MOSAIC|MOSAIC|GRID-PSF|CATALOG-PSF|BGMOD)-(?P<band>VIS|[A-Z0-9]+-[A-Z0-9])"
    r"(?:-(?P<kind>RMS|FLAG))?_TILE(?P<tile>[0-9]+)",
    re.IGNORECASE,
)


def band_of_label(label, survey):
    """
    Band of ``survey`` that a filter name means, or None.

    Case does not matter, but for the one letter by which the surveys can be confused: a bare ``"Y"`` is
    NISP's, a bare ``"y"`` Rubin's.
    """
    label = re.sub(r"[-_. ]?band$", "", str(label).strip(), flags=re.IGNORECASE)  # "i-band"
    if survey == RUBIN:
        if label == "Y" or not (match := _RUBIN_LABEL.match(label)):
            return None
        return next(letter for letter in match.groups() if letter).lower()
    if label == "y" or not (match := _EUCLID_LABEL.match(label)):
        return None
    return "VIS" if match["vis"] else (match["nisp"] or match["before"]).upper()


def survey_of_label(label):
    """Survey that a filter name belongs to, or None."""
    return next((survey for survey in SURVEYS.values() if band_of_label(label, survey)), None)


def stem(path):
    """Name of a file without its FITS endings."""
    return re.sub(r"\.(fits?|fts)(\.(gz|fz|bz2))?$", "", Path(path).name, flags=re.IGNORECASE)


def _words(path):
    return [word for word in re.split(r"[^A-Za-z0-9]+", stem(path)) if word]


def says_lower_y(path):
    """Tell whether a file's name says band ``y``, in lower case, and nothing of Euclid."""
    words = _words(path)
    return "y" in words and not {"EUCLID", "EUC", "MER", "NISP", "NIR", "VIS"} & {
        word.upper() for word in words
    }


def band_of_file(path, survey):
    """
    Band that a file's name tells, or None.

    Raises
    ------
    BandError
        If it names more than one band.
    """
    if match := MER_NAME.search(stem(path)):
        return band_of_label(match["band"].replace("-", "_"), survey)
    # In a file's name the survey is known, and some file systems do not know case.
    letters = "ugrizy" if survey == RUBIN else "YJH"
    words = _words(path)
    found = []
    for word in words:
        if word.lower() in letters.lower() and len(word) == 1:
            found.append(word.lower() if survey == RUBIN else word.upper())
        elif survey == EUCLID and word.upper() == "VIS":
            found.append("VIS")
        elif survey == RUBIN and len(word) > 1 and (band := band_of_label(word, RUBIN)):
            found.append(band)
    found = list(dict.fromkeys(found))
    if len(found) > 1:
        raise BandError(
            f"{path}: its name could mean band {' or '.join(found)}, and its header does not tell; "
            f"put the band in front of the name, e.g. {found[0]}={Path(path).name}"
        )
    return found[0] if found else None
