"""Graphs in the place of networks: a refiner asks them as it asks the modules.

Legend: B batch, M latents, L image tokens, Q queries, C latent channels, X context channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ultrashape_cli.models.conditioner import pack_tokens
from ultrashape_cli.models.dit import DiTOutput
from ultrashape_cli.models.registry import ModelSpec, Networks
from ultrashape_cli.models.vae import Posterior, VAEParams

Graph = Callable[..., tuple[Tensor, ...]]
"""A part: takes its inputs and returns its outputs in the order of `parts.SIGNATURES`."""


class GraphConditioner(nn.Module):
    """Stands for `ImageConditioner`."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph

    def encode(self, image: Tensor, mask: Tensor) -> tuple[Tensor, list[int]]:
        """Return foreground tokens [1, L, X] of an image, and their number."""
        return pack_tokens(*self.graph(image, mask.float()))


class GraphDiT(nn.Module):
    """Stands for `RefineDiT`; a graph has batch 1, so samples follow each other."""

    def __init__(self, graph: Graph, context_channels: int, backend: str) -> None:
        super().__init__()
        self.graph = graph
        self.backend = backend
        self.context_channels = context_channels

    def context_keys(self, context: Tensor, blocks: object = None) -> Tensor:
        """Return the context itself: a graph makes its keys in every step, a small part of it."""
        return context

    def forward(
        self,
        x: Tensor,  # [B, M, C]
        t: Tensor,  # [B]
        context: Tensor | None,  # [B, L, X]
        voxel_indices: Tensor,  # [B, M, 3]
        context_lengths: Sequence[int] | None = None,
    ) -> DiTOutput:
        """Return the velocity alone."""
        found: list[Tensor] = []
        for b in range(len(x)):
            if context is None:
                # Its keys and values are zero, as those of no context.
                seen = x.new_zeros(1, 1, self.context_channels)
            else:
                count = context_lengths[b] if context_lengths is not None else context.shape[1]
                seen = context[b : b + 1, :count].contiguous()
            found += self.graph(x[b : b + 1], t[b : b + 1], seen, voxel_indices[b : b + 1])
        none = x.new_zeros(0)
        return DiTOutput(torch.cat(found), none, none)


class GraphVAE(nn.Module):
    """Stands for `ShapeVAE`."""

    def __init__(self, encoder: Graph, decoder: Graph, query: Graph, params: VAEParams) -> None:
        super().__init__()
        self.encoder, self.decoder, self.query = encoder, decoder, query
        self.params = params

    def encode(self, surface: Tensor, queries: Tensor) -> Posterior:
        """Return the mean of the latents; their variance, which refining ignores, as none."""
        (mean,) = self.encoder(surface, queries)
        return Posterior(mean, torch.full_like(mean, -torch.inf))

    def decode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values that `field` takes."""
        keys, values = self.decoder(latents)
        return keys, values

    def field(self, features: tuple[Tensor, Tensor]) -> GraphField:
        """Return the field as a function of points."""
        return GraphField(self.query, *features, self.params)


class GraphField:
    """The field of one decoded latent set, a function of points [Q, 3] -> [Q]."""

    def __init__(self, query: Graph, keys: Tensor, values: Tensor, params: VAEParams) -> None:
        self.query, self.keys, self.values = query, keys, values
        self.params = params

    def __call__(self, points: Tensor) -> Tensor:  # [Q, 3] -> [Q]
        """Evaluate with attention to all latents."""
        return self.query(points[None], self.keys, self.values)[0][0]

    @property
    def bytes_per_query(self) -> int:
        """Memory for one point: its layers, and a runtime may hold its scores of all keys."""
        _, heads, latents, _ = self.keys.shape
        width = self.params.width // self.params.field_downsample
        return 4 * (2 * heads * latents + width * (8 + 2 * self.params.field_mlp_ratio))


def graph_networks(backend: str, graphs: Mapping[str, Graph], spec: ModelSpec) -> Networks:
    """Return stand-ins for the networks of a model that ask graphs, by the names of the parts.

    `backend` is the name of what runs them.
    """
    vae = GraphVAE(graphs["encoder"], graphs["decoder"], graphs["query"], spec.vae)
    dit = GraphDiT(graphs["dit"], spec.dit.context_channels, backend)
    # Stand-ins for modules, of which a refiner reads no more than they have.
    return Networks(vae, dit, GraphConditioner(graphs["conditioner"]))  # type: ignore[arg-type]


def eager_graph(part: nn.Module) -> Graph:
    """Return a part as it is, run by torch."""

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = part(*inputs)
        return found if isinstance(found, tuple) else (found,)

    return run
