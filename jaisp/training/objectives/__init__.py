# Licensed under a 3-clause BSD style license - see LICENSE
"""
What can be trained: one class for each kind of objective, which the engine drives without knowing it.

A class names the configurations of its sections (``model_class``, whose ``config_class`` is ``[model]``,
``data_class`` and ``loss_class``) and has the interface of `Objective`.
"""

from importlib import import_module
from typing import Protocol

from jaisp.exceptions import ConfigError, suggest

__all__ = ["Objective", "batch_numbers", "check_side", "objective_class", "start_model"]

_CLASSES = {
    "injection": "jaisp.training.objectives.injection:Injection",
    "labelfree": "jaisp.training.objectives.labelfree:LabelFree",
    "objects": "jaisp.training.objectives.objects:Contrast",
    "patch": "jaisp.training.objectives.patch:Patches",
    "supervised": "jaisp.training.objectives.supervised:Supervised",
}
_INTERFACE = ("model_class", "data_class", "loss_class", "batches", "losses", "validate")


class Objective(Protocol):
    """
    What the engine asks of an objective.

    It is made as ``Kind(config, folder, rank=, world_size=, check=, progress=)``: ``folder`` is the run's and
    may keep data; ``rank`` of ``world_size`` processes; ``check`` asks for as little data as one step needs;
    ``progress(done, total)`` is told how the data are made. Mistakes in the data are found there, before
    hours are spent.

    Attributes
    ----------
    model : `torch.nn.Module`
        With ``config`` and ``save_pretrained(path, notes=)``. The engine may move it to another device.
    guards : dict
        Lowest value that a gauge may have, by its name. Names without ``val/`` are those of `losses`.
    """

    model_class: type
    data_class: type
    loss_class: type

    def batches(self, first_step, last_step):
        """
        Batches of the steps from ``first_step`` to before ``last_step``, ``accumulate`` for each.

        Nested dicts, tuples and lists of CPU tensors. The numbers of `batch_numbers` and the seed decide all
        that is random in them, so that a resumed run sees the same.
        """

    def losses(self, batch, step):
        """
        Return the loss, its weightless terms, and gauges: ``(total, terms, gauges)``.

        ``total`` is a scalar tensor; the others map names to numbers or scalar tensors. Gauges are logged
        beside the terms: ``n_objects``, ``n_queries``, ``similarity`` where there are such.
        """

    def validate(self, model):
        """Return metrics (``val/...``) of the averaged model, which is on the device of `model`."""


def objective_class(kind):
    """
    Return the class of a kind of objective.

    Parameters
    ----------
    kind : str
        One of jaisp's, or ``"module:Class"`` for one of your own.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        If there is no such objective, or it lacks a part of the interface.
    """
    if ":" in kind:
        module, name = kind.split(":", 1)
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"cannot import objective {kind!r}: {error}") from None
        lacking = [name for name in _INTERFACE if not hasattr(found, name)]
        if lacking:
            raise ConfigError(
                f"{kind!r} is no objective: it lacks {', '.join(lacking)}; give a class with what "
                "jaisp.training.objectives.Objective names"
            )
        return found
    if kind not in _CLASSES:
        raise ConfigError(
            f"unknown objective {kind!r}{suggest(kind, _CLASSES)}; allowed: {', '.join(_CLASSES)}, "
            "or module:Class"
        )
    module, name = _CLASSES[kind].split(":")
    return getattr(import_module(module), name)


def start_model(config, model_class):
    """Make the model that a run starts with: a new one, or the weights of ``[objective] weights``."""
    weights = config.objective.weights
    if not weights:
        return model_class(config.model)
    model = model_class.from_pretrained(None if weights == "bundled" else weights)
    # Probabilities that were calibrated for these weights are not those of what they will become.
    parts, trainable = getattr(model, "calibrated_parts", ("",)), config.objective.trainable
    stays = trainable and not any(a.startswith(b) or b.startswith(a) for a in trainable for b in parts)
    if getattr(model.config, "calibration", None) and not stays:
        model.config = type(model.config).from_dict({**model.config.to_dict(), "calibration": {}})
    return model.train()


def check_side(data, model):
    """
    Refuse tiles that a model cannot take, before they are made.

    Parameters
    ----------
    data : `~jaisp.training.config.DataConfig`
    model : `torch.nn.Module`
        Its patches of ``config.patch_size`` pixels, 16 where it has no such setting, must fill the tiles.

    Raises
    ------
    `~jaisp.exceptions.ConfigError`
        If the side of the tiles is no multiple of what the model needs.
    """
    folder = getattr(data, "folder", "")
    name, side = ("[data] tile_size", data.tile_size) if folder else ("[data.scenes] size", data.scenes.size)
    multiple = max(16, getattr(model.config, "patch_size", 16))
    if side % multiple:
        lower = side // multiple * multiple
        raise ConfigError(
            f"{name} = {side} does not suit this {type(model).__name__}: it takes multiples of "
            f"{multiple} pixels, e.g. {lower} or {lower + multiple}"
        )


def batch_numbers(optimizer, first_step, last_step, *, rank, world_size):
    """
    Numbers of the batches that one process takes in some steps.

    Counted over all steps, accumulated batches and processes: two processes with one batch each take in a
    step what one process with ``accumulate = 2`` takes.

    Parameters
    ----------
    optimizer : `~jaisp.training.config.OptimizerConfig`
    first_step, last_step : int
        Half open.
    rank, world_size : int

    Returns
    -------
    list of int
    """
    each = optimizer.accumulate * world_size
    return [number for number in range(first_step * each, last_step * each) if number % world_size == rank]
