# Licensed under a 3-clause BSD style license - see LICENSE
"""The parts that the pictures of `jaisp.catalog.plots` are drawn from."""

import numpy as np
from astropy import units as u
from scipy.ndimage import binary_fill_holes, gaussian_filter, maximum_filter

from jaisp.catalog.columns import stored_wcs, values
from jaisp.exceptions import BandError, ConfigError
from jaisp.surveys import column_prefix

__all__ = [
    "BLUE",
    "INK",
    "LABEL",
    "PAPER",
    "activity_colours",
    "aligned",
    "channel",
    "channels",
    "chosen_rows",
    "composite",
    "covered",
    "draw_arrows",
    "draw_composite",
    "draw_cutout",
    "draw_objects",
    "draw_residuals",
    "grid_angle",
    "held",
    "log_limits",
    "matched",
    "residuals",
    "shrink_factor",
    "survey_images",
]

PAPER, INK, LABEL, BLUE = "#0e1116", "#e6e9ee", "#7fd1ff", "#2b6cb0"
_EMPTY, _RED = "#30343c", "#c53030"

# Blue, green and red; a channel is the mean of those of its bands that are there.
_CHANNELS = {
    "rubin": (("u", "g"), ("r",), ("i", "z", "y")),
    "euclid": (("VIS",), ("Y", "J"), ("H",)),
}
_NEUTRAL_SLOPE = 1.2  # a source of flux density like wavelength**1.2, a mean galaxy, looks white
_COLOUR_BLUR = 1.5  # pixels
_FILL = 2.0  # pixels from which masked ones are filled
_WHITE = 60.0, 300.0  # S/N of the pixels that are white, at the least and at the most
_MAX_PANEL = 1600  # pixels of a picture's side; larger images are averaged down
_HOLE = 10  # pixels; an object in a hole of this half width, as of a saturated star, is still on the image
_KEYS = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500])  # mas
_MANY_OBJECTS = 400  # above it, thinner ellipses


def aligned(images, table):
    """Return a pair as it is, and a tuple of images on the grid on which the catalogue was made of them."""
    if hasattr(images, "rubin"):
        return images
    from jaisp.io import align

    if not isinstance(images, (tuple, list)) or len(images) != 2:
        raise ConfigError(
            f"images is a {type(images).__name__}; give a pair that align made, or (rubin, euclid), of which "
            "either may be None"
        )
    return align(*images, region=table.meta.get("grid", {}).get("region", "union"))


def survey_images(images, table):
    """Return the images of a pair (or of a tuple, aligned first) that are there, Rubin first."""
    images = aligned(images, table)
    return [image for image in (images.rubin, images.euclid) if image is not None]


def grid_angle(table, wcs):
    """
    Return the angle in degrees by which the grid of the catalogue lies turned on the pixels of ``wcs``.

    Add it to ``orientation``: Rubin's images alone do not lie on the grid of a catalogue of both surveys.
    """
    grid = stored_wcs(table) if len(table) else None
    if grid is None:
        return 0.0
    sky = table["sky_centroid"][0]
    x, y = grid.world_to_pixel(sky)
    dx, dy = np.subtract(wcs.world_to_pixel(grid.pixel_to_world(x + 1, y)), wcs.world_to_pixel(sky))
    return float(np.degrees(np.arctan2(dy, dx)))


def chosen_rows(table, ids, most):
    """Return the rows of some ids, by default the first ``most``; an id that is not there is an error."""
    if ids is None:
        return list(table[:most])
    where = {int(number): index for index, number in enumerate(table["id"])}
    ids = [int(number) for number in np.atleast_1d(ids)]
    missing = [number for number in ids if number not in where]
    if missing:
        raise ConfigError(f"there is no object {missing[0]} in this catalogue of {len(table)} objects")
    return [table[where[number]] for number in ids]


def held(table, survey):
    """Return the rows that a slot of this survey alone holds."""
    return _unmasked(table[f"{survey}_slot"])


def matched(table):
    """Return the rows whose slots in the two surveys are matched; both may hold a row without that."""
    return _unmasked(table["match_similarity"])


def _unmasked(column):
    return ~np.broadcast_to(getattr(column, "mask", False), len(column))


def residuals(table):
    """
    Return where the surveys' own slots of matched rows lie.

    Returns
    -------
    east, north : `~numpy.ndarray` (n,)
        Euclid minus Rubin in mas.
    position : list of two `~numpy.ndarray` (n,)
        Offset to the east and north of the rows' middle, in arcsec.
    """
    rubin, euclid = (
        getattr(table[f"{name}_sky_centroid"], "unmasked", table[f"{name}_sky_centroid"])
        for name in ("rubin", "euclid")
    )
    east, north = (step.to_value(u.mas) for step in rubin.spherical_offsets_to(euclid))
    steps = euclid[0].spherical_offsets_to(euclid)
    position = [step.to_value(u.arcsec) for step in steps]
    return east, north, [step - (step.min() + step.max()) / 2 for step in position]


# -- composites -----------------------------------------------------------------------------------------


def channels(image, bands):
    """Return the names of the bands of the blue, green and red channel."""
    if bands is None:
        chosen = [[name for name in names if name in image.bands] for names in _CHANNELS[image.survey.name]]
        if all(chosen):
            return chosen
        # Too few bands: neighbouring channels share one, and a single band gives grey.
        names = list(image.bands)
        return [names[:1], names[1:-1] or names, names[-1:]]
    chosen = [[names] if isinstance(names, str) else list(names) for names in bands]
    if len(chosen) != 3 or not all(chosen):
        raise ConfigError(f"bands must be three channels (blue, green, red), not {bands!r}")
    for name in (name for names in chosen for name in names):
        if name not in image.bands:
            raise BandError(f"band {name!r} is not in the image; it has {', '.join(image.bands)}")
    return chosen


def channel(image, names):
    """Return the noise-weighted mean of some bands, in which a mean galaxy is white, and its noise."""
    total, weight = 0.0, 0.0
    for name in names:
        white = (image.survey.band(name).wavelength / 1000) ** -_NEUTRAL_SLOPE
        noise = white * image.noise[name].pixel_sd
        total = total + white * _shrunk(_filled(image, name)) / noise**2
        weight += 1 / noise**2
    return total / weight, weight**-0.5


def composite(planes, noises, *, stretch, saturation):
    """Return the picture (ny, nx, 3) of three channels (3, ny, nx), blue first, with their noise (3,)."""
    weights = noises**-2.0
    grey = np.tensordot(weights, planes, 1) / np.sqrt(weights.sum())  # in units of its own noise
    white = np.clip(np.percentile(grey, 99.8), *_WHITE)
    level = np.arcsinh(np.clip(grey + 1, 0, None) / stretch) / np.arcsinh(white / stretch)
    smooth = np.array([gaussian_filter(plane, _COLOUR_BLUR) for plane in planes]).clip(0)
    floor = 2 * noises.max()
    picture = level * ((smooth + floor) / (smooth.mean(0) + floor)) ** saturation
    picture /= np.maximum(picture.max(0), 1)  # what is too bright for the screen keeps its hue
    return np.moveaxis(picture[::-1], 0, -1).astype(np.float32)


def _filled(image, name):
    """Sky-subtracted data of a band, its holes filled from around (not what lies off the image)."""
    data, mask = image.sky_subtracted(name), image.mask[name]
    holes = mask & binary_fill_holes(~mask)
    if not holes.any():
        return data
    near = gaussian_filter((~mask).astype(np.float32), _FILL)
    around = gaussian_filter(data, _FILL) / np.maximum(near, 0.02)  # fades where nothing is near
    return np.where(holes, around, data)


def _shrunk(data):
    """Average an image down so that no side is longer than a picture needs."""
    factor = shrink_factor(data.shape)
    ny, nx = (side // factor for side in data.shape)
    return data[: ny * factor, : nx * factor].reshape(ny, factor, nx, factor).mean((1, 3))


def shrink_factor(shape):
    """Return how many pixels of an image are averaged, along each side, to one of its picture."""
    return -(-max(shape) // _MAX_PANEL)


def draw_composite(panel, picture, image):
    """Draw a composite with a scale bar and a compass; return image pixels per picture pixel."""
    shrink = shrink_factor(image.shape)
    ny, nx = picture.shape[:2]
    panel.imshow(picture, origin="lower", interpolation="nearest")
    panel.set(xticks=[], yticks=[], xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5))
    panel.spines[:].set_visible(False)
    panel.set_title(f"{image.survey.label}   {' '.join(image.bands)}", color=INK, fontsize=11)
    _draw_scale_bar(panel, nx, ny, image.pixel_scale * shrink)
    _draw_compass(panel, image, nx, ny)
    return shrink


def _draw_scale_bar(panel, nx, ny, pixel_scale):
    lengths = np.array([1, 2, 5, 10, 20, 30, 60, 120, 300, 600])
    length = lengths[np.argmin(np.abs(lengths - 0.15 * nx * pixel_scale))]
    x, y = 0.04 * nx, 0.035 * ny
    text = f"{length}″" if length < 60 else f"{length // 60}′"
    panel.plot([x, x + length / pixel_scale], [y, y], color=INK, lw=2, solid_capstyle="butt")
    panel.text(x + length / pixel_scale / 2, y + 0.012 * ny, text, color=INK, ha="center", va="bottom")


def _draw_compass(panel, image, nx, ny):
    middle = image.wcs.pixel_to_world(image.shape[1] / 2, image.shape[0] / 2).icrs
    x, y, size = 0.9 * nx, 0.1 * ny, 0.05 * min(nx, ny)
    for angle, name in ((0, "N"), (90, "E")):
        away = middle.directional_offset_by(angle * u.deg, 1 * u.arcsec)
        step = np.subtract(image.wcs.world_to_pixel(away), image.wcs.world_to_pixel(middle))
        dx, dy = size * step / np.hypot(*step)
        panel.plot([x, x + dx], [y, y + dy], color=INK, lw=1.2)
        panel.text(x + 1.35 * dx, y + 1.35 * dy, name, color=INK, ha="center", va="center", fontsize=8)


# -- objects ----------------------------------------------------------------------------------------------


def activity_colours():
    """Return the map from activity to colour."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colours = LinearSegmentedColormap.from_list("activity", ["#ff5d5d", "#ffc14d", "#8df58d", "#7fd1ff"])
    return ScalarMappable(Normalize(0, 1), colours)


def draw_objects(panel, table, image, shrink, colours, *, label):
    """Draw an ellipse for each object on the image, as wide as the survey's sharpest PSF shows it."""
    from matplotlib.collections import EllipseCollection

    table = table[covered(table, image)]
    x, y = ((pixel + 0.5) / shrink - 0.5 for pixel in image.wcs.world_to_pixel(table["sky_centroid"]))
    blur = min(image.survey.band(name).psf_fwhm for name in image.bands) / 2
    major, minor = (
        1.8 * np.hypot(np.nan_to_num(values(table[name], u.arcsec)), blur) / image.pixel_scale / shrink
        for name in ("semimajor_axis", "semiminor_axis")
    )
    angle = np.nan_to_num(values(table["orientation"], u.deg)) + grid_angle(table, image.wcs)
    edges = colours.to_rgba(values(table["activity"]))
    own = held(table, image.survey.name)
    for chosen, style in ((own, "-"), (~own, (0, (1, 1.5)))):
        ellipses = EllipseCollection(
            2 * major[chosen],
            2 * minor[chosen],
            angle[chosen],
            units="xy",
            offsets=np.column_stack([x[chosen], y[chosen]]),
            offset_transform=panel.transData,
            facecolors="none",
            edgecolors=edges[chosen],
            linewidths=0.9 if len(table) <= _MANY_OBJECTS else 0.5,
            linestyles=[style],
        )
        panel.add_collection(ellipses, autolim=False)
    if label:
        for number, x0, y0, radius in zip(table["id"], x, y, major, strict=True):
            at = x0 + 0.75 * radius, y0 + 0.75 * radius
            panel.text(*at, str(number), color=LABEL, fontsize=6.5, clip_on=True)


def covered(table, image):
    """Return the rows at which some band of the image has pixels, or has them all around."""
    x, y = (np.round(pixel).astype(int) for pixel in image.wcs.world_to_pixel(table["sky_centroid"]))
    ny, nx = image.shape
    good = ~np.logical_and.reduce([image.mask[band] for band in image.bands])
    near = maximum_filter(good, size=2 * _HOLE + 1)
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny)
    return inside & near[np.clip(y, 0, ny - 1), np.clip(x, 0, nx - 1)]


def draw_cutout(panel, image, band, row, half):
    """Draw one band around an object, ``half`` arcsec to each side."""
    panel.set(xticks=[], yticks=[], facecolor=_EMPTY)
    panel.spines[:].set_visible(False)
    x, y = image.wcs.world_to_pixel(row["sky_centroid"])
    half = half / image.pixel_scale
    (left, right), (bottom, top) = (
        np.clip([np.floor(middle - half), np.ceil(middle + half) + 1], 0, side).astype(int)
        for middle, side in ((x, image.shape[1]), (y, image.shape[0]))
    )
    pixels = image.sky_subtracted(band)[bottom:top, left:right]
    if pixels.size == 0:
        panel.patch.set(hatch="///", edgecolor="0.4")
        return
    sky = image.noise[band].pixel_sd
    white = max(12 * sky, np.percentile(pixels, 99.5))
    panel.imshow(
        np.arcsinh(pixels / (3 * sky)) / np.arcsinh(white / (3 * sky)),
        origin="lower",
        cmap="gray",
        vmin=-0.25,
        vmax=1,
        interpolation="nearest",
        extent=(left - 0.5, right - 0.5, bottom - 0.5, top - 0.5),
    )
    panel.set(xlim=(x - half, x + half), ylim=(y - half, y + half))
    prefix = column_prefix(image.survey, band)
    significance = float(row[f"{prefix}_flux"] / row[f"{prefix}_flux_err"])
    if np.isfinite(significance):
        panel.text(0.04, 0.04, f"{significance:.0f}σ", transform=panel.transAxes, color=LABEL, fontsize=7)


# -- cross-match ------------------------------------------------------------------------------------------


def draw_residuals(panel, east, north, similarity, scale):
    """Draw Euclid-minus-Rubin positions with their median and spread; return the points."""
    if scale is None:
        scale = max(1.15 * np.percentile(np.abs([east, north]), 95), 1.0)
    points = panel.scatter(east, north, c=similarity, s=16, cmap="viridis", linewidths=0, alpha=0.85)
    middle = np.median(east), np.median(north)
    spread = [1.4826 * np.median(np.abs(v - m)) for v, m in zip((east, north), middle, strict=True)]
    panel.axhline(0, color="0.6", lw=0.8, zorder=0)
    panel.axvline(0, color="0.6", lw=0.8, zorder=0)
    panel.errorbar(*middle, xerr=spread[0], yerr=spread[1], color=_RED, capsize=3, lw=1.6)
    panel.set(
        xlim=(scale, -scale),  # east to the left, as on the sky
        ylim=(-scale, scale),
        aspect="equal",
        xlabel="east (mas)",
        ylabel="north (mas)",
        title=f"Euclid − Rubin: median {middle[0]:+.0f}, {middle[1]:+.0f} mas",
    )
    return points


def draw_arrows(panel, east, north, position):
    """Draw Euclid-minus-Rubin positions as arrows on the sky."""
    length = np.hypot(east, north)
    key = _KEYS[np.argmin(np.abs(np.log(_KEYS / max(np.median(length), 1e-3))))]
    scale = 12 * max(np.percentile(length, 90), 1e-3)
    arrows = panel.quiver(
        *position, -east, north, color=BLUE, width=0.004, scale_units="width", scale=scale, angles="uv"
    )
    panel.quiverkey(arrows, 0.86, 1.04, key, f"{key} mas", labelpos="W")
    panel.set(aspect="equal", xlabel="east (arcsec)", ylabel="north (arcsec)")
    panel.set_title("on the sky", loc="left")
    panel.invert_xaxis()
    panel.margins(0.08)
    panel.grid(alpha=0.25)


def log_limits(values):
    """Return limits of a logarithmic axis: a decade at least, or labels would run into one another."""
    low, high = np.log10(np.maximum([values.min(), values.max()], 1e-3))
    half = max((high - low) / 2 + 0.1, 0.5)
    return 10 ** ((low + high) / 2 - half), 10 ** ((low + high) / 2 + half)
