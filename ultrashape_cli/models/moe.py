"""Mixture-of-experts feed-forward: top-k routing, no capacity limit, one shared expert.

Legend: B batch, L tokens of one sample, T tokens of the batch, C channels, E experts, K experts
per token.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AUX_LOSS_WEIGHT = 0.01


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
        return self.net(x)


class _Gather(torch.autograd.Function):
    """Copy each token to its K expert rows; the backward is a gather too, so it repeats."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor, top_k: int) -> Tensor:
        ctx.save_for_backward(inverse)
        ctx.top_k = top_k
        return x[order // top_k]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (inverse,) = ctx.saved_tensors
        return grads[0][inverse].unflatten(0, (-1, ctx.top_k)).sum(1), None, None, None


class _Ungather(torch.autograd.Function):
    """Put expert rows back into token order."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return rows[inverse]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (order,) = ctx.saved_tensors
        return grads[0][order], None, None


class MoEFeedForward(nn.Module):
    """Top-k of E experts plus a shared one; routing weights are not renormalised."""

    def __init__(self, width: int, hidden: int, num_experts: int, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k
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

    def forward(self, x: Tensor) -> Routed:  # [B, L, C]
        """Route every token; one host synchronisation, for the expert counts."""
        tokens = x.flatten(0, 1)
        scores, weights, chosen = self.route(tokens)
        load = _load(chosen, scores.shape[1])
        order = chosen.flatten().argsort(stable=True)
        inverse = order.argsort()
        rows = _Gather.apply(tokens, order, inverse, self.top_k)
        parts = rows.split(load.tolist())
        # Experts without tokens run on zero rows: their gradients are zeros instead of None,
        # so that all processes reduce the same set of parameters.
        rows = torch.cat([expert(p) for expert, p in zip(self.experts, parts, strict=True)])
        picked = _Ungather.apply(rows, order, inverse).unflatten(0, (-1, self.top_k))
        routed = (picked.float() * weights[..., None]).sum(1).to(rows.dtype).view(x.shape)
        return Routed(routed + self.shared_experts(x), _aux_loss(scores, load, self.top_k), load)


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
