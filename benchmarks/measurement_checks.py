# Licensed under a 3-clause BSD style license - see LICENSE
"""Checks beside plain accuracy: offset field, cross-match, unrecognised blends, and wrong inputs."""

import itertools

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import QTable
from astropy.wcs import Sip
from scipy.ndimage import affine_transform

from jaisp.catalog import offset_field
from jaisp.evaluation import match_one_to_one
from jaisp.image import SurveyImage
from jaisp.simulation import simulate_field

_MISSING = ("g", "z", "H")
_BLEND = 1.2  # arcsec: widest pair that Rubin may see as one


def changed(image, *, psf=None, variance=None, bands=None, wcs=None):
    """Return an image whose stated PSF, variance, bands or WCS are others; the pixels stay."""
    bands = bands or image.bands
    return SurveyImage(
        {band: image.data[band] for band in bands},
        wcs or image.wcs,
        survey=image.survey.name,
        variance={band: image.variance[band] * (variance or 1) for band in bands},
        mask={band: image.mask[band] for band in bands},
        psf={band: (psf or np.asarray)(image.psf[band]) for band in bands},
    )


def widened(psf, factor=1.1):
    """Return a PSF image stretched about its middle, sum 1."""
    middle = psf.shape[0] // 2
    wide = affine_transform(psf.astype(float), np.eye(2) / factor, middle * (1 - 1 / factor), order=3)
    return np.maximum(wide, 0) / np.maximum(wide, 0).sum()


def shifted(image, mas=50.0):
    """Return an image whose WCS is off to the east."""
    wcs = image.wcs.deepcopy()
    wcs.wcs.crval = wcs.wcs.crval + np.array([mas / 3.6e6 / np.cos(np.deg2rad(wcs.wcs.crval[1])), 0.0])
    return changed(image, wcs=wcs)


def wrong_inputs(field):
    """Pairs of images in which something stated is not so, by name."""
    rubin, euclid = field.rubin, field.euclid
    fewer = [changed(image, bands=[b for b in image.bands if b not in _MISSING]) for image in (rubin, euclid)]
    return {
        "as they are": (rubin, euclid),
        "PSFs 10 % too wide": tuple(changed(image, psf=widened) for image in (rubin, euclid)),
        "noise stated 2 times too high": tuple(changed(image, variance=4.0) for image in (rubin, euclid)),
        "noise stated 2 times too low": tuple(changed(image, variance=0.25) for image in (rubin, euclid)),
        "Rubin 50 mas further east": (shifted(rubin), euclid),
        f"without {', '.join(_MISSING)}": tuple(fewer),
    }


def bend(wcs, rng, shape):
    """Return a WCS with a smooth distortion of 20 to 60 mas, up to the fourth degree."""
    wcs = wcs.deepcopy()
    half = max(shape) / 2
    length = rng.uniform(20, 60) / 200  # pixels of 200 mas
    grid = np.meshgrid(*[np.linspace(-1, 1, 21)] * 2)
    tables = []
    for _ in range(2):
        table = np.zeros((5, 5))
        for i, j in itertools.product(range(5), repeat=2):
            if 0 < i + j <= 4:
                table[i, j] = rng.normal() / (i + j)
        table *= length / np.sqrt(2) / np.std(np.polynomial.polynomial.polyval2d(*grid, table))
        powers = np.add.outer(np.arange(5), np.arange(5))
        tables.append(table / half**powers)
    wcs.wcs.ctype = "RA---TAN-SIP", "DEC--TAN-SIP"
    wcs.sip = Sip(*tables, None, None, wcs.wcs.crpix)
    wcs.wcs.set()
    return wcs


def offset_field_check(model, seed, *, size=3.0):
    """
    Recover a smooth offset between the surveys over one field.

    Returns
    -------
    dict
        Field positions (arcsec), true and measured offsets (mas, along x and y of the grid), claimed errors,
        and the catalogue's own figures.
    """
    rng = np.random.default_rng(seed)
    rubin, euclid, truth = simulate_field(rng, size_arcmin=size, psf="moffat", tangent_offset=0.0)
    stated = bend(rubin.wcs, rng, rubin.shape)
    table = model.catalog(changed(rubin, wcs=stated), euclid)
    field, grid = offset_field(table)
    ny, nx = euclid.shape
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(20, nx - 20, 15), np.linspace(20, ny - 20, 15)))
    sky = euclid.wcs.pixel_to_world(x, y)
    # Where Rubin's pixels show a source that is there, and where the stated WCS says it were.
    east, north = truth.meta["OFFSET_E"] * u.mas, truth.meta["OFFSET_N"] * u.mas
    seen = stated.pixel_to_world(*rubin.wcs.world_to_pixel(sky.spherical_offsets_by(east, north)))
    true = np.array(grid.world_to_pixel(sky)) - np.array(grid.world_to_pixel(seen))
    found = np.array(field(*grid.world_to_pixel(seen)))
    error = np.array(field.uncertainty(*grid.world_to_pixel(seen)))
    return {
        "x": x / 10,
        "y": y / 10,
        "true": 100 * true,
        "found": 100 * found,
        "error": 100 * error,
        "degree": field.degree,
        "n_matches": field.n_matches,
        "table": table,
    }


def merged_by_rubin(catalog, truth):
    """
    Whether the Rubin slot of each row that has one in both surveys holds its Euclid slot's source, merged.

    The source lies within 0.5 arcsec of the Rubin slot and is no other Rubin slot's. Rows are those of
    `~jaisp.evaluation.cross_match_outcomes`.
    """
    rubin, euclid = catalog["rubin_sky_centroid"], catalog["euclid_sky_centroid"]
    use = ~np.asarray(rubin.ra.mask) & ~np.asarray(euclid.ra.mask)
    rubin, euclid = (SkyCoord(sky[use].ra.unmasked, sky[use].dec.unmasked) for sky in (rubin, euclid))
    source, _ = match_one_to_one(euclid, truth["sky_centroid"], radius=0.5 * u.arcsec)
    taken, _ = match_one_to_one(rubin, truth["sky_centroid"], radius=0.5 * u.arcsec)
    near = rubin.separation(truth["sky_centroid"][source].icrs).arcsec < 0.5
    return (source >= 0) & near & ~np.isin(source, taken)


def blend_pairs(field, found):
    """
    True pairs within 1.2 arcsec that Rubin alone sees as one object, and what the catalogue makes of them.

    Both have a Rubin S/N above 10; Rubin alone holds a slot for one of them only.

    Returns
    -------
    pairs : `~astropy.table.QTable`
        ``separation`` (arcsec), ``difference`` (mag in *i*), ``sharp`` (both VIS
        S/N above 10), ``unrecognised`` by Rubin alone, ``resolved`` in
        the catalogue, ``flagged`` on both its rows.
    rows : `~astropy.table.QTable`
        Flagged rows: whether they are ``right`` and the separation to the next true source.
    """
    truth = field.truth[np.asarray(field.truth["snr"]) > 5]
    joint, alone = (
        catalog[catalog["activity"] > 0.5] for catalog in (found["jaisp"], found["jaisp, Rubin alone"])
    )
    sky = truth["sky_centroid"]
    in_joint, _ = match_one_to_one(sky, joint["sky_centroid"])
    in_rubin, _ = match_one_to_one(sky, alone["sky_centroid"], radius=0.4 * u.arcsec)
    first, second, distance, _ = sky.search_around_sky(sky, _BLEND * u.arcsec)
    keep = first < second
    first, second, distance = first[keep], second[keep], distance[keep].arcsec
    merged = (in_rubin[first] >= 0) != (in_rubin[second] >= 0)
    flagged = np.asarray(joint["rubin_unrecognized_blend"])
    flux = truth["rubin_i_flux"].value
    loud = np.minimum(truth["rubin_snr"][first], truth["rubin_snr"][second]) > 10
    resolved = (in_joint[first] >= 0) & (in_joint[second] >= 0)
    pairs = QTable(
        {
            "separation": distance,
            "sharp": np.minimum(*(truth["euclid_vis_snr"][which] for which in (first, second))) > 10,
            "difference": np.abs(2.5 * np.log10(flux[first] / flux[second])),
            "unrecognised": merged,
            "resolved": resolved,
            "flagged": resolved & flagged[in_joint[first]] & flagged[in_joint[second]],
        }
    )[loud]
    in_pair = np.zeros(len(truth), bool)
    in_pair[first[merged]] = in_pair[second[merged]] = True
    source, _ = match_one_to_one(joint["sky_centroid"][flagged], sky)
    rows = QTable({"right": (source >= 0) & in_pair[np.maximum(source, 0)]})
    rows["nearest"] = np.where(source >= 0, truth["nearest"].value[np.maximum(source, 0)], np.nan)
    return pairs, rows
