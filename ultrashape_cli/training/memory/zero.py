"""DeepSpeed's ZeRO-2 and ZeRO-3 under the same loop: accelerate starts the processes as always,
deepspeed divides optimizer, gradients and (stage 3) weights among them.

accelerate's own DeepSpeed plugin is not used: on a CPU it is ignored, or tells every process that
it is alone. The process group is the one of every other run, and the engine joins it.

Not taken from deepspeed: its loss scaling (losses are means over all samples of a step already),
its schedule and its checkpoints. Gradients are summed over a step's microbatches, their norm is
known before the step, and a step that is not taken leaves nothing behind.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ultrashape_cli.config.schema import Config
from ultrashape_cli.errors import CheckpointError, DependencyError
from ultrashape_cli.models.dit import DiTBlock

BUCKET_ELEMENTS = 50_000_000
"""Most gradients that are exchanged at once: a buffer of 200 MB."""
_PIECE_ELEMENTS = 2**26
"""Elements of a state that the first process gathers at once."""


class ZeroOptimizer:
    """The engine and its optimizer; stands in for an optimizer.

    Args:
        net: What is called in the forward pass, fp32, on its device.
        optimizer: AdamW over its trained parameters.
        config: Settings of the run.
        accelerator: Device and processes.

    Raises:
        DependencyError: deepspeed is not installed, or cannot load.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        config: Config,
        accelerator: Accelerator,
    ) -> None:
        deepspeed = import_deepspeed(accelerator.device)
        self.stage = config.launch.zero_stage
        self._accelerator = accelerator
        if self.stage == 3:
            # A block is gathered as a whole: grouped experts are read without being called.
            deepspeed.utils.set_z3_leaf_modules(net, [DiTBlock], raise_if_not_found=False)
            self._gathered = deepspeed.zero.GatheredParameters
        trained = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
        self.net, self._zero, _, _ = deepspeed.initialize(
            model=net,
            optimizer=optimizer,
            config=engine_settings(config, trained),
            dist_init_required=False,
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups whose `lr` the next step reads."""
        return self._zero.param_groups

    @property
    def state(self) -> dict[Any, Any]:
        """This process's share of the moments."""
        return self._zero.optimizer.state

    def accumulate(self, last: bool) -> None:
        """Says before a microbatch whether it is the last one of its step."""
        self.net.set_gradient_accumulation_boundary(last)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those of the step."""
        self.net.backward(loss, scale_wrt_gas=False)

    def norm(self) -> float:
        """Returns the global gradient norm of a whole step; infinity where it is not finite.

        Every process must call it. The step clips by the same norm.
        """
        zero = self._zero
        groups = zero.params_in_partition if self.stage == 2 else zero.fp16_groups
        found = [
            float(zero.get_grad_norm_direct(zero.averaged_gradients[index], group))
            for index, group in enumerate(groups)
        ]
        # deepspeed writes -1 for a norm that is not finite.
        good = all(math.isfinite(norm) and norm >= 0 for norm in found)
        return math.hypot(*found) if good else math.inf

    def step(self) -> None:
        """Clips, steps this process's share and exchanges the weights."""
        self.net.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients of a step, taken or not."""
        zero = self._zero
        zero.zero_grad(set_to_none=set_to_none)
        if self.stage == 2:
            # The next microbatch would be added to what is left here; stage 3 overwrites it.
            for index in list(zero.averaged_gradients):
                zero.averaged_gradients[index] = None
            for index in list(zero.all_grad_tensors):
                zero.all_grad_tensors[index] = None

    def weights(self) -> dict[str, Tensor]:
        """Returns the whole weights. Every process must call it.

        In stage 3 the first process gets them, in host memory, and the others nothing.
        """
        net = self.net.module
        if self.stage == 2:
            return net.state_dict()
        parameters = dict(net.named_parameters())
        found = {name: v for name, v in net.state_dict().items() if name not in parameters}
        for name, parameter in parameters.items():
            with self._gathered([parameter]):
                if self._accelerator.is_main_process:
                    found[name] = parameter.detach().to("cpu", copy=True)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Returns the moments of all processes on the first one, which must all call it."""
        groups = []
        for flat in self._flats():
            state = self.state.get(flat, {})
            groups.append({name: self._gather(value) for name, value in state.items()})
        return {"zero": self._layout, "groups": groups} if self._accelerator.is_main_process else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores this process's share of what `state_dict` returned.

        Raises:
            CheckpointError: The state was divided in another way.
        """
        check_layout(state, self._layout)
        rank = self._accelerator.process_index
        for flat, group in zip(self._flats(), state["groups"], strict=True):
            self.state[flat] = {
                # In memory of our own: CPU kernels round differently by alignment.
                name: values[rank].to(flat.device, copy=True)
                for name, values in group.items()
            }

    @property
    def _layout(self) -> dict[str, int]:
        return {"stage": self.stage, "processes": self._accelerator.num_processes}

    def _flats(self) -> list[Tensor]:
        """Returns this process's share of the weights, one flat tensor per group."""
        zero = self._zero
        if self.stage == 2:
            return zero.single_partition_of_fp32_groups
        return zero.fp32_partitioned_groups_flat

    def _gather(self, value: Tensor) -> list[Tensor]:
        """Returns the value of every process, in host memory of the first one."""
        main, world = self._accelerator.is_main_process, self._accelerator.num_processes
        pieces: list[list[Tensor]] = [[] for _ in range(world)]
        for piece in value.detach().reshape(-1).split(_PIECE_ELEMENTS):
            # A view may not start where the transport wants it; the pieces are small.
            mine = piece.to(self._accelerator.device, copy=True)
            found = [torch.empty_like(mine) for _ in range(world)] if main else None
            torch.distributed.gather(mine, found)
            for rank, part in enumerate(found or ()):
                pieces[rank].append(part.cpu())
        return [torch.cat(parts).view(value.shape) for parts in pieces] if main else []


def engine_settings(config: Config, trained: int) -> dict[str, Any]:
    """Returns deepspeed's configuration of a run.

    Args:
        config: Settings of the run.
        trained: Number of trained weights.
    """
    settings = config.train
    return {
        "train_micro_batch_size_per_gpu": settings.microbatch,
        # The loop says itself where a step ends.
        "gradient_accumulation_steps": 1,
        "gradient_clipping": settings.clip_norm,
        "steps_per_print": 2**40,
        # Without this the engine turns the loop's autocast off; no list keeps gradients in fp32.
        "torch_autocast": {
            "enabled": settings.dtype == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "zero_optimization": {
            "stage": config.launch.zero_stage,
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": bucket_elements(trained),
            # Every weight is divided, small ones too.
            "stage3_param_persistence_threshold": 0,
        },
    }


def bucket_elements(trained: int) -> int:
    """Returns the size of the exchange buffer in gradients."""
    return min(BUCKET_ELEMENTS, trained)


def check_layout(state: dict[str, Any], wanted: dict[str, int] | None) -> None:
    """Raises CheckpointError unless an optimizer state is divided as this run divides it.

    Args:
        state: From a checkpoint.
        wanted: Stage and processes, or None for a run without deepspeed.
    """
    saved = state.get("zero")
    if saved == wanted:
        return
    if saved is None:
        raise CheckpointError(
            "the checkpoint was saved without deepspeed: its optimizer state is not divided",
            hint="--set launch.engine=native",
        )
    raise CheckpointError(
        f"the optimizer state of the checkpoint is divided by ZeRO-{saved['stage']} among "
        f"{saved['processes']} processes",
        hint=f"--num-processes {saved['processes']} --set launch.engine=deepspeed "
        f"--set launch.zero_stage={saved['stage']}",
    )


def import_deepspeed(device: torch.device) -> Any:
    """Returns the package.

    Raises:
        DependencyError: It is not installed, or cannot load.
    """
    # It guesses the device when it is loaded, and would take a GPU that the run does not use.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    try:
        import deepspeed
    except ImportError as error:
        raise DependencyError(
            f"launch.engine=deepspeed needs deepspeed: {error}",
            hint="pip install 'ultrashape-cli[deepspeed]', or --set train.strategy=sharded "
            "--set launch.engine=native",
        ) from error
    # Its own level is INFO, set while it is loaded; and it calls collectives by their old names,
    # of which torch warns in every step.
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    warnings.filterwarnings(
        "ignore", message=r"`torch\.distributed\..*` is deprecated", category=FutureWarning
    )
    return deepspeed
