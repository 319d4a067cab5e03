# Licensed under a 3-clause BSD style license - see LICENSE
"""photutils as an astronomer would use it: segmentation on a stack, and PSF photometry on VIS."""

import contextlib
import importlib.util
import warnings
from typing import ClassVar

import numpy as np
from astropy.table import QTable
from astropy.utils.exceptions import AstropyWarning
from scipy.ndimage import gaussian_filter

from jaisp.evaluation._peer import Peer, detections, vis_flux
from jaisp.evaluation.peers import SEPStack
from jaisp.exceptions import BandError, MissingDependencyError

__all__ = ["PhotutilsPSF", "PhotutilsSegmentation"]


class PhotutilsSegmentation(Peer):
    """
    ``SourceFinder`` (threshold, then watershed deblending) on the stack of VIS and griz, ``SourceCatalog``.

    ``threshold`` is in sigma of the smoothed image, ``sigma`` the width of the smoothing in pixels,
    ``contrast`` that of the deblending, and ``ranking`` the S/N that ranks: of the segment, or of the
    smoothed peak.
    """

    name = "photutils segmentation"
    grid: ClassVar[dict] = {
        "threshold": (3.0, 2.0, 4.0, 5.0, 6.0),
        "sigma": (1.3, 0.85),
        "contrast": (0.001, 0.01),
        "ranking": ("segment", "peak"),
    }

    def prepare(self, rubin, euclid):
        """Signal-to-noise image of the stack."""
        return SEPStack().prepare(rubin, euclid)

    def detect(self, prepared, **settings):
        """Find sources on what ``prepare`` returned; settings as in ``grid``."""
        settings = self.settings(**settings)
        _, places, snr = self._find(prepared, settings)
        return detections(prepared.wcs, *places, snr[settings["ranking"]])

    def measured(self, prepared, **settings):
        """As ``detect``, with the Kron fluxes of ``SourceCatalog`` in VIS."""
        settings = self.settings(**settings)
        segments, places, snr = self._find(prepared, settings)
        flux = {}
        if segments is not None and prepared.vis is not None:
            data, error, bad = prepared.vis
            catalog = _catalog(data, segments, error=error, mask=bad)
            with _quiet():
                # photutils 3 has renamed it.
                kron_error = (
                    catalog.kron_flux_err if hasattr(catalog, "kron_flux_err") else catalog.kron_fluxerr
                )
                flux = vis_flux(catalog.kron_flux, kron_error)
        return detections(prepared.wcs, *places, snr[settings["ranking"]], **flux)

    def _find(self, prepared, settings):
        """Segmentation image (None if empty), positions, and S/N by each ranking."""
        from photutils.segmentation import SourceFinder

        _need_watershed()
        key = ("photutils", *(settings[name] for name in ("threshold", "sigma", "contrast")))
        if key not in prepared.cache:
            smooth = gaussian_filter(prepared.image, settings["sigma"])
            # White noise of 1 per pixel has this sigma after the smoothing.
            smooth = smooth / (1 / (2 * np.sqrt(np.pi) * settings["sigma"]))
            with _quiet():
                finder = SourceFinder(5, contrast=settings["contrast"], progress_bar=False)
                segments = finder(smooth, settings["threshold"], mask=prepared.bad)
            if segments is None:
                empty = np.zeros(0)
                prepared.cache[key] = None, (empty, empty), {"segment": empty, "peak": empty}
            else:
                catalog = _catalog(prepared.image, segments, mask=prepared.bad)
                peak = _catalog(smooth, segments, mask=prepared.bad).max_value
                centroid, area = catalog.centroid, catalog.area.value
                prepared.cache[key] = (
                    segments,
                    (centroid[:, 0], centroid[:, 1]),
                    {"segment": catalog.segment_flux / np.sqrt(area), "peak": peak},
                )
        return prepared.cache[key]


class PhotutilsPSF(PhotutilsSegmentation):
    """
    ``PSFPhotometry`` with the true PSF of VIS, of what `PhotutilsSegmentation` finds: all taken for points.

    Settings as there; ``ranking`` may also be the S/N of the fitted flux.
    """

    name = "photutils PSF photometry"
    grid: ClassVar[dict] = {
        "threshold": (3.0, 2.0, 4.0, 5.0, 6.0),
        "sigma": (1.3,),
        "contrast": (0.001,),
        "ranking": ("segment", "fit"),
    }

    def prepare(self, rubin, euclid):
        """Signal-to-noise image of the stack, and VIS with its PSF."""
        if euclid is None or "VIS" not in euclid.bands:
            raise BandError(f"{self.name!r} needs VIS; give a Euclid image that has it")
        return super().prepare(rubin, euclid)

    def detect(self, prepared, **settings):
        """Find and fit sources; settings as in ``grid``."""
        settings = self.settings(**settings)
        key = ("fit", settings["threshold"], settings["sigma"], settings["contrast"])
        if key not in prepared.cache:
            prepared.cache[key] = self._fit(prepared, settings)
        x, y, flux, error, segment = prepared.cache[key]
        snr = segment if settings["ranking"] == "segment" else flux / error
        return detections(prepared.wcs, x, y, snr, **vis_flux(flux, error))

    def measured(self, prepared, **settings):
        """The same as ``detect``."""
        return self.detect(prepared, **settings)

    def _fit(self, prepared, settings):
        """Position, flux, its error, and segment S/N of all sources; a failed fit keeps its start."""
        from photutils.psf import ImagePSF, PSFPhotometry

        _, (x, y), snr = self._find(prepared, settings)
        if not len(x):
            return x, y, x, x, x
        data, error, bad = prepared.vis
        with _quiet():
            psf = ImagePSF(prepared.psf.astype(float))
            fit = PSFPhotometry(psf, (5, 5), aperture_radius=3, xy_bounds=2, progress_bar=False)
            found = fit(data, mask=bad, error=error, init_params=QTable({"x": x, "y": y}))
        found.sort("id")
        fitted = [np.asarray(found[f"{name}_fit"], float) for name in ("x", "y", "flux")]
        flux_err = np.asarray(found["flux_err"], float)
        good = np.isfinite(fitted).all(axis=0) & (flux_err > 0)
        return (
            np.where(good, fitted[0], x),
            np.where(good, fitted[1], y),
            np.where(good, fitted[2], 0.0),
            np.where(good, flux_err, np.inf),
            snr["segment"],
        )


def _catalog(data, segments, **options):
    from photutils.segmentation import SourceCatalog

    return SourceCatalog(data, segments, **options)


def _need_watershed():
    if importlib.util.find_spec("skimage") is None:
        raise MissingDependencyError(
            "the deblending of photutils needs the package 'scikit-image', which is not installed; "
            "install it with: pip install 'jaisp[benchmark]'"
        )


@contextlib.contextmanager
def _quiet():
    """Without the warnings about single sources that photutils and its fitter give."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
