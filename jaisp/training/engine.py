# Licensed under a 3-clause BSD style license - see LICENSE
"""The training loop: any objective, any number of devices, resumable to the last digit, guarded."""

import copy
import json
import logging
import math
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from jaisp.exceptions import ConfigError, JaispError
from jaisp.training._launch import launch, total_over_processes
from jaisp.training._run_files import RunFiles
from jaisp.training.config import TrainingConfig, load_config
from jaisp.training.objectives import objective_class
from jaisp.training.optimizers import make_optimizers

__all__ = ["TrainingError", "check", "train"]

logger = logging.getLogger(__name__)

# Settings that say where and how long, not what is learned.
_OF_THE_MACHINE = ("cache", "workers", "steps", "device", "threads", "log_every", "tensorboard")


class TrainingError(JaispError, RuntimeError):
    """A run that cannot go on: a loss that is not finite, or a gauge that fell below its guard."""


def _learning_rate(step, config):
    """Linear warm-up, flat for 30 % of the run, then a cosine to 1 %."""
    warm = min(1.0, (step + 1) / config.warmup)
    done = max(0.0, (step / config.steps - 0.3) / 0.7)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def _freeze(model, trainable):
    """Let only the parts of a model learn whose names begin as given."""
    names = [name for name, _ in model.named_parameters()]
    for part in trainable:
        if not any(name.startswith(part) for name in names):
            known = ", ".join(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
            raise ConfigError(
                f"[objective] trainable names {part!r}, which no parameter begins with; there are {known}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not trainable or name.startswith(tuple(trainable)))


class _Step(torch.nn.Module):
    """
    The objective as one module.

    Its forward pass is all that a step computes, so that gradients are averaged over the processes
    whichever methods of the model the objective calls.
    """

    def __init__(self, objective):
        super().__init__()
        self.model = objective.model
        self.objective = objective

    def forward(self, batch, step):
        """Loss, and plain numbers of the terms and gauges."""
        total, terms, gauges = self.objective.losses(batch, step)
        numbers = {"loss": total, **terms, **gauges}
        return total, {name: float(torch.as_tensor(value).detach()) for name, value in numbers.items()}


def _plain(values):
    """Return what JSON makes of nested values: tuples become lists."""
    return json.loads(json.dumps(values))


def _fixed(config):
    """What a resumed run must have as before: the model, what learns, and how, of which moments are kept."""
    # Checkpoints of before there was a choice have none: all learned, by AdamW.
    objective, optimizer = config.get("objective", {}), config.get("optimizer", {})
    return {
        **_plain(config["model"]),
        "trainable": _plain(objective.get("trainable", ())),
        "optimizer": optimizer.get("kind", "adamw"),
    }


def _changes(before, now, section=""):
    """What nested settings say otherwise than before, one text each, less what any run may change."""
    for name, value in now.items():
        place = f"{section}.{name}" if section else name
        old = before.get(name, value)  # settings that there was no choice of yet
        if isinstance(value, dict) and isinstance(old, dict):
            yield from _changes(old, value, place)
        elif value != old and name not in _OF_THE_MACHINE:
            yield f"[{section}] {name} {old!r} -> {value!r}"


class _Run:
    """State of a run: model, averaged model, optimisers, step."""

    def __init__(self, config, fabric, folder, *, check, progress):
        self.config, self.fabric = config, fabric
        torch.manual_seed(config.optimizer.seed)
        with fabric.rank_zero_first():  # what one process puts into the cache the others find there
            self.objective = objective_class(config.objective.kind)(
                config,
                folder,
                rank=fabric.global_rank,
                world_size=fabric.world_size,
                check=check,
                progress=progress if fabric.is_global_zero else None,
            )
        self.model = self.objective.model
        _freeze(self.model, config.objective.trainable)
        fabric.to_device(self.model)  # optimisers may keep what lies beside the parameters
        self.module, *self.optimizers = fabric.setup(
            _Step(self.objective), *make_optimizers(self.model, config.optimizer)
        )
        self.average = copy.deepcopy(self.model).eval()
        self.step = 0
        self.model.train()

    def state(self):
        """Everything that a resumed run needs."""
        return {
            "step": self.step,
            "config": {**self.config.to_dict(), "model": self.model.config.to_dict()},
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state, path):
        """Go on from a state, whose model must be the configured one."""
        given, mine = _fixed(state["config"]), _fixed(self.state()["config"])
        names = sorted(name for name in {*given, *mine} if given.get(name) != mine.get(name))
        problem = "; ".join(f"{name} {given.get(name)!r} there, {mine.get(name)!r} here" for name in names)
        if not names:
            try:
                self.model.load_state_dict(state["model"])
                self.average.load_state_dict(state["average"])
            except RuntimeError as error:
                problem = " ".join(str(error).split())[:200]
        if problem:
            raise ConfigError(
                f"checkpoint {str(path)!r} holds a model of another configuration ({problem}); "
                "start a new run"
            )
        others = "; ".join(_changes(_plain(state["config"]), _plain(self.state()["config"])))
        if others and self.fabric.is_global_zero:
            logger.warning("%r goes on with other settings than it began with: %s", str(path.parent), others)
        # Checkpoints of before there was a choice have one optimiser's.
        states = state["optimizers"] if "optimizers" in state else [state["optimizer"]]
        for optimizer, moments in zip(self.optimizers, states, strict=True):
            optimizer.load_state_dict(moments)
        self.step = state["step"]

    def take_step(self, batches):
        """One optimiser step over ``accumulate`` batches: numbers summed over them, and seconds waited."""
        fabric, config, sums, waited = self.fabric, self.config.optimizer, {}, 0.0
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(self.step, config)
            optimizer.zero_grad(set_to_none=True)
        for part in range(config.accumulate):
            start = time.monotonic()
            batch = fabric.to_device(next(batches))
            waited += time.monotonic() - start
            # What the losses draw depends on the batch alone, wherever it is computed.
            number = (self.step * config.accumulate + part) * fabric.world_size + fabric.global_rank
            torch.manual_seed(config.seed + 1000003 * (number + 1))
            last = part == config.accumulate - 1
            with fabric.no_backward_sync(self.module, enabled=not last):
                total, numbers = self.module(batch, self.step)
                if not math.isfinite(numbers["loss"]):
                    bad = {name: value for name, value in numbers.items() if not math.isfinite(value)}
                    raise TrainingError(
                        f"the loss is not finite at step {self.step}: {bad}; look for bad pixels in the "
                        "data, or lower [optimizer] learning_rate"
                    )
                fabric.backward(total / config.accumulate)
            for name, value in numbers.items():
                add, n = sums.get(name, (0.0, 0))
                sums[name] = (add + value, n + 1)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        if not torch.isfinite(norm):
            raise TrainingError(
                f"the gradient is not finite at step {self.step}, the loss is {numbers['loss']:.3g}; "
                "lower [optimizer] learning_rate, or use precision = 'float32'"
            )
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.update_average()
        return sums, waited

    def update_average(self):
        """Exponential moving average, shorter at the beginning."""
        decay = min(self.config.optimizer.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(list(self.average.parameters()), list(self.model.parameters()), None)
            # Statistics of the embeddings are averages already; averaged again they would lag behind.
            for value, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
                value.copy_(new)


class _Meter:
    """Means of what was logged since the last line, and the speed."""

    def __init__(self, tiles_a_step):
        self.tiles_a_step = tiles_a_step
        self.clear()

    def clear(self):
        self.sums, self.steps, self.waited, self.start = {}, 0, 0.0, time.monotonic()

    def add(self, sums, waited):
        for name, (value, n) in sums.items():
            old, m = self.sums.get(name, (0.0, 0))
            self.sums[name] = (old + value, m + n)
        self.steps += 1
        self.waited += waited

    def line(self, fabric):
        sums = total_over_processes(fabric, self.sums)
        metrics = {f"train/{name}": value / n for name, (value, n) in sums.items()}
        seconds = max(time.monotonic() - self.start, 1e-9)
        tiles = self.steps * self.tiles_a_step
        metrics["train/tiles_per_second"] = tiles / seconds
        metrics["train/model_tiles_per_second"] = tiles / max(seconds - self.waited, 1e-9)
        # The share of the time in which the model waited for the loader: near 0 when the loader keeps up.
        metrics["train/waiting"] = self.waited / seconds
        return metrics


def train(config, output, *, resume=False, progress=None, data_progress=None):
    """
    Train a model as a configuration says.

    Writes ``metrics.jsonl``, ``curves.png`` (where matplotlib is installed), ``checkpoint.pt`` and
    ``weights/`` (the averaged model) into ``output``. Started by ``torchrun``, each process trains on a
    device of its own and the first one writes.

    Parameters
    ----------
    config : `TrainingConfig` or path-like
        Configuration, or a TOML file.
    output : path-like
        Folder of the run.
    resume : bool
        Continue from the folder's checkpoint, to the same numbers as without an interruption.
    progress : callable, optional
        Called as ``progress(step, steps, metrics)`` after each step, with the metrics last logged.
    data_progress : callable, optional
        Called as ``data_progress(done, total)`` while training data are made.

    Returns
    -------
    `pathlib.Path`
        Folder of the weights.

    Raises
    ------
    TrainingError
        The loss is not finite, or a gauge fell below its guard; the text says which.
    """
    if not isinstance(config, TrainingConfig):
        config = load_config(config)
    with _as_before():
        _train(config, output, resume=resume, progress=progress, data_progress=data_progress)
    return Path(output) / "weights"


def check(config, *, data_progress=None):
    """
    Validate a configuration and its data, and run one step, without writing anything.

    Parameters
    ----------
    config : `TrainingConfig` or path-like
    data_progress : callable, optional
        Called as ``data_progress(done, total)`` while training data are made.

    Returns
    -------
    dict
        Metrics of the step. As no data are prepared ahead, ``train/loader_tiles_per_second`` is what one
        process of the loader gives, to be compared with ``train/model_tiles_per_second``.
    """
    if not isinstance(config, TrainingConfig):
        config = load_config(config)
    with tempfile.TemporaryDirectory() as folder, _as_before():
        return _train(config, folder, one_step=True, data_progress=data_progress)


@contextmanager
def _as_before():
    """Give torch's threads and random numbers back as they were."""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        torch.set_num_threads(threads)


def _train(config, output, *, resume=False, one_step=False, progress=None, data_progress=None):
    """Run the loop; return the last metrics of training."""
    optimizer = config.optimizer
    if optimizer.threads:
        torch.set_num_threads(optimizer.threads)
    fabric = launch(optimizer)
    files = RunFiles(output, resume=resume)
    run = _Run(config, fabric, files.folder, check=one_step, progress=data_progress)
    if resume:
        run.load(files.load_checkpoint(), files.checkpoint)
    elif fabric.is_global_zero:
        files.check_space(run.state())
    last = run.step + 1 if one_step else optimizer.steps
    if run.step >= last:
        return {}
    batches = iter(run.objective.batches(run.step, last))
    meter = _Meter(optimizer.batch_size * optimizer.accumulate * fabric.world_size)
    metrics = {}
    if fabric.is_global_zero:
        files.open_log(run.step, tensorboard=optimizer.tensorboard)
    try:
        while run.step < last:
            meter.add(*run.take_step(batches))
            saving = not one_step and (run.step % optimizer.validate_every == 0 or run.step == last)
            # A line before each checkpoint, so that a resumed run averages over the same steps.
            if saving or run.step % optimizer.log_every == 0 or run.step == last:
                metrics = meter.line(fabric)
                _log(files, fabric, run, metrics)
                meter.clear()
            if saving:
                _validate_and_save(files, fabric, run)
                meter.start = time.monotonic()
            if progress is not None:
                progress(run.step, optimizer.steps, metrics)
    finally:
        files.close_log()
    if one_step:
        tiles, waiting = metrics["train/tiles_per_second"], metrics["train/waiting"]
        metrics["train/loader_tiles_per_second"] = tiles / max(waiting, 1e-9)
    return metrics


def _validate_and_save(files, fabric, run):
    """Metrics of the averaged model, then weights, curves and checkpoint; the other processes wait."""
    if fabric.is_global_zero:
        metrics = run.objective.validate(run.average)
        _log(files, fabric, run, metrics)
        notes = {
            "objective": run.config.objective.kind,
            "start": run.model.weights_info if run.config.objective.weights else None,
            "step": run.step,
            "validation": metrics,
        }
        run.average.save_pretrained(files.weights, notes=notes)
        files.draw_curves()
        # Last: a run that is killed before comes here again, one resumed after its last step does not.
        files.save_checkpoint(run.state())
    fabric.barrier()


def _log(files, fabric, run, metrics):
    """Write a line, and stop a run that has lost what it should keep."""
    if fabric.is_global_zero:
        files.log({"step": run.step, **metrics})
    for name, lowest in run.objective.guards.items():
        value = metrics.get(name if name.startswith("val/") else f"train/{name}")
        if value is not None and not value >= lowest:
            raise TrainingError(
                f"the run collapsed at step {run.step}: {name} is {value:.3f}, its guard {lowest:g}; "
                f"raise [loss] regularizer, or lower [optimizer] learning_rate"
            )
