"""One attention function with exchangeable backends, and the layers around it.

Legend: B batch, H heads, L query tokens, S key tokens, C channels, D channels of one head.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.errors import ConfigError, DependencyError

logger = logging.getLogger(__name__)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if not _is_half_on_cuda("cudnn", q):
        return _sdpa(q, k, v)
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION]):
        return F.scaled_dot_product_attention(q, k, v)


def _flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise DependencyError(
            f"attention `flash` needs the package flash-attn, which does not load ({error})",
            hint="pip install 'ultrashape-cli[flash]', or --set train.attention=auto (of `ushape "
            "train`), --set refine.attention=auto (of the others)",
        ) from error
    if not _is_half_on_cuda("flash", q):
        return _sdpa(q, k, v)
    out = flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def _is_half_on_cuda(backend: str, q: Tensor) -> bool:
    """Say whether a kernel for 16-bit floats on CUDA can take the input."""
    usable = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)
    if not usable and not torch.compiler.is_compiling():
        _note_fallback(backend, q.device.type, str(q.dtype))
    return usable


@functools.cache
def _note_fallback(backend: str, device: str, dtype: str) -> None:
    logger.warning(
        "the %s attention backend needs 16-bit floats on CUDA, got %s on %s: sdpa is used",
        *(backend, dtype, device),
    )


def _reference(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = q.float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5
    return (scores.softmax(dim=-1) @ v.float()).to(v.dtype)


BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sdpa": _sdpa,
    "flash": _flash,
    "cudnn": _cudnn,
    "reference": _reference,
}


def key_lengths(
    lengths: Sequence[int] | Tensor | None,
    num_keys: int,
) -> tuple[int, ...] | None:
    """Return the valid keys of each sample as plain ints, or None when every key is valid.

    Call it once per batch: a tensor on the accelerator costs a synchronisation.
    """
    if lengths is None:
        return None
    counts = tuple(int(n) for n in (lengths.tolist() if isinstance(lengths, Tensor) else lengths))
    if any(not 1 <= n <= num_keys for n in counts):
        raise ValueError(f"lengths must lie in 1..{num_keys}, got {list(counts)}")
    return None if all(n == num_keys for n in counts) else counts


def attention(
    q: Tensor,  # [B, H, L, D]
    k: Tensor,  # [B, H, S, D]
    v: Tensor,  # [B, H, S, D]
    *,
    lengths: tuple[int, ...] | None = None,
    backend: str = "sdpa",
) -> Tensor:  # [B, H, L, D]
    """Attend with scale 1/sqrt(D); sample b uses its first `lengths[b]` keys only.

    Equal lengths cut the keys for the whole batch. Mixed lengths run sample by sample: at the
    token counts of these networks one sample fills the device, and no mask is needed.
    """
    run = BACKENDS[backend]
    if lengths is None:
        return run(q, k, v)
    # Not by a set, which a compiler would have to know the numbers for.
    if all(n == lengths[0] for n in lengths[1:]):
        return run(q, k[:, :, : lengths[0]], v[:, :, : lengths[0]])
    return torch.cat(
        [run(q[b : b + 1], k[b : b + 1, :, :n], v[b : b + 1, :, :n]) for b, n in enumerate(lengths)]
    )


class AttentionLayer(nn.Module):
    """Base of all attention layers: the head count and the chosen backend."""

    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.backend = "sdpa"


def set_attention_backend(module: nn.Module, backend: str) -> None:
    """Let every attention layer below `module` use one backend."""
    if backend not in BACKENDS:
        raise ConfigError(f"unknown attention backend {backend!r}; known: {', '.join(BACKENDS)}")
    for layer in module.modules():
        if isinstance(layer, AttentionLayer):
            layer.backend = backend


@contextlib.contextmanager
def kept_backends(module: nn.Module) -> Iterator[None]:
    """Give every attention layer below `module` its backend back at the end."""
    layers = [layer for layer in module.modules() if isinstance(layer, AttentionLayer)]
    before = [layer.backend for layer in layers]
    try:
        yield
    finally:
        for layer, backend in zip(layers, before, strict=True):
            layer.backend = backend


def merge_heads(x: Tensor) -> Tensor:  # [B, H, L, D] -> [B, L, H*D]
    """Put the heads side by side again."""
    return x.transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        """Apply the MLP to every token."""
        return self.fc2(F.gelu(self.fc1(x)))
