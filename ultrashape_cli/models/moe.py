"""Mixture-of-experts feed-forward: top-k routing, no capacity limit, one shared expert.

Legend: B batch, L tokens of one sample, T tokens of the batch, C channels, E experts, K experts
per token.
"""

import functools
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.errors import ConfigError

logger = logging.getLogger(__name__)

AUX_LOSS_WEIGHT = 0.01
DISPATCHES = ("loop", "grouped", "dense")


class Routed(NamedTuple):
    """What a routed feed-forward returns."""

    hidden: Tensor  # [B, L, C]
    aux_loss: Tensor  # [] load-balancing loss, already weighted
    load: Tensor  # [E] tokens given to each expert, integers


class _GeluProjection(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x))


class Expert(nn.Module):
    """A feed-forward whose keys are `net.0.proj` and `net.2`."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            _GeluProjection(width, hidden), nn.Identity(), nn.Linear(hidden, width)
        )

    def forward(self, x: Tensor) -> Tensor:  # [..., C] -> [..., C]
        """Apply the expert to every row; zero rows are allowed."""
        first, _, second = self.net
        return second(first(x))


class _Gather(torch.autograd.Function):
    """Copy each token to its K expert rows; the backward is a gather too, so it repeats."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top_k = top_k
        return x.index_select(0, order // top_k)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return (
            grads[0].index_select(0, inverse).unflatten(0, (-1, ctx.top_k)).sum(1),
            None,
            None,
            None,
        )


class _Ungather(torch.autograd.Function):
    """Put expert rows back into token order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows.index_select(0, inverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return grads[0].index_select(0, order), None, None


class _Routes(AbstractContextManager[None]):
    """What a forward pass inside of it decided, for others inside of it to repeat."""

    def __init__(self, layer: "MoEFeedForward") -> None:
        self._layer = layer
        self.chosen: Tensor | None = None  # [T, K]
        self.counts: list[int] | None = None

    def __enter__(self) -> None:
        self._layer._routes = self

    def __exit__(self, *error: object) -> None:
        self._layer._routes = None


class MoEFeedForward(nn.Module):
    """Top-k of E experts plus a shared one; routing weights are not renormalised."""

    def __init__(self, width: int, hidden: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
        self.grouped = False
        self.dense = False
        self._routes: _Routes | None = None
        self.gate = nn.Linear(width, num_experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, hidden) for _ in range(num_experts))
        self.shared_experts = Expert(width, hidden)

    def route(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores [T, E] in fp32, and weights and expert ids of the choice [T, K]."""
        with torch.autocast(tokens.device.type, enabled=False):
            logits = F.linear(tokens.float(), self.gate.weight.float())
        scores = logits.softmax(dim=-1)
        weights, chosen = scores.topk(self.top_k, dim=-1, sorted=False)
        return scores, weights, chosen

    def repeated(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the contexts of a forward pass and of its recomputation, for `checkpoint`.

        The recomputation takes the experts that the forward pass chose. A token between two would
        else go to the other one now and then, as kernels round differently, and end the run.
        """
        routes = _Routes(self)
        return routes, routes

    def forward(self, x: Tensor) -> Routed:  # [B, L, C]
        """Route every token; the loop synchronises with the host once, for the expert counts."""
        if self.dense:
            return dense_reference(self, x)
        tokens = x.flatten(0, 1)
        scores, weights, chosen = self.route(tokens)
        if self._routes is not None:
            if self._routes.chosen is None:
                self._routes.chosen = chosen
            chosen = self._routes.chosen
            weights = scores.gather(1, chosen)
        load = _load(chosen, scores.shape[1])
        order = chosen.flatten().argsort(stable=True)
        inverse = order.argsort()
        rows = _Gather.apply(tokens, order, inverse, self.top_k)
        if self.grouped and self._has_plain_experts():
            rows = self._grouped_experts(rows, load, chosen.flatten()[order])
        else:
            parts = self.split(rows, load)
            # Experts without tokens run on zero rows: their gradients are zeros instead of None,
            # so that all processes reduce the same set of parameters.
            rows = torch.cat([expert(p) for expert, p in zip(self.experts, parts, strict=True)])
        picked = _Ungather.apply(rows, order, inverse).unflatten(0, (-1, self.top_k))
        routed = (picked.float() * weights[..., None]).sum(1).to(rows.dtype).view(x.shape)
        return Routed(routed + self.shared_experts(x), _aux_loss(scores, load, self.top_k), load)

    def split(self, rows: Tensor, load: Tensor) -> Sequence[Tensor]:
        """Return the rows of each expert; reading the counts is the one synchronisation."""
        counts = self._routes.counts if self._routes else None
        if counts is None:
            counts = load.tolist()
        if self._routes:
            self._routes.counts = counts
        return rows.split(counts)

    def _expert_layers(self) -> tuple[list[nn.Linear], list[nn.Linear]]:
        experts: list[Any] = list(self.experts)
        return [expert.net[0].proj for expert in experts], [expert.net[2] for expert in experts]

    def _has_plain_experts(self) -> bool:
        """Say whether no adapter or quantised layer has replaced a linear layer."""
        return all(type(layer) is nn.Linear for layers in self._expert_layers() for layer in layers)

    def _grouped_experts(self, rows: Tensor, load: Tensor, owner: Tensor) -> Tensor:
        """Apply each row's expert in two grouped products; stacking copies the weights once."""
        multiply = find_grouped_mm()
        assert multiply is not None
        kind = rows.device.type
        auto = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if auto else self.gate.weight.dtype
        ends = load.cumsum(0).to(torch.int32)
        rows = rows.to(dtype)
        for index, layers in enumerate(self._expert_layers()):
            weight = torch.stack([layer.weight for layer in layers]).to(dtype)
            bias = torch.stack([layer.bias for layer in layers]).to(dtype)
            if index:
                rows = F.gelu(rows)
            rows = multiply(rows, weight.transpose(1, 2), offs=ends) + bias[owner]
        return rows


def set_expert_dispatch(
    module: nn.Module,
    dispatch: str,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> str:
    """Let every routed layer below `module` use a dispatch; return which is used.

    "loop" runs the experts in turn on their tokens, "dense" all of them on all tokens, for graphs
    whose sizes cannot depend on values. Grouped products are used where a tiny one gives the right
    result on this device and dtype; elsewhere the loop stays and a line in the log says so.
    """
    if dispatch not in DISPATCHES:
        raise ConfigError(f"unknown dispatch {dispatch!r}; known: {', '.join(DISPATCHES)}")
    if dispatch == "grouped" and not probe_grouped_mm(str(device), dtype):
        logger.warning(
            "grouped products do not work on %s in %s: experts run in turn", device, dtype
        )
        dispatch = "loop"
    for layer in module.modules():
        if isinstance(layer, MoEFeedForward):
            layer.grouped, layer.dense = dispatch == "grouped", dispatch == "dense"
    return dispatch


def find_grouped_mm() -> Callable[..., Tensor] | None:
    """Return torch's grouped product, public or not, or None."""
    return getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)


@functools.cache
def probe_grouped_mm(device: str, dtype: torch.dtype) -> bool:
    """Say whether grouped products and their gradients are right, by trying them once."""
    multiply = find_grouped_mm()
    if multiply is None:
        return False
    generator = torch.Generator().manual_seed(0)
    rows, weight = (
        torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()
        for shape in ((24, 16), (3, 32, 16))
    )
    ends = torch.tensor([8, 8, 24], dtype=torch.int32, device=device)
    try:
        found = multiply(rows, weight.transpose(1, 2), offs=ends)
        twin = torch.cat([rows[:8] @ weight[0].T, rows[8:] @ weight[2].T])
        results = [
            (out, *torch.autograd.grad(out, (rows, weight), torch.ones_like(out).contiguous()))
            for out in (found, twin)
        ]
        # Sums of up to 32 products of normal numbers, rounded differently.
        near = 64 * torch.finfo(dtype).eps
        return all((a - b).abs().max().item() < near for a, b in zip(*results, strict=True))
    except (RuntimeError, TypeError, NotImplementedError) as error:
        logger.debug("grouped products do not work on %s in %s: %s", device, dtype, error)
        return False


def dense_reference(layer: MoEFeedForward, x: Tensor) -> Routed:
    """Twin of `MoEFeedForward.forward` that runs every expert on every token."""
    tokens = x.flatten(0, 1)
    scores, weights, chosen = layer.route(tokens)
    out = layer.shared_experts(tokens)
    for index, expert in enumerate(layer.experts):
        weight = (weights * (chosen == index)).sum(1, keepdim=True)
        out = out + (weight * expert(tokens).float()).to(out.dtype)
    load = _load(chosen, scores.shape[1])
    return Routed(out.view(x.shape), _aux_loss(scores, load, layer.top_k), load)


def _load(chosen: Tensor, num_experts: int) -> Tensor:
    # bincount would synchronise on CUDA to find the largest id.
    return (chosen.flatten()[:, None] == torch.arange(num_experts, device=chosen.device)).sum(0)


def _aux_loss(scores: Tensor, load: Tensor, top_k: int) -> Tensor:
    num_tokens, num_experts = scores.shape
    fraction = load.float() * (num_experts / (num_tokens * top_k))
    return AUX_LOSS_WEIGHT * (fraction * scores.mean(0)).sum()
