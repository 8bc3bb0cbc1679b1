"""Checks of a device: kernels and networks beside formulas in fp64, on the CPU.

Every check is a function of a device. What it compares with is computed in another way, so that it
says something on a CPU too.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ultrashape_cli.devices import autocast
from ultrashape_cli.diagnosis.card.context import NotHere
from ultrashape_cli.errors import DependencyError
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.inference.decode import decode_field
from ultrashape_cli.models.attention import BACKENDS
from ultrashape_cli.models.attention_choice import is_native
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.moe import MoEFeedForward, dense_reference, set_expert_dispatch
from ultrashape_cli.models.norms import LayerNorm, RMSNorm
from ultrashape_cli.models.quantised import NF4, QuantisedLinear
from ultrashape_cli.models.random_weights import random_networks
from ultrashape_cli.models.registry import model_spec

HALF_STEP = 2.0**-9
"""Largest relative error of a number rounded to bf16."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Twin:
    """How far something is from its twin."""

    error: float
    allowed: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Says whether it is near enough; an error that is no number is not."""
        return self.error <= self.allowed


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Returns normal numbers on the CPU."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def distance(found: Tensor, expected: Tensor) -> float:
    """Returns the largest error, relative to the largest number expected."""
    found, expected = found.detach().cpu().double(), expected.detach().double()
    return float((found - expected).abs().max() / expected.abs().max())


def check_layer_norm(device: torch.device) -> Twin:
    """Compares a layer norm of bf16 with its definition."""

    def formula(x: Tensor, norm: nn.Module) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * norm.get_parameter("weight") + norm.get_parameter("bias")

    return _check_norm(LayerNorm(192, eps=1e-6), formula, device)


def check_rms_norm(device: torch.device) -> Twin:
    """Compares a root-mean-square norm of bf16 with its definition."""

    def formula(x: Tensor, norm: nn.Module) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return x / scale * norm.get_parameter("weight")

    return _check_norm(RMSNorm(192), formula, device)


def _check_norm(
    norm: nn.Module, formula: Callable[[Tensor, nn.Module], Tensor], device: torch.device
) -> Twin:
    for index, parameter in enumerate(norm.parameters()):
        # Numbers that bf16 has, so that the cast of the weights costs nothing.
        parameter.data = draw(192, seed=1 + index, dtype=torch.bfloat16).float()
    fused = draw(2, 65, 3, 192, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = formula(fused[:, :, 1].double(), copy.deepcopy(norm).double())
        norm.to(device)
        with autocast(device, "bf16"):
            # One of the heads of a fused product: not contiguous.
            found = norm(fused.to(device)[:, :, 1])
    if found.dtype != torch.bfloat16:
        return Twin(error=float("inf"), allowed=0.0, note=f"returns {found.dtype}")
    error = (found.cpu().double() - expected).abs() / (expected.abs() + 0.01)
    # Some kernels round before the weight and after it.
    return Twin(error=float(error.max()), allowed=4 * HALF_STEP)


def _attention(backend: str) -> Callable[[torch.device], Twin]:
    def check(device: torch.device) -> Twin:
        """Compares attention in bf16 and its gradients with the formula."""
        if not is_native(backend, device, torch.bfloat16):
            raise NotHere(f"{backend} does not run on this device")
        leaves = [draw(1, 4, n, 64, seed=n, dtype=torch.bfloat16) for n in (129, 257, 258)]
        leaves[2] = leaves[2][:, :, :257]
        ours = [leaf.to(device).requires_grad_() for leaf in leaves]
        theirs = [leaf.double().requires_grad_() for leaf in leaves]
        q, k, v = theirs
        expected = (q @ k.transpose(-1, -2) / 8).softmax(-1) @ v
        upstream = draw(*expected.shape, seed=9, dtype=torch.bfloat16)
        try:
            found = BACKENDS[backend](*ours)
            gradients = torch.autograd.grad(found, ours, upstream.to(device))
        except DependencyError as error:
            raise NotHere(error.message) from error
        except RuntimeError as error:
            # What torch and flash-attn say of a card, or of shapes, that they have no kernel for.
            if not any(words in str(error) for words in ("No available kernel", "only supports")):
                raise
            raise NotHere(str(error).splitlines()[0]) from error
        true = torch.autograd.grad(expected, theirs, upstream.double())
        pairs = [(found, expected), *zip(gradients, true, strict=True)]
        # Probabilities are rounded to bf16 before they weigh 257 values, and again in the backward.
        return Twin(error=max(distance(*pair) for pair in pairs), allowed=16 * HALF_STEP)

    return check


def _experts(dispatch: str) -> Callable[[torch.device], Twin]:
    def check(device: torch.device) -> Twin:
        """Compares routed experts in bf16 and their gradients with all experts on all tokens."""
        layer = _routed_layer()
        x = draw(2, 100, 64, dtype=torch.bfloat16)
        true = copy.deepcopy(layer).double()
        seen = x.double().requires_grad_()
        expected = dense_reference(true, seen)
        upstream = draw(2, 100, 64, seed=5, dtype=torch.bfloat16)
        expected.hidden.backward(upstream.double())
        layer.to(device, torch.bfloat16)
        used = set_expert_dispatch(layer, dispatch, device=device, dtype=torch.bfloat16)
        if used != dispatch:
            raise NotHere("grouped products do not work on this device")
        given = x.to(device).requires_grad_()
        found = layer(given)
        found.hidden.backward(upstream.to(device))
        if not torch.equal(found.load.cpu(), expected.load):
            return Twin(error=float("inf"), allowed=0.0, note="tokens went to other experts")
        assert given.grad is not None
        assert seen.grad is not None
        pairs = [(found.hidden, expected.hidden), (given.grad, seen.grad)]
        for own, other in zip(layer.experts.parameters(), true.experts.parameters(), strict=True):
            assert own.grad is not None
            assert other.grad is not None
            pairs.append((own.grad, other.grad))
        # Four products after each other, rounded in between.
        return Twin(error=max(distance(*pair) for pair in pairs), allowed=16 * HALF_STEP)

    return check


def _routed_layer() -> MoEFeedForward:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = MoEFeedForward(64, 128, 8, 2)
    for parameter in layer.parameters():
        parameter.data = parameter.data.bfloat16().float()
    return layer


def check_ties(device: torch.device) -> Twin:
    """Sees to it that equal scores choose distinct experts, and the same ones when recomputed."""
    layer = _routed_layer().to(device)
    layer.gate.weight.data.zero_()
    x = draw(1, 96, 64)
    with torch.no_grad():
        forward, recomputed = layer.repeated()
        with forward:
            found = layer(x.to(device))
            assert layer._routes is not None
            assert layer._routes.chosen is not None
            chosen = layer._routes.chosen.cpu()
        # Whatever rounds differently the second time: here, all of it.
        layer.gate.weight.data.copy_(draw(8, 64, seed=1))
        with recomputed:
            again = layer(x.to(device))
    if bool((chosen[:, 0] == chosen[:, 1]).any()):
        return Twin(error=float("inf"), allowed=0.0, note="a token has one expert twice")
    if not torch.equal(found.load, again.load):
        return Twin(error=float("inf"), allowed=0.0, note="recomputed tokens go elsewhere")
    true = copy.deepcopy(layer).cpu().double()
    tokens = x[0].double()
    with torch.no_grad():
        expected = true.shared_experts(tokens)
        for index, expert in enumerate(true.experts):
            share = (chosen == index).sum(1, keepdim=True) / len(true.experts)
            expected = expected + share * expert(tokens)
    return Twin(error=distance(found.hidden[0], expected), allowed=1e-5)


def check_dit(device: torch.device) -> Twin:
    """Compares the transformer in fp32, with and without kept context, with itself in fp64."""
    dit = random_networks(model_spec("tiny"), components=("dit",)).dit
    assert dit is not None
    x, t, context, voxels = _dit_inputs(dit)
    with torch.no_grad():
        expected = copy.deepcopy(dit).double()(x.double(), t.double(), context.double(), voxels)
        dit.to(device)
        on_device = [value.to(device) for value in (x, t, context, voxels)]
        plain = dit(*on_device).velocity
        kept = dit(*on_device[:2], dit.context_keys(on_device[2]), on_device[3]).velocity
    error = max(distance(value, expected.velocity) for value in (plain, kept))
    # Twenty-one products of 96 channels, and the rotations in fp32.
    return Twin(error=error, allowed=1e-4)


def _dit_inputs(dit: RefineDiT) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    params = dit.params
    side = params.voxel_resolution
    return (
        draw(1, 40, params.in_channels),
        torch.tensor([0.4]),
        draw(1, 9, params.context_channels, seed=1),
        torch.arange(120).view(1, 40, 3) % side,
    )


def check_field(device: torch.device) -> Twin:
    """Compares the field of the autoencoder in fp32 with itself in fp64."""
    vae = random_networks(model_spec("tiny"), components=("vae",), vae_parts=("decoder",)).vae
    assert vae is not None
    latents = draw(1, 50, vae.params.latent_channels)
    points = draw(1, 300, 3, seed=1).clamp(-1, 1)
    with torch.no_grad():
        true = copy.deepcopy(vae).double()
        expected = true.query_field(true.decode(latents.double()), points.double())
        vae.to(device)
        found = vae.query_field(vae.decode(latents.to(device)), points.to(device))
    # Positions are embedded in fp32 in both: sines of up to 64 radians.
    return Twin(error=distance(found, expected), allowed=1e-4)


def check_sphere(device: torch.device) -> Twin:
    """Decodes a sphere: every node near it is asked for, and knows its distance."""
    radius, cells, width = 0.7, 128, 0.05

    def field(points: Tensor) -> Tensor:
        return ((radius - points.norm(dim=-1)) / width).clamp(-1, 1)

    grid = decode_field(field, cells, min_resolution=16, chunk_size=4096, device=device)
    return Twin(error=sphere_error(grid, radius, width), allowed=1e-4)


def sphere_error(grid: BrickGrid, radius: float, width: float) -> float:
    """Returns the largest error of a decoded field of a sphere, infinite where nodes are missing.

    Args:
        grid: Of (radius - |p|) / width, clipped to [-1, 1].
        radius: Of the sphere around the origin of the cube [-1, 1].
        width: Distance at which the field saturates.
    """
    known = np.isfinite(grid.values)
    places = grid.nodes(known) * (2.0 / grid.num_cells) - 1.0
    true = (radius - np.linalg.norm(places, axis=1)) / width
    error = np.abs(grid.values[known] - np.clip(true, -1, 1)).max()
    # Nodes in the shell of one cell around the surface, counted along rays: all must be known.
    directions = np.random.default_rng(0).normal(size=(2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    nearest = np.rint((directions * radius + 1.0) * grid.num_cells / 2).astype(np.int64)
    missing = np.isnan(grid.get(nearest)).any()
    return float("inf") if missing else float(error)


def _quantised(kind: str) -> Callable[[torch.device], Twin]:
    def check(device: torch.device) -> Twin:
        """Compares a layer of codes with the weight they stand for, and that with the original."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            source = nn.Linear(256, 192)
        layer = QuantisedLinear(copy.deepcopy(source).to(device), kind)
        weight = layer.dequantise(torch.float32).cpu().double()
        x = draw(33, 256).to(device)
        expected = x.cpu().double() @ weight.T + source.bias.detach().double()
        original = source.weight.detach().double()
        if kind == "int8":
            bound = original.abs().amax(1, keepdim=True) / 127 / 2
        else:
            gap = max(b - a for a, b in itertools.pairwise(NF4))
            bound = (original.view(-1, 64).abs().amax(1, keepdim=True) * gap / 2).expand(-1, 64)
            bound = bound.reshape(original.shape)
        # A code may be one rounding of the scale beyond half a step.
        excess = float(((weight - original).abs() / bound).max())
        if excess > 1.01:
            return Twin(error=excess, allowed=1.01, note="codes are not the nearest")
        return Twin(error=distance(layer(x), expected), allowed=1e-5)

    return check


NETWORK_CHECKS: dict[str, Callable[[torch.device], Twin]] = {
    "layer-norm": check_layer_norm,
    "rms-norm": check_rms_norm,
    **{f"attention-{name}": _attention(name) for name in ("sdpa", "cudnn", "flash")},
    "experts-looped": _experts("loop"),
    "experts-grouped": _experts("grouped"),
    "ties": check_ties,
    "dit": check_dit,
    "field": check_field,
    "sphere": check_sphere,
    "int8": _quantised("int8"),
    "nf4": _quantised("nf4"),
}
