# Licensed under a 3-clause BSD style license - see LICENSE
"""Muon for matrices and kernels, beside torch's own for matrices, and the runs that it makes."""

import pytest
import torch

from jaisp.exceptions import ConfigError
from jaisp.training import train
from jaisp.training.config import OptimizerConfig
from jaisp.training.optimizers import FlatMuon, make_optimizers

from .configs import supervised_config


def muon_step(shape, n_steps=3):
    """A parameter after some steps of Muon, all along gradients of one generator."""
    generator = torch.Generator().manual_seed(5)
    kernel = torch.nn.Parameter(torch.randn(12, 2, 3, 3, generator=generator).reshape(shape))
    gradients = [torch.randn(12, 2, 3, 3, generator=generator).reshape(shape) for _ in range(n_steps)]
    return kernel, gradients


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_kernel_moves_as_the_matrix_of_its_output_channels(memory_format):
    settings = {"lr": 0.1, "weight_decay": 0.2, "momentum": 0.9}
    kernel, gradients = muon_step((12, 2, 3, 3))
    matrix, flat_gradients = muon_step((12, 18))
    kernel.data = kernel.data.to(memory_format=memory_format)
    before = kernel.detach().clone()
    mine, torchs = FlatMuon([kernel], **settings), torch.optim.Muon([matrix], **settings)
    for gradient, flat in zip(gradients, flat_gradients, strict=True):
        kernel.grad, matrix.grad = gradient.to(memory_format=memory_format), flat
        mine.step()
        torchs.step()
    assert torch.equal(kernel.flatten(1), matrix)
    assert not torch.allclose(kernel, before, atol=0.05)


def test_what_has_no_gradient_stays_and_gradients_are_forgotten():
    kernel, (gradient,) = muon_step((12, 2, 3, 3), n_steps=1)
    still = torch.nn.Parameter(torch.ones(9, 9))
    optimizer = FlatMuon([kernel, still], lr=0.1, weight_decay=0.1)
    kernel.grad = gradient
    optimizer.step()
    assert torch.equal(still, torch.ones(9, 9))
    optimizer.zero_grad()
    assert kernel.grad is None


def test_each_parameter_has_one_optimizer():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(4, 16, 3), torch.nn.Conv2d(1, 16, 1), torch.nn.LayerNorm(16), torch.nn.Linear(16, 16)
    )
    model[3].bias.requires_grad_(False)
    adam, muon = make_optimizers(model, OptimizerConfig(kind="muon"))
    assert [len(p) for p in muon.param_groups[0]["params"]] == [16, 16]
    # The kernel of one input channel, and three biases and a scale.
    assert [len(group["params"]) for group in adam.param_groups] == [1, 4]
    (alone,) = make_optimizers(model, OptimizerConfig())
    assert [len(group["params"]) for group in alone.param_groups] == [3, 4]
    assert type(alone) is torch.optim.AdamW


def test_a_run_with_muon_resumes_to_the_last_bit(tmp_path):
    config = supervised_config(tmp_path / "scenes", kind="muon")
    whole = train(config, tmp_path / "whole")

    def stop(step, steps, metrics):
        if step == config.optimizer.validate_every:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "cut", progress=stop)
    resumed = train(config, tmp_path / "cut", resume=True)
    assert (resumed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    other = supervised_config(tmp_path / "scenes")
    with pytest.raises(ConfigError, match=r"\(optimizer 'muon' there, 'adamw' here\); start a new run"):
        train(other, tmp_path / "cut", resume=True)


def test_an_unknown_kind_is_refused():
    with pytest.raises(
        ConfigError, match=r"unknown optimizer kind 'moun' \(did you mean 'muon'\?\); allowed"
    ):
        OptimizerConfig(kind="moun")
