"""Which attention backend is fastest for the shapes at hand: measured, not assumed.

Legend: B batch, H heads, L query tokens, S key tokens, D channels of one head.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from ultrashape_cli.devices import synchronise
from ultrashape_cli.errors import DependencyError
from ultrashape_cli.models.attention import BACKENDS, attention, set_attention_backend
from ultrashape_cli.models.conditioner import ConditionerParams
from ultrashape_cli.models.dit import DiTParams
from ultrashape_cli.models.vae import VAEParams

logger = logging.getLogger(__name__)

CANDIDATES = ("sdpa", "cudnn", "flash")
_REPEATS = 3


class AttentionShape(NamedTuple):
    """One attention call of a network."""

    batch: int
    num_heads: int
    num_queries: int
    num_keys: int
    head_dim: int


def time_backends(
    shapes: Sequence[AttentionShape],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    backward: bool = False,
    candidates: Sequence[str] = CANDIDATES,
) -> dict[str, float]:
    """Return the seconds each usable backend needs for all shapes, best of three.

    A backend that fails on a shape, for lack of a package or a kernel, is left out.
    """
    seconds: dict[str, float] = {}
    for name in candidates:
        try:
            seconds[name] = sum(_time(name, s, torch.device(device), dtype, backward)
                                for s in shapes)  # fmt: skip
        except (DependencyError, RuntimeError) as error:
            logger.debug("attention backend %s is not usable: %s", name, error)
    return seconds


def choose_backend(
    shapes: Sequence[AttentionShape],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    backward: bool = False,
    candidates: Sequence[str] = CANDIDATES,
) -> str:
    """Return the fastest backend for the shapes and log what was measured.

    Pass the result to `set_attention_backend`.
    """
    usable = [name for name in candidates if is_native(name, device, dtype)]
    if len(usable) == 1:
        logger.info("attention backend: %s, the only one on %s in %s", usable[0], device, dtype)
        return usable[0]
    seconds = time_backends(
        shapes, device=device, dtype=dtype, backward=backward, candidates=usable
    )
    if not seconds:
        return "sdpa"
    best = min(seconds, key=lambda name: seconds[name])
    logger.info("attention backend: %s (%s)", best, _describe(seconds))
    return best


def use_backend(
    net: nn.Module,
    name: str,
    shapes: Sequence[AttentionShape],
    *,
    device: str | torch.device,
    dtype: torch.dtype,
    backward: bool = False,
) -> str:
    """Let a network use the named backend, or with `auto` the fastest; return which.

    What is fastest for some shapes is measured once in a process.
    """
    if name == "auto":
        name = _choose_once(tuple(shapes), str(device), dtype, backward)
    set_attention_backend(net, name)
    return name


@cache
def _choose_once(
    shapes: tuple[AttentionShape, ...], device: str, dtype: torch.dtype, backward: bool
) -> str:
    return choose_backend(shapes, device=device, dtype=dtype, backward=backward)


def dit_shapes(params: DiTParams, batch: int, tokens: int, context: int) -> list[AttentionShape]:
    """Return the attention of a block of the DiT: over latents and time, and over image tokens.

    Args:
        params: Sizes.
        batch: Samples.
        tokens: Latent tokens.
        context: Image tokens; 0 without an image.
    """
    sizes = params.num_heads, tokens + 1
    dim = params.width // params.num_heads
    own = AttentionShape(batch, *sizes, tokens + 1, dim)
    return [own, AttentionShape(batch, *sizes, context, dim)] if context else [own]


def encoder_shapes(params: VAEParams, points: int, tokens: int) -> list[AttentionShape]:
    """Return the attention of the VAE's encoder: of the voxels over surface points, and own."""
    heads, dim = params.num_heads, params.width // params.num_heads
    return [AttentionShape(1, heads, tokens, keys, dim) for keys in (points, tokens)]


def decoder_shapes(params: VAEParams, tokens: int, queries: int) -> list[AttentionShape]:
    """Return the attention of the VAE's decoder: over the latents, and of the field's queries."""
    heads, dim = params.num_heads, params.width // params.num_heads
    inner = dim // params.field_downsample
    own = AttentionShape(1, heads, tokens, tokens, dim)
    return [own, AttentionShape(1, heads, queries, tokens, inner)]


def conditioner_shapes(params: ConditionerParams, batch: int, side: int) -> list[AttentionShape]:
    """Return the attention of the conditioner for images of `side` pixels."""
    tokens = params.tokens_of(side)
    dim = params.width // params.num_heads
    return [AttentionShape(batch, params.num_heads, tokens, tokens, dim)]


def is_native(name: str, device: str | torch.device, dtype: torch.dtype) -> bool:
    """Say whether a backend may run here by itself, instead of falling back to sdpa."""
    if name not in BACKENDS:
        raise ValueError(f"unknown attention backend {name!r}; known: {', '.join(BACKENDS)}")
    if name in ("sdpa", "reference"):
        return True
    return torch.device(device).type == "cuda" and dtype in (torch.float16, torch.bfloat16)


def _describe(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())


def _time(
    name: str, shape: AttentionShape, device: torch.device, dtype: torch.dtype, backward: bool
) -> float:
    generator = torch.Generator().manual_seed(0)

    def draw(tokens: int) -> torch.Tensor:
        size = (shape.batch, shape.num_heads, tokens, shape.head_dim)
        drawn = torch.randn(size, generator=generator).to(device, dtype)
        return drawn.requires_grad_(backward)

    q, k, v = draw(shape.num_queries), draw(shape.num_keys), draw(shape.num_keys)

    def run() -> float:
        synchronise(device)
        started = time.perf_counter()
        out = attention(q, k, v, backend=name)
        if backward:
            torch.autograd.grad(out, (q, k, v), out.detach())
        synchronise(device)
        return time.perf_counter() - started

    run()
    return min(run() for _ in range(_REPEATS))
