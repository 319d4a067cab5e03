# Licensed under a 3-clause BSD style license - see LICENSE
"""Images to vary."""

import numpy as np
import pytest

from jaisp.image import SurveyImage

from .helpers import make_wcs


@pytest.fixture
def pixels():
    return np.random.default_rng(1).normal(size=(48, 56)).astype(np.float32)


@pytest.fixture
def make(pixels):
    def make(data=None, wcs=None, **kwargs):
        data = {"VIS": pixels} if data is None else data
        return SurveyImage(
            data, make_wcs() if wcs is None else wcs, survey=kwargs.pop("survey", "euclid"), **kwargs
        )

    return make
