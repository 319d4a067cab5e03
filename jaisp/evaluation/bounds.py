# Licensed under a 3-clause BSD style license - see LICENSE
"""What can be known at all: the Cramer-Rao bound of sources that stand alone, and what blends leave."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

__all__ = ["BandModel", "Bounds", "blended_snr", "cramer_rao"]

_CHUNK = 48  # sources whose stamps are held in memory
_LEAST_RESPONSE = 0.05  # of the noise kernel: below, neither signal nor noise is left to compare


@dataclass(frozen=True, eq=False)
class BandModel:
    """
    How one band shows a source.

    Parameters
    ----------
    psf : `~numpy.ndarray`, shape (k, k)
        PSF on the band's pixels, sum 1, odd.
    noise : float
        Standard deviation of the sky in nJy per pixel, on scales wider than ``kernel``.
    jacobian : `~numpy.ndarray`, shape (2, 2)
        Pixels of the band per arcsec along x and y of the frame of the sources.
    kernel : tuple of float
        Noise is white noise through this kernel along x and y; odd length, sum 1.
    grain : float
        Variance added per nJy of source in a pixel, over ``noise`` in nJy.
    size : int
        Width in pixels of the stamps; what lies beyond is not counted.
    """

    psf: np.ndarray
    noise: float
    jacobian: np.ndarray
    kernel: tuple = (1.0,)
    grain: float = 0.0
    size: int = 64


@dataclass(frozen=True, eq=False)
class Bounds:
    """
    Smallest possible 1-sigma errors.

    Parameters
    ----------
    x, y : `~numpy.ndarray`, shape (n,)
        arcsec along the axes of the frame of the sources.
    flux : `~numpy.ndarray`, shape (n, bands)
        nJy.
    """

    x: np.ndarray
    y: np.ndarray
    flux: np.ndarray


def cramer_rao(bands, components, e1, e2, is_star, *, rng=0):
    """
    Cramer-Rao bound of positions and fluxes, from the Fisher matrix over all bands.

    Unknown are the position, the flux in each band, and for galaxies one size and one ellipticity; how the
    light divides into components, the PSF and the noise are known. Neighbours are not there.

    Parameters
    ----------
    bands : sequence of `BandModel`
    components : sequence of (flux, half_light_radius, bulge_fraction)
        Parts of every source: flux (n, bands) in nJy, radius (n,) in arcsec, and a number: 0 for an
        exponential and 1 for a de Vaucouleurs profile.
    e1, e2 : array, shape (n,)
        Ellipticity ``(1 - q) / (1 + q)`` times cosine and sine of twice the angle from the x axis.
    is_star : array of bool, shape (n,)
        Points, whatever their radius.
    rng : `~numpy.random.Generator` or int
        Draws where within a pixel the sources lie.

    Returns
    -------
    `Bounds`
    """
    rng = np.random.default_rng(rng)
    e1, e2 = np.asarray(e1, float), np.asarray(e2, float)
    is_star = np.asarray(is_star, bool)
    n = len(e1)
    shape = np.zeros((n, 5, 5))  # Fisher matrix of x, y, log size, e1, e2
    cross, flux = np.zeros((n, len(bands), 5)), np.zeros((n, len(bands)))
    for k, band in enumerate(bands):
        parts = [(np.asarray(light)[:, k], radius, bulge) for light, radius, bulge in components]
        place = rng.uniform(-0.5, 0.5, (2, n))
        for chosen in np.array_split(np.arange(n), n // _CHUNK + 1):
            if len(chosen):
                design, light = _templates(band, parts, e1, e2, is_star, place, chosen)
                design = _whitened(band, design, light)
                whole = np.einsum("niv,njv->nij", design, design)
                flux[chosen, k] = whole[:, 0, 0]
                cross[chosen, k], shape[chosen] = whole[:, 0, 1:], shape[chosen] + whole[:, 1:, 1:]
    seen = flux > 0
    inverse = np.where(seen, 1 / np.where(seen, flux, 1), 0)
    shape -= np.einsum("nb,nbi,nbj->nij", inverse, cross, cross)
    # Points have no size: what is known beforehand has an infinite Fisher information.
    shape[:, 2:, 2:] += (
        is_star[:, None, None] * np.eye(3) * 1e12 * np.trace(shape, axis1=1, axis2=2)[:, None, None]
    )
    covariance = np.linalg.inv(shape)
    slope = inverse[..., None] * cross
    variance = inverse + np.einsum("nbi,nij,nbj->nb", slope, covariance, slope)
    return Bounds(
        np.sqrt(covariance[:, 0, 0]),
        np.sqrt(covariance[:, 1, 1]),
        np.where(seen, np.sqrt(variance), np.inf),
    )


def blended_snr(bands, components, e1, e2, is_star, x, y, *, sources=None, reach=2.0, most=7):
    """
    Signal to noise that their neighbours leave of sources.

    It is the square root of the chi-square by which the data prefer a source to be there, when of its
    neighbours only the kind of profile is known: their fluxes in each band, positions, sizes and
    ellipticities are fitted with the source and without it, to first order. Alone it is the optimal S/N.
    What is too faint to be fitted is best left out of what is given.

    Parameters
    ----------
    bands, components, e1, e2, is_star
        As for `cramer_rao`.
    x, y : array, shape (n,)
        Positions in arcsec along the axes of the frame of the sources.
    sources : array of int, optional
        Sources to do this for; all by default.
    reach : float
        Distance in arcsec up to which others are neighbours.
    most : int
        Number of neighbours, the nearest ones, that are taken into account.

    Returns
    -------
    ndarray, shape (len(sources),)
    """
    place = np.stack([x, y], axis=-1).astype(float)
    e1, e2, is_star = np.asarray(e1, float), np.asarray(e2, float), np.asarray(is_star, bool)
    sources = np.arange(len(place)) if sources is None else np.asarray(sources, int)
    near = cKDTree(place).query_ball_point(place[sources], reach)
    found = np.zeros(len(sources))
    for k, (source, others) in enumerate(zip(sources, near, strict=True)):
        others = np.array([other for other in others if other != source], int)
        distance = np.hypot(*(place[others] - place[source]).T)
        members = np.concatenate([[source], others[np.argsort(distance)[:most]]]).astype(int)
        found[k] = _left(bands, components, e1, e2, is_star, place - place[source], members)
    return found


def _left(bands, components, e1, e2, is_star, offset, members):
    """Signal to noise of the first of some sources, the others fitted anew."""
    n_shape = 5 * (len(members) - 1)
    shapes, mixed, total = np.zeros((n_shape, n_shape)), np.zeros(n_shape), 0.0
    for k, band in enumerate(bands):
        parts = [(np.asarray(light)[:, k], radius, bulge) for light, radius, bulge in components]
        flux = sum(light[members[0]] for light, _, _ in parts)
        design, light = _templates(band, parts, e1, e2, is_star, band.jacobian @ offset.T, members)
        design = _whitened(band, design, light.sum(axis=0))
        # The source as it is, the fluxes of the others, and how these look, which the bands share.
        own, fluxes, looks = (
            flux * design[0, 0],
            design[1:, 0],
            design[1:, 1:].reshape(n_shape, design.shape[-1]),
        )
        inverse = np.linalg.pinv(fluxes @ fluxes.T, rcond=1e-9, hermitian=True)
        total += own @ own - (fluxes @ own) @ inverse @ (fluxes @ own)
        mixed += looks @ own - (looks @ fluxes.T) @ inverse @ (fluxes @ own)
        shapes += looks @ looks.T - (looks @ fluxes.T) @ inverse @ (fluxes @ looks.T)
    if n_shape:
        scale = np.sqrt(np.maximum(shapes.diagonal(), 1e-30))  # points have no size: nothing to be fitted
        normed = shapes / scale / scale[:, None]
        total -= (mixed / scale) @ np.linalg.pinv(normed, rcond=1e-9, hermitian=True) @ (mixed / scale)
    return np.sqrt(max(total, 0.0))


def _templates(band, parts, e1, e2, is_star, place, chosen):
    """
    Templates of some sources: of unit total flux, and derivatives by x, y, log size, e1, e2; and their light.

    Shapes (n, 6, size, size) and (n, 1, size, size).
    """
    import torch

    from jaisp.scene import psf_transform, render_derivatives

    # Ellipticity in the frame of the band's pixels; a similarity turns and perhaps mirrors it.
    pixel_scale = 1 / np.sqrt(abs(np.linalg.det(band.jacobian)))
    turn = band.jacobian * pixel_scale
    spin = np.array([[turn[0, 0] ** 2 - turn[0, 1] ** 2, 2 * turn[0, 0] * turn[0, 1]],
                     [turn[0, 0] * turn[1, 0] - turn[0, 1] * turn[1, 1],
                      turn[0, 0] * turn[1, 1] + turn[0, 1] * turn[1, 0]]])  # fmt: skip
    shape = np.einsum("ij,jn->in", spin, np.stack([e1, e2])[:, chosen])
    psf = psf_transform(torch.from_numpy(np.array(band.psf, np.float64))[None], band.size, dealias=True)
    image = 0
    for light, radius, bulge in parts:
        radius = np.where(is_star, 0.0, radius)[chosen]
        arguments = [torch.from_numpy(v) for v in (*place[:, chosen], radius, *shape)]
        stamps = render_derivatives(
            psf,
            *arguments,
            size=band.size,
            pixel_scale=pixel_scale,
            bulge_fraction=float(bulge),
            parameters=5,
        )
        image = image + light[chosen, None, None, None] * stamps[:, 0].numpy()
    total = sum(light[chosen] for light, _, _ in parts)
    design = image.copy()
    # By flux, then by the frame of the sources.
    design[:, 0] /= np.where(total > 0, total, 1)[:, None, None]
    design[:, 1:3] = np.einsum("ij,niyx->njyx", band.jacobian, image[:, 1:3])
    design[:, 4:6] = np.einsum("ij,niyx->njyx", spin, image[:, 4:6])
    return design, image[:, :1]


def _whitened(band, design, light):
    """Templates (n, rows, pixels) over the noise, that of their ``light`` too, without its correlation."""
    design = design / (band.noise * np.sqrt(1 + band.grain * np.maximum(light, 0) / band.noise))
    response = np.abs(np.fft.fft(band.kernel, band.size)) if len(band.kernel) > 1 else np.ones(band.size)
    response = np.maximum(response, _LEAST_RESPONSE)
    spectrum = np.fft.fft2(design) / (response[:, None] * response)
    return np.fft.ifft2(spectrum).real.reshape(*design.shape[:2], -1)
