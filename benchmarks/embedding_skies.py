# Licensed under a 3-clause BSD style license - see LICENSE
"""The skies of ``embedding.py``: what a model's views hold on scenes, on GalSim fields, and on none."""

import dataclasses
import subprocess
import sys

import numpy as np
import torch

from jaisp import SurveyImage
from jaisp.catalog import detect, read_catalog
from jaisp.evaluation import Field, match_catalog, read_field, slot_spread
from jaisp.io import align
from jaisp.models import crop_window
from jaisp.simulation import NoiseBank, SceneConfig, draw_tile, make_scenes, write_euclid, write_rubin
from jaisp.surveys import RUBIN
from jaisp.training.matching import assign
from jaisp.training.windows import place_window

VIEWS = ("joint", "rubin", "euclid")
# Views of windows of a scene, and where those lie: an object is at another place in each.
ELSEWHERE = {"rubin elsewhere": ("rubin", 0.0), "euclid elsewhere": ("euclid", 1.0)}
_WINDOW = 0.75  # of the sides of a scene
# Pixels: on fields, tiles of this size with this halo instead. Their corners are 252 pixels apart, so that an
# object lies at another place in its token's patch of 16 pixels, too.
_OTHER_TILES = {"size": 320, "halo": 34}
SCENE_SEED = 9_100_000
PIXEL, CELL, BLEND = 0.1, 384, 1.0  # arcsec; pixels of a tile of a field; arcsec to the next source
ARCMIN2 = (PIXEL / 60) ** 2


def with_vector(model):
    """
    Let the model append the decoder's vector, from which the embedding is projected, to the embedding.

    It is made so small that it does not count in the cosines by which slots are matched.
    """
    plain = model.to_slots

    def to_slots(output):
        slots = plain(output)
        return dataclasses.replace(
            slots, embedding=torch.cat([slots.embedding, 1e-3 * output["slots"]], dim=-1)
        )

    model.to_slots = to_slots
    return model


def own_source(xy, activity, true_xy, snr):
    """Source of each slot within 0.3 arcsec, one-to-one, by the rule of training's validation."""
    distance = np.linalg.norm(xy[:, None] - true_xy, axis=-1)
    cost = distance - 3.0 * (snr > 5) - 6.0 * activity[:, None]
    rows, columns = assign(cost, (distance < 3.0) & (snr > 0))
    source = np.full(len(xy), -1)
    source[rows] = columns
    return source


def nearest_other(x, y, snr):
    """Distance in arcsec of each source to the nearest other one with S/N above 5."""
    distance = PIXEL * np.hypot(x[:, None] - x, y[:, None] - y)
    np.fill_diagonal(distance, np.inf)
    return np.where(snr > 5, distance, np.inf).min(axis=1)


def seen_objects(slots, true_xy, snr, *, first_source, nearest):
    """Columns of the slots of one view of one piece of sky."""
    xy = np.stack([slots["x"], slots["y"]], axis=-1).astype(float)
    activity = 1 / (1 + np.exp(-slots["activity_logit"].astype(float)))
    source = own_source(xy, activity, true_xy, snr)
    known = source >= 0
    return {
        "embedding": slots["embedding"],
        "xy": PIXEL * xy,
        "error": PIXEL * np.hypot(slots["x_err"], slots["y_err"]) / np.sqrt(2),
        "activity": activity,
        "snr": np.where(known, snr[source], 0.0),
        "blend": known & (nearest[source] < BLEND),
        "source": np.where(known, source + first_source, -1),
    }


def joined(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def see_scenes(model, n, seed):
    """Slots of training-like scenes, spread of the slots, and the same model on white noise."""
    scenes = make_scenes(n, SceneConfig(unusual=0.0), seed=seed)
    rng, noise = np.random.default_rng(seed), NoiseBank(seed=seed)
    parts, sources = {view: [] for view in (*VIEWS, *ELSEWHERE)}, 0
    spread = {view: [] for view in VIEWS}
    on_noise = dict.fromkeys(VIEWS, 0)
    for start in range(0, n, 8):
        tiles, truths = zip(
            *(draw_tile(scenes[k], rng, noise) for k in range(start, min(start + 8, n))), strict=True
        )
        batch = {key: torch.from_numpy(np.stack([tile[key] for tile in tiles])) for key in tiles[0]}
        with torch.inference_mode():
            slots = {view: found.to_numpy() for view, found in model(batch).items()}
        for name, (view, place) in ELSEWHERE.items():
            # At another place in their tokens' patches, too: another in each batch.
            shift = place * np.array([2 * (3 * start // 8 % 8), 2 * ((5 * start // 8 + 4) % 8)])
            shape = batch["euclid_snr"].shape[-2:]
            window = place_window(shape, _WINDOW, (place, place), shift.astype(int))
            with torch.inference_mode():
                slots[name] = model(crop_window(batch, window), views=(view,))[view].to_numpy()
            for axis, corner in zip(("x", "y"), window[::2], strict=True):
                slots[name][axis] = slots[name][axis] + corner
        for view in VIEWS:
            found = slots[view]
            active = found["valid"] & (found["activity_logit"] > 0)
            spread[view].append((found["embedding"][..., : model.config.embedding_dim], active))
        for k, truth in enumerate(truths):
            nearest = nearest_other(truth["x"], truth["y"], truth["snr"])
            true_xy = np.stack([truth["x"], truth["y"]], axis=-1)
            for view, found in slots.items():
                valid = found["valid"][k]
                columns = {
                    name: found[name][k][valid] for name in found if name not in ("valid", "n_proposals")
                }
                own = ELSEWHERE[view][0] if view in ELSEWHERE else view
                snr = truth["snr" if own == "joint" else f"{own}_snr"]
                part = seen_objects(columns, true_xy, snr, first_source=sources, nearest=nearest)
                part["tile"] = part["sky"] = np.full(len(part["source"]), start + k)
                parts[view].append(part)
            sources += len(truth["x"])
        for survey in ("rubin", "euclid"):
            batch[f"{survey}_snr"] = torch.from_numpy(
                rng.standard_normal(batch[f"{survey}_snr"].shape, dtype=np.float32)
            )
            batch[f"{survey}_valid"] = torch.ones_like(batch[f"{survey}_valid"])
        with torch.inference_mode():
            for view, found in model(batch).items():
                on_noise[view] += int((found.activity > 0.5).sum())
    area = n * SceneConfig().size ** 2 * ARCMIN2
    gauges = {f"active slots on white noise, {view} (1/arcmin2)": on_noise[view] / area for view in VIEWS}
    for view in VIEWS:
        embedding, active = (np.concatenate(values) for values in zip(*spread[view], strict=True))
        values = slot_spread(embedding, active)
        gauges[f"spread of a slot over images, {view}, least"] = float(values.min())
        gauges[f"spread of a slot over images, {view}, median"] = float(np.median(values))
    return {view: joined(found) for view, found in parts.items()}, gauges


def see_fields(model, skies):
    """Slots of GalSim fields, and for each true source what a catalogue of Rubin alone says of it."""
    parts, rows, sources, tiles = {view: [] for view in (*VIEWS, *ELSEWHERE)}, [], 0, 0
    for number, folder in enumerate(path for sky in skies for path in sky.paths()):
        field = read_field(folder)
        pair = align(field.rubin, field.euclid, region="euclid")
        truth = field.truth[field.truth["snr"] > 1]
        x, y = pair.wcs.world_to_pixel(truth["sky_centroid"])
        found = detect(model, pair)
        found["rubin elsewhere"] = found["rubin"]
        found["euclid elsewhere"] = detect(model, pair, **_OTHER_TILES)["euclid"]
        for view, slots in found.items():
            columns = {item.name: getattr(slots, item.name) for item in dataclasses.fields(slots)}
            part = seen_objects(
                columns,
                np.stack([x, y], axis=-1),
                np.asarray(truth["snr" if view == "joint" else f"{view.split()[0]}_snr"]),
                first_source=sources,
                nearest=truth["nearest"].value,
            )
            # The tile of the source where there is one: both surveys' slots of an object lie in one tile.
            where = part["xy"] / PIXEL
            known = part["source"] >= 0
            where[known] = np.stack([x, y], axis=-1)[part["source"][known] - sources]
            cell = np.clip(where // CELL, 0, np.array(pair.shape[::-1]) // CELL - 1).astype(int)
            part["xy"] = part["xy"] - PIXEL * CELL * cell
            part["tile"] = tiles + cell[:, 1] * 100 + cell[:, 0]
            part["sky"] = np.full(len(cell), number)
            parts[view].append(part)
        rows.append(rubin_rows(model, field, truth, sources, number))
        sources, tiles = sources + len(truth), tiles + 10_000
        print(folder, {view: len(found[-1]["sky"]) for view, found in parts.items()}, flush=True)
    return {view: joined(found) for view, found in parts.items()}, joined(rows)


def rubin_rows(model, field, truth, first_source, number):
    """Catalogue of Rubin alone: what it says of each true source that it holds, and the truth."""
    alone = Field(field.rubin, None, truth)
    catalog, match = match_catalog(
        model.catalog(rubin=field.rubin, activity=0.1), alone, snr_column="rubin_snr"
    )
    chosen = match.truth_index >= 0
    catalog, truth_index = catalog[chosen], match.truth_index[chosen]
    true = truth[truth_index]
    columns = [f"rubin_{band}" for band in RUBIN.band_names]

    def stacked(table, suffix):
        return np.stack([table[f"{name}_{suffix}"].value for name in columns], axis=-1)

    true_flux = stacked(true, "flux")
    error = true_flux / np.maximum(np.stack([true[f"{name}_snr"] for name in columns], axis=-1), 1e-6)
    noise = np.random.default_rng(number).standard_normal(error.shape)
    return {
        "source": truth_index + first_source,
        "sky": np.full(len(true), number),
        "snr": np.asarray(true["rubin_snr"]),
        "embedding": np.asarray(catalog["embedding"]),
        "flux": stacked(catalog, "flux"),
        "flux_err": stacked(catalog, "flux_err"),
        "ideal_flux": true_flux + error * noise,
        "ideal_flux_err": error,
        "log_radius": np.log10(np.maximum(true["half_light_radius"].value, 0.01)),
        "colour": -2.5 * np.log10((true["euclid_vis_flux"] / true["euclid_h_flux"]).value),
        "is_star": np.asarray(true["is_star"], bool),
        "log_redshift": np.log(1 + np.asarray(true["redshift"], float)),
    }


def run_catalog(rubin, euclid, output, weights):
    """Rows of ``jaisp catalog`` with an activity above 0.5."""
    command = [sys.executable, "-m", "jaisp", "catalog", "--rubin", *rubin, "--euclid", *euclid, "-o", output]
    if weights is not None:
        command += ["--weights", weights]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    return read_catalog(output)


def survey_files(folder):
    return [sorted(folder.glob(f"{survey}_*.fits")) for survey in ("rubin", "euclid")]


def write_noise(folder, field, rng):
    """A pair of white noise of the variance that the files state, no source and no bad pixel."""
    for image, write in ((field.rubin, write_rubin), (field.euclid, write_euclid)):
        sigma = {band: np.sqrt(np.median(values)) for band, values in image.variance.items()}
        noise = SurveyImage(
            {
                band: value * rng.standard_normal(image.shape, dtype=np.float32)
                for band, value in sigma.items()
            },
            image.wcs,
            survey=image.survey.name,
            variance={band: np.full(image.shape, value**2) for band, value in sigma.items()},
            psf=image.psf,
        )
        write(noise, folder)


def black_box(skies, folder, weights):
    """Rows on white noise, and matched fractions of true and crossed pairs, by ``jaisp catalog``."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SCENE_SEED)
    noise = {"rows": 0, "area": 0.0}
    fractions = {"true pairs": [], "crossed pairs": []}
    for sky in skies:
        paths = list(sky.paths())[:2]
        field = read_field(paths[0])
        write_noise(folder, field, rng)
        table = run_catalog(*survey_files(folder), folder / "noise.fits", weights)
        noise["rows"] += len(table)
        noise["area"] += field.euclid.shape[0] * field.euclid.shape[1] * ARCMIN2
        for label, euclid in (("true pairs", paths[0]), ("crossed pairs", paths[1])):
            table = run_catalog(
                survey_files(paths[0])[0], survey_files(euclid)[1], folder / "pair.fits", weights
            )
            matched = ~np.ma.getmaskarray(table["match_similarity"])
            inside = field.euclid.wcs.footprint_contains(table["sky_centroid"])
            fractions[label].append((int((matched & inside).sum()), int(inside.sum())))
        print("black box", paths[0], noise, fractions, flush=True)
    out = {
        "rows on white noise (1/arcmin2)": noise["rows"] / noise["area"],
        "white noise (arcmin2)": noise["area"],
    }
    for label, counts in fractions.items():
        matched, rows = np.sum(counts, axis=0)
        out[f"matched fraction, {label}"] = matched / rows
        out[f"rows, {label}"] = int(rows)
    return out
