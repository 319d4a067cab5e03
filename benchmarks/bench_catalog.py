# Licensed under a 3-clause BSD style license - see LICENSE
"""Timings for asv: what a user waits for, step by step, on one small pair."""

import subprocess
import sys

import numpy as np
from astropy.coordinates import SkyCoord

from jaisp import DETRJEPA
from jaisp.evaluation import MatchedFilter, match_one_to_one
from jaisp.exceptions import JaispError
from jaisp.image import SurveyImage
from jaisp.io import align
from jaisp.simulation import simulate_field


class Pair:
    """One ten-band pair, drawn once for all timings."""

    timeout = 600
    number = 1

    def setup_cache(self):
        rubin, euclid, _ = simulate_field(1, size_arcmin=0.64)
        return [self.pack(image) for image in (rubin, euclid)]

    @staticmethod
    def pack(image):
        planes = {name: {band: getattr(image, name)[band] for band in image.bands} for name in PLANES}
        return planes | {"survey": image.survey.name, "wcs": image.wcs}

    def setup(self, packed):
        # Anew for each timing: images remember what was once worked out.
        self.rubin, self.euclid = (SurveyImage(**planes) for planes in packed)


PLANES = ("data", "variance", "mask", "psf")


class Images(Pair):
    def time_noise(self, packed):
        for image in (self.rubin, self.euclid):
            for band in image.bands:
                image.noise[band]

    def time_align(self, packed):
        align(self.rubin, self.euclid)

    def time_tiles(self, packed):
        [tile.arrays for tile in align(self.rubin, self.euclid).tiles()]

    def time_matched_filter(self, packed):
        MatchedFilter()(self.rubin, self.euclid)


class Catalog(Pair):
    def setup(self, packed):
        super().setup(packed)
        try:
            self.model = DETRJEPA.from_pretrained()
        except JaispError:
            raise NotImplementedError("no bundled weights") from None

    def time_catalog(self, packed):
        self.model.catalog(self.rubin, self.euclid)

    def time_catalog_euclid(self, packed):
        self.model.catalog(euclid=self.euclid)

    def peakmem_catalog(self, packed):
        self.model.catalog(self.rubin, self.euclid)


class Light:
    def time_import(self):
        subprocess.run([sys.executable, "-c", "import jaisp"], check=True)


class Matching:
    params = (100, 10_000)
    param_names = ("n",)

    def setup(self, n):
        rng = np.random.default_rng(1)
        side = np.sqrt(n / 200) / 60
        place = rng.uniform(0, side, (2, n))
        self.truth = SkyCoord(*place, unit="deg")
        self.detections = SkyCoord(*(place + rng.normal(0, 0.05 / 3600, (2, n))), unit="deg")
        self.ranking = rng.uniform(size=n)

    def time_match(self, n):
        match_one_to_one(self.detections, self.truth, ranking=self.ranking)
