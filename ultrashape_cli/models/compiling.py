"""Compiling the transformer for training: its regions without control flow, each on first use."""

from __future__ import annotations

import torch

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.formatting import cause
from ultrashape_cli.models.dit import DiTBlock, RefineDiT
from ultrashape_cli.models.moe import MoEFeedForward

RECOMPILE_LIMIT = 64
"""With and without skip, gradient, context, cached keys: beyond 8 torch would give up silently."""


def compile_regions(dit: RefineDiT, device: torch.device) -> None:
    """Compiles self-attention, context keys and feed-forward of every block, in place.

    The code holds for any number of tokens. The cross-attention itself stays out: every pattern of
    image lengths in a microbatch would be another code. So does routing: it reads counts, and what
    the forward pass chose is kept for the recomputation.

    Args:
        dit: Before or after its strategy has placed it.
        device: Where it will compute.

    Raises:
        DependencyError: There is no compiler here that torch can use.
    """
    import torch._dynamo  # a second of import

    require_compiler(device, "train.compile=false")
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    for block in dit.blocks:
        assert isinstance(block, DiTBlock)
        block.attend = torch.compile(block.attend, dynamic=True)  # type: ignore[method-assign]
        block.attn2.keys = torch.compile(block.attn2.keys, dynamic=True)  # type: ignore[method-assign]
        if not block.routed:
            block.feed = torch.compile(block.feed, dynamic=True)  # type: ignore[method-assign]
            continue
        assert isinstance(block.moe, MoEFeedForward)
        for expert in (*block.moe.experts, block.moe.shared_experts):
            expert.compile(dynamic=True)


def require_compiler(device: torch.device, otherwise: str) -> None:
    """Raises DependencyError, with the setting to use otherwise, where torch cannot compile."""
    try:
        torch.compile(torch.sin, fullgraph=True)(torch.ones(4, device=device))
    except RuntimeError as error:
        reason = cause(getattr(error, "inner_exception", error))
        raise DependencyError(
            f"torch cannot compile here: {reason}",
            hint=f"a C++ compiler (apt-get install g++), or --set {otherwise}",
        ) from error
