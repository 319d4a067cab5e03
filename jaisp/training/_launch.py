# Licensed under a 3-clause BSD style license - see LICENSE
"""Devices and processes, by Lightning Fabric."""

import os

import torch

from jaisp.exceptions import ConfigError

__all__ = ["launch", "total_over_processes"]


def launch(optimizer):
    """
    Make the `lightning_fabric.Fabric` of this process: one device, or its share of those of ``torchrun``.

    Parameters
    ----------
    optimizer : `~jaisp.training.config.OptimizerConfig`
    """
    from lightning_fabric import Fabric  # seconds of import that only training pays
    from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    device = optimizer.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda' was asked for, but torch sees no CUDA device; use cpu or auto")
    devices = nodes = 1
    strategy, environment = "auto", LightningEnvironment()  # not that of a batch system we are started in
    if TorchElasticEnvironment.detect():
        environment = TorchElasticEnvironment()
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        # Not every step uses every parameter: the predictors come in later, a tile may have no objects.
        strategy = DDPStrategy(find_unused_parameters=True)
    if device == "cuda" and devices > torch.cuda.device_count():
        raise ConfigError(
            f"torchrun started {devices} processes here for {torch.cuda.device_count()} CUDA devices; "
            "give --nproc-per-node at most that number"
        )
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # tiles have one size
    fabric = Fabric(
        accelerator=device, devices=devices, num_nodes=nodes, strategy=strategy, plugins=[environment]
    )
    fabric.launch()
    return fabric


def total_over_processes(fabric, sums):
    """Add up ``{name: (sum, number)}`` of all processes; a name may be missing in some."""
    if fabric.world_size == 1:
        return sums
    gathered = [None] * fabric.world_size
    torch.distributed.all_gather_object(gathered, sums)
    total = {}
    for one in gathered:
        for name, (value, n) in one.items():
            old, m = total.get(name, (0.0, 0))
            total[name] = (old + value, m + n)
    return total
