# Licensed under a 3-clause BSD style license - see LICENSE
"""One row for each true source: what it is, how well it could be known, and what each method says of it."""

import numpy as np
from astropy import units as u
from astropy.table import QTable
from measurement_peers import psf_catalog, sep_catalog
from scipy.spatial import cKDTree

from jaisp.catalog.measurement import Sources, measure
from jaisp.evaluation import BandModel, Field, cramer_rao, match_one_to_one
from jaisp.io import align
from jaisp.simulation import draw_sources, simulate_field
from jaisp.surveys import EUCLID, RUBIN, column_prefix

PREFIXES = [column_prefix(survey, band) for survey in (RUBIN, EUCLID) for band in survey.band_names]
FRAMES = [survey for survey in (RUBIN, EUCLID) for _ in survey.band_names]
BANDS = [band for survey in (RUBIN, EUCLID) for band in survey.band_names]
SEEDED = "jaisp, truth-seeded"
RUBIN_FRAME = ("jaisp, Rubin alone", "SEP Rubin", "photutils Rubin")
_EDGE = 3.0  # arcsec
_RADIUS = 0.3 * u.arcsec
_SEED_SNR = 1.0
_NEIGHBOUR = 1.0  # arcsec
_ALONE, _FAINTEST = 4.0, 26.0  # arcsec between sources that stand alone, VIS magnitude
_PSFS = ("kolmogorov", "airy", "moffat")
_LOBES = {"rubin": 0.08, "euclid": 0.11}  # as jaisp.simulation correlates its noise
_TRIANGLE = (1 / 9, 2 / 9, 3 / 9, 2 / 9, 1 / 9)  # NISP's resampling
_GRAIN = {"rubin": 1 / 200, "euclid": 1 / 40}


def band_models(field):
    """`BandModel` of each band, as the simulation drew it, in a frame along east and north."""
    models = []
    for survey, band in zip(FRAMES, BANDS, strict=True):
        image = getattr(field, survey.name)
        lobe = _LOBES[survey.name]
        kernel = _TRIANGLE if band in ("Y", "J", "H") else np.array([lobe, 1, lobe]) / (1 + 2 * lobe)
        noise = np.sqrt(np.median(image.variance[band]))
        if survey is RUBIN:  # states the scatter of its pixels, not of a source
            noise *= (1 + 2 * lobe) ** 2 / (1 + 2 * lobe**2)
        models.append(
            BandModel(
                image.psf[band],
                noise,
                _jacobian(image.wcs),
                kernel=tuple(kernel),
                grain=_GRAIN[survey.name],
                size=64 if survey is RUBIN else 96,
            )
        )
    return models


def _jacobian(wcs):
    """Pixels per arcsec east and north."""
    return np.linalg.inv(wcs.celestial.pixel_scale_matrix * 3600)


def profiles(truth):
    """What `cramer_rao` wants to know of sources: components, ellipticity, and which are points."""
    flux = np.stack([truth[f"{prefix}_flux"].to_value(u.nJy) for prefix in PREFIXES], axis=-1)
    share = np.asarray(truth["bulge_share"], float)
    components = [
        (flux * share, truth["bulge_radius"].to_value(u.arcsec), 1),
        (flux * (1 - share), truth["disc_radius"].to_value(u.arcsec), 0),
    ]
    # Ellipticity along x and y of the Euclid pixels; east is -x: the second component changes its sign.
    return components, np.asarray(truth["e1"]), -np.asarray(truth["e2"]), np.asarray(truth["is_star"])


def bounds(field, truth):
    """Cramer-Rao bound of each source alone: east, north (mas), flux (n, 10) in nJy."""
    found = cramer_rao(band_models(field), *profiles(truth))
    return 1000 * found.x, 1000 * found.y, found.flux


def whole(field, truth):
    """Sources away from the edges of the Euclid image, and whose cores are on good pixels of both surveys."""
    ny, nx = field.euclid.shape
    x, y = truth["x"].value, truth["y"].value
    edge = _EDGE / field.euclid.pixel_scale
    keep = (x > edge) & (x < nx - 1 - edge) & (y > edge) & (y < ny - 1 - edge)
    for image, reach in ((field.rubin, 2), (field.euclid, 4)):
        bad = np.any([image.mask[band] for band in image.bands], axis=0)
        rows, columns = np.nonzero(bad)
        if len(rows):
            distance, _ = cKDTree(np.stack([columns, rows], axis=-1)).query(
                np.stack(image.wcs.world_to_pixel(truth["sky_centroid"]), axis=-1)
            )
            keep &= distance > reach
    return keep


def alone_field(seed, *, depth, size, number, **options):
    """
    Draw a field whose sources have nothing near, not even what is too faint to be found.

    The population is the usual one without companions, large galaxies and sources fainter than VIS 26,
    thinned out to a least separation of 4 arcsec.
    """
    rng = np.random.default_rng([seed, number])
    margin = 0.3 * size  # arcmin: Rubin's image is turned and larger
    sources = draw_sources(rng, (size + 2 * margin) ** 2, companions=0.0, large=0.0)
    magnitude = 31.4 - 2.5 * np.log10(sources.flux[:, BANDS.index("VIS")])
    sources = sources.select((magnitude < _FAINTEST) & ~(sources.is_star & (magnitude < 18.5)))
    tree, gone = cKDTree(np.stack([sources.x, sources.y], axis=-1)), np.zeros(len(sources), bool)
    for k in range(len(sources)):
        if not gone[k]:
            gone[tree.query_ball_point(tree.data[k], _ALONE)] = True
            gone[k] = False
    sources = sources.select(~gone)
    sources.x, sources.y = sources.x - 60 * margin, sources.y - 60 * margin
    options |= {"psf": _PSFS[number % 3], "rotation": 25.0 * number, "bright_stars": False}
    return Field(*simulate_field(rng, size_arcmin=size, depth=depth, sources=sources, **options))


def catalogs(field, model):
    """Every method's catalogue of one field."""
    found = {
        "jaisp": model.catalog(field.rubin, field.euclid, activity=0.02),
        "jaisp, Rubin alone": model.catalog(field.rubin, activity=0.02),
        "SEP Euclid": sep_catalog(field.euclid),
        "SEP Rubin": sep_catalog(field.rubin),
    }
    for survey in ("Euclid", "Rubin"):
        start = found[f"SEP {survey}"]["sky_centroid"]
        found[f"photutils {survey}"] = psf_catalog(getattr(field, survey.lower()), start)
    return found


def truth_seeded(field):
    """
    Fluxes and positions of the fit alone, which starts from the true sources of joint S/N above 1.

    What finding the sources costs is what the catalogue lacks beside it.
    """
    truth = field.truth[np.asarray(field.truth["snr"]) > _SEED_SNR]
    pair = align(field.rubin, field.euclid)
    x, y = pair.wcs.world_to_pixel(truth["sky_centroid"])
    star = np.asarray(truth["is_star"], bool)
    start = Sources(
        x=np.asarray(x, float),
        y=np.asarray(y, float),
        position_err=np.full(len(truth), 0.3),
        half_light_radius=np.maximum(truth["half_light_radius"].to_value(u.arcsec), 0.02),
        e1=np.asarray(truth["e1"], float),
        e2=np.asarray(truth["e2"], float),
        is_point=star,
    )
    found = measure(pair, start).with_model_errors(star)
    table = QTable({"sky_centroid": pair.wcs.pixel_to_world(found.x, found.y)})
    for name, values in (("ra_err", found.x_err), ("dec_err", found.y_err)):
        table[name] = values * field.euclid.pixel_scale * u.arcsec
    for k, prefix in enumerate(PREFIXES):
        table[f"{prefix}_flux"] = found.flux[:, k] * u.nJy
        table[f"{prefix}_flux_err"] = found.flux_err[:, k] * u.nJy
    return table


def source_rows(field, found):
    """
    One row for each true source of joint S/N above 5.

    Parameters
    ----------
    field : `~jaisp.evaluation.Field`
    found : dict
        From `catalogs`.

    Returns
    -------
    `~astropy.table.QTable`
        ``true_flux`` (10 bands), ``bound_*``, and for each method ``<method>: ra``, ``dec`` (mas, measured
        minus true), ``ra_err``, ``dec_err``, ``flux``, ``flux_err``; NaN where it found nothing; and
        ``resolved``: whether it found all sources within 1 arcsec.
    """
    truth = field.truth[np.asarray(field.truth["snr"]) > 5]
    truth = truth[whole(field, truth)]
    rows = QTable({name: truth[name] for name in ("sky_centroid", "is_star", "snr", "half_light_radius")})
    rows["nearest"] = truth["nearest"].to_value(u.arcsec)
    rows["true_flux"] = np.stack([truth[f"{prefix}_flux"].value for prefix in PREFIXES], axis=-1)
    rows["band_snr"] = np.stack([truth[f"{prefix}_snr"] for prefix in PREFIXES], axis=-1)
    rows["bound_ra"], rows["bound_dec"], rows["bound_flux"] = bounds(field, truth)
    everything = field.truth[np.asarray(field.truth["snr"]) > 5]["sky_centroid"]
    # A catalogue of Rubin alone is right in Rubin's frame.
    shift = [truth.meta[f"OFFSET_{axis}"] for axis in "EN"]
    for method, catalog in found.items():
        if "activity" in catalog.colnames:
            catalog = catalog[catalog["activity"] > 0.5]
        index, _ = match_one_to_one(everything, catalog["sky_centroid"], radius=_RADIUS)
        place, _, _ = truth["sky_centroid"].match_to_catalog_sky(everything)
        missed = everything[index < 0]
        rows[f"{method}: resolved"] = index[place] >= 0
        if len(missed):
            near, _, _, _ = missed.search_around_sky(truth["sky_centroid"], _NEIGHBOUR * u.arcsec)
            rows[f"{method}: resolved"][near] = False
        _fill(rows, method, catalog, index[place], shift if method in RUBIN_FRAME else (0.0, 0.0))
    return rows


def _fill(rows, method, catalog, index, shift):
    """Add one method's columns."""
    hit, safe = index >= 0, np.maximum(index, 0)
    pick = catalog[safe] if len(catalog) else None

    def column(name, unit, scale=1):
        if pick is None or name not in pick.colnames:
            return np.full(len(rows), np.nan)
        return np.where(hit, scale * u.Quantity(pick[name]).to_value(unit), np.nan)

    if pick is None:
        east = north = np.full(len(rows), np.nan)
    else:
        offsets = rows["sky_centroid"].icrs.spherical_offsets_to(pick["sky_centroid"].icrs)
        east, north = (
            np.where(hit, offset.to_value(u.mas) - s, np.nan)
            for offset, s in zip(offsets, shift, strict=True)
        )
    rows[f"{method}: ra"], rows[f"{method}: dec"] = east, north
    for name in ("ra_err", "dec_err"):
        rows[f"{method}: {name}"] = column(name, u.mas)
    for name in ("flux", "flux_err"):
        columns = [column(f"{prefix}_{name}", u.nJy) for prefix in PREFIXES]
        rows[f"{method}: {name}"] = np.stack(columns, axis=-1)
