"""AdamW in host memory: the device keeps half-precision weights, the host everything else.

Every gradient leaves the device as soon as it is whole, on a stream of its own, and is added to
an fp32 sum on the host while the backward pass goes on. The step runs torch's fused CPU AdamW on
fp32 master weights, bucket by bucket, while the rounded results of the bucket before are on their
way back. With the weights of the full model in bf16
the device holds 5.7 GiB instead of 45.5, the host the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

STAGING_BUFFERS = 4
"""Gradients on their way to the host at once."""
BUCKET_ELEMENTS = 2**26
"""Weights that are stepped together."""
BYTES_PER_STEP = 4 + 7 * 4 + 4 + 2
"""Memory that a step reads and writes per weight beside the backward: norm, AdamW, rounding."""


class OffloadedAdamW:
    """`torch.optim.AdamW` whose state, master weights and gradient sums live in host memory.

    Stands in for an optimizer: `masters` hold gradients, `zero_grad` forgets them. The sums keep
    their memory: asking the system for it anew in every step costs more than adding.

    Args:
        groups: Parameter groups of device weights; the masters are made from their values.
        masters: fp32 host values by parameter, where they are more precise than the weights.
        options: Further arguments of `torch.optim.AdamW`.
    """

    gradient_scale = 1.0
    """What the next step multiplies all gradients with."""

    def __init__(
        self, groups: list[dict[str, Any]], masters: Mapping[nn.Parameter, Tensor], **options: Any
    ) -> None:
        self._weights: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.masters = [nn.Parameter(_to_host(masters[p])) for p in self._weights]
        self._masters_by_weight = dict(zip(self._weights, self.masters, strict=True))
        self._weights_by_master = dict(zip(self.masters, self._weights, strict=True))
        self._sent: list[torch.cuda.Event | None] = []
        own = [{**g, "params": [self.master_of(p) for p in g["params"]]} for g in groups]
        self.inner = torch.optim.AdamW(own, fused=True, **options)
        self.param_groups = self.inner.param_groups
        self._sums: list[Tensor | None] = [None] * len(self.masters)
        self._on_cuda = any(p.is_cuda for p in self._weights)
        self._pending: list[Future[None]] = []
        if self._on_cuda:
            self._stream = torch.cuda.Stream()
            self._adder = ThreadPoolExecutor(1, thread_name_prefix="gradients")
            size = 4 * max(p.numel() for p in self._weights)
            self._staging = [
                torch.empty(size, dtype=torch.uint8, pin_memory=True)
                for _ in range(STAGING_BUFFERS)
            ]
        for position, parameter in enumerate(self._weights):
            parameter.register_post_accumulate_grad_hook(self._make_hook(position))

    def master_of(self, weight: nn.Parameter) -> nn.Parameter:
        """Returns the fp32 master of a device weight."""
        return self._masters_by_weight[weight]

    @property
    def state(self) -> dict[Any, Any]:
        """Moments by master."""
        return self.inner.state

    def wait(self) -> None:
        """Returns when every gradient has arrived in the masters.

        Raises:
            RuntimeError: A transfer failed.
        """
        for future in self._pending:
            future.result()
        self._pending.clear()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forgets the gradients; the next ones overwrite the sums."""
        self.wait()
        for master in self.masters:
            master.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Steps the masters and copies them, rounded to nearest, to the device."""
        self.wait()
        self._sent = [None] * STAGING_BUFFERS
        groups = self.inner.param_groups
        # The fused kernel divides; None spares it the pass.
        scale = self.gradient_scale
        self.inner.grad_scale = None if scale == 1 else torch.tensor(1 / scale)  # type: ignore[attr-defined]
        try:
            for group in groups:
                for bucket in _buckets(group["params"]):
                    self.inner.param_groups = [{**group, "params": bucket}]
                    self.inner.step()
                    self._send_back(bucket)
        finally:
            self.inner.param_groups = groups
        if self._on_cuda:
            torch.cuda.current_stream().wait_stream(self._stream)
            self._stream.synchronize()

    def _send_back(self, masters: list[nn.Parameter]) -> None:
        if not self._on_cuda:
            for master in masters:
                self._weights_by_master[master].copy_(master)
            return
        # The host goes on while the copies are on their way.
        with torch.cuda.stream(self._stream):
            for index, master in enumerate(masters):
                weight, slot = self._weights_by_master[master], index % STAGING_BUFFERS
                if (event := self._sent[slot]) is not None:
                    event.synchronize()
                staged = self._view(slot, weight, weight.dtype)
                staged.copy_(master)
                weight.copy_(staged, non_blocking=True)
                self._sent[slot] = torch.cuda.Event()
                self._sent[slot].record()  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        """Returns the moments; the masters are the weights of a checkpoint."""
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.inner.load_state_dict(state)
        self.param_groups = self.inner.param_groups

    def _make_hook(self, position: int) -> Any:
        def collect(parameter: nn.Parameter) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            if self._on_cuda:
                self._send(position, gradient)
            else:
                self._add(position, gradient)

        return collect

    def _send(self, position: int, gradient: Tensor) -> None:
        slot = len(self._pending) % STAGING_BUFFERS
        if len(self._pending) >= STAGING_BUFFERS:
            self._pending[-STAGING_BUFFERS].result()
        # Widened on the device: adding bf16 on the host would write an fp32 copy first.
        staged = self._view(slot, gradient, torch.float32)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            staged.copy_(gradient, non_blocking=True)
            gradient.record_stream(self._stream)
            arrived = torch.cuda.Event()
            arrived.record()

        def add() -> None:
            arrived.synchronize()
            self._add(position, staged)

        self._pending.append(self._adder.submit(add))

    @torch.no_grad()
    def _add(self, position: int, gradient: Tensor) -> None:
        master = self.masters[position]
        if master.grad is None:
            kept = self._sums[position]
            master.grad = torch.empty_like(master) if kept is None else kept
            self._sums[position] = master.grad.copy_(gradient)
        else:
            master.grad.add_(gradient)

    def _view(self, slot: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        return self._staging[slot][: like.numel() * dtype.itemsize].view(dtype).view(like.shape)


def _buckets(parameters: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Yields the parameters in their order, some of them together."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        bucket.append(parameter)
        if sum(p.numel() for p in bucket) >= BUCKET_ELEMENTS:
            yield bucket
            bucket = []
    if bucket:
        yield bucket


def _to_host(values: Tensor) -> Tensor:
    return values.detach().to("cpu", torch.float32, copy=True)
