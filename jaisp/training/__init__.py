# Licensed under a 3-clause BSD style license - see LICENSE
"""Training: objectives, data, and the loop that `jaisp train` runs."""

from jaisp.training.config import TrainingConfig, load_config
from jaisp.training.engine import TrainingError, check, train

__all__ = ["TrainingConfig", "TrainingError", "check", "load_config", "train"]
