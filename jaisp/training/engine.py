# Licensed under a 3-clause BSD style license - see LICENSE
"""The training loop: resumable to the last bit, with guards against collapse."""

import contextlib
import dataclasses
import json
import logging
import math
import time
from pathlib import Path

import torch

from jaisp.exceptions import ConfigError, FileError, JaispError
from jaisp.models import DETRJEPA
from jaisp.training.config import TrainingConfig, load_config
from jaisp.training.data import TileBatches, batch_loader, load_scenes
from jaisp.training.losses import heat_loss, jepa_loss, set_loss, view_snr
from jaisp.training.validation import validate

__all__ = ["TrainingError", "train"]

logger = logging.getLogger(__name__)


class TrainingError(JaispError, RuntimeError):
    """A run that cannot go on: a loss that is not finite, or a gauge that fell below its guard."""


def _learning_rate(step, config):
    """Linear warm-up, flat for 30 % of the run, then a cosine to 1 %."""
    warm = min(1.0, (step + 1) / 200)
    done = max(0.0, (step / config.steps - 0.3) / 0.7)
    return config.learning_rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


class _Run:
    """State of a run: model, averaged model, optimiser, step."""

    def __init__(self, config):
        torch.manual_seed(config.optimizer.seed)
        self.config = config
        self.model = DETRJEPA(config.model).to(memory_format=torch.channels_last)
        self.average = DETRJEPA(config.model)
        self.average.load_state_dict(self.model.state_dict())
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        vectors = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.optimizer.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.optimizer.learning_rate,
            betas=(0.9, 0.98),
        )
        self.step = 0

    def save(self, path):
        """Write a checkpoint atomically."""
        state = {
            "step": self.step,
            "config": self.config.to_dict(),
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        partial = path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path):
        """Continue from a checkpoint; its model must be the configured one."""
        state = torch.load(path, weights_only=True)
        if state["config"]["model"] != dataclasses.asdict(self.config.model):
            raise ConfigError(
                f"checkpoint {str(path)!r} holds a model of another configuration; start a new run"
            )
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.step = state["step"]

    def update_average(self):
        """Exponential moving average, shorter at the beginning."""
        decay = min(self.config.optimizer.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for value, new in zip(self.average.parameters(), self.model.parameters(), strict=True):
                value.lerp_(new, 1 - decay)
            # Statistics of the embeddings are averages already; averaged again they would lag behind.
            for value, new in zip(self.average.buffers(), self.model.buffers(), strict=True):
                value.copy_(new)


def _losses(model, inputs, truth, config, *, with_jepa, progress):
    """All terms of the objective for one batch, and gauges."""
    loss_config = config.loss
    precision = (
        torch.autocast("cpu", torch.bfloat16)
        if config.optimizer.precision == "bf16"
        else contextlib.nullcontext()
    )
    views = ("joint", "rubin", "euclid") if with_jepa else ("joint",)
    terms, outputs, gauges = {}, {}, {}
    for view in views:
        with precision:
            features = model.encode(inputs, view)
            layers = model.decode(features)
        snr = view_snr(truth, view)
        losses, _ = set_loss(layers, truth, snr, loss_config)
        losses["heat"] = heat_loss(features["heat"], truth, snr, loss_config)
        share = 0.5 if view == "joint" and with_jepa else (0.25 if with_jepa else 1.0)
        for name, value in losses.items():
            terms[name] = terms.get(name, 0.0) + share * value
        outputs[view] = layers[-1]
    if with_jepa:
        model.heads.normalize(list(outputs.values()))
        ramp = min(1.0, 2 * progress)
        losses, gauges = jepa_loss(model, outputs, similarity_weight=3.0 * ramp)
        terms.update(losses)
    joint = outputs["joint"]
    active = (joint["activity_logit"] > 0) & joint["valid"]
    gauges["n_objects"] = active.sum().item() / len(active)
    total = sum(getattr(loss_config, name) * value for name, value in terms.items())
    return total, {name: float(value.detach()) for name, value in terms.items()}, gauges


def _prepare(config, output, resume):
    """Make the run's folder; refuse to overwrite another run."""
    output = Path(output)
    checkpoint = output / "checkpoint.pt"
    try:
        output.mkdir(parents=True, exist_ok=True)
        (output / ".writable").touch()
        (output / ".writable").unlink()
    except OSError as error:
        raise FileError(f"cannot write into {str(output)!r}: {error.strerror}") from None
    if checkpoint.exists() and not resume:
        raise FileError(
            f"{str(output)!r} already holds a run; use --resume to continue it, or another folder"
        )
    if resume and not checkpoint.exists():
        raise FileError(f"{str(output)!r} has no checkpoint.pt to resume from")
    return output, checkpoint


def train(config, output, *, resume=False, check=False, progress=None):
    """
    Train `~jaisp.models.DETRJEPA` on simulated scenes.

    Writes ``metrics.jsonl``, ``checkpoint.pt`` and ``weights/`` (the averaged model) into ``output``.

    Parameters
    ----------
    config : `TrainingConfig` or path-like
        Configuration, or a TOML file.
    output : path-like
        Folder of the run.
    resume : bool
        Continue from the folder's checkpoint.
    check : bool
        Validate configuration and data and run one step; write no weights.
    progress : callable, optional
        Called as ``progress(step, steps, metrics)``.

    Returns
    -------
    `pathlib.Path`
        Folder of the weights.

    Raises
    ------
    TrainingError
        The loss is not finite, or the embeddings collapsed; the text says which gauge failed.
    """
    if not isinstance(config, TrainingConfig):
        config = load_config(config)
    output, checkpoint = _prepare(config, output, resume)
    if config.optimizer.threads:
        torch.set_num_threads(config.optimizer.threads)
    run = _Run(config)
    if resume:
        run.load(checkpoint)
    data, optimizer = config.data, config.optimizer
    cache = Path(data.cache or output)
    n_train, n_validation = (optimizer.batch_size, 2) if check else (data.n_scenes, data.n_validation)
    bank = load_scenes(data, cache, seed=data.seed, n=n_train)
    validation_bank = load_scenes(data, cache, seed=data.seed + 1, n=n_validation)
    jepa_step = int(optimizer.jepa_start * optimizer.steps)
    dataset = TileBatches(
        bank,
        batch_size=optimizer.batch_size,
        seed=optimizer.seed,
        band_dropout=config.loss.band_dropout,
        survey_dropout=config.loss.survey_dropout,
        survey_dropout_end=jepa_step,
    )
    last = run.step + 1 if check else optimizer.steps
    loader = batch_loader(dataset, range(run.step, last), workers=0 if check else data.workers)
    run.model.train()
    _trim_log(output / "metrics.jsonl", run.step)
    sums, count, start = {}, 0, time.monotonic()
    with (output / "metrics.jsonl").open("a") as log:
        for inputs, truth in loader:
            for group in run.optimizer.param_groups:
                group["lr"] = _learning_rate(run.step, optimizer)
            with_jepa = check or (run.step >= jepa_step and config.loss.jepa > 0)
            done = (run.step - jepa_step) / max(1, optimizer.steps - jepa_step)
            total, terms, gauges = _losses(
                run.model, inputs, truth, config, with_jepa=with_jepa, progress=max(done, 0.0)
            )
            if not torch.isfinite(total):
                raise TrainingError(f"the loss is not finite at step {run.step}: {terms}")
            run.optimizer.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(run.model.parameters(), optimizer.clip)
            run.optimizer.step()
            run.step += 1
            run.update_average()
            for name, value in {"loss": total.item(), **terms, **gauges}.items():
                total_value, n = sums.get(name, (0.0, 0))
                sums[name] = (total_value + value, n + 1)
            count += 1
            if run.step % optimizer.log_every == 0 or run.step == last:
                metrics = {f"train/{name}": value / n for name, (value, n) in sums.items()}
                speed = count * optimizer.batch_size / (time.monotonic() - start)
                metrics = {"step": run.step, **metrics, "train/tiles_per_second": speed}
                log.write(json.dumps(metrics) + "\n")
                log.flush()
                _guard(metrics)
                if progress is not None:
                    progress(run.step, optimizer.steps, metrics)
                sums, count, start = {}, 0, time.monotonic()
            if not check and (run.step % optimizer.validate_every == 0 or run.step == last):
                metrics = validate(run.average, validation_bank, batch_size=optimizer.batch_size)
                log.write(json.dumps({"step": run.step, **metrics}) + "\n")
                log.flush()
                run.save(checkpoint)
                run.average.save_pretrained(
                    output / "weights", notes={"step": run.step, "validation": metrics}
                )
                start = time.monotonic()
    return output / "weights"


def _trim_log(path, step):
    """Drop what a killed run logged after its last checkpoint: those steps are taken again."""
    if path.exists():
        lines = [
            line for line in path.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= step
        ]
        path.write_text("".join(lines))


def _guard(metrics):
    """Stop a run whose embeddings have collapsed."""
    spread = metrics.get("train/embedding_std")
    if spread is not None and spread < 0.05:
        raise TrainingError(
            f"the embeddings collapsed at step {metrics['step']}: embedding_std is {spread:.3f}, "
            "its guard 0.05; raise [loss] regularizer"
        )
