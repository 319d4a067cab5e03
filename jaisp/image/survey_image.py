# Licensed under a 3-clause BSD style license - see LICENSE
"""`SurveyImage`: the bands of one survey on one celestial WCS, checked where it is made."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from jaisp.exceptions import BandError, ImageError
from jaisp.image._bad_pixels import gaps, repeated_value, saturated_pixels, sharp_pixels
from jaisp.image._given_psf import given_psf
from jaisp.image._given_wcs import ONE_GRID, given_wcs
from jaisp.image._lazy import Lazy
from jaisp.image._sky import data_box
from jaisp.image.background import estimate_background
from jaisp.image.inputs import (
    parse_image,
    parse_mask,
    parse_variance,
)
from jaisp.image.mask_bits import flag_numbers
from jaisp.image.noise import measure_noise, measure_variance
from jaisp.image.psf import survey_psf
from jaisp.image.stars import estimate_psf
from jaisp.image.units import NJY
from jaisp.surveys import EUCLID, get_survey

__all__ = ["Finding", "SurveyImage"]

# MER mosaics mark pixels without data by RMS = 1e16 and the value 0: both finite.
_SENTINEL_VARIANCE = 1e20
# Blank values such as -1e30, and what single precision cannot square.
_LARGEST = 1e15
_SMALLEST_VARIANCE = 1e-30


@dataclass(frozen=True)
class Finding:
    """
    Something that was found in an image, and what was done about it.

    Parameters
    ----------
    band : str
        Name of the band.
    what : str
        What was found.
    done : str
        How it was mended.
    doubtful : bool
        Whether numbers that are measured on the image are in doubt all the same.
    """

    band: str
    what: str
    done: str
    doubtful: bool = False

    def __str__(self):
        return f"{self.band}: {self.what}; {self.done}"


class SurveyImage:
    """
    Images of one survey in one or more bands, on one celestial WCS.

    Parameters
    ----------
    data : mapping of str to image
        Band name to 2-D array, masked array, `~astropy.units.Quantity`, `~astropy.nddata.NDData` (or
        ``CCDData``) or image HDU. Everything becomes nJy per pixel. All bands have the same shape and WCS.
    wcs : `~astropy.wcs.WCS` or FITS header, optional
        Celestial WCS of all bands; taken from the NDData or HDU where not given.
    survey : str or `~jaisp.surveys.Survey`
        ``"rubin"`` or ``"euclid"``.
    variance : mapping of str to array, optional
        Variance per pixel, in nJy2 or in the square of the band's own unit if it is a bare array. Measured
        from the sky where not given. Pixels whose variance is negative, zero, not finite or a sentinel are
        masked.
    mask : mapping of str to array or image HDU, optional
        True (or not 0) where a pixel is bad. Of an HDU's bits those count that do in files: by its ``MP_``
        cards, or Euclid's flags. Pixels that are not finite are masked in any case.
    psf : mapping of str to array, optional
        One odd-sized square PSF image per band on the pixel scale of the image; normalised here, and
        resampled if it is an HDU that states other pixels (``PIXELSCL``, a WCS, ``OVERSAMP``). Where not
        given it is estimated from stars, or else the documented PSF of the survey.
    unit : `~astropy.units.Unit` or str, optional
        Unit of input that states none itself. Default nJy.
    meta : mapping, optional
        Anything to carry along, e.g. where the pixels came from.
    copy : bool, optional
        With False, float32 pixels in nJy are not copied; those that are not finite are set to 0 in place.

    Attributes
    ----------
    bands : tuple of str
        Names of the bands, in the order of the survey.
    shape : tuple of int
        ``(ny, nx)``.
    wcs : `~astropy.wcs.WCS`
        Celestial WCS.
    pixel_scale : float
        In arcsec.
    data, variance : mapping of str to 2-D float32 array
        nJy and nJy2 per pixel; finite everywhere.
    mask : mapping of str to 2-D bool array
        True where bad.
    psf : mapping of str to 2-D float32 array
        PSF of each band, square, odd-sized, centred, of sum 1.
    psf_source : mapping of str to str
        ``"given"``, ``"stars"`` or ``"survey"``.
    background : mapping of str to 2-D float32 array or None
        Residual sky in nJy per pixel, None where there is nothing significant.
    noise : mapping of str to `Noise`
        What the pixels say of the noise.
    findings : list of `Finding`
        What was found wrong, and mended; ``noise``, which is measured on first use, may add to it, also on
        copies that `~jaisp.io.align` made.
    meta : dict
        Provenance.

    Raises
    ------
    ImageError, BandError, WCSError
        For input that cannot be mended.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.wcs import WCS
    >>> from jaisp.image import SurveyImage
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    >>> wcs.wcs.crval = 53.0, -28.0
    >>> wcs.wcs.cdelt = -0.1 / 3600, 0.1 / 3600
    >>> pixels = np.random.default_rng(1).normal(size=(64, 64))
    >>> SurveyImage({"VIS": pixels}, wcs, survey="euclid")
    <SurveyImage euclid VIS, 64 x 64 px of 0.100 arcsec>
    """

    def __init__(
        self,
        data,
        wcs=None,
        *,
        survey,
        variance=None,
        mask=None,
        psf=None,
        unit=None,
        meta=None,
        copy=True,
    ):
        self.survey = get_survey(survey)
        self.unit = NJY
        self.meta = dict(meta or {})
        self.findings = []
        given = {"variance": variance, "mask": mask, "psf": psf}
        given = {name: self._named(value, name, optional=True) for name, value in given.items()}
        data = self._named(data, "data")
        self.bands = tuple(name for name in self.survey.band_names if name in data)
        for name, values in given.items():
            if extra := [band for band in values if band not in data]:
                raise BandError(
                    f"{name} given for band {extra[0]!r}, which has no data; bands: {', '.join(self.bands)}"
                )

        self.data, self.mask, self._variance, stated_wcs, psfs = {}, {}, {}, {}, {}
        self._stated = set()  # bands whose variance came with the image, and was not measured
        for band in self.bands:
            where = f"{self.survey.label} {band}"
            parsed = parse_image(data[band], where, unit=unit, copy=copy)
            self._same_shape(band, parsed.data.shape)
            shape = parsed.data.shape
            variance = parsed.variance
            if given["variance"].get(band) is not None:
                variance = parse_variance(given["variance"][band], where, shape, parsed.factor)
            mask = np.zeros(shape, bool) if parsed.mask is None else parsed.mask
            doubts = [parsed.doubt]
            if given["mask"].get(band) is not None:
                flags = flag_numbers(band) if self.survey is EUCLID else None
                more, doubt = parse_mask(given["mask"][band], where, shape, flags)
                mask = mask | more
                doubts.append(doubt)
            for doubt in filter(None, doubts):
                self._tell(band, *doubt, True)
            if parsed.wcs is not None:
                stated_wcs[band] = parsed.wcs
            psfs[band] = parsed.psf if given["psf"].get(band) is None else given["psf"][band]
            self._mend(band, parsed.data, variance, mask)
        self.shape = self.data[self.bands[0]].shape
        self.wcs, self.pixel_scale = given_wcs(wcs, stated_wcs, self.shape, self.survey.label)
        self._given_psf = {}
        for band, psf in psfs.items():
            if psf is not None:
                self._given_psf[band], found = given_psf(psf, self.survey, band, self.pixel_scale)
                for finding in found:
                    self._tell(band, *finding)
        for band in self.bands:
            self._mask_sharp(band)
        self._start()

    def _start(self, shared=None):
        """Set up what is worked out on first use, taking over ``shared`` values of another image."""
        shared = shared or {}
        makers = {
            "variance": self._make_variance,
            "_psf_pair": self._make_psf,
            "background": self._make_background,
            "noise": self._make_noise,
        }
        for name, make in makers.items():
            values = {band: value for band, value in shared.get(name, {}).items() if band in self.bands}
            setattr(self, name, Lazy(self.bands, make, values))
        self.psf = Lazy(self.bands, self._first_psf)
        self.psf_source = Lazy(self.bands, self._second_psf)

    def _named(self, value, name, *, optional=False):
        """Return a mapping from known band names, refusing anything else."""
        if value is None and optional:
            return {}
        if not isinstance(value, Mapping):
            raise ImageError(
                f"{name} is a {type(value).__name__}; allowed: a mapping from band name to image, "
                f"e.g. {{{self.survey.band_names[0]!r}: image}}"
            )
        for band in value:
            self.survey.band(band)
        if not value and not optional:
            raise ImageError(f"data holds no band; give at least one of {', '.join(self.survey.band_names)}")
        return value

    def _same_shape(self, band, shape):
        if self.data:
            first = self.bands[0]
            if shape != self.data[first].shape:
                raise ImageError(
                    f"{self.survey.label}: band {band} has shape {shape} but band {first} has "
                    f"{self.data[first].shape}; {ONE_GRID}"
                )

    def _mend(self, band, data, variance, mask):
        """Mask what cannot be used, tell so, and refuse a band of which nothing is left."""
        where = f"{self.survey.label} {band}"
        finite = np.isfinite(data)
        if not finite.any():
            raise ImageError(f"{where}: no finite pixel in the image (all NaN); give a band that has data")
        self._mask_out(band, mask, ~finite, "not finite")
        absurd = finite & (np.abs(data) > _LARGEST)
        self._mask_out(band, mask, absurd, f"beyond {_LARGEST:g} nJy (no data)")
        finite &= ~absurd
        stated = variance is not None
        if stated:
            usable = np.isfinite(variance) & (variance > _SMALLEST_VARIANCE)
            sentinel = usable & (variance >= _SENTINEL_VARIANCE)
            if not (usable & ~sentinel).any():
                raise ImageError(
                    f"{where}: variance is nowhere positive and finite; give the variance in nJy2, "
                    "or leave it out to have it measured"
                )
            self._mask_out(band, mask, ~usable, "of negative, zero or infinite variance")
            self._mask_out(band, mask, sentinel, "of sentinel variance (no data)")
        elif finite.any() and np.ptp(data[finite]) == 0:
            raise ImageError(
                f"{where}: every pixel is {data[finite][0]:g}, so that no noise can be measured; "
                "give the variance, or an image with data in it"
            )
        for value in dict.fromkeys((0.0, repeated_value(data, finite & ~mask))):
            same = data == value
            if same.any():
                nothing = gaps(data, same, value=value, stated=stated)
                self._mask_out(band, mask, nothing, f"exactly {value:g} (no data)")
        top, saturated = saturated_pixels(data, finite & ~mask)
        self._mask_out(band, mask, saturated, f"at the image's maximum of {top:.6g} nJy look saturated")
        if mask.all():
            raise ImageError(f"{where}: every pixel is masked; give a band that has usable pixels")
        data[~finite] = 0
        if stated:
            # Masked pixels keep a harmless variance so that no division by it can fail.
            good = usable & ~sentinel
            variance = np.where(good, variance, np.median(variance[good])).astype(np.float32)
            self._variance[band] = variance
            self._stated.add(band)
        self.data[band], self.mask[band] = data, mask

    def _mask_sharp(self, band):
        """Mask what neither the image's PSF, should it be stated too wide, nor the survey's lets through."""
        psfs = self._rough_psf(band), survey_psf(self.survey, band, self.pixel_scale)
        sharp = sharp_pixels(self.data[band], self._variance.get(band), ~self.mask[band], psfs)
        self._mask_out(band, self.mask[band], sharp, "sharper than the PSF (cosmic rays, hot pixels)")

    def _mask_out(self, band, mask, bad, what):
        """Mask ``bad`` in place; a finding if any of them was not masked yet."""
        new = int(np.count_nonzero(bad & ~mask))
        if new:
            mask |= bad
            self._tell(band, f"{new} pixels {what}", "masked")

    def _tell(self, *finding):
        """Note a finding, once: the list is shared with aligned copies, which may find it again."""
        if (finding := Finding(*finding)) not in self.findings:
            self.findings.append(finding)

    def _make_variance(self, band):
        if band in self._variance:
            return self._variance[band]
        return measure_variance(
            self.data[band], self.mask[band], self._rough_psf(band), pixel_scale=self.pixel_scale
        )

    def _make_background(self, band):
        box = self.data_box([band])
        found = estimate_background(
            self.data[band][box],
            self.variance[band][box],
            self.mask[band][box],
            self._rough_psf(band),
            pixel_scale=self.pixel_scale,
        )
        if found is None or found.shape == self.shape:
            return found
        background = np.zeros(self.shape, np.float32)
        background[box] = found
        return background

    def _rough_psf(self, band):
        """PSF good enough to smooth with: it must not need the background, which it is used for."""
        if band in self._given_psf:
            return self._given_psf[band]
        return survey_psf(self.survey, band, self.pixel_scale)

    def _make_psf(self, band):
        if band in self._given_psf:
            return self._given_psf[band], "given"
        psf = estimate_psf(
            self.sky_subtracted(band),
            self.variance[band],
            self.mask[band],
            fwhm=self.survey.band(band).psf_fwhm / self.pixel_scale,
            size=self._rough_psf(band).shape[0],
        )
        if psf is not None:
            return psf, "stars"
        return self._rough_psf(band), "survey"

    def _first_psf(self, band):
        return self._psf_pair[band][0]

    def _second_psf(self, band):
        return self._psf_pair[band][1]

    def _make_noise(self, band):
        box = self.data_box([band])
        noise, finding = measure_noise(
            self.sky_subtracted(band)[box],
            self.variance[band][box],
            self.mask[band][box],
            self.psf[band],
            pixel_scale=self.pixel_scale,
            stated=band in self._stated,
        )
        if finding:
            self._tell(band, *finding)
        return noise

    def data_box(self, bands=None):
        """
        Return the slices of the smallest box that holds all usable pixels.

        Parameters
        ----------
        bands : sequence of str, optional
            Of these bands; all by default.

        Returns
        -------
        tuple of slice
            Along y and x.
        """
        return data_box(np.logical_and.reduce([self.mask[band] for band in bands or self.bands]))

    def source_variance(self, band):
        """
        White-noise-equivalent variance of a source.

        Parameters
        ----------
        band : str
            Name of the band.

        Returns
        -------
        variance : 2-D float32 array
            Variance in nJy2 that, taken as independent from pixel to pixel, gives the right noise of a
            source; infinite where masked.
        """
        variance = self.variance[band] * np.float32(self.noise[band].scale ** 2)
        return np.where(self.mask[band], np.float32(np.inf), variance)

    def sky_subtracted(self, band):
        """
        Return the data less the residual background, 0 where masked.

        Parameters
        ----------
        band : str
            Name of the band.

        Returns
        -------
        data : 2-D float32 array
            In nJy per pixel.
        """
        background = self.background[band]
        data = self.data[band] if background is None else self.data[band] - background
        return np.where(self.mask[band], np.float32(0), data)

    def select(self, bands):
        """
        Return an image of some of the bands, sharing their pixels.

        Parameters
        ----------
        bands : sequence of str
            Names of bands that this image has.

        Returns
        -------
        SurveyImage
        """
        bands = [bands] if isinstance(bands, str) else list(bands)
        for band in bands:
            if band not in self.bands:
                raise BandError(f"band {band!r} is not in this image; allowed: {', '.join(self.bands)}")
        if not bands:
            raise BandError(f"no band selected; allowed: {', '.join(self.bands)}")
        new = object.__new__(type(self))
        new.survey, new.unit, new.meta = self.survey, self.unit, dict(self.meta)
        new.shape, new.wcs, new.pixel_scale = self.shape, self.wcs, self.pixel_scale
        new.bands = tuple(band for band in self.bands if band in bands)
        for name in ("data", "mask", "_variance", "_given_psf"):
            values = getattr(self, name)
            setattr(new, name, {band: values[band] for band in new.bands if band in values})
        new._stated = self._stated.intersection(bands)
        new.findings = [finding for finding in self.findings if finding.band in bands]
        new._start(
            {name: getattr(self, name)._values for name in ("variance", "_psf_pair", "background", "noise")}
        )
        return new

    def __repr__(self):
        ny, nx = self.shape
        found = f"; {len(self.findings)} findings" if self.findings else ""
        return (
            f"<SurveyImage {self.survey.name} {','.join(self.bands)}, {ny} x {nx} px of "
            f"{self.pixel_scale:.3f} arcsec{found}>"
        )
