# Licensed under a 3-clause BSD style license - see LICENSE
"""Training: losses, data, and the loop that `jaisp train` runs."""

from jaisp.training.config import TrainingConfig, load_config
from jaisp.training.engine import train

__all__ = ["TrainingConfig", "load_config", "train"]
