# Licensed under a 3-clause BSD style license - see LICENSE
"""Small runs."""

from jaisp.models import DETRJEPAConfig
from jaisp.simulation import SceneConfig
from jaisp.training import TrainingConfig
from jaisp.training.config import DataConfig, ObjectiveConfig, OptimizerConfig

from .toy import Nothing, ToyConfig


def supervised_config(cache, **optimizer):
    """Four steps of the smallest model; the last two with JEPA."""
    optimizer = {
        "batch_size": 2,
        "steps": 4,
        "jepa_start": 0.5,
        "precision": "float32",
        "log_every": 1,
        "validate_every": 2,
        "threads": 1,
        "device": "cpu",
        **optimizer,
    }
    return TrainingConfig(
        model=DETRJEPAConfig.tiny(),
        data=DataConfig(
            n_scenes=4,
            n_validation=2,
            cache=str(cache),
            workers=0,
            scenes=SceneConfig(size=128, psf_sets=2),
        ),
        optimizer=OptimizerConfig(**optimizer),
    )


def toy_config(*, model=None, kind="toy", **optimizer):
    """A few steps of the objective of `toy`, which must be registered or named by its module."""
    return TrainingConfig(
        model=model or ToyConfig(),
        data=Nothing(),
        loss=Nothing(),
        optimizer=OptimizerConfig(
            **{"steps": 4, "log_every": 1, "validate_every": 2, "device": "cpu", **optimizer}
        ),
        objective=ObjectiveConfig(kind=kind),
    )
