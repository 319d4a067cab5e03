# Licensed under a 3-clause BSD style license - see LICENSE
"""Classical finders to compare with: SEP on VIS, on a stack, and on both surveys joined."""

from typing import ClassVar

import numpy as np
from scipy.spatial import cKDTree

from jaisp.evaluation._grids import detection_grid, filled, pixel_map, resample, resample_valid
from jaisp.evaluation._peer import Peer, detections, vis_flux
from jaisp.exceptions import BandError, MissingDependencyError

__all__ = ["SEPEuclid", "SEPJoined", "SEPRubin", "SEPStack", "sep_peers"]

_STACK_BANDS = ("g", "r", "i", "z")
# The kernel that SExtractor and SEP call their default (FWHM 2 pixels).
_DEFAULT_KERNEL = np.array([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
_APERTURE = 0.3  # arcsec
_SMALLEST = 1.75  # pixels: least Kron radius, as SExtractor's PHOT_AUTOPARAMS


def import_sep():
    """Return the module `sep`, or say how to get it."""
    try:
        import sep
    except ImportError:
        raise MissingDependencyError(
            "the SEP peers need the package 'sep', which is not installed; install it with: pip install sep"
        ) from None
    return sep


class _SEPPeer(Peer):
    """
    SEP on one signal-to-noise image.

    ``threshold`` is in sigma of the filtered image, ``background`` the side in arcsec of the boxes of SEP's
    background, and ``ranking`` the S/N that ranks: of the pixels above the threshold, in an aperture of 0.3
    arcsec radius, or of the filtered peak.
    """

    grid: ClassVar[dict] = {
        "threshold": (1.5, 1.0, 2.5),
        "kernel": ("default", "none", "psf", "gaussian"),
        "deblend_cont": (0.005, 0.02, 0.0001),
        "deblend_nthresh": (32, 64),
        "background": (3.2,),
        "ranking": ("isophotal", "aperture", "peak"),
    }

    def detect(self, prepared, **settings):
        """Find sources on what ``prepare`` returned; settings as in ``grid``."""
        return _extract(prepared, self.settings(**settings))

    def measured(self, prepared, **settings):
        """As ``detect``, with Kron fluxes in VIS where the detection image lies on its pixels."""
        return _extract(prepared, self.settings(**settings), with_flux=prepared.vis is not None)


class SEPEuclid(_SEPPeer):
    """SEP on VIS alone (or the sharpest Euclid band there is)."""

    name = "SEP on VIS"

    def prepare(self, rubin, euclid):
        """Signal-to-noise image of the first Euclid band."""
        _need(euclid, self.name, "euclid")
        band = euclid.bands[0]
        piece = filled(euclid, band)
        scale = euclid.pixel_scale
        return _Prepared(_stack([piece]), euclid.wcs, euclid.psf[band], scale, vis=_vis(euclid))


class SEPRubin(_SEPPeer):
    """SEP on a noise-weighted stack of Rubin griz on its own grid."""

    name = "SEP on griz"

    def prepare(self, rubin, euclid):
        """Signal-to-noise image of the stack."""
        _need(rubin, self.name, "rubin")
        bands = _stack_bands(rubin)
        pieces = [filled(rubin, band) for band in bands]
        return _Prepared(_stack(pieces), rubin.wcs, rubin.psf[bands[-1]], rubin.pixel_scale)


class SEPStack(_SEPPeer):
    """SEP on a noise-weighted stack of VIS and Rubin griz on the 0.1 arcsec grid."""

    name = "SEP on VIS + griz"

    def prepare(self, rubin, euclid):
        """Signal-to-noise image of the stack."""
        if rubin is None:
            return SEPEuclid().prepare(rubin, euclid)
        wcs, shape = detection_grid(rubin, euclid)
        places = pixel_map(rubin.wcs, wcs, shape)
        pieces = []
        for band in _stack_bands(rubin):
            data, weight = filled(rubin, band)
            valid = resample_valid(weight > 0, places)
            # A quarter of a Rubin pixel holds a fourth of its flux and of its variance.
            pieces.append((resample(data / 4, places) * valid, resample(4 * weight, places, order=1) * valid))
        psf = rubin.psf[_stack_bands(rubin)[-1]]
        if euclid is not None:
            pieces.append(filled(euclid, euclid.bands[0]))
            psf = euclid.psf[euclid.bands[0]]
        scale = euclid.pixel_scale if euclid is not None else rubin.pixel_scale / 2
        return _Prepared(_stack(pieces), wcs, psf, scale, vis=_vis(euclid))


class SEPJoined(Peer):
    """SEP on VIS, joined with what SEP finds on Rubin griz and not in VIS."""

    name = "SEP on VIS joined with griz"
    grid: ClassVar[dict] = {
        "threshold": (1.5, 1.0, 2.5),
        "kernel": ("default", "none", "gaussian"),
        "deblend_cont": (0.005, 0.02, 0.0001),
        "background": (3.2,),
        "ranking": ("isophotal", "aperture", "peak"),
        "rubin_threshold": (1.5, 3.0),
        "rubin_kernel": ("default", "psf"),
        "rubin_deblend_cont": (0.005, 0.0001),
    }
    radius = 0.5
    """Detections of the two surveys closer than this, in arcsec, are one source."""

    def prepare(self, rubin, euclid):
        """Signal-to-noise images of both surveys."""
        _need(rubin, self.name, "rubin")
        _need(euclid, self.name, "euclid")
        return SEPEuclid().prepare(None, euclid), SEPRubin().prepare(rubin, None)

    def detect(self, prepared, **settings):
        """Find sources on what ``prepare`` returned; settings as in ``grid``."""
        settings = self.settings(**settings)
        fixed = {"deblend_nthresh": 32, **{key: settings[key] for key in ("background", "ranking")}}
        own = {key: settings[key] for key in ("threshold", "kernel", "deblend_cont")}
        other = {key: settings[f"rubin_{key}"] for key in own}
        vis = _extract(prepared[0], own | fixed)
        rubin = _extract(prepared[1], other | fixed)
        return join_detections(prepared[0].wcs, vis, rubin, self.radius / prepared[0].scale)


def sep_peers(*, rubin=True, euclid=True):
    """The SEP peers that can be run on the surveys at hand."""
    if rubin and euclid:
        return [SEPEuclid(), SEPStack(), SEPJoined()]
    return [SEPRubin(), SEPStack()] if rubin else [SEPEuclid()]


def join_detections(wcs, first, second, radius):
    """
    Add to ``first`` the detections of ``second`` that are farther than ``radius`` pixels from it.

    Each detection of ``second`` that is near one of ``first`` adds its S/N to the nearest, in quadrature.
    """
    x, y = map(np.atleast_1d, wcs.world_to_pixel(first["sky_centroid"]))
    u, v = map(np.atleast_1d, wcs.world_to_pixel(second["sky_centroid"]))
    snr, extra = np.array(first["snr"]), np.array(second["snr"])
    new = np.ones(len(extra), bool)
    if len(snr) and len(extra):
        distance, nearest = cKDTree(np.column_stack([x, y])).query(np.column_stack([u, v]))
        new = distance > radius
        _, once = np.unique(nearest[~new], return_index=True)
        once = np.flatnonzero(~new)[once]
        snr[nearest[once]] = np.hypot(snr[nearest[once]], extra[once])
    return detections(wcs, np.r_[x, u[new]], np.r_[y, v[new]], np.r_[snr, extra[new]])


class _Prepared:
    """A signal-to-noise image with its WCS, PSF and pixel scale, VIS beside it, and the extractions made."""

    def __init__(self, stack, wcs, psf, scale, vis=None):
        self.image, self.bad = stack
        self.wcs, self.psf, self.scale, self.vis = wcs, psf, scale, vis
        self.cache = {}


def _vis(euclid):
    """Sky-subtracted VIS (nJy), its errors and bad pixels; None without it."""
    if euclid is None or "VIS" not in euclid.bands:
        return None
    data, weight = filled(euclid, "VIS")
    bad = ~(weight > 0)
    error = np.sqrt(1 / np.where(bad, 1, weight))
    return tuple(np.ascontiguousarray(plane) for plane in (data.astype(float), error.astype(float), bad))


def _extract(prepared, settings, *, with_flux=False):
    """Run SEP with one group of settings."""
    key = tuple(
        settings[name] for name in ("background", "threshold", "kernel", "deblend_cont", "deblend_nthresh")
    )
    if key not in prepared.cache:
        prepared.cache[key] = _run_sep(prepared, *key)
    x, y, snr, shape, segments = prepared.cache[key]
    flux = vis_flux(*_kron(prepared.vis, segments, x, y, *shape)) if with_flux else {}
    return detections(prepared.wcs, x, y, snr[settings["ranking"]], **flux)


def _kron(vis, segments, x, y, a, b, theta):
    """Kron fluxes in VIS as SExtractor measures them, neighbours masked, and errors."""
    sep = import_sep()
    data, error, bad = vis
    a, b = np.maximum(a, 0.5), np.maximum(b, 0.5)
    own = {"mask": bad, "segmap": segments, "seg_id": np.arange(1, len(x) + 1, dtype=np.int32)}
    radius, _ = sep.kron_radius(data, x, y, a, b, theta, 6.0, **own)
    small = ~(radius * np.sqrt(a * b) >= _SMALLEST)
    flux, flux_err, _ = sep.sum_ellipse(
        data, x, y, a, b, theta, 2.5 * np.where(small, 1, radius), err=error, subpix=5, **own
    )
    circle, circle_err, _ = sep.sum_circle(data, x, y, _SMALLEST, err=error, subpix=5, **own)
    return np.where(small, circle, flux), np.where(small, circle_err, flux_err)


def _run_sep(prepared, background, threshold, kernel, deblend_cont, deblend_nthresh):
    """Positions of SEP's detections and their S/N by each ranking."""
    sep = import_sep()
    # SEP's limits are global and too small for crowded images at low thresholds.
    sep.set_extract_pixstack(max(sep.get_extract_pixstack(), prepared.image.size))
    sep.set_sub_object_limit(max(sep.get_sub_object_limit(), 8192))
    box = round(background / prepared.scale)
    image = prepared.image - sep.Background(prepared.image, mask=prepared.bad, bw=box, bh=box).back()
    ones = np.ones_like(image)
    found, segments = sep.extract(
        image,
        threshold,
        err=ones,
        mask=prepared.bad,
        minarea=5,
        filter_kernel=_kernel(kernel, prepared.psf, prepared.scale),
        filter_type="matched",
        deblend_nthresh=deblend_nthresh,
        deblend_cont=deblend_cont,
        segmentation_map=True,
    )
    x, y = found["x"], found["y"]
    flux, error, _ = sep.sum_circle(image, x, y, _APERTURE / prepared.scale, err=ones, mask=prepared.bad)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = {
            "isophotal": found["flux"] / np.sqrt(np.maximum(found["npix"], 1)),
            "aperture": np.nan_to_num(flux / error, posinf=0, neginf=0),
            "peak": found["cpeak"],
        }
    theta = np.clip(found["theta"], -np.pi / 2, np.pi / 2)
    return x, y, snr, (found["a"], found["b"], theta), segments


def _kernel(name, psf, scale):
    """Convolution kernel for SEP, or None."""
    if name == "none":
        return None
    if name == "default":
        return _DEFAULT_KERNEL
    if name == "psf":
        middle, half = psf.shape[0] // 2, min(psf.shape[0] // 2, 7)
        return np.ascontiguousarray(
            psf[middle - half : middle + half + 1, middle - half : middle + half + 1], float
        )
    sigma = 0.5 / 2.355 / scale
    axis = np.arange(-7, 8)
    return np.exp(-(axis**2 + axis[:, None] ** 2) / (2 * sigma**2))


def _need(image, name, survey):
    if image is None:
        raise BandError(
            f"{name!r} needs a {survey} image, and none was given; allowed: a SurveyImage of {survey}"
        )


def _stack_bands(rubin):
    """The bands of griz that there are, else all."""
    return [band for band in rubin.bands if band in _STACK_BANDS] or list(rubin.bands)


def _stack(pieces):
    """Noise-weighted mean over its noise, and bad pixels, of (data, weight) pairs on one grid."""
    total = sum(data * weight for data, weight in pieces)
    weight = sum(weight for _, weight in pieces)
    bad = ~(weight > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = np.where(bad, 0, total / np.sqrt(weight))
    return np.ascontiguousarray(snr, dtype=np.float32), bad
