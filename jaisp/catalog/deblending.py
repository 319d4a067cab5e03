# Licensed under a 3-clause BSD style license - see LICENSE
"""Neighbours' light: how much of it lies where an object is, and an object's image without it."""

from contextlib import suppress

import astropy.units as u
import numpy as np
from astropy.nddata import CCDData, Cutout2D, NoOverlapError, StdDevUncertainty
from scipy.spatial import cKDTree

from jaisp.catalog import drawing
from jaisp.catalog.columns import arcsec
from jaisp.catalog.offsets import offset_field
from jaisp.exceptions import BandError, ConfigError
from jaisp.image import psf_fwhm
from jaisp.surveys import RUBIN, column_prefix

__all__ = ["blended_fraction", "deblended_image"]

_RADIUS_PER_SD = 1.6  # half-light radius of an exponential disc over the sd of a Gaussian that is like it
_REACH = 5.0  # arcsec beyond which a neighbour's light is not looked for
_STAMPS = (64, 128, 256, 384)  # pixels in which neighbours are drawn


def blended_fraction(x, y, flux, half_light_radius, counts, *, fwhm):
    """
    Share of the light at each object, as a PSF spreads it, that belongs to its neighbours.

    The light is weighted by the object's own profile, as a fit weights it; profiles are taken as Gaussians.

    Parameters
    ----------
    x, y : array, shape (n,)
        arcsec.
    flux, half_light_radius : array, shape (n,)
        In any unit; arcsec. What is negative or NaN counts as no light.
    counts : array of bool, shape (n,)
        Whether an object's light is counted where it is a neighbour.
    fwhm : float
        Of the PSF, arcsec.

    Returns
    -------
    ndarray, shape (n,)
        0 to 1; NaN for objects without light.
    """
    xy = np.stack([x, y], axis=-1)
    flux = np.maximum(np.nan_to_num(flux), 0)
    variance = (fwhm / 2.355) ** 2 + (np.asarray(half_light_radius) / _RADIUS_PER_SD) ** 2
    own = flux / (4 * np.pi * variance)
    foreign = np.zeros(len(own))
    if len(own):
        for i, j in (pairs := cKDTree(xy).query_pairs(_REACH, output_type="ndarray")).T, pairs.T[::-1]:
            width = variance[i] + variance[j]
            shared = np.exp(-((xy[i] - xy[j]) ** 2).sum(axis=1) / (2 * width)) / (2 * np.pi * width)
            foreign += np.bincount(i, shared * flux[j] * counts[j], len(own))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(own > 0, foreign / (own + foreign), np.nan)


def deblended_image(table, images, number, band, *, size=6 * u.arcsec):
    """
    Image of one object in one band, the models of its neighbours subtracted.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    images : `~jaisp.io.AlignedPair` or tuple
        The images it was made from. A tuple ``(rubin, euclid)`` of `~jaisp.image.SurveyImage`, either of
        which may be None, is aligned first; align them yourself where you ask for many objects.
    number : int
        Value of the column ``id``.
    band : str
        E.g. ``"i"`` or ``"VIS"``; *y* is Rubin's and *Y* Euclid's.
    size : `~astropy.units.Quantity`, optional
        Side of the image, an angle.

    Returns
    -------
    `~astropy.nddata.CCDData`
        In nJy per pixel, background subtracted, with WCS, mask (True where bad or outside the image) and the
        standard deviation that is right for a source.

    Raises
    ------
    BandError
        If no image has the band.
    ConfigError
        If the catalogue has no such object, it lies outside the image, or ``size`` is no angle.
    """
    images = drawing.survey_images(images, table)
    image = next((image for image in images if band in image.bands), None)
    if image is None:
        allowed = ", ".join(name for one in images for name in one.bands)
        raise BandError(f"band {band!r} is not in these images; allowed: {allowed}")
    row = np.flatnonzero(np.asarray(table["id"]) == number)
    if not len(row):
        raise ConfigError(f"there is no object {number} in this catalogue of {len(table)} objects")
    x, y = _places(table, image)
    side = max(round(float(arcsec(size, "size")) / image.pixel_scale), 3)
    place = float(x[row[0]]), float(y[row[0]])
    data, sd = image.sky_subtracted(band), np.sqrt(image.source_variance(band))
    try:
        cut, spread, bad = (
            Cutout2D(values, place, side, wcs=image.wcs, mode="partial", fill_value=fill)
            for values, fill in ((data, np.nan), (sd, np.nan), (image.mask[band].astype(float), 1.0))
        )
    except NoOverlapError:
        raise ConfigError(f"object {number} lies outside the image of {band}") from None
    # Of the whole cut-out: to_original_position would give the corner of its part inside the image.
    left, bottom = np.subtract(cut.origin_original, cut.origin_cutout)
    away = np.maximum(np.abs(x - left - (side - 1) / 2), np.abs(y - bottom - (side - 1) / 2)) - side / 2
    near = np.flatnonzero((away < _STAMPS[-1] / 2) & (np.arange(len(table)) != row[0]))
    model, n_subtracted = _model(table[near], image, band, x[near] - left, y[near] - bottom, side, away[near])
    return CCDData(
        cut.data - model,
        unit=u.nJy,
        wcs=cut.wcs,
        mask=bad.data > 0,
        uncertainty=StdDevUncertainty(spread.data),
        meta={"object": int(number), "band": band, "survey": image.survey.name, "subtracted": n_subtracted},
    )


def _places(table, image):
    """Where the objects are on an image: Rubin's are moved by the offset that was measured."""
    sky = table["sky_centroid"]
    with suppress(ConfigError):  # where none was measured
        if image.survey is RUBIN:
            field, grid = offset_field(table)
            # A function of the catalogue's grid, on which Rubin's images alone do not lie.
            x, y = grid.world_to_pixel(sky)
            dx, dy = field(x, y)
            sky = grid.pixel_to_world(x - dx, y - dy)
    return image.wcs.world_to_pixel(sky)


def _model(rows, image, band, x, y, side, away):
    """Image (side, side) of those objects whose light reaches it from ``away``, and their number."""
    import torch

    from jaisp.catalog._planes import BULGE_SIZE, encircled_energy
    from jaisp.scene import half_light_factor, psf_transform, render_image, stamp_size

    flux = drawing.values(rows[f"{column_prefix(image.survey, band)}_flux"])
    rows, x, y, flux, away = (values[np.isfinite(flux)] for values in (rows, x, y, flux, away))
    ratio = (rows["semiminor_axis"] / np.maximum(rows["semimajor_axis"], 1e-6 * u.arcsec)).value
    radius = rows["half_light_radius"].to_value(u.arcsec)
    ellipticity = np.where(radius > 0, (1 - ratio) / (1 + ratio), 0)
    angle = 2 * (rows["orientation"].to_value(u.rad) + np.radians(drawing.grid_angle(rows, image.wcs)))
    bulge = np.asarray(rows["bulge_fraction"], float)
    index = np.asarray(rows["sersic_index"], float)
    disc = radius / half_light_factor(bulge, BULGE_SIZE, index)
    shapes = disc, ellipticity * np.cos(angle), ellipticity * np.sin(angle)
    radius, e1, e2, x, y, flux, bulge, index = (
        torch.from_numpy(np.asarray(values, float)) for values in (*shapes, x, y, flux, bulge, index)
    )
    psf = image.psf[band].astype(float)
    # Profiles of larger index have wider wings than those that stamps are made for.
    wings = torch.from_numpy(np.interp(index.numpy(), (1, 2.5, 4), (1, 2, 3)))
    sizes = stamp_size(
        radius * wings, e1, e2, psf_fwhm=psf_fwhm(psf) * image.pixel_scale,
        pixel_scale=image.pixel_scale, sizes=_STAMPS,
    )  # fmt: skip
    # As far as the PSF image goes: the wings of a bright star reach farther than its width tells.
    sizes = sizes.clamp(min=next((size for size in _STAMPS if size >= len(psf)), _STAMPS[-1]))
    reaches = torch.from_numpy(away) < sizes / 2
    if not reaches.any():
        return np.zeros((side, side)), 0
    radius, e1, e2, x, y, flux, bulge, index, sizes = (
        values[reaches] for values in (radius, e1, e2, x, y, flux, bulge, index, sizes)
    )
    # The PSF image holds a part of the light only, as for the measurement.
    psf = torch.from_numpy(psf * encircled_energy(image.psf[band], band))[None]
    size = int(sizes.max())
    model = render_image(
        psf_transform(psf, size, dealias=True),
        x,
        y,
        flux[:, None],
        radius,
        e1,
        e2,
        shape=(side, side),
        pixel_scale=image.pixel_scale,
        size=size,
        bulge_fraction=bulge,
        bulge_size=BULGE_SIZE,
        sersic_index=index,
    )
    return model[0].numpy(), int(reaches.sum())
