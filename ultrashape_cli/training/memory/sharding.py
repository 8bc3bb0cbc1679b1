"""Fully sharded training with torch's FSDP2, on gloo as well as on NCCL.

accelerate's FSDP plugin is silently ignored on a CPU, so torch's own interface is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from ultrashape_cli.config.schema import LaunchConfig
from ultrashape_cli.models.dit import DiTBlock

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def shard(net: nn.Module, accelerator: Accelerator, *, half: bool, launch: LaunchConfig) -> None:
    """Splits every parameter over the processes, in place.

    On several machines each holds a whole copy, split over its own GPUs: the slow network then
    carries gradients only.

    Args:
        net: On its device; block by block, then the rest.
        accelerator: Whose processes take part.
        half: Gather bf16 copies; the shards, their gradients and the optimizer stay fp32.
        launch: Machines of the run.
    """
    world = accelerator.num_processes
    machines = launch.num_machines
    shape = (machines, world // machines) if machines > 1 else (world,)
    names = ("replicate", "shard") if machines > 1 else ("shard",)
    mesh = init_device_mesh(accelerator.device.type, shape, mesh_dim_names=names)
    # Inputs keep their precision: the time would lose most of its digits in bf16.
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None,
        reduce_dtype=torch.float32 if half else None,
        cast_forward_inputs=False,
    )
    for module in net.modules():
        if isinstance(module, DiTBlock):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    fully_shard(net, mesh=mesh, mp_policy=policy)


def full_weights(net: nn.Module) -> dict[str, Any]:
    """Returns whole weights in host memory on the first process, nothing on the others."""
    return get_model_state_dict(net, options=_WHOLE)


def full_optimizer_state(net: nn.Module, optimizer: Any) -> dict[str, Any]:
    """Returns the whole optimizer state in host memory on the first process."""
    return get_optimizer_state_dict(net, optimizer, options=_WHOLE)


def load_optimizer_state(net: nn.Module, optimizer: Any, state: dict[str, Any]) -> None:
    """Splits a whole optimizer state over the processes."""
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(net, optimizer, state, options=options)


def gather_shares(net: nn.Module, shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns whole tensors in host memory from the shares of all processes, which must call it."""
    found = {}
    for name, parameter in _sharded(net):
        local = shares[name].to(parameter.device)
        place = parameter.device_mesh, parameter.placements
        shape = {"shape": parameter.shape, "stride": parameter.stride()}
        found[name] = DTensor.from_local(local, *place, **shape).full_tensor().cpu()
    return found


def split_shares(net: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns this process's share of whole tensors, as `gather_shares` takes it."""
    return {
        name: distribute_tensor(
            values[name].to(parameter.device), parameter.device_mesh, parameter.placements
        ).to_local()
        for name, parameter in _sharded(net)
    }


def _sharded(net: nn.Module) -> list[tuple[str, Any]]:
    return [(name, p) for name, p in net.named_parameters() if p.requires_grad]
