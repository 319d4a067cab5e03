# Licensed under a 3-clause BSD style license - see LICENSE
"""The page: what it shows as JSON, and the template that shows it."""

import html
import json
import re
from importlib.resources import files
from pathlib import Path

import astropy.units as u
import numpy as np
from astropy.wcs import WCS

from jaisp.catalog import COLUMNS, FLAGS, decode_flags, embedding_map, most_similar
from jaisp.catalog.columns import stored_wcs, values
from jaisp.catalog.drawing import aligned, grid_angle
from jaisp.exceptions import ConfigError, FileError
from jaisp.files import atomic_path
from jaisp.report._pictures import LEVELS, band_picture, colour_picture
from jaisp.surveys import AB_ZERO_POINT, EUCLID, RUBIN, column_prefix

__all__ = ["make_report", "write_report"]

_SURVEYS = (RUBIN, EUCLID)
_NEIGHBOURS = 8
_MARGIN = 30.0  # grid pixels around the objects, where there is no image


def write_report(table, path, images=None, *, title="jaisp catalogue", max_objects=5000):
    """
    Write a catalogue as one HTML file that needs no network: picture, table, map of embeddings, objects.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    path : path-like
        The file, ``.html``; an existing one is replaced once the new one is complete.
    images, title, max_objects
        See `make_report`.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise FileError(f"cannot write {str(path)!r}: unknown suffix {path.suffix!r}; allowed: .html")
    text = make_report(table, images, title=title, max_objects=max_objects)
    try:
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FileError(f"cannot write {str(path)!r}: {error.strerror or error}") from None


def make_report(table, images=None, *, title="jaisp catalogue", max_objects=5000):
    """
    Make the page of a catalogue.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue, as made or as read from a file.
    images : `~jaisp.io.AlignedPair` or tuple, optional
        The images it was made from; a tuple ``(rubin, euclid)`` of `~jaisp.image.SurveyImage`, either of
        which may be None, is aligned first. Without them the page has no pixels: objects are ellipses on an
        empty sky, and have no cut-outs.
    title : str
        Heading of the page.
    max_objects : int
        Rows that are shown, the most active first; a browser becomes slow beyond some thousands.

    Returns
    -------
    str
        HTML with all styles, scripts and pictures in it.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        If the table lacks columns of a catalogue.
    `~jaisp.exceptions.MissingDependencyError`
        If images are given and Pillow is not installed.
    """
    needed = {column.name for column in COLUMNS}
    missing = [column.name for column in COLUMNS if column.name not in table.colnames]
    if missing:
        raise ConfigError(
            f"the table lacks {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}; "
            f"give a catalogue of jaisp with its {len(needed)} columns"
        )
    shown = table[np.argsort(-np.asarray(table["activity"]), kind="stable")[:max_objects]]
    if images is not None:
        images = aligned(images, table)
    neighbours, similarity = most_similar(shown, _NEIGHBOURS)
    sky = _sky(shown, images)
    data = {
        **sky,
        "bands": list(_bands(shown, images)),
        "levels": LEVELS,
        "columns": list(_columns(shown)),
        "map": _list(embedding_map(shown), 4),
        "neighbours": neighbours.tolist(),
        "similarity": _list(similarity, 4),
        "summary": _summary(table, len(shown)),
    }
    parts = files("jaisp.report")
    page = parts.joinpath("page.html").read_text(encoding="utf-8")
    texts = {
        "title": html.escape(title),
        "style": parts.joinpath("page.css").read_text(encoding="utf-8"),
        "script": parts.joinpath("page.js").read_text(encoding="utf-8"),
        # "</script>" inside a string would end the element.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    # In one pass: what stands in a title is text.
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: texts[match[1]], page)


def _list(values, digits):
    """Numbers for JSON, null where not finite."""
    values = np.asarray(values, float)
    if values.ndim > 1:
        return [_list(row, digits) for row in values]
    return [round(value, digits) if np.isfinite(value) else None for value in values.tolist()]


def _sky(table, images):
    """Size of the sky in grid pixels, its pictures, and the objects on it."""
    sky = table["sky_centroid"]
    layers, turn = [], 0.0
    if images is not None:
        wcs, (ny, nx) = images.wcs, images.shape
        layers = [
            {"name": image.survey.label, "src": colour_picture(image)}
            for image in (images.euclid, images.rubin)
            if image is not None
        ]
        x, y = wcs.world_to_pixel(sky)
        turn = grid_angle(table, wcs)
    elif len(table) == 0:
        wcs, nx, ny, x, y = None, 100, 100, np.zeros(0), np.zeros(0)
    else:
        wcs = _own_wcs(table)
        x, y = wcs.world_to_pixel(sky)
        x, y = x - x.min() + _MARGIN, y - y.min() + _MARGIN
        nx, ny = (int(np.ceil(side.max() + _MARGIN)) for side in (x, y))
    axes = [
        np.nan_to_num(values(table[name], u.arcsec)) / EUCLID.pixel_scale
        for name in ("semimajor_axis", "semiminor_axis")
    ]
    return {
        "nx": int(nx),
        "ny": int(ny),
        "pixel": EUCLID.pixel_scale,
        "north": _north(wcs, nx, ny),
        "layers": layers,
        "x": _list(x, 2),
        "y": _list(y, 2),
        "a": _list(axes[0], 2),
        "b": _list(axes[1], 2),
        "angle": _list(np.nan_to_num(values(table["orientation"], u.deg)) + turn, 1),
    }


def _own_wcs(table):
    """The catalogue's grid, or, where its metadata have none, one with north up."""
    if (stored := stored_wcs(table)) is not None:
        return stored
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = table["sky_centroid"][0].ra.deg, table["sky_centroid"][0].dec.deg
    wcs.wcs.cdelt = -EUCLID.pixel_scale / 3600, EUCLID.pixel_scale / 3600
    return wcs


def _north(wcs, nx, ny):
    """Unit vectors to the north and to the east in pixels."""
    if wcs is None:
        return [[0, 1], [-1, 0]]
    middle = wcs.pixel_to_world(nx / 2, ny / 2).icrs
    vectors = []
    for angle in (0, 90):
        step = np.subtract(
            wcs.world_to_pixel(middle.directional_offset_by(angle * u.deg, 1 * u.arcsec)),
            wcs.world_to_pixel(middle),
        )
        vectors.append(_list(step / np.hypot(*step), 4))
    return vectors


def _bands(table, images):
    """Fluxes of each band, and its picture."""
    for survey in _SURVEYS:
        image = getattr(images, survey.name, None)
        for band in survey.bands:
            prefix = column_prefix(survey, band.name)
            flux, error = (values(table[f"{prefix}_{what}"], u.nJy) for what in ("flux", "flux_err"))
            yield {
                "survey": survey.label,
                "name": band.name,
                "wavelength": band.wavelength,
                "src": band_picture(image, band.name)
                if image is not None and band.name in image.bands
                else None,
                "flux": _list(flux, 2),
                "error": _list(error, 2),
            }


def _columns(table):
    """Columns of the table on the page; the key is what the page knows them by."""

    def column(key, label, text, values, digits):
        return {"key": key, "label": label, "text": text, "values": _list(values, digits), "digits": digits}

    texts = {item.name: item.description for item in COLUMNS}
    yield column("id", "id", texts["id"], table["id"], 0)
    yield column("activity", "activity", texts["activity"], table["activity"], 3)
    yield column("ra", "RA (deg)", "right ascension (ICRS)", table["sky_centroid"].icrs.ra.deg, 6)
    yield column("dec", "Dec (deg)", "declination (ICRS)", table["sky_centroid"].icrs.dec.deg, 6)
    flux = {}
    for survey, band in ((RUBIN, "g"), (RUBIN, "i"), (EUCLID, "VIS"), (EUCLID, "H")):
        prefix = column_prefix(survey, band)
        flux[band] = values(table[f"{prefix}_flux"], u.nJy)
        text = f"AB magnitude in {survey.label} {band}"
        yield column(f"mag_{band}", band, text, _magnitude(flux[band]), 2)
    colour = _magnitude(flux["g"]) - _magnitude(flux["i"])
    yield column("g_i", "g−i", "colour, AB magnitudes", colour, 2)
    radius = values(table["half_light_radius"], u.arcsec)
    yield column("radius", "radius (″)", f"half-light radius: {texts['half_light_radius']}", radius, 2)
    yield column("star", "star", texts["star_probability"], table["star_probability"], 2)
    yield column("blended", "in blend", texts["n_blended"], table["n_blended"], 0)
    similarity = values(table["match_similarity"])
    yield column("similarity", "match", texts["match_similarity"], similarity, 2)
    yield column("separation", "sep (mas)", texts["separation"], values(table["separation"], u.mas), 0)
    slots = {survey: ~np.isnan(values(table[f"{survey.name}_slot"])) for survey in _SURVEYS}
    seen = [
        " + ".join(survey.label for survey in _SURVEYS if slots[survey][row]) or "joint only"
        for row in range(len(table))
    ]
    yield {"key": "seen", "label": "own slots", "text": "surveys whose own slots hold it", "values": seen}
    names = [" ".join(decode_flags(value)) for value in np.asarray(table["flags"])]
    yield {"key": "flags", "label": "flags", "text": texts["flags"], "values": names}


def _magnitude(flux):
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flux > 0, AB_ZERO_POINT - 2.5 * np.log10(flux), np.nan)


def _summary(table, n_shown):
    """What the head of the page says of the whole catalogue."""
    slots = {survey.name: ~np.isnan(values(table[f"{survey.name}_slot"])) for survey in _SURVEYS}
    flags = np.asarray(table["flags"])
    meta = table.meta
    facts = {"date": meta.get("date"), "model": meta.get("model")}
    facts["weights"] = meta.get("weights", {}).get("name")
    facts["weights sha256"] = (meta.get("weights", {}).get("sha256") or "")[:16]
    facts["activity threshold"] = meta.get("thresholds", {}).get("activity")
    facts["reference image"] = meta.get("grid", {}).get("reference")
    facts |= {f"{name} version": number for name, number in meta.get("versions", {}).items()}
    return {
        "n": len(table),
        "shown": n_shown,
        "counts": {
            "held by both surveys": int((slots["rubin"] & slots["euclid"]).sum()),
            "Rubin only": int((slots["rubin"] & ~slots["euclid"]).sum()),
            "Euclid only": int((slots["euclid"] & ~slots["rubin"]).sum()),
            "in blends": int((np.asarray(table["n_blended"]) > 1).sum()),
            "blends that Rubin merges": int(np.asarray(table["rubin_unrecognized_blend"]).sum()),
            "likely stars": int((np.asarray(table["star_probability"]) > 0.5).sum()),
        },
        "flags": [
            [flag.name, int(((flags & flag.value) > 0).sum()), flag.description]
            for flag in FLAGS
            if (flags & flag.value).any()
        ],
        "offset": meta.get("astrometric_offset"),
        "depths": [
            [name, band["depth_5sigma_ab"], band["psf_source"]]
            for name, band in meta.get("bands", {}).items()
        ],
        "facts": {name: str(value) for name, value in facts.items() if value not in (None, "")},
    }
