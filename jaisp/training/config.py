# Licensed under a 3-clause BSD style license - see LICENSE
"""One TOML file says everything about a training run."""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaisp.exceptions import ConfigError, FileError, suggest
from jaisp.models.config import DETRJEPAConfig, config_from_dict
from jaisp.simulation import SceneConfig
from jaisp.training.objectives import objective_class
from jaisp.training.optimizers import OPTIMIZERS
from jaisp.training.regularizers import REGULARIZERS

__all__ = ["DataConfig", "LossConfig", "ObjectiveConfig", "OptimizerConfig", "TrainingConfig", "load_config"]


@dataclass(frozen=True)
class ObjectiveConfig:
    """
    What is learned, and from which weights on.

    Parameters
    ----------
    kind : str
        ``"supervised"`` (simulated truth), another of `jaisp.training.objectives`, or ``"module:Class"`` for
        one of your own. It decides which keys the sections ``[model]``, ``[data]`` and ``[loss]`` have.
    weights : str
        Weights to start from: ``"bundled"`` or a folder that ``jaisp train`` wrote; empty to start anew.
        They bring their own model configuration.
    trainable : tuple of str
        Parts of the model that learn, by the beginnings of their parameters' names, e.g.
        ``["heads.projector", "predict_"]``; the others stay as they are. Empty for all.
    """

    kind: str = "supervised"
    weights: str = ""
    trainable: tuple = ()

    def __post_init__(self):
        objective_class(self.kind)
        if isinstance(self.trainable, str):
            raise ConfigError(
                f"[objective] trainable is {self.trainable!r}; give a list: [{self.trainable!r}]"
            )


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
        for name in ("seed", "workers"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")


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
    readout : float
        Weight of reading brightness, colours, size and kind off the embeddings; see
        `jaisp.training.losses.readout_loss`.
    regularizer : float
        Weight of what works against collapse of the embeddings.
    regularizer_kind : {"sigreg", "vicreg", "visreg", "none"}
        What that is; see `jaisp.training.regularizers`. Their scales differ, so that each needs a weight of
        its own.
    matching : {"both", "position", "similarity"}
        What matches the slots of the two surveys: position and, increasingly, similarity, or one of them.
    window : float
        From JEPA's start on the view of one survey is shown a window of the tile, in opposite corners for the
        two surveys: its sides as a fraction of the tile's; see `jaisp.training.windows`. 1 for whole tiles.
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
    readout: float = 0.0
    regularizer: float = 0.05
    regularizer_kind: str = "sigreg"
    matching: str = "both"
    window: float = 0.75
    positive_snr: float = 4.5
    ignore_snr: float = 3.0
    survey_dropout: float = 0.2
    band_dropout: float = 0.2

    def __post_init__(self):
        for name, allowed in (
            ("regularizer_kind", tuple(REGULARIZERS)),
            ("matching", ("both", "position", "similarity")),
        ):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(
                    f"unknown {name} {value!r}{suggest(value, allowed)}; allowed: {', '.join(allowed)}"
                )
        if not 0.7 <= self.window <= 1:  # smaller ones, in opposite corners, would hardly overlap
            raise ConfigError(f"window must be in [0.7, 1], not {self.window}")
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
    kind : {"adamw", "muon"}
        AdamW for all parameters, or Muon for matrices and kernels and AdamW for the others; see
        `jaisp.training.optimizers`.
    batch_size : int
        Tiles that pass the model at a time, on each device.
    accumulate : int
        Batches whose gradients are averaged for one step.
    steps : int
        Optimiser steps.
    jepa_start : float
        Fraction of the steps after which the per-survey passes and the predictive loss begin.
    learning_rate, weight_decay, clip : float
        Of the optimiser and of gradient clipping; flat, then a cosine over the last 70 %.
    warmup : int
        Steps over which the learning rate rises to its value; fewer suit a short run.
    ema : float
        Decay of the averaged weights, which are the ones that are saved.
    precision : {"bf16", "float32"}
        Precision of the forward pass.
    device : {"auto", "cpu", "cuda"}
        ``"auto"`` takes CUDA where there is one. Under ``torchrun`` each process takes a device of its own.
    threads : int
        CPU threads; 0 leaves torch's choice.
    seed : int
        Seed of initialisation, order and noise.
    log_every, validate_every : int
        Steps between lines of ``metrics.jsonl``, and between validations and checkpoints.
    tensorboard : bool
        Write the metrics for TensorBoard too, into the run's folder.
    """

    kind: str = "adamw"
    batch_size: int = 8
    accumulate: int = 1
    steps: int = 6000
    jepa_start: float = 0.5
    learning_rate: float = 6e-4
    warmup: int = 200
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.998
    precision: str = "bf16"
    device: str = "auto"
    threads: int = 0
    seed: int = 0
    log_every: int = 20
    validate_every: int = 500
    tensorboard: bool = False

    def __post_init__(self):
        if self.kind not in OPTIMIZERS:
            raise ConfigError(
                f"unknown optimizer kind {self.kind!r}{suggest(self.kind, OPTIMIZERS)}; "
                f"allowed: {', '.join(OPTIMIZERS)}"
            )
        for name in ("batch_size", "accumulate", "steps", "warmup", "log_every", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("threads", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0, not {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not 0 < getattr(self, name) < np.inf:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}")
        if not 0 <= self.weight_decay < np.inf:
            raise ConfigError(f"weight_decay must be at least 0, not {self.weight_decay}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must be in [0, 1), not {self.ema}")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"unknown device {self.device!r}; allowed: auto, cpu, cuda")
        if self.precision not in ("bf16", "float32"):
            raise ConfigError(f"unknown precision {self.precision!r}; allowed: bf16, float32")
        if not 0 <= self.jepa_start <= 1:
            raise ConfigError(f"jepa_start must be between 0 and 1, not {self.jepa_start}")


@dataclass(frozen=True)
class TrainingConfig:
    """
    A training run: objective, model, data, loss and optimiser.

    Parameters
    ----------
    model, data, loss : dataclass
        Of the types that the objective's class names: `~jaisp.models.DETRJEPAConfig`, `DataConfig` and
        `LossConfig` for the default one. With ``objective.weights`` the model is theirs.
    optimizer : `OptimizerConfig`
    objective : `ObjectiveConfig`
    """

    model: DETRJEPAConfig = field(default_factory=DETRJEPAConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)

    @classmethod
    def from_dict(cls, values):
        """Build from nested mappings; an unknown section or key raises `~jaisp.exceptions.ConfigError`."""
        allowed = [item.name for item in dataclasses.fields(cls)]
        for name, content in values.items():
            if name not in allowed:
                raise ConfigError(
                    f"unknown section [{name}]{suggest(name, allowed)}; allowed: {', '.join(allowed)}"
                )
            if not isinstance(content, dict):
                raise ConfigError(f"[{name}] must be a section with keys, not {content!r}")
        objective = config_from_dict(ObjectiveConfig, values.get("objective", {}))
        if objective.weights and values.get("model"):
            raise ConfigError(
                f"[model] contradicts weights = {objective.weights!r} of [objective], which bring their own "
                "sizes; leave one of them out"
            )
        kind = objective_class(objective.kind)
        sections = {
            "model": kind.model_class.config_class,
            "data": kind.data_class,
            "loss": kind.loss_class,
            "optimizer": OptimizerConfig,
        }
        built = {name: _section(section, values.get(name, {})) for name, section in sections.items()}
        return cls(objective=objective, **built)

    def to_dict(self):
        """Return nested plain dictionaries."""
        return dataclasses.asdict(self)


def _section(section, content):
    """Build one section; a field whose default is a dataclass is a section of its own."""
    content = dict(content)
    for item in dataclasses.fields(section):
        if item.name in content and dataclasses.is_dataclass(item.default_factory):
            if not isinstance(content[item.name], dict):
                raise ConfigError(f"{item.name} must be a section with keys, not {content[item.name]!r}")
            content[item.name] = _section(item.default_factory, content[item.name])
    return config_from_dict(section, content)


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
    if all(content == {} for content in values.values()):
        raise ConfigError(
            f"{str(path)!r} sets nothing, and a training takes hours; say at least what is to be learned: "
            '[objective] kind = "supervised", or another recipe of the guide'
        )
    return TrainingConfig.from_dict(values)
