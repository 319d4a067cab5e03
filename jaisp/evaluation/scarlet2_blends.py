# Licensed under a 3-clause BSD style license - see LICENSE
"""scarlet2 on a few blends: the fluxes of objects that another finder found, beside that finder's own."""

import contextlib
import importlib.util
import io
import time
import warnings

import numpy as np
from astropy import units as u
from astropy.table import QTable

from jaisp.evaluation.matching import TRUE
from jaisp.evaluation.tuning import match_catalog
from jaisp.exceptions import MissingDependencyError
from jaisp.image import resize_psf
from jaisp.io import align
from jaisp.surveys import EUCLID, column_prefix

__all__ = ["fit_scarlet2", "scarlet2_blends"]

_WIDTH = 64  # grid pixels of a cut-out's side
_MARGIN = 3  # pixels from its edge within which no object is fitted
_ITERATIONS = 200
_BRIGHT = 20  # S/N of the blends that are looked at
_BANDS = ("euclid_vis", "rubin_i")  # in which the fluxes are compared


def fit_scarlet2(pair, sky, centre, *, iterations=_ITERATIONS):
    """
    Fit the objects around a place with scarlet2: free images with one spectrum each, all bands together.

    Parameters
    ----------
    pair : `~jaisp.io.AlignedPair`
        Both surveys.
    sky : `~astropy.coordinates.SkyCoord` (n,)
        Objects that somebody found; those in the cut-out are fitted, at these places.
    centre : `~astropy.coordinates.SkyCoord`
        Middle of the cut-out of 6.4 arcsec.
    iterations : int
        Steps of scarlet2's optimiser, at most.

    Returns
    -------
    rows : `~numpy.ndarray` of int (k,)
        Which objects were fitted; empty if the cut-out does not lie on both images, or none is in it.
    fluxes : dict of str to `~numpy.ndarray` (k,)
        In nJy, by the prefix of the catalogue's columns, e.g. ``rubin_i``.

    Raises
    ------
    `~jaisp.exceptions.MissingDependencyError`
        If scarlet2 is not installed.
    """
    _need_scarlet2()
    import jax.numpy as jnp
    import scarlet2
    from numpyro.distributions import constraints
    from scarlet2 import init, measure

    corner = [int(float(value) - _WIDTH / 2) // 2 * 2 for value in pair.wcs.world_to_pixel(centre)]
    x, y = (np.atleast_1d(value) for value in pair.wcs.world_to_pixel(sky))
    inside = [
        (value > start + _MARGIN) & (value < start + _WIDTH - 1 - _MARGIN)
        for value, start in zip((x, y), corner, strict=True)
    ]
    rows = np.flatnonzero(inside[0] & inside[1])
    on_image = min(corner) >= 0 and all(
        start + _WIDTH <= side for start, side in zip(corner, pair.shape[::-1], strict=True)
    )
    if not on_image or not len(rows):
        return np.zeros(0, int), {}
    # It prints what it thinks of the start, and warns of what it cannot measure.
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scarlet2.set_validation(False)
        seen = [_observation(scarlet2, image, corner) for image in (pair.euclid, pair.rubin)]
        frame = scarlet2.Frame.from_observations(seen)
        for observation in seen:
            observation.match(frame)
        with scarlet2.Scene(frame) as scene:
            for row in rows:
                try:
                    spectrum, shape = init.from_gaussian_moments(seen, sky[row])
                except (
                    AssertionError,
                    ValueError,
                ):  # the moments of close neighbours fail: start from a point
                    spectrum = init.pixel_spectrum(seen, sky[row], correct_psf=True)
                    shape = init.compact_morphology()
                scarlet2.Source(sky[row], jnp.maximum(jnp.nan_to_num(spectrum), 1e-3), shape)
        with scarlet2.Parameters(scene):
            for k, source in enumerate(scene.sources):
                positive = {"constraint": constraints.positive, "stepsize": scarlet2.relative_step}
                scarlet2.Parameter(source.spectrum, name=f"spectrum:{k}", **positive)
                bounded = {"constraint": constraints.unit_interval, "stepsize": 0.05}
                scarlet2.Parameter(source.morphology, name=f"morphology:{k}", **bounded)
        fitted = scene.fit(seen, max_iter=iterations, progress_bar=False)
        fluxes = np.array([measure.flux(source) for source in fitted.sources], float)
    return rows, dict(zip(frame.channels, fluxes.T, strict=True))


def _observation(scarlet2, image, corner):
    """Cut-out of one survey; bad pixels have no weight."""
    binning = round(image.pixel_scale / EUCLID.pixel_scale)
    x, y = (start // binning for start in corner)
    width = _WIDTH // binning
    here = np.s_[y : y + width, x : x + width]
    weight = np.stack([1 / image.source_variance(band)[here] for band in image.bands])
    data = np.stack([image.sky_subtracted(band)[here] for band in image.bands])
    side = max(len(image.psf[band]) for band in image.bands)
    psf = np.stack([resize_psf(image.psf[band], side) for band in image.bands])
    channels = [column_prefix(image.survey, band) for band in image.bands]
    return scarlet2.Observation(
        np.where(weight > 0, data, 0), weight, psf=psf, wcs=image.wcs[here], channels=channels
    )


def scarlet2_blends(catalogs, fields, n, *, fit=fit_scarlet2):
    """
    Compare a finder's fluxes in blends with those that scarlet2 fits at the same places.

    Both are asked for the same objects, so that what is compared is how light is shared, not what is found.

    Parameters
    ----------
    catalogs : iterable of `~astropy.table.QTable`
        What the finder found in each field.
    fields : iterable of `~jaisp.evaluation.Field`
        The fields, with truth.
    n : int
        Blends in all, the brightest of each field in turn: sources with S/N above 20 and another within
        1 arcsec, both of which were found.
    fit : callable
        As `fit_scarlet2`.

    Returns
    -------
    `~astropy.table.QTable`
        One row for each method and band: ``method``, ``band``, ``n_blends``, ``n_objects``, ``bias`` (median
        of measured over true flux, less 1), ``error`` (68 % of the relative differences stay below) and
        ``seconds`` of wall time a blend (NaN for the finder, which measures the whole field at once).
    """
    ratios = {(method, band): [] for method in ("finder", "scarlet2") for band in _BANDS}
    seconds, left = [], n
    for catalog, field in zip(catalogs, fields, strict=True):
        if not left:
            break
        pair = align(field.rubin, field.euclid, region="overlap")
        kept, match = match_catalog(catalog, field)
        partner = np.where(match.outcome == TRUE, match.truth_index, -1)
        truth = match.truth
        for centre in _blends(truth, set(partner[partner >= 0].tolist())):
            if not left:
                break
            start = time.perf_counter()
            rows, fluxes = fit(pair, kept["sky_centroid"], truth["sky_centroid"][centre])
            good = np.flatnonzero(partner[rows] >= 0)
            if not len(good):
                continue
            seconds.append(time.perf_counter() - start)
            left -= 1
            for band in _BANDS:
                true = truth[f"{band}_flux"][partner[rows[good]]].to_value(u.nJy)
                own = kept[f"{band}_flux"][rows[good]].to_value(u.nJy)
                ratios["finder", band] += list(own / true)
                ratios["scarlet2", band] += list(fluxes[band][good] / true)
    return QTable(
        rows=[
            {
                "method": method,
                "band": band,
                "n_blends": len(seconds),
                "n_objects": len(values),
                "bias": float(np.median(values)) - 1 if values else np.nan,
                "error": float(np.percentile(np.abs(np.array(values) - 1), 68.27)) if values else np.nan,
                "seconds": float(np.mean(seconds)) if seconds and method == "scarlet2" else np.nan,
            }
            for (method, band), values in ratios.items()
        ]
    )


def _blends(truth, found):
    """Sources in blends, the brightest first, no two of one blend."""
    snr, sky = np.asarray(truth["snr"], float), truth["sky_centroid"]
    near = truth["nearest"].to_value(u.arcsec) < 1
    chosen = []
    for k in np.argsort(-snr):
        if not (near[k] and snr[k] > _BRIGHT and int(k) in found):
            continue
        other = np.argsort(sky[k].separation(sky).arcsec)[1]
        apart = not chosen or sky[k].separation(sky[chosen]).arcsec.min() > _WIDTH / 20
        if int(other) in found and apart:
            chosen.append(int(k))
    return chosen


def _need_scarlet2():
    if importlib.util.find_spec("scarlet2") is None:
        raise MissingDependencyError(
            "this needs the package 'scarlet2', which is not installed; "
            "install it with: pip install 'jaisp[scarlet2]'"
        )
