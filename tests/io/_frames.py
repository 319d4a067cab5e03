# Licensed under a 3-clause BSD style license - see LICENSE
"""Images of stars on frames that are turned, flipped and shifted, and what can be measured on them."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS, Sip
from scipy.special import erf

from jaisp.image import SurveyImage

CENTRE = SkyCoord(53.1, -28.0, unit="deg")


def make_wcs(shape, scale, *, rotation=0.0, flip=False, tangent=None, kind="cd", shift=(0.0, 0.0)):
    """WCS whose middle pixel lies at ``CENTRE``, shifted by arcsec; the tangent point may lie elsewhere."""
    tangent = tangent or CENTRE
    angle, s = np.deg2rad(rotation), scale / 3600
    turn = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if flip:
        turn[:, 0] *= -1
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"] if kind == "galactic" else ["RA---TAN", "DEC--TAN"]
    place = tangent.galactic if kind == "galactic" else tangent
    wcs.wcs.crval = [place.data.lon.deg, place.data.lat.deg]
    if kind == "pc":
        wcs.wcs.pc, wcs.wcs.cdelt = turn, [s, s]
    else:
        wcs.wcs.cd = turn * s
    wcs.wcs.set()
    middle = CENTRE.spherical_offsets_by(shift[0] * u.arcsec, shift[1] * u.arcsec)
    x, y = wcs.world_to_pixel(middle)
    wcs.wcs.crpix = wcs.wcs.crpix + np.array([(shape[1] - 1) / 2 - x, (shape[0] - 1) / 2 - y])
    if kind == "sip":
        wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
        a, b = np.zeros((3, 3)), np.zeros((3, 3))
        a[2, 0], a[1, 1], b[0, 2] = 2e-6, -1e-6, 3e-6
        wcs.sip = Sip(a, b, None, None, wcs.wcs.crpix)
    wcs.array_shape = shape
    wcs.wcs.set()
    return wcs


def gaussian(size, fwhm):
    """Gaussian integrated over pixels."""
    profile = pixel_integral(size, (size - 1) / 2, fwhm)
    return np.outer(profile, profile)


def pixel_integral(n, centre, fwhm):
    sigma = fwhm / 2.3548200450309493
    return np.diff(erf((np.arange(n + 1) - 0.5 - centre) / (np.sqrt(2) * sigma))) / 2


def star_image(wcs, shape, fwhm, sky, flux=1000.0):
    """Round Gaussian stars; ``fwhm`` in pixels."""
    data = np.zeros(shape)
    for x, y in zip(*wcs.world_to_pixel(sky), strict=True):
        data += flux * np.outer(pixel_integral(shape[0], y, fwhm), pixel_integral(shape[1], x, fwhm))
    return data


def star_positions(rng, side, n=5):
    """A grid of ``n`` x ``n`` stars over ``side`` arcsec, at random places within their pixels."""
    step = side / n
    east, north = np.meshgrid(*2 * [(np.arange(n) + 0.5) * step - side / 2])
    east, north = (axis.ravel() + rng.uniform(-0.2, 0.2, n * n) for axis in (east, north))
    return CENTRE.spherical_offsets_by(east * u.arcsec, north * u.arcsec)


def make_image(survey, data, wcs, *, fwhm, variance=1.0, mask=None, size=25):
    data = data if isinstance(data, dict) else {"i" if survey == "rubin" else "VIS": data}
    return SurveyImage(
        data,
        wcs,
        survey=survey,
        variance={band: np.full(value.shape, variance) for band, value in data.items()},
        mask=None if mask is None else dict.fromkeys(data, mask),
        psf=dict.fromkeys(data, gaussian(size, fwhm)),
    )


def moments(image, wcs, sky, half):
    """Flux, offset from the WCS position and second moments (Ixx, Ixy, Iyy) of each star that lies inside."""
    flux, offset, second = [], [], []
    for x, y in zip(*wcs.world_to_pixel(sky), strict=True):
        i, j = round(float(x)), round(float(y))
        cut = image[max(j - half, 0) : j + half + 1, max(i - half, 0) : i + half + 1].astype(float)
        if cut.shape != (2 * half + 1,) * 2:
            continue
        dy, dx = np.mgrid[-half : half + 1, -half : half + 1] + np.array([j - y, i - x])[:, None, None]
        total = cut.sum()
        flux.append(total)
        mx, my = (cut * dx).sum() / total, (cut * dy).sum() / total
        offset.append((mx, my))
        second.append(
            [(cut * a * b).sum() / total for a, b in ((dx - mx,) * 2, (dx - mx, dy - my), (dy - my,) * 2)]
        )
    assert flux
    return np.array(flux), np.array(offset), np.array(second)


def psf_moments(psf):
    dy, dx = np.mgrid[: psf.shape[0], : psf.shape[1]] - psf.shape[0] // 2
    return np.array([(psf * dx).sum(), (psf * dy).sum()]), np.array(
        [(psf * a * b).sum() for a, b in ((dx, dx), (dx, dy), (dy, dy))]
    )


FAR = SkyCoord(53.9, -27.6, unit="deg")
FRAMES = {
    "turned": {"rotation": 23.0},
    "flipped": {"rotation": -70.0, "flip": True},
    "other tangent point": {"rotation": 5.0, "tangent": FAR},
    "PC": {"rotation": 160.0, "kind": "pc"},
    "SIP": {"rotation": 23.0, "kind": "sip"},
    "galactic": {"rotation": 12.0, "kind": "galactic"},
    "offset": {"shift": (3.33, -2.17)},
}


def plain(survey, **keywords):
    scale, shape = (0.2, (50, 50)) if survey == "rubin" else (0.1, (100, 100))
    data = np.random.default_rng(15).normal(size=shape)
    return make_image(survey, data, make_wcs(shape, scale, **keywords), fwhm=3.0)
