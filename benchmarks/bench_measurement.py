# Licensed under a 3-clause BSD style license - see LICENSE
"""Timings for asv: the joint measurement beside photutils PSF photometry of the same objects and bands."""

import time
import tracemalloc

import numpy as np
from astropy.table import QTable
from photutils.psf import ImagePSF, PSFPhotometry

from jaisp.catalog import Sources, measure
from jaisp.image import SurveyImage
from jaisp.io import align
from jaisp.simulation import simulate_field

_PLANES = ("data", "variance", "mask", "psf")
_FIT_SHAPE = {"rubin": (9, 9), "euclid": (11, 11)}


def sources_of(truth, rng):
    """Start from the truth of what joint S/N 5 shows, as uncertain as a network is."""
    truth = truth[truth["snr"] > 5]
    n = len(truth)
    radius = np.where(truth["is_star"], 0.0, truth["half_light_radius"].value)
    return Sources(
        x=truth["x"].value + rng.normal(0, 0.4, n),
        y=truth["y"].value + rng.normal(0, 0.4, n),
        position_err=np.full(n, 0.4),
        half_light_radius=radius * rng.uniform(0.8, 1.2, n),
        e1=np.zeros(n),
        e2=np.zeros(n),
        is_point=np.asarray(truth["is_star"]),
    )


def psf_photometry(image, x, y):
    """Fit position and flux of each source in each band, one source at a time, with its local noise."""
    for band in image.bands:
        photometry = PSFPhotometry(
            ImagePSF(image.psf[band]), _FIT_SHAPE[image.survey.name], aperture_radius=4
        )
        error = np.sqrt(np.where(image.mask[band], 1.0, image.source_variance(band)))
        start = QTable({"x": x, "y": y})
        photometry(image.sky_subtracted(band), error=error, mask=image.mask[band], init_params=start)


class Measurement:
    """About 270 objects in ten bands; processor time, for threads and neighbours do not count."""

    timeout = 900
    number = repeat = rounds = 1
    warmup_time = 0
    timer = time.process_time

    def setup_cache(self):
        rubin, euclid, truth = simulate_field(1, size_arcmin=1.28)
        packed = [
            {name: {band: getattr(image, name)[band] for band in image.bands} for name in _PLANES}
            | {"survey": image.survey.name, "wcs": image.wcs}
            for image in (rubin, euclid)
        ]
        return packed, sources_of(truth, np.random.default_rng(1))

    def setup(self, cache):
        packed, self.sources = cache
        self.pair = align(*(SurveyImage(**planes) for planes in packed))
        for image in (self.pair.rubin, self.pair.euclid):
            for band in image.bands:  # worked out once and kept: no part of either measurement
                image.sky_subtracted(band), image.source_variance(band)

    def time_measure(self, cache):
        measure(self.pair, self.sources)

    def time_psf_photometry(self, cache):
        x, y = self.sources.x, self.sources.y
        psf_photometry(self.pair.rubin, (x - 0.5) / 2, (y - 0.5) / 2)
        psf_photometry(self.pair.euclid, x, y)

    def track_ratio(self, cache):
        """Processor time of the joint measurement over that of photutils."""
        taken = []
        for run in (self.time_psf_photometry, self.time_measure):
            start = time.process_time()
            run(cache)
            taken.append(time.process_time() - start)
        return taken[1] / taken[0]

    def track_memory(self, cache):
        """Peak of what the measurement allocates through numpy, MB."""
        tracemalloc.start()
        measure(self.pair, self.sources)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak / 1e6

    track_ratio.unit, track_memory.unit = "", "MB"


def main():
    """Print what asv would track."""
    bench = Measurement()
    cache = bench.setup_cache()
    bench.setup(cache)
    for name, run in (("joint measurement", bench.time_measure), ("photutils", bench.time_psf_photometry)):
        start = time.process_time()
        run(cache)
        taken = time.process_time() - start
        print(
            f"{name}: {taken:.1f} s for {len(bench.sources)} objects, {1e3 * taken / len(bench.sources):.1f} s per 1000"
        )
    print(f"ratio {bench.track_ratio(cache):.3f}")


if __name__ == "__main__":
    main()
