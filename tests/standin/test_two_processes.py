"""What the gradients of several microbatches hold in each of two processes, beside the plan."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest
from process_pair import WORLD, run_in_two

MICROBATCHES = 3


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["full", "full-8bit", "sharded"])
def test_no_process_holds_more_gradients_than_planned(tmp_path: Path, strategy: str) -> None:
    run_in_two(_hold, strategy, tmp_path)
    for rank in range(WORLD):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        # Those that wait between microbatches, and those that are exchanged.
        for held in found["held"]:
            assert held == pytest.approx(found["planned"], rel=0.03), (rank, found)
        assert len(set(found["held"])) == 1


def _hold(rank: int, strategy: str, folder: Path) -> None:
    import torch
    from accelerate import Accelerator

    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.models.registry import build, model_spec
    from ultrashape_cli.processes import leave
    from ultrashape_cli.training.memory.plan import plan_run
    from ultrashape_cli.training.memory.strategies import resolve_strategy
    from ultrashape_cli.training.trainee import Trainee

    flags = {"profile": "cpu", "device": "cpu", "train.model": "tiny"}
    flags |= {"train.strategy": strategy, "launch.num_processes": WORLD}
    flags["train.train_conditioner"] = False
    resolved = resolve(flags=flags, environ={})
    config, spec = resolved.config, model_spec("tiny")
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(rank)
    net = build(spec, components=("dit",), device="cpu").dit
    assert net is not None
    trainee = Trainee(
        config, resolve_strategy(config), component=net, net=net, accelerator=accelerator
    )
    before, held = _tensor_bytes(), []
    for index in range(MICROBATCHES):
        last = index == MICROBATCHES - 1
        out = trainee.net(
            torch.randn(1, 32, spec.dit.in_channels),
            torch.rand(1),
            torch.randn(1, 10, spec.dit.context_channels),
            torch.randint(spec.dit.voxel_resolution, (1, 32, 3)),
        )
        trainee.backward(out.velocity.square().mean() + out.aux_losses.sum(), last=last)
        del out
        held.append(_tensor_bytes() - before)
    trainee.wait()
    held.append(_tensor_bytes() - before)
    planned = dict(plan_run(config, resolved.profile).rows())["gradients"]
    answer = {"held": held, "planned": planned}
    (folder / f"{rank}.json").write_text(json.dumps(answer))
    accelerator.wait_for_everyone()
    leave(0)


def _tensor_bytes() -> int:
    """Returns the bytes of all tensors that Python knows."""
    import torch

    gc.collect()
    storages = {}
    for value in gc.get_objects():
        if isinstance(value, torch.Tensor):
            local = value.to_local() if hasattr(value, "to_local") else value
            for tensor in (local, local.grad):
                if tensor is not None:
                    if hasattr(tensor, "to_local"):
                        tensor = tensor.to_local()
                    storage = tensor.untyped_storage()
                    storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
