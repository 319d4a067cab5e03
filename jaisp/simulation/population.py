# Licensed under a 3-clause BSD style license - see LICENSE
"""Galaxies and stars as a survey sees them: counts, colours, sizes, shapes, companions."""

from dataclasses import dataclass, fields

import numpy as np
from scipy.special import gammainc

from jaisp.surveys import AB_ZERO_POINT, EUCLID, RUBIN

__all__ = ["Sources", "draw_sources"]

VIS = 6
_BANDS = RUBIN.bands + EUCLID.bands
# Half widths of the bands relative to their wavelength.
_WIDTHS = np.array([0.08, 0.14, 0.11, 0.08, 0.06, 0.05, 0.24, 0.12, 0.14, 0.14])
_WAVELENGTHS = np.array([band.wavelength for band in _BANDS])

# Rest-frame f_nu of five galaxy types, hand-drawn after the sequence of Coleman, Wu & Weedman (1980).
_REST_NM = np.array([91.2, 121.6, 150, 200, 280, 330, 390, 410, 500, 600, 700, 900, 1200, 1600, 2200])
_TEMPLATES = np.array(
    [
        [0.003, 0.006, 0.008, 0.012, 0.03, 0.10, 0.16, 0.35, 0.62, 0.85, 1.0, 1.30, 1.60, 1.90, 1.50],
        [0.02, 0.03, 0.05, 0.07, 0.12, 0.20, 0.27, 0.42, 0.62, 0.80, 1.0, 1.20, 1.40, 1.60, 1.30],
        [0.08, 0.10, 0.14, 0.17, 0.25, 0.35, 0.42, 0.55, 0.70, 0.82, 1.0, 1.10, 1.20, 1.30, 1.10],
        [0.28, 0.35, 0.42, 0.45, 0.52, 0.60, 0.66, 0.76, 0.85, 0.92, 1.0, 1.02, 1.05, 1.05, 0.90],
        [0.75, 0.85, 0.90, 0.90, 0.88, 0.85, 0.86, 0.95, 1.02, 0.98, 1.0, 0.95, 0.90, 0.85, 0.70],
    ]
)
_SAMPLES = np.linspace(-1, 1, 5)


@dataclass
class Sources:
    """
    Arrays that describe ``n`` sources; fluxes are in nJy, bands Rubin ugrizy then Euclid VIS, Y, J, H.

    Parameters
    ----------
    x, y : ndarray, shape (n,)
        Position in arcsec from the lower left corner of the field.
    bulge_flux, disc_flux, knot_flux : ndarray, shape (n, 10)
        Fluxes of the components. A star has its flux in ``bulge_flux``.
    bulge_radius, disc_radius : ndarray, shape (n,)
        Circularised half-light radii of de Vaucouleurs bulge and exponential disc in arcsec (0 for stars).
    half_light_radius : ndarray, shape (n,)
        Circularised half-light radius of the whole source in VIS in arcsec.
    e1, e2 : ndarray, shape (n,)
        Ellipticity ``(1 - q) / (1 + q)`` along x and along the diagonal.
    is_star : ndarray of bool, shape (n,)
        Whether the source is a point.
    redshift : ndarray, shape (n,)
        Redshift (0 for stars).
    knot_parent : ndarray of int, shape (k,)
        Index of the galaxy to which each knot belongs.
    knot_dx, knot_dy, knot_weight : ndarray, shape (k,)
        Offsets of the knots in arcsec, and their shares of their parent's ``knot_flux``.
    """

    x: np.ndarray
    y: np.ndarray
    bulge_flux: np.ndarray
    disc_flux: np.ndarray
    knot_flux: np.ndarray
    bulge_radius: np.ndarray
    disc_radius: np.ndarray
    half_light_radius: np.ndarray
    e1: np.ndarray
    e2: np.ndarray
    is_star: np.ndarray
    redshift: np.ndarray
    knot_parent: np.ndarray
    knot_dx: np.ndarray
    knot_dy: np.ndarray
    knot_weight: np.ndarray

    def __len__(self):
        return len(self.x)

    @property
    def flux(self):
        """Total flux in nJy, shape (n, 10)."""
        return self.bulge_flux + self.disc_flux + self.knot_flux

    def select(self, keep):
        """Return the sources where ``keep`` (bool, shape (n,)) is true, knots re-numbered."""
        new_index = np.cumsum(keep) - 1
        kept_knots = keep[self.knot_parent]
        columns = {}
        for field in fields(self):
            value = getattr(self, field.name)
            columns[field.name] = value[kept_knots] if field.name.startswith("knot_d") else value
        columns["knot_weight"] = self.knot_weight[kept_knots]
        columns["knot_parent"] = new_index[self.knot_parent[kept_knots]]
        for name in (f.name for f in fields(self) if not f.name.startswith("knot_") or f.name == "knot_flux"):
            columns[name] = getattr(self, name)[keep]
        return Sources(**columns)


def draw_sources(
    rng,
    area_arcmin2,
    *,
    density=100.0,
    faint_limit=28.0,
    star_fraction=None,
    companions=None,
    knotty=0.3,
    large=0.05,
    compact=0.0,
    thin=0.0,
):
    """
    Draw the galaxies and stars of a square field.

    Parameters
    ----------
    rng : `numpy.random.Generator`
        Source of randomness.
    area_arcmin2 : float
        Area of the square field.
    density : float, optional
        Sources per square arcminute brighter than VIS 26.5, companions not counted.
    faint_limit : float, optional
        VIS magnitude of the faintest source.
    star_fraction : float, optional
        Stars among the sources brighter than VIS 26.5; default drawn from 0.05-0.10.
    companions : float, optional
        Fraction of sources given a companion at 0.2-1.5"; default drawn from 0.20-0.35.
    knotty : float, optional
        Fraction of galaxies with star-forming knots.
    large : float, optional
        Mean number of large nearby galaxies (half-light radius 1.5-5") per 100 sources brighter than
        VIS 26.5.
    compact : float, optional
        Mean number of faint sources that hardly differ from points (stars and galaxies with a half-light
        radius of 0.02-0.12") per 100 sources brighter than VIS 26.5; half of them are placed around galaxies,
        more about bright ones.
    thin : float, optional
        Fraction of galaxies that are discs seen edge-on, with axis ratios of 0.12-0.3.

    Returns
    -------
    sources : `Sources`
        Positions span ``0 <= x, y < 60 * sqrt(area_arcmin2)`` arcsec (companions may lie a little outside).
    """
    side = 60.0 * np.sqrt(area_arcmin2)
    star_fraction = rng.uniform(0.05, 0.10) if star_fraction is None else star_fraction
    companions = rng.uniform(0.20, 0.35) if companions is None else companions
    n_bright = density * area_arcmin2

    galaxy_mag = _galaxy_magnitudes(rng, n_bright * (1 - star_fraction), faint_limit)
    star_mag = _magnitudes(rng, n_bright * star_fraction, 0.1, 15.0, min(27.0, faint_limit))
    n_large = rng.poisson(n_bright * large / 100)
    large_mag = rng.uniform(17.0, 21.0, n_large)

    mag = np.concatenate([galaxy_mag, large_mag, star_mag])
    is_star = np.arange(len(mag)) >= len(galaxy_mag) + n_large
    is_large = (np.arange(len(mag)) >= len(galaxy_mag)) & ~is_star
    x, y = rng.uniform(0, side, (2, len(mag)))

    # Companions are galaxies near any kind of source.
    has = rng.random(len(mag)) < companions
    new_mag = mag[has] + rng.normal(0.5, 1.2, has.sum())
    separation, angle = rng.uniform(0.2, 1.5, has.sum()), rng.uniform(0, 2 * np.pi, has.sum())
    keep = (new_mag < faint_limit) & (new_mag > 16)
    mag = np.concatenate([mag, new_mag[keep]])
    x = np.concatenate([x, (x[has] + separation * np.cos(angle))[keep]])
    y = np.concatenate([y, (y[has] + separation * np.sin(angle))[keep]])
    extra = np.zeros(keep.sum(), bool)
    is_star = np.concatenate([is_star, extra])
    is_large = np.concatenate([is_large, extra])

    is_compact = np.zeros(len(mag), bool)
    if compact > 0:  # else nothing is drawn, and a seed gives the sky that it always gave
        new_x, new_y, new_mag, new_star = _compact(
            rng, x, y, mag, is_star, side, n_bright * compact / 100, faint_limit
        )
        x, y, mag = np.concatenate([x, new_x]), np.concatenate([y, new_y]), np.concatenate([mag, new_mag])
        is_star = np.concatenate([is_star, new_star])
        is_large = np.concatenate([is_large, np.zeros(len(new_mag), bool)])
        is_compact = np.concatenate([is_compact, ~new_star])
    is_thin = np.zeros(len(mag), bool)
    if thin > 0:
        is_thin = (rng.random(len(mag)) < thin) & ~(is_star | is_compact)
    return _describe(rng, x, y, mag, is_star, is_large, is_compact, is_thin, knotty)


def _compact(rng, x, y, mag, is_star, side, n_bright, faint):
    """Positions, magnitudes and kind (star or not) of compact sources, half of them around galaxies."""
    new_mag = _magnitudes(rng, n_bright, 0.3, 21.0, min(27.5, faint))
    n = len(new_mag)
    new_x, new_y = rng.uniform(0, side, (2, n))
    hosts = np.flatnonzero(~is_star & (mag < 24))
    if len(hosts):
        around = rng.random(n) < 0.5
        # The brighter, the more: it is about bright galaxies that points are taken for knots.
        weight = 10 ** (-0.2 * mag[hosts])
        host = rng.choice(hosts, n, p=weight / weight.sum())
        # From where a galaxy's light ends to where nothing but chance brings a source next to it.
        distance, angle = 10 ** rng.uniform(np.log10(0.6), np.log10(5.0), n), rng.uniform(0, 2 * np.pi, n)
        new_x = np.where(around, x[host] + distance * np.cos(angle), new_x)
        new_y = np.where(around, y[host] + distance * np.sin(angle), new_y)
    return new_x, new_y, new_mag, rng.random(n) < 0.5


def _magnitudes(rng, n_bright, slope, bright, faint):
    """Magnitudes with dN/dm ~ 10^(slope m), normalised to ``n_bright`` brighter than 26.5."""
    low, high, norm = 10 ** (slope * bright), 10 ** (slope * faint), 10 ** (slope * 26.5)
    n = rng.poisson(n_bright * (high - low) / (norm - low))
    return np.log10(low + rng.random(n) * (high - low)) / slope


def _galaxy_magnitudes(rng, n_bright, faint):
    """
    Magnitudes of galaxies: slope 0.3 fainter than 21, 0.45 brighter, without a step (Capak et al. 2007, i).

    With 100 per square arcminute to 26.5 there are 1.5 brighter than 21 and 0.07 brighter than 18.
    """
    faint_part = _magnitudes(rng, n_bright * (1 - 10 ** (0.3 * (21 - 26.5))), 0.3, 21.0, faint)
    at_break = n_bright * 0.3 * np.log(10) * 10 ** (0.3 * (21 - 26.5))  # per magnitude
    n_brighter = at_break / (0.45 * np.log(10))
    low, high = 10 ** (0.45 * 16.0), 10 ** (0.45 * 21.0)
    n = rng.poisson(n_brighter * (1 - low / high))
    bright_part = np.log10(low + rng.random(n) * (high - low)) / 0.45
    return np.concatenate([faint_part, bright_part])


def _describe(rng, x, y, mag, is_star, is_large, is_compact, is_thin, knotty):
    n = len(mag)
    vis = 10 ** (0.4 * (AB_ZERO_POINT - mag))[:, None]
    redshift = _redshifts(rng, mag)
    redshift[is_large] = rng.uniform(0.01, 0.15, is_large.sum())
    kind = np.clip(1.2 + 0.27 * (mag - 19) + rng.normal(0, 1.0, n), 0, 4)
    kind[is_large] = rng.uniform(0, 4, is_large.sum())
    reddening = rng.exponential(0.12 + 0.12 * np.clip(kind, 0, 3))
    bulge_share = np.where(rng.random(n) < 0.3, 0.0, rng.beta(1.2, 1.2 + 1.3 * kind))
    bulge_share[(kind < 0.4) & (rng.random(n) < 0.5)] = 1.0
    bulge_share[is_thin] *= 0.3

    knotted = (rng.random(n) < np.where(is_large, 0.7, knotty)) & ~(is_star | is_compact) & (kind > 0.8)
    knot_share = np.where(knotted, rng.uniform(0.05, 0.4, n), 0.0)
    bulge_sed = galaxy_sed(np.clip(kind - rng.uniform(1, 2, n), 0, 4), redshift, 0.5 * reddening)
    disc_sed = galaxy_sed(np.clip(kind + 0.3, 0, 4), redshift, reddening)
    knot_sed = galaxy_sed(np.full(n, 4.0), redshift, 0.5 * reddening)
    scatter = 10 ** (0.4 * rng.normal(0, 0.04, (n, len(_BANDS))))
    scatter[:, VIS] = 1.0
    bulge = vis * bulge_share[:, None] * bulge_sed * scatter
    disc = vis * ((1 - bulge_share) * (1 - knot_share))[:, None] * disc_sed * scatter
    knots = vis * ((1 - bulge_share) * knot_share)[:, None] * knot_sed * scatter

    bulge[is_star] = (vis * star_sed(rng, n) * scatter)[is_star]
    disc[is_star] = knots[is_star] = 0.0

    radius = 0.45 * 10 ** (-0.1 * (mag - 24)) * 10 ** rng.normal(0, 0.2, n)
    radius = np.clip(radius, 0.05, 4.0)
    radius[is_large] = np.exp(rng.uniform(np.log(1.5), np.log(5.0), is_large.sum()))
    radius[is_compact] = np.exp(rng.uniform(np.log(0.02), np.log(0.12), is_compact.sum()))
    ratio = np.exp(rng.normal(np.log(0.5), 0.3, n))  # bulge radius / disc radius
    disc_radius = radius / _half_light(bulge_share, ratio)
    disc_radius[is_star] = radius[is_star] = 0.0

    # Discs at random inclination are flatter than bulges; one ellipticity serves both.
    q = np.clip(1 - rng.beta(1.5, 2.5, n) * np.where(bulge_share > 0.6, 0.6, 0.95), 0.15, 1.0)
    if is_thin.any():
        q[is_thin] = rng.uniform(0.12, 0.3, is_thin.sum())
    e, angle = (1 - q) / (1 + q), rng.uniform(0, 2 * np.pi, n)
    e[is_star] = 0.0
    return Sources(
        x=x,
        y=y,
        bulge_flux=bulge,
        disc_flux=disc,
        knot_flux=knots,
        bulge_radius=ratio * disc_radius,
        disc_radius=disc_radius,
        half_light_radius=radius,
        e1=e * np.cos(angle),
        e2=e * np.sin(angle),
        is_star=is_star,
        redshift=np.where(is_star, 0.0, redshift),
        **_knots(rng, knotted, is_large, disc_radius, q, angle / 2),
    )


def _redshifts(rng, mag):
    """Redshifts with p(z) ~ z^2 exp(-(z/z0)^1.5), median 0.6 at VIS 23 and 1.1 at VIS 26, plus a tail."""
    median = 0.6 * (1.1 / 0.6) ** ((mag - 23) / 3)
    z = median / 1.412 * rng.gamma(2.0, size=len(mag)) ** (2 / 3)
    tail = (mag > 24.5) & (rng.random(len(mag)) < 0.05)
    z[tail] = rng.uniform(3.0, 6.5, tail.sum())
    return np.clip(z, 0.02, 7.0)


def galaxy_sed(kind, redshift, reddening):
    """
    Band fluxes of galaxies relative to VIS.

    Parameters
    ----------
    kind : ndarray, shape (n,)
        Spectral type: 0 elliptical ... 4 starburst, interpolated.
    redshift, reddening : ndarray, shape (n,)
        Redshift, and extinction in the rest-frame V band in magnitudes.

    Returns
    -------
    ndarray, shape (n, 10)
    """
    observed = _WAVELENGTHS[:, None] * (1 + _WIDTHS[:, None] * _SAMPLES)  # (10, 5)
    rest = observed[None] / (1 + redshift)[:, None, None]
    lower = np.clip(kind.astype(int), 0, len(_TEMPLATES) - 2)
    weight = (kind - lower)[:, None, None]
    # All templates on the same nodes: one position serves both neighbours.
    position = np.interp(np.log(rest), np.log(_REST_NM), np.arange(len(_REST_NM)))
    node = np.clip(position.astype(int), 0, len(_REST_NM) - 2)
    part = position - node
    table = np.log(_TEMPLATES)

    def value(template):
        row = template[:, None, None]
        return table[row, node] * (1 - part) + table[row, node + 1] * part

    log_flux = value(lower) * (1 - weight) + value(lower + 1) * weight
    log_flux -= 0.921 * reddening[:, None, None] * (550.0 / np.maximum(rest, 91.2)) ** 0.9
    lyman = observed / 121.6
    # Mean absorption by the intergalactic medium (Madau 1995, Lyman alpha only) and the Lyman limit.
    log_flux = log_flux - np.where(rest < 121.6, 0.0036 * lyman**3.46, 0.0)
    log_flux -= np.where(rest < 91.2, 5.0, 0.0)
    flux = np.exp(np.clip(log_flux, -30, None)).mean(axis=-1)
    return flux / np.maximum(flux[:, VIS : VIS + 1], 0.02 * flux.max(axis=1, keepdims=True))


def star_sed(rng, n):
    """Band fluxes of ``n`` stars relative to VIS: black bodies with the blue deficit of cool atmospheres."""
    temperature = np.clip(rng.lognormal(np.log(4200.0), 0.3, n), 2600, 12000)[:, None]
    x = 1.4388e7 / (_WAVELENGTHS * temperature)
    flux = (1 / _WAVELENGTHS**3) / np.expm1(x)
    blanketing = (
        np.clip(5500 / temperature - 0.6, 0, None) * np.clip(550 / _WAVELENGTHS - 0.75, 0, None) * 1.2
    )
    flux = flux * np.exp(-blanketing)
    return flux / flux[:, VIS : VIS + 1]


def _half_light(bulge_share, ratio):
    """Half-light radius of bulge + disc in units of the disc's, by bisection on the curve of growth."""
    low, high = 0.02 * np.ones_like(ratio), 3.0 * np.ones_like(ratio)
    for _ in range(25):
        middle = 0.5 * (low + high)
        inside = bulge_share * gammainc(8.0, 7.669 * (middle / ratio) ** 0.25)
        inside += (1 - bulge_share) * gammainc(2.0, 1.678 * middle)
        low, high = np.where(inside < 0.5, middle, low), np.where(inside < 0.5, high, middle)
    return 0.5 * (low + high)


def _knots(rng, knotted, is_large, disc_radius, q, angle):
    """Positions of knots: random in the disc, on two-armed spirals in large galaxies."""
    count = np.where(knotted, rng.integers(1, 13, len(knotted)) + np.where(is_large, 12, 0), 0)
    parent = np.repeat(np.arange(len(count)), count)
    radius = disc_radius[parent] / 1.678 * rng.gamma(2.0, 0.9, len(parent))
    radius = np.minimum(radius, 3.0 * disc_radius[parent])
    turn = rng.uniform(0, 2 * np.pi, len(parent))
    arm = rng.integers(0, 2, len(parent)) * np.pi + 2.5 * np.log(radius / disc_radius[parent] + 0.1)
    turn = np.where(is_large[parent], arm + rng.normal(0, 0.25, len(parent)), turn)
    u = radius * np.cos(turn) / np.sqrt(q[parent])
    v = radius * np.sin(turn) * np.sqrt(q[parent])
    cos, sin = np.cos(angle[parent]), np.sin(angle[parent])
    weight = rng.exponential(1.0, len(parent)) + 0.1
    total = np.bincount(parent, weight, minlength=len(count))
    return {
        "knot_parent": parent,
        "knot_dx": u * cos - v * sin,
        "knot_dy": u * sin + v * cos,
        "knot_weight": weight / total[parent],
    }
