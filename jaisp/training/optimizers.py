# Licensed under a 3-clause BSD style license - see LICENSE
"""Optimisers: AdamW for all parameters, or Muon for matrices and kernels and AdamW for the rest."""

import torch

__all__ = ["OPTIMIZERS", "FlatMuon", "make_optimizers"]

#: Names that ``[optimizer] kind`` may have.
OPTIMIZERS = ("adamw", "muon")
_LEAST = 8  # rows and columns: there is little to make orthogonal in smaller matrices


class FlatMuon(torch.optim.Muon):
    """
    `torch.optim.Muon`, which takes matrices alone, for kernels of convolutions too.

    A kernel is the matrix whose rows are its output channels.

    Parameters
    ----------
    params : iterable of `~torch.nn.Parameter`
        Of two dimensions or more, on the device where they will be trained.
    **kwargs
        Of `torch.optim.Muon`.
    """

    def __init__(self, params, **kwargs):
        self._shaped = list(params)
        super().__init__([torch.nn.Parameter(p.detach().flatten(1).clone()) for p in self._shaped], **kwargs)
        self._flat = list(self.param_groups[0]["params"])

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step; see `torch.optim.Optimizer.step`."""
        for flat, shaped in zip(self._flat, self._shaped, strict=True):
            flat.copy_(shaped.flatten(1))
            flat.grad = None if shaped.grad is None else shaped.grad.flatten(1)
        loss = super().step(closure)
        for flat, shaped in zip(self._flat, self._shaped, strict=True):
            shaped.copy_(flat.view(shaped.shape))
        return loss

    def zero_grad(self, set_to_none=True):
        """Forget the gradients of the parameters that were given; they are always set to none."""
        for shaped in self._shaped:
            shaped.grad = None


def make_optimizers(model, config):
    """
    Optimisers of what learns in a model.

    Parameters
    ----------
    model : `~torch.nn.Module`
        On the device where it will be trained.
    config : `~jaisp.training.config.OptimizerConfig`

    Returns
    -------
    list of `~torch.optim.Optimizer`
        Which share the parameters between them.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    flat = []
    if config.kind == "muon":
        flat = [p for p in learning if p.ndim > 1 and min(len(p), p[0].numel()) >= _LEAST]
    others = [p for p in learning if not any(p is one for one in flat)]
    optimizers = []
    if others:
        groups = [
            {"params": [p for p in others if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizers.append(torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98)))
    if flat:
        optimizers.append(
            FlatMuon(
                flat,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",  # steps as long as AdamW's, so that one rate suits both
            )
        )
    return optimizers
