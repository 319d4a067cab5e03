# Licensed under a 3-clause BSD style license - see LICENSE
"""What a run leaves in its folder: log, checkpoint, weights, curves."""

import json
import logging
import math
import pickle
import shutil
from pathlib import Path

import torch

from jaisp.exceptions import FileError, MissingDependencyError
from jaisp.files import atomic_path

__all__ = ["RunFiles", "require_space"]

logger = logging.getLogger(__name__)


def require_space(folder, n_bytes, what):
    """Raise `~jaisp.exceptions.FileError` where ``folder`` has no room for ``n_bytes``."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise FileError(
            f"no space left for {what}: {n_bytes / 1e6:.0f} MB needed, {free / 1e6:.0f} MB free in "
            f"{str(folder)!r}; free some, or choose another folder"
        )


def _n_bytes(state):
    """Size of all tensors of nested dicts and lists."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(_n_bytes(value) for value in values)


class RunFiles:
    """
    The folder of a run.

    Parameters
    ----------
    folder : path-like
        Made if missing.
    resume : bool
        Whether a checkpoint must be there; else there must be none.
    """

    def __init__(self, folder, *, resume=False):
        self.folder = Path(folder)
        self.checkpoint = self.folder / "checkpoint.pt"
        self.metrics, self.weights = self.folder / "metrics.jsonl", self.folder / "weights"
        self._log = self._board = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".writable").touch()
            (self.folder / ".writable").unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"cannot write into {str(folder)!r}: {error.strerror}") from None
        if self.checkpoint.exists() and not resume:
            raise FileError(
                f"{str(folder)!r} already holds a run; use --resume to continue it, or another folder"
            )
        if resume and not self.checkpoint.exists():
            raise FileError(f"{str(folder)!r} has no checkpoint.pt to resume from")

    def check_space(self, state):
        """Refuse to begin where the files would not fit: moments as large as the weights come in twice."""
        model = _n_bytes(state["model"])
        # Checkpoint: model, average and two moments, twice while the new one replaces the old; weights too.
        require_space(self.folder, 10 * model + 10_000_000, "the checkpoint and the weights")

    def save_checkpoint(self, state):
        """Write the checkpoint whole or not at all."""
        try:
            with atomic_path(self.checkpoint) as partial:
                torch.save(state, partial)
        except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
            require_space(self.folder, _n_bytes(state), "the checkpoint")
            raise FileError(f"cannot write {str(self.checkpoint)!r}: {str(error).splitlines()[0]}") from None

    def load_checkpoint(self):
        """Read the checkpoint."""
        try:
            return torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = (str(error).splitlines() or ["it is empty"])[0]
            raise FileError(
                f"checkpoint {str(self.checkpoint)!r} is damaged: {reason}; start a new run"
            ) from None

    def open_log(self, step, *, tensorboard):
        """Open the log; what a killed run logged after its last checkpoint is dropped, for it comes again."""
        if tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise MissingDependencyError(
                    "tensorboard = true of [optimizer] needs tensorboard; install it with: "
                    "python -m pip install tensorboard"
                ) from None
            self._board = SummaryWriter(self.folder, purge_step=step + 1)
        lines = [line for line in read_metrics(self.metrics) if line["step"] <= step]
        with atomic_path(self.metrics) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines))
        self._log = self.metrics.open("a")

    def log(self, metrics):
        """Write one line, at once. JSON has no name for what is not finite, as a mean over no pairs."""
        metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}
        self._log.write(json.dumps(metrics) + "\n")
        self._log.flush()
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, metrics["step"])
            self._board.flush()

    def close_log(self):
        """Close what `open_log` opened."""
        for file in (self._log, self._board):
            if file is not None:
                file.close()

    def draw_curves(self):
        """Draw ``curves.png``; without matplotlib there is none."""
        try:
            from jaisp.training.curves import plot_metrics
        except ImportError:
            logger.info("no curves.png without matplotlib")
            return
        path = self.folder / "curves.png"
        try:
            with atomic_path(path) as partial:
                plot_metrics(read_metrics(self.metrics)).savefig(partial, dpi=100)
        except OSError as error:
            raise FileError(f"cannot write {str(path)!r}: {error.strerror}") from None


def read_metrics(path):
    """Lines of a ``metrics.jsonl``; the last one of a killed run may be cut and is left out."""
    lines = []
    if path.exists():
        for text in path.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:
                continue
    return lines
