# Licensed under a 3-clause BSD style license - see LICENSE
"""The two surveys and their bands: the only place where bands have an order."""

from dataclasses import dataclass

from jaisp.exceptions import BandError, suggest

__all__ = ["AB_ZERO_POINT", "EUCLID", "RUBIN", "SURVEYS", "Band", "Survey", "column_prefix", "get_survey"]

#: AB magnitude of 1 nJy.
AB_ZERO_POINT = 31.4


@dataclass(frozen=True)
class Band:
    """
    One photometric band of a survey.

    Parameters
    ----------
    name : str
        Name as the survey writes it, e.g. ``"i"`` or ``"VIS"``.
    wavelength : float
        Effective wavelength in nm.
    psf_fwhm : float
        Median PSF full width at half maximum in arcsec; the fallback when no PSF is given.
    depth : float
        5-sigma point-source depth, AB magnitude (ten-year Rubin, Euclid Wide).
    """

    name: str
    wavelength: float
    psf_fwhm: float
    depth: float


@dataclass(frozen=True)
class Survey:
    """
    A survey: its name, its bands in order of wavelength, and its nominal pixel scale.

    Parameters
    ----------
    name : str
        Lower-case name, used in column names.
    label : str
        Name for people.
    bands : tuple of `Band`
        In order of wavelength; this order is the channel order of every tensor.
    pixel_scale : float
        Pixel scale in arcsec of the grid on which the models see this survey.
    """

    name: str
    label: str
    bands: tuple
    pixel_scale: float

    @property
    def band_names(self):
        """Names of the bands, in order of wavelength."""
        return tuple(band.name for band in self.bands)

    def band(self, name):
        """Return the `Band` called ``name`` (case matters: Rubin ``y`` is not NISP ``Y``)."""
        for band in self.bands:
            if band.name == name:
                return band
        raise BandError(
            f"unknown {self.label} band {name!r}{suggest(name, self.band_names)}; "
            f"allowed: {', '.join(self.band_names)}"
        )

    def index(self, name):
        """Channel index of the band called ``name``."""
        return self.bands.index(self.band(name))


# Wavelengths, seeing and depths: LSST Science Requirements / Euclid Q1 papers.
RUBIN = Survey(
    name="rubin",
    label="Rubin",
    bands=(
        Band("u", 368.0, 0.92, 26.1),
        Band("g", 478.0, 0.87, 27.4),
        Band("r", 622.0, 0.83, 27.5),
        Band("i", 754.0, 0.80, 26.8),
        Band("z", 869.0, 0.78, 26.1),
        Band("y", 973.0, 0.76, 24.9),
    ),
    pixel_scale=0.2,
)

EUCLID = Survey(
    name="euclid",
    label="Euclid",
    bands=(
        Band("VIS", 715.0, 0.18, 26.2),
        Band("Y", 1081.0, 0.50, 24.4),
        Band("J", 1367.0, 0.46, 24.4),
        Band("H", 1771.0, 0.59, 24.4),
    ),
    pixel_scale=0.1,
)

SURVEYS = {survey.name: survey for survey in (RUBIN, EUCLID)}


def get_survey(survey):
    """Return the `Survey` for a name (or a `Survey`, unchanged)."""
    if isinstance(survey, Survey):
        return survey
    try:
        return SURVEYS[str(survey).lower()]
    except KeyError:
        raise BandError(f"unknown survey {survey!r}; allowed: {', '.join(SURVEYS)}") from None


def column_prefix(survey, band):
    """
    Prefix of the catalogue columns of a band.

    Examples
    --------
    >>> from jaisp.surveys import column_prefix
    >>> column_prefix("euclid", "VIS")
    'euclid_vis'
    """
    survey = get_survey(survey)
    return f"{survey.name}_{survey.band(band).name.lower()}"
