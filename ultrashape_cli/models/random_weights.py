"""Random weights of a whole model in seconds: drawn where it computes, kept where they are wanted.

What times or weighs a network needs weights of the right shapes and sizes, and none in particular.
torch's own initialisation of the full model takes a minute on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ultrashape_cli.models.registry import COMPONENTS, ModelSpec, Networks, build


def random_networks(
    spec: ModelSpec,
    *,
    components: Sequence[str] = COMPONENTS,
    vae_parts: Sequence[str] = ("encoder", "decoder"),
    home: str | torch.device = "cpu",
    drawn_on: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    seed: int = 0,
) -> Networks:
    """Returns networks in eval mode with the spread of `nn.Linear`'s own starting weights.

    Args:
        spec: Which model.
        components: Which of vae, dit and conditioner.
        vae_parts: Which halves of the autoencoder.
        home: Device that keeps the weights.
        drawn_on: Device that draws them; no more than one parameter is there at once.
        dtype: Of the weights; None for fp32.
        seed: Of the weights, which differ from device to device.
    """
    networks = build(spec, components=components, vae_parts=vae_parts)
    generator = torch.Generator(drawn_on).manual_seed(seed)
    for network in networks:
        if network is not None:
            _fill(network, torch.device(home), generator, dtype or torch.float32)
            network.eval()
    return networks


def _fill(
    network: nn.Module, home: torch.device, generator: torch.Generator, dtype: torch.dtype
) -> None:
    """Replaces the parameters of the meta device; the networks have no buffers."""
    assert not list(network.buffers())
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            values = torch.empty(parameter.shape, dtype=dtype, device=generator.device)
            if values.ndim > 1:
                # Over the inputs of a row, as `nn.Linear` does.
                bound = (values.numel() / len(values)) ** -0.5
                values.uniform_(-bound, bound, generator=generator)
            else:
                values.fill_(0.0 if name == "bias" else 1.0)
            module._parameters[name] = nn.Parameter(values.to(home), parameter.requires_grad)
