"""The guided velocity of one refinement.

Legend: B batch, M latents, C channels, L context tokens, X context channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.devices import autocast, upload
from ultrashape_cli.diffusion.sampler import VelocityFn, guided_velocity
from ultrashape_cli.inference.views import View
from ultrashape_cli.models.dit import ContextKeys, RefineDiT
from ultrashape_cli.models.view_embedding import JoinedViews, camera_features, join_views


class Seen(NamedTuple):
    """What the network sees of one image."""

    context: Tensor | ContextKeys
    """Image tokens [1, L, X], or what `RefineDiT.context_keys` made of them."""
    lengths: Sequence[int] | None
    """Valid tokens of it."""


class NetworkVelocity:
    """The velocity of a network with and without its context, in fp32.

    Args:
        dit: The network.
        context: Image tokens [1, L, X], what `RefineDiT.context_keys` made of them, or None.
        lengths: Valid tokens of the context.
        voxels: Places of the latents [1, M, 3].
        config: For the dtype.
        device: Where the network is.
    """

    def __init__(
        self,
        dit: RefineDiT,
        context: Tensor | ContextKeys | None,
        lengths: Sequence[int] | None,
        voxels: Tensor,
        config: RefineConfig,
        device: torch.device,
    ) -> None:
        self.dit = dit
        self.context = context
        self.lengths = lengths
        self.voxels = voxels
        self.config = config
        self.device = device
        self.evaluations = 0
        """Passes through the network so far, one of twice the batch counted twice."""

    def guided(self) -> VelocityFn:
        """Returns the velocity as the settings guide it; without context there is no guidance."""
        config = self.config
        if self.context is None:
            return self.unconditional
        return guided_velocity(
            self.conditional,
            self.unconditional,
            config.guidance_scale if config.guidance_scale > 0 else -1.0,
            interval=(config.guidance_start, config.guidance_end),
            reuse=config.guidance_reuse,
            both=self.both if config.guidance_batch else None,
        )

    def conditional(self, x: Tensor, t: Tensor) -> Tensor:  # [1, M, C], [1] -> [1, M, C]
        """Returns the velocity with the image."""
        return self._ask(x, t, self.context, self.voxels, self.lengths)

    def unconditional(self, x: Tensor, t: Tensor) -> Tensor:  # [1, M, C], [1] -> [1, M, C]
        """Returns the velocity without the image, whose cross-attention costs nothing."""
        return self._ask(x, t, None, self.voxels, None)

    def both(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the two velocities from one pass of twice the batch."""
        assert self.context is not None
        lengths = None if self.lengths is None else [*self.lengths, *self.lengths]
        voxels = torch.cat([self.voxels, self.voxels])
        context = with_zeros(self.context)
        found = self._ask(torch.cat([x, x]), torch.cat([t, t]), context, voxels, lengths)
        return found[:1], found[1:]

    def _ask(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | ContextKeys | None,
        voxels: Tensor,
        lengths: Sequence[int] | None,
    ) -> Tensor:
        self.evaluations += len(x)
        with autocast(self.device, self.config.dtype):
            return self.dit(x, t, context, voxels, lengths).velocity.float()


class ViewsVelocity(NetworkVelocity):
    """The velocity of a network that sees several images, each token its own share of them.

    Guidance is as for one image, u + w (c - u), where c is the sum over the views of their share
    times their velocity: one pass without image serves all.

    Args:
        dit: The network.
        seen: The views.
        shares: Of the views in each latent [K, M], which sum to one over the views.
        stochastic: Ask one view in each evaluation, in turn, for all latents.
        voxels: Places of the latents [1, M, 3].
        config: For the dtype and the guidance.
        device: Where the network is.
    """

    def __init__(
        self,
        dit: RefineDiT,
        seen: Sequence[Seen],
        shares: Tensor,
        stochastic: bool,
        voxels: Tensor,
        config: RefineConfig,
        device: torch.device,
    ) -> None:
        super().__init__(dit, *seen[0], voxels, config, device)
        self.seen = seen
        self.shares = shares
        self.turn: int | None = 0 if stochastic else None

    def conditional(self, x: Tensor, t: Tensor) -> Tensor:  # [1, M, C], [1] -> [1, M, C]
        """Returns the velocity with the images."""
        if self.turn is not None:
            context, lengths = self.seen[self.turn % len(self.seen)]
            self.turn += 1
            return self._ask(x, t, context, self.voxels, lengths)
        found = torch.zeros_like(x, dtype=torch.float32)
        for (context, lengths), share in zip(self.seen, self.shares, strict=True):
            found += share[:, None] * self._ask(x, t, context, self.voxels, lengths)
        return found

    def both(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the two velocities, a pass for each view."""
        return self.conditional(x, t), self.unconditional(x, t)


def joined(seen: Sequence[Seen], views: Sequence[View]) -> JoinedViews:
    """Returns the tokens of several images as one context, for weights that were trained so.

    Args:
        seen: The image tokens of each.
        views: From where each was seen.
    """
    contexts = [context[0] for context, _ in seen if isinstance(context, Tensor)]
    lengths = [len(context) for context in contexts]  # an image alone has no padding
    directions = torch.tensor([(view.azimuth, view.elevation) for view in views])
    cameras = upload(camera_features(directions), contexts[0].device)
    return join_views(contexts, lengths, cameras, [len(contexts)])


def with_zeros(context: Tensor | ContextKeys) -> Tensor | ContextKeys:
    """Returns a context of one sample, and behind it one of zeros.

    Zero tokens have zero keys and values: the projections have no bias, and the norm of zero is
    zero.
    """
    if isinstance(context, Tensor):
        return torch.cat([context, torch.zeros_like(context)])
    blocks = tuple(
        (torch.cat([k, torch.zeros_like(k)]), torch.cat([v, torch.zeros_like(v)]))
        for k, v in context.blocks
    )
    return ContextKeys(blocks, context.num_tokens)
