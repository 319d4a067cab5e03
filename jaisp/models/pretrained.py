# Licensed under a 3-clause BSD style license - see LICENSE
"""Weights on disk: ``config.json`` and ``model.safetensors`` in one folder."""

import hashlib
import json
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from jaisp import __version__
from jaisp.exceptions import FileError, WeightsError
from jaisp.files import atomic_path

__all__ = ["PretrainedMixin"]

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"


class PretrainedMixin:
    """Saving and loading for models with a ``config`` and a ``config_class``."""

    #: Name and hash of the weights that were loaded; None for a model that was not loaded.
    weights_info = None

    def save_pretrained(self, path, *, notes=None):
        """
        Write ``config.json`` and ``model.safetensors`` into the folder ``path`` (made if needed).

        Parameters
        ----------
        path : str or path-like
            Folder.
        notes : dict, optional
            Anything that JSON can hold about how the weights were made.
        """
        folder = Path(path)
        record = {
            "model": type(self).__name__,
            "jaisp_version": __version__,
            "config": self.config.to_dict(),
            "notes": notes or {},
        }
        state = {key: value.detach().cpu().contiguous() for key, value in self.state_dict().items()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(folder / WEIGHTS_NAME) as partial:
                save_file(state, partial, metadata={"model": type(self).__name__})
                partial.chmod(0o644)  # safetensors writes for the owner alone
            with atomic_path(folder / CONFIG_NAME) as partial:
                partial.write_text(json.dumps(record, indent=2) + "\n")
        except (OSError, SafetensorError) as error:  # of a full disk safetensors makes its own error
            reason = getattr(error, "strerror", None) or error
            raise FileError(f"cannot write weights into {str(folder)!r}: {reason}") from None

    @contextmanager
    def inference(self):
        """Without gradients and in evaluation mode, whatever mode the model was in and is in afterwards."""
        training = self.training
        self.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self.train(training)

    @classmethod
    def from_pretrained(cls, path=None, *, device="cpu"):
        """
        Load a model that is ready for inference.

        Parameters
        ----------
        path : str or path-like, optional
            Folder with ``config.json`` and ``model.safetensors``; the bundled weights by default.
        device : str
            ``"cpu"``, ``"cuda"`` or ``"auto"`` (CUDA where there is one).

        Raises
        ------
        `~jaisp.exceptions.WeightsError`
            The folder is missing, empty, damaged or made for another model.
        """
        folder = (
            Path(path)
            if path is not None
            else Path(str(files("jaisp") / "data" / "weights" / cls.bundled_name))
        )
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise WeightsError(f"weights folder {str(folder)!r} {what}")
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (folder / name).is_file():
                raise WeightsError(
                    f"weights folder {str(folder)!r} has no {name}; give one that `jaisp train` wrote"
                )
        try:
            record = json.loads((folder / CONFIG_NAME).read_text())
            name, config = record["model"], record["config"]
        except (ValueError, KeyError, TypeError):
            raise WeightsError(
                f"{str(folder / CONFIG_NAME)!r} is not a configuration of jaisp weights"
            ) from None
        if name != cls.__name__:
            raise WeightsError(f"weights in {str(folder)!r} are for {name}, not for {cls.__name__}")
        model = cls(cls.config_class.from_dict(config))
        try:
            model.load_state_dict(load_file(folder / WEIGHTS_NAME))
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{str(folder / WEIGHTS_NAME)!r} is damaged: {error}") from None
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(
                f"weights in {str(folder)!r} do not fit their configuration: {reason}"
            ) from None
        digest = hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
        model.weights_info = {"name": cls.bundled_name if path is None else folder.name, "sha256": digest}
        return model.to(resolve_device(device)).eval()


def resolve_device(device):
    """Return a `torch.device` for ``"cpu"``, ``"cuda"`` or ``"auto"``."""
    has_cuda = torch.cuda.is_available()
    if str(device) == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    try:
        device = torch.device(device)
    except RuntimeError:
        raise WeightsError(f"unknown device {device!r}; allowed: cpu, cuda, auto") from None
    if device.type == "cuda" and not has_cuda:
        raise WeightsError("device 'cuda' was asked for, but torch sees no CUDA device; use cpu or auto")
    return device
