"""Settings of the processes of a training run; a section of `schema.Config`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """Processes and machines of a training run."""

    num_processes: int = 1
    """Training processes over all machines, one per GPU."""
    engine: Literal["native", "deepspeed"] = "native"
    """`deepspeed` divides the strategy `full` among several processes by ZeRO."""
    zero_stage: int = 2
    """What ZeRO divides: 2 is optimizer and gradients, 3 the weights too (`deepspeed`)."""
    num_machines: int = 1
    """Machines that take part."""
    machine_rank: int = 0
    """Rank of this machine."""
    main_process_ip: str = "127.0.0.1"
    """Address of machine 0."""
    main_process_port: int = 29_500
    """Port of machine 0; 0 picks a free one on a single machine."""
    host_memory_gib: float = 0.0
    """Memory of a machine that trains, for planning elsewhere; 0 is that of this one."""
    price_per_hour: float = 0.0
    """What all machines of the run cost per hour, in your currency; 0 where unknown."""
