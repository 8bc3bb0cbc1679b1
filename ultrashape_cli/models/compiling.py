"""Compiling the transformer, each piece on first use.

Whole blocks for refining; for training their regions without control flow.
"""

from __future__ import annotations

import torch

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.formatting import cause
from ultrashape_cli.models.dit import DiTBlock, RefineDiT
from ultrashape_cli.models.moe import MoEFeedForward

_RECOMPILE_LIMIT = 64
"""With and without skip, gradient, context, cached keys: beyond 8 torch would give up silently."""


def compile_blocks(dit: RefineDiT, device: torch.device) -> None:
    """Compiles every block, in place, for any number of tokens.

    Raises:
        DependencyError: There is no compiler here that torch can use.
    """
    _prepare(device, "refine.compile=false")
    # The expert counts are numbers of the graph.
    torch._dynamo.config.capture_scalar_outputs = True
    for block in dit.blocks:
        block.compile(dynamic=True)


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
    _prepare(device, "train.compile=false")
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


def _prepare(device: torch.device, otherwise: str) -> None:
    """Raises DependencyError, with the setting to use otherwise, where torch cannot compile."""
    import torch._dynamo  # a second of import

    torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
    try:
        torch.compile(torch.sin, fullgraph=True)(torch.ones(4, device=device))
    except RuntimeError as error:
        reason = cause(getattr(error, "inner_exception", error))
        raise DependencyError(
            f"torch cannot compile here: {reason}",
            hint=f"a C++ compiler (apt-get install g++), or --set {otherwise}",
        ) from error
