# Licensed under a 3-clause BSD style license - see LICENSE
"""One TOML file says everything about a training run."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from jaisp.exceptions import ConfigError, FileError, suggest
from jaisp.models.config import DETRJEPAConfig, config_from_dict
from jaisp.simulation import SceneConfig

__all__ = ["DataConfig", "LossConfig", "OptimizerConfig", "TrainingConfig", "load_config"]


@dataclass(frozen=True)
class DataConfig:
    """
    Scenes to train and validate on.

    Parameters
    ----------
    n_scenes, n_validation : int
        Noiseless scenes drawn before training; each is seen under fresh noise every time.
    seed : int
        Seed of the training scenes; the validation scenes have their own (``seed + 1``), so that
        the skies are disjoint.
    cache : str
        Folder that keeps the scenes between runs; empty for the run's own folder.
    workers : int
        Processes that prepare batches beside the one that trains.
    scenes : `~jaisp.simulation.SceneConfig`
        What the scenes look like.
    """

    n_scenes: int = 6000
    n_validation: int = 192
    seed: int = 1
    cache: str = ""
    workers: int = 1
    scenes: SceneConfig = field(default_factory=SceneConfig)

    def __post_init__(self):
        if self.n_scenes < 1 or self.n_validation < 2:
            raise ConfigError(
                f"n_scenes {self.n_scenes} must be at least 1 and n_validation {self.n_validation} at least 2"
            )


@dataclass(frozen=True)
class LossConfig:
    """
    Weights of the terms of the objective, and the dropouts.

    Parameters
    ----------
    heat, activity, position, flux, shape, star : float
        Detection and property terms.
    jepa : float
        Weight of the predictive loss between matched slots of the two surveys.
    regularizer : float
        Weight of SIGReg against collapse of the embeddings.
    positive_snr, ignore_snr : float
        Truth above the first is to be found; between the two it is neither right nor wrong.
    survey_dropout, band_dropout : float
        Probability that a tile lacks one survey, or loses some of its bands.
    """

    heat: float = 1.0
    activity: float = 1.0
    position: float = 0.5
    flux: float = 0.3
    shape: float = 0.3
    star: float = 0.2
    jepa: float = 1.0
    regularizer: float = 0.05
    positive_snr: float = 4.5
    ignore_snr: float = 3.0
    survey_dropout: float = 0.2
    band_dropout: float = 0.2

    def __post_init__(self):
        if self.ignore_snr > self.positive_snr:
            raise ConfigError(f"ignore_snr {self.ignore_snr} is above positive_snr {self.positive_snr}")
        for name in ("survey_dropout", "band_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} must be in [0, 1), not {getattr(self, name)}")


@dataclass(frozen=True)
class OptimizerConfig:
    """
    Length and pace of the run.

    Parameters
    ----------
    batch_size : int
        Tiles a step.
    steps : int
        Optimiser steps.
    jepa_start : float
        Fraction of the steps after which the per-survey passes and the predictive loss begin.
    learning_rate, weight_decay, clip : float
        AdamW and gradient clipping; flat, then a cosine over the last 70 %.
    ema : float
        Decay of the averaged weights, which are the ones that are saved.
    precision : {"bf16", "float32"}
        Precision of the forward pass.
    threads : int
        CPU threads; 0 leaves torch's choice.
    seed : int
        Seed of initialisation, order and noise.
    log_every, validate_every : int
        Steps between lines of ``metrics.jsonl``, and between validations and checkpoints.
    """

    batch_size: int = 8
    steps: int = 6000
    jepa_start: float = 0.5
    learning_rate: float = 6e-4
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.998
    precision: str = "bf16"
    threads: int = 0
    seed: int = 0
    log_every: int = 20
    validate_every: int = 500

    def __post_init__(self):
        if self.batch_size < 1 or self.steps < 1:
            raise ConfigError(f"batch_size {self.batch_size} and steps {self.steps} must be at least 1")
        if self.precision not in ("bf16", "float32"):
            raise ConfigError(f"unknown precision {self.precision!r}; allowed: bf16, float32")
        if not 0 <= self.jepa_start <= 1:
            raise ConfigError(f"jepa_start must be between 0 and 1, not {self.jepa_start}")


@dataclass(frozen=True)
class TrainingConfig:
    """
    A training run: model, data, loss and optimiser.

    Parameters
    ----------
    model : `~jaisp.models.DETRJEPAConfig`
    data : `DataConfig`
    loss : `LossConfig`
    optimizer : `OptimizerConfig`
    """

    model: DETRJEPAConfig = field(default_factory=DETRJEPAConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    @classmethod
    def from_dict(cls, values):
        """Build from nested mappings; an unknown section or key raises `~jaisp.exceptions.ConfigError`."""
        sections = {
            "model": DETRJEPAConfig,
            "data": DataConfig,
            "loss": LossConfig,
            "optimizer": OptimizerConfig,
        }
        built = {}
        for name, content in values.items():
            if name not in sections:
                raise ConfigError(
                    f"unknown section [{name}]{suggest(name, sections)}; allowed: {', '.join(sections)}"
                )
            if not isinstance(content, dict):
                raise ConfigError(f"[{name}] must be a section with keys, not {content!r}")
            content = dict(content)
            if name == "data" and "scenes" in content:
                content["scenes"] = SceneConfig.from_dict(content["scenes"])
            built[name] = config_from_dict(sections[name], content)
        return cls(**built)

    def to_dict(self):
        """Return nested plain dictionaries."""
        return dataclasses.asdict(self)


def load_config(path):
    """
    Read a TOML file into a `TrainingConfig`.

    Raises
    ------
    `~jaisp.exceptions.FileError`, `~jaisp.exceptions.ConfigError`
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{str(path)!r} is not a TOML file: {error}") from None
    return TrainingConfig.from_dict(values)
