# Licensed under a 3-clause BSD style license - see LICENSE
"""What SEP and photutils measure on the images that jaisp measures: the peers of ``measurement.py``."""

import warnings

import numpy as np
import sep
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation.peers import import_sep
from jaisp.surveys import column_prefix

DETECTION = {"euclid": "VIS", "rubin": "i"}
_THRESHOLD, _MIN_AREA = 1.5, 5
_KRON, _SMALLEST = 2.5, 1.75  # FLUX_AUTO of SExtractor: Kron factor, and smallest radius in pixels


def _plane(image, band):
    """Sky-subtracted pixels, their standard deviation, and bad pixels, as SEP wants them."""
    data = np.ascontiguousarray(image.sky_subtracted(band), np.float32)
    return data, np.sqrt(image.variance[band]).astype(np.float32), np.ascontiguousarray(image.mask[band])


def sep_catalog(image):
    """
    Detect in one band of a survey, and measure windowed positions and FLUX_AUTO in all of its bands.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`

    Returns
    -------
    `~astropy.table.QTable`
        ``sky_centroid`` (windowed), ``<survey>_<band>_flux`` and ``..._flux_err``.
    """
    import_sep()
    band = DETECTION[image.survey.name]
    data, sd, bad = _plane(image, band)
    sep.set_extract_pixstack(max(sep.get_extract_pixstack(), data.size))
    sep.set_sub_object_limit(max(sep.get_sub_object_limit(), 8192))
    found = sep.extract(data, _THRESHOLD, err=sd, mask=bad, minarea=_MIN_AREA, deblend_cont=0.005)
    a, b = np.maximum(found["a"], 0.5), np.maximum(found["b"], 0.5)
    theta = np.clip(found["theta"], -np.pi / 2, np.pi / 2)
    half, _ = sep.flux_radius(data, found["x"], found["y"], 6 * a, 0.5, normflux=found["flux"], mask=bad)
    half = np.where(np.isfinite(half) & (half > 0.5), half, 0.5)
    x, y, failed = sep.winpos(data, found["x"], found["y"], 2 / 2.35 * half, mask=bad)
    x, y = (np.where(failed == 0, new, old) for new, old in ((x, found["x"]), (y, found["y"])))
    kron, _ = sep.kron_radius(data, found["x"], found["y"], a, b, theta, 6.0, mask=bad)
    kron = np.where(np.isfinite(kron), kron, 0)
    round_ = _KRON * kron * np.sqrt(a * b) < _SMALLEST
    table = QTable({"sky_centroid": image.wcs.pixel_to_world(x, y)})
    for name in image.bands:
        data, sd, bad = _plane(image, name)
        common = {"err": sd, "mask": bad, "subpix": 5}
        flux, error, _ = sep.sum_ellipse(
            data, found["x"], found["y"], a, b, theta, _KRON * np.maximum(kron, 0.1), **common
        )
        circle = sep.sum_circle(data, found["x"][round_], found["y"][round_], _SMALLEST, **common)
        flux[round_], error[round_] = circle[:2]
        prefix = column_prefix(image.survey, name)
        # The noise of an aperture follows that of a source, which is correlated from pixel to pixel.
        error = error * image.noise[name].scale
        table[f"{prefix}_flux"], table[f"{prefix}_flux_err"] = flux * u.nJy, error * u.nJy
    return table


def psf_catalog(image, start):
    """
    PSF photometry with photutils in the detection band of a survey, from given positions.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`
    start : `~astropy.coordinates.SkyCoord`

    Returns
    -------
    `~astropy.table.QTable`
        Columns as of `sep_catalog`, for the one band.
    """
    from photutils.psf import ImagePSF, PSFPhotometry, SourceGrouper

    band = DETECTION[image.survey.name]
    data, sd, bad = _plane(image, band)
    sd = sd * np.float32(image.noise[band].scale)
    x, y = image.wcs.world_to_pixel(start)
    inside = (x > 4) & (x < data.shape[1] - 5) & (y > 4) & (y < data.shape[0] - 5)
    x, y = x[inside], y[inside]
    fwhm = image.survey.band(band).psf_fwhm / image.pixel_scale
    inside = ~bad[np.round(y).astype(int), np.round(x).astype(int)]
    phot = PSFPhotometry(
        ImagePSF(image.psf[band].astype(float)),
        fit_shape=2 * int(np.ceil(1.5 * fwhm)) + 1,
        grouper=SourceGrouper(1.5 * fwhm),
        aperture_radius=fwhm,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = phot(data, mask=bad, error=sd, init_params=QTable({"x": x[inside], "y": y[inside]}))
    found = found[np.isfinite(found["x_fit"]) & np.isfinite(found["y_fit"])]
    table = QTable({"sky_centroid": image.wcs.pixel_to_world(found["x_fit"], found["y_fit"])})
    prefix = column_prefix(image.survey, band)
    table[f"{prefix}_flux"] = np.asarray(found["flux_fit"]) * u.nJy
    table[f"{prefix}_flux_err"] = np.asarray(found["flux_err"]) * u.nJy
    return table
