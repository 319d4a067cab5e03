# Licensed under a 3-clause BSD style license - see LICENSE
"""Paired fields drawn with GalSim at each survey's own pixels and WCS, with their truth."""

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.wcs import WCS
from scipy.ndimage import binary_dilation, convolve1d
from scipy.spatial import cKDTree

from jaisp.exceptions import ConfigError
from jaisp.image import SurveyImage
from jaisp.simulation import _galsim
from jaisp.simulation.population import draw_sources
from jaisp.surveys import AB_ZERO_POINT, EUCLID, RUBIN, column_prefix

__all__ = ["DEPTHS", "simulate_field"]

DEPTHS = {
    "ten_year": (4.2, 1.6, 1.6, 2.7, 5.4, 11.0),
    "one_year": (13.0, 4.9, 5.1, 8.6, 17.0, 35.0),
    "dp1": (8.1, 2.2, 2.8, 3.9, 7.0, 40.0),
    "deep": (2.1, 0.8, 0.8, 1.35, 2.7, 5.5),
}
"""Rubin noise in nJy per 0.2" pixel on the scale of a source, ugrizy, for each named depth."""

# Euclid noise in nJy per 0.1" pixel on the scale of a source, as the RMS maps of Q1 state it.
_EUCLID_NOISE = (2.15, 9.0, 8.0, 8.2)
# Saturation: the largest flux in a pixel, nJy.
_SATURATION = {"rubin": 6e4, "euclid": 6e4}
# Side lobe of the three-pixel kernel that correlates the noise.
_RUBIN_LOBE, _VIS_LOBE = 0.08, 0.11
# Variance added per nJy of source, over noise in nJy.
_GRAIN = {"rubin": 1 / 200, "euclid": 1 / 40}
_BANDS = tuple((survey.name, band.name) for survey in (RUBIN, EUCLID) for band in survey.bands)
# Bands drawn together, by column, and how much finer than the pixels: VIS is undersampled, and under bright
# stars so is Rubin in good seeing.
_GROUPS = ((range(6), 2), (range(6, 7), 2), (range(7, 10), 1))


def simulate_field(
    rng,
    *,
    size_arcmin=1.6,
    depth="ten_year",
    psf="kolmogorov",
    rotation=20.0,
    offset_mas=None,
    galaxies="sersic",
    bright_stars=True,
    tangent_offset=10.0,
    density=100.0,
    defects=True,
    sources=None,
):
    """
    Draw one field as both surveys would deliver it.

    Parameters
    ----------
    rng : `numpy.random.Generator` or int
        Source of randomness, or its seed.
    size_arcmin : float, optional
        Side of the Euclid image in arcmin; the Rubin image covers all of it.
    depth : str, optional
        Depth of the Rubin images: ``"ten_year"``, ``"one_year"``, ``"dp1"`` or ``"deep"``.
    psf : str, optional
        ``"kolmogorov"``: von Karman turbulence and aberrated optics with struts; ``"airy"``: Kolmogorov
        turbulence and perfect optics; ``"moffat"``.
    rotation : float, optional
        Angle in degrees by which the Rubin pixel axes are turned against the Euclid ones.
    offset_mas : (float, float), optional
        Shift (east, north) in mas of Rubin against Euclid; default 20-60 mas in a random direction.
    galaxies : str, optional
        ``"sersic"``: bulge and disc; ``"knots"``: with random knots in some discs.
    bright_stars : bool, optional
        Add saturated stars of magnitude 14-17.5, about one per square arcminute; if False no star is brighter
        than 18.5.
    tangent_offset : float, optional
        Distance in arcmin of the tangent point of each survey's projection from the field.
    density : float, optional
        Sources per square arcminute brighter than VIS 26.5.
    defects : bool, optional
        Whether there are bad pixels; saturated cores are masked in any case.
    sources : `~jaisp.simulation.Sources`, optional
        Sources to draw in place of a random population; ``x`` and ``y`` are arcsec from the outer edge
        of the lower left pixel of the Euclid image.

    Returns
    -------
    rubin : `~jaisp.image.SurveyImage`
        Six bands at 0.2" per pixel.
    euclid : `~jaisp.image.SurveyImage`
        Four bands at 0.1" per pixel, north up; NISP drawn at 0.3" in four dithers and resampled.
    truth : `~astropy.table.QTable`
        One row per source in either image: ``id``, ``sky_centroid`` (Euclid frame), ``x``, ``y`` (Euclid
        pixels), ``<survey>_<band>_flux`` (nJy), ``half_light_radius``, ``e1``, ``e2``, ``is_star``,
        ``redshift``, ``bulge_share`` (of the flux in each of the ten bands), ``bulge_radius``,
        ``disc_radius``, ``<survey>_<band>_snr``, ``rubin_snr``, ``euclid_snr``, ``snr`` (optimal S/N of the
        source alone, sky noise only) and ``nearest``.

    Raises
    ------
    MissingDependencyError
        If GalSim is not installed.
    """
    _galsim.require()
    _galsim.choose("depth", depth, tuple(DEPTHS))
    _galsim.choose("psf", psf, _galsim.PSF_KINDS)
    _galsim.choose("galaxies", galaxies, _galsim.GALAXY_KINDS)
    if not 0.2 <= size_arcmin <= 20:
        raise ConfigError(f"size_arcmin is {size_arcmin}; allowed: 0.2 to 20 arcmin")
    if not np.isfinite(rotation):
        raise ConfigError(f"rotation is {rotation}; give an angle in degrees")
    rng = np.random.default_rng(rng)
    if offset_mas is None:
        length, angle = rng.uniform(20, 60), rng.uniform(0, 2 * np.pi)
        offset_mas = (length * np.cos(angle), length * np.sin(angle))

    n_euclid = 2 * round(size_arcmin * 300)
    turned = np.deg2rad(rotation)
    n_rubin = int(np.ceil(n_euclid / 2 * (abs(np.cos(turned)) + abs(np.sin(turned))))) + 10
    euclid_wcs, rubin_wcs = _make_wcs(rng, n_euclid, n_rubin, rotation, tangent_offset)
    if sources is None:
        sources = _population(rng, n_rubin * 0.2, n_euclid * 0.1, density, bright_stars)
    layout = _Layout(sources, n_euclid, n_rubin, euclid_wcs, rubin_wcs, offset_mas)

    profiles, radius = _galsim.make_profiles(rng, sources, galaxies)
    psfs = _galsim.make_psfs(rng, psf, layout.jacobian)
    noise = np.array([*DEPTHS[depth], *_EUCLID_NOISE]) * np.exp(rng.normal(0, 0.05, len(_BANDS)))
    images, norms = {}, np.zeros((len(sources), len(_BANDS)))
    for group in _GROUPS:
        _draw_group(sources, profiles, psfs, group, layout, noise, images, norms)
    snr = norms / noise

    planes = {name: {"rubin": {}, "euclid": {}} for name in ("data", "variance", "mask", "psf")}
    bad = {name: _bad_pixels(rng, layout.size[name], defects) for name in ("rubin", "euclid")}
    for column, (survey, band) in enumerate(_BANDS):
        image, sigma = images[survey, band], noise[column]
        observe = _observe_nisp if band in ("Y", "J", "H") else _observe
        data, variance = observe(rng, image, sigma, survey)
        saturated = image > _SATURATION[survey]
        data = np.minimum(data, _SATURATION[survey])
        mask = bad[survey] | (binary_dilation(saturated, iterations=2) if saturated.any() else saturated)
        data[bad[survey]] = 0.0
        for name, value in (("data", data), ("variance", variance), ("mask", mask)):
            planes[name][survey][band] = value
        planes["psf"][survey][band] = _given_psf(psfs[survey, band], survey, band)

    meta = {
        "simulated": True,
        "depth": depth,
        "psf": psf,
        "galaxies": galaxies,
        "rotation": float(rotation),
        "offset_mas": tuple(float(value) for value in offset_mas),
    }
    rubin, euclid = (
        SurveyImage(
            planes["data"][name],
            wcs,
            survey=name,
            variance=planes["variance"][name],
            mask=planes["mask"][name],
            psf=planes["psf"][name],
            meta=meta,
        )
        for name, wcs in (("rubin", rubin_wcs), ("euclid", euclid_wcs))
    )
    return rubin, euclid, _truth(sources, radius, snr, layout, meta)


class _Layout:
    """Where sources fall on the two images."""

    def __init__(self, sources, n_euclid, n_rubin, euclid_wcs, rubin_wcs, offset_mas):
        galsim = _galsim.require()
        self.size = {"euclid": n_euclid, "rubin": n_rubin}
        x, y = sources.x / 0.1 - 0.5, sources.y / 0.1 - 0.5
        ra, dec = euclid_wcs.pixel_to_world_values(x, y)
        self.sky = SkyCoord(ra, dec, unit="deg", frame="icrs")
        east, north = np.array(offset_mas) / 3.6e6
        shifted = rubin_wcs.world_to_pixel_values(ra + east / np.cos(np.deg2rad(dec)), dec + north)
        self.position = {"euclid": (x, y), "rubin": shifted}
        # Rubin pixels to arcsec along the Euclid axes, from finite differences about the field centre.
        middle = (n_rubin - 1) / 2
        cross = np.array([[middle, middle + 10, middle], [middle, middle, middle + 10]])
        ex, ey = euclid_wcs.world_to_pixel_values(*rubin_wcs.pixel_to_world_values(*cross))
        slopes = np.array([[ex[1] - ex[0], ex[2] - ex[0]], [ey[1] - ey[0], ey[2] - ey[0]]]) * 0.1 / 10
        self.jacobian = {"rubin": galsim.JacobianWCS(*slopes.ravel()), "euclid": galsim.PixelScale(0.1)}

    def inside(self, survey):
        """Which sources have their centres on the image."""
        x, y = self.position[survey]
        n = self.size[survey]
        return (x > -0.5) & (x < n - 0.5) & (y > -0.5) & (y < n - 0.5)


def _make_wcs(rng, n_euclid, n_rubin, rotation, tangent_offset):
    """North-up Euclid WCS and turned Rubin WCS: own tangent points, one centre of the field."""
    centre = SkyCoord(53.1 * u.deg, -27.9 * u.deg)
    out = []
    angles = rng.uniform(0, 360) + np.array([0.0, 130.0])
    for n, scale, turn, angle in ((n_euclid, 0.1, 0.0, angles[0]), (n_rubin, 0.2, rotation, angles[1])):
        tangent = centre.directional_offset_by(angle * u.deg, tangent_offset * u.arcmin)
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
        wcs.wcs.cunit = "deg", "deg"
        wcs.wcs.radesys = "ICRS"
        wcs.wcs.crval = tangent.ra.deg, tangent.dec.deg
        cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
        wcs.wcs.cd = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
        wcs.wcs.crpix = 0.0, 0.0
        wcs.wcs.set()
        at = np.array(wcs.world_to_pixel_values(centre.ra.deg, centre.dec.deg))
        wcs.wcs.crpix = (n - 1) / 2 - at
        wcs.wcs.set()
        out.append(wcs)
    return out


def _population(rng, covered, side, density, bright_stars):
    """Sources of a square that holds both images and 3" around them, in arcsec from Euclid's corner."""
    width = covered + 6.0
    sources = draw_sources(rng, (width / 60) ** 2, density=density)
    vis = AB_ZERO_POINT - 2.5 * np.log10(sources.flux[:, 6])
    sources = sources.select(~(sources.is_star & (vis < 18.5)))
    sources.x = sources.x - (width - side) / 2
    sources.y = sources.y - (width - side) / 2
    if bright_stars:
        # Brighten faint stars: their colours serve as well.
        stars = np.nonzero(sources.is_star)[0]
        chosen = rng.choice(stars, min(len(stars), rng.poisson((width / 60) ** 2)), replace=False)
        goal = 10 ** (0.4 * (AB_ZERO_POINT - rng.uniform(14.0, 17.5, len(chosen))))
        sources.bulge_flux[chosen] *= (goal / sources.flux[chosen, 6])[:, None]
    return sources


def _draw_group(sources, profiles, psfs, group, layout, noise, images, norms):
    """Noiseless images of a group of bands, and the root of each source's summed squared pixels."""
    columns, oversample = group
    columns = list(columns)
    survey = _BANDS[columns[0]][0]
    n = layout.size[survey]
    scale = 0.2 if survey == "rubin" else 0.1
    renderer = _galsim.Renderer(
        [psfs[_BANDS[column]] for column in columns], layout.jacobian[survey], n, oversample
    )
    x, y = layout.position[survey]
    inside = layout.inside(survey)
    fluxes = np.stack([sources.bulge_flux, sources.disc_flux, sources.knot_flux], axis=-1)[:, columns]
    # Over ten pixels' noise: about the S/N of a point.
    rough = (fluxes.sum(axis=2) / noise[columns]).max(axis=1) / 10
    ellipticity = np.hypot(sources.e1, sources.e2)
    stretch = np.sqrt((1 + ellipticity) / (1 - ellipticity))
    size = np.maximum(sources.disc_radius, 0.6 * sources.bulge_radius) * stretch
    reach = np.where(rough < 300, 4.0 if survey == "rubin" else 3.0, 8.0) + size * np.where(
        rough < 100, 4.0, 7.0
    )
    reach = np.where(sources.is_star & (rough > 3000), 20.0, reach) / scale
    for k in range(len(sources)):
        if -reach[k] < x[k] < n + reach[k] and -reach[k] < y[k] < n + reach[k]:
            norm = renderer.add(profiles[k], fluxes[k], x[k], y[k], reach[k])
            if inside[k]:
                norms[k, columns] = norm
    for column, image in zip(columns, renderer.images, strict=True):
        images[_BANDS[column]] = image


def _correlated(rng, shape, lobe):
    """White noise of unit variance through a three-pixel kernel of sum 1."""
    noise = rng.standard_normal(shape)
    kernel = np.array([lobe, 1.0, lobe]) / (1 + 2 * lobe)
    return convolve1d(convolve1d(noise, kernel, axis=0, mode="wrap"), kernel, axis=1, mode="wrap")


def _observe(rng, image, sigma, survey):
    """Add noise; Rubin states the scatter of its pixels, Euclid the noise on the scale of a source."""
    lobe = _RUBIN_LOBE if survey == "rubin" else _VIS_LOBE
    grow = 1 + np.maximum(image, 0) / sigma * _GRAIN[survey]
    data = image + sigma * np.sqrt(grow) * _correlated(rng, image.shape, lobe)
    if survey == "rubin":
        share = (1 + 2 * lobe**2) / (1 + 2 * lobe) ** 2
        return data, sigma**2 * share**2 * grow
    return data, np.full(image.shape, sigma**2)


def _observe_nisp(rng, image, sigma, survey):
    """
    Observe with 0.3" pixels in four dithers, resample each to the 0.1" grid by bilinear weights, and average.

    ``image`` holds at each 0.1" pixel a ninth of the flux that a 0.3" pixel centred there receives, so that
    the dithered exposures are every third value of it.
    """
    n = image.shape[0]
    padded = np.pad(image, 6, mode="edge")
    out = np.zeros_like(image)
    # Four exposures of noise 6 sigma per 0.3" pixel average to sigma per 0.1" pixel on the scale of a source.
    phases = rng.permutation([(0, 0), (1, 1), (2, 2), (0, 2), (2, 0), (1, 0)])[:4]
    for px, py in phases:
        exposure = 9 * padded[py::3, px::3]
        grow = 1 + np.maximum(exposure, 0) / (9 * sigma) * _GRAIN[survey]
        exposure = exposure + 6 * sigma * np.sqrt(grow) * rng.standard_normal(exposure.shape)
        out += _bilinear(exposure, 6 - np.array([py, px]), n) / 9
    return out / len(phases), np.full(image.shape, sigma**2)


def _bilinear(exposure, start, n):
    """Interpolate an exposure at every third of a pixel, from ``start`` thirds on, n values per axis."""
    for axis in (0, 1):
        position = (start[axis] + np.arange(n)) / 3
        lower = position.astype(int)
        part = (position - lower).reshape((-1, 1) if axis == 0 else (1, -1))
        exposure = np.take(exposure, lower, axis) * (1 - part) + np.take(exposure, lower + 1, axis) * part
    return exposure


def _given_psf(psf, survey, band):
    """PSF image of a band as a survey would hand it out."""
    if survey == "rubin" or band == "VIS":
        psf = psf[::2, ::2]
    if band in ("Y", "J", "H"):
        triangle = np.array([1, 2, 3, 2, 1]) / 9
        psf = convolve1d(convolve1d(psf, triangle, axis=0), triangle, axis=1)
    half = 20 if survey == "rubin" else (10 if band == "VIS" else 16)
    middle = len(psf) // 2
    cut = psf[middle - half : middle + half + 1, middle - half : middle + half + 1]
    return (cut / cut.sum()).astype(np.float32)


def _bad_pixels(rng, n, defects):
    """A bad column, and cosmic rays; the same in all bands of a survey."""
    bad = np.zeros((n, n), bool)
    if not defects:
        return bad
    for _ in range(rng.integers(0, 3)):
        x, y = rng.integers(0, n, 2)
        bad[y : y + n // 3, x] = True
    for _ in range(rng.poisson(n * n / 4e4)):
        x, y = rng.integers(0, n - 3, 2)
        bad[y : y + rng.integers(1, 4), x : x + rng.integers(1, 4)] = True
    return bad


def _truth(sources, radius, snr, layout, meta):
    """Truth table of the sources whose centres are on either image."""
    keep = layout.inside("rubin") | layout.inside("euclid")
    table = QTable()
    table["id"] = np.arange(1, keep.sum() + 1)
    table["sky_centroid"] = layout.sky[keep]
    x, y = layout.position["euclid"]
    table["x"], table["y"] = x[keep] * u.pix, y[keep] * u.pix
    flux = sources.flux[keep]
    snr = snr[keep]
    for column, (survey, band) in enumerate(_BANDS):
        table[f"{column_prefix(survey, band)}_flux"] = flux[:, column] * u.nJy
    table["half_light_radius"] = radius[keep] * u.arcsec
    for name in ("e1", "e2", "is_star", "redshift"):
        table[name] = getattr(sources, name)[keep]
    table["bulge_share"] = (sources.bulge_flux[keep] / np.maximum(flux, 1e-30)).astype(np.float32)
    for name in ("bulge_radius", "disc_radius"):
        table[name] = getattr(sources, name)[keep] * u.arcsec
    for column, (survey, band) in enumerate(_BANDS):
        table[f"{column_prefix(survey, band)}_snr"] = snr[:, column].astype(np.float32)
    n_rubin = len(RUBIN.bands)
    for name, part in (
        ("rubin", slice(0, n_rubin)),
        ("euclid", slice(n_rubin, None)),
        ("joint", slice(None)),
    ):
        total = np.sqrt((snr[:, part] ** 2).sum(axis=1)).astype(np.float32)
        table["snr" if name == "joint" else f"{name}_snr"] = total
    table["nearest"] = _nearest(x[keep], y[keep], table["snr"]) * u.arcsec
    # Keys that every FITS header can hold.
    table.meta.update({key.upper()[:8]: value for key, value in meta.items() if key != "offset_mas"})
    table.meta["OFFSET_E"], table.meta["OFFSET_N"] = meta["offset_mas"]
    return table


def _nearest(x, y, snr):
    """Distance in arcsec to the nearest other source of S/N above 5."""
    places = np.column_stack([x, y])
    seen = places[snr > 5]
    if len(seen) < 2:
        return np.full(len(x), np.inf)
    distance, _ = cKDTree(seen).query(places, k=2)
    return 0.1 * np.where(snr > 5, distance[:, 1], distance[:, 0])
