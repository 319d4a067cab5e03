# Licensed under a 3-clause BSD style license - see LICENSE
"""Small aligned pairs of known sources, rendered with GalSim."""

import numpy as np
from astropy.wcs import WCS

from jaisp.image import SurveyImage

PSF_FWHM = {"rubin": 0.8, "euclid": 0.35}
SCALE = {"rubin": 0.2, "euclid": 0.1}


def make_wcs(shape, scale):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [53.0, -28.0]
    # Both grids begin at one corner: 0.2" pixel 0 covers 0.1" pixels 0 and 1.
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    wcs.wcs.cdelt = [-scale / 3600, scale / 3600]
    return wcs


def draw(survey, bands, sources, n, rng, *, sigma=1.0, offset=(0.0, 0.0), psf_side=31):
    """Draw ``sources`` (x, y on the 0.1" grid, flux, radius) on the survey's ``n`` x ``n`` grid."""
    import galsim

    scale = SCALE[survey]
    psf = galsim.Moffat(beta=3.5, fwhm=PSF_FWHM[survey])
    psf_image = psf.drawImage(nx=psf_side, ny=psf_side, scale=scale).array
    side, data = max(64, psf_side), {}
    for band in bands:
        image = galsim.ImageF(n, n, scale=scale)
        for x, y, flux, radius in sources:
            x, y = x + offset[0], y + offset[1]
            if survey == "rubin":
                x, y = (x - 0.5) / 2, (y - 0.5) / 2
            source = (
                galsim.Exponential(half_light_radius=radius, flux=flux)
                if radius
                else galsim.DeltaFunction(flux)
            )
            stamp = galsim.Convolve(source, psf).drawImage(
                nx=side, ny=side, scale=scale, center=galsim.PositionD(x + 1, y + 1)
            )
            bounds = stamp.bounds & image.bounds
            image[bounds] += stamp[bounds]
        data[band] = image.array + rng.normal(0, sigma, (n, n)).astype(np.float32)
    return SurveyImage(
        data,
        make_wcs((n, n), scale),
        survey=survey,
        variance={band: np.full((n, n), sigma**2) for band in bands},
        psf=dict.fromkeys(bands, psf_image),
    )
