"""The networks cut into the graphs that are exported, each a function of tensors alone.

Legend: M latents, L image tokens, N surface points, Q queries, C latent channels, X context
channels, S pixels of a side, H heads, D channels of one head. All samples come alone: batch 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ultrashape_cli.models.conditioner import PADDING, PIXEL_MEAN, PIXEL_STD, ImageConditioner
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.registry import ModelSpec, Networks
from ultrashape_cli.models.vae import ShapeVAE

PARTS = ("conditioner", "encoder", "dit", "decoder", "query")
"""In the order of a refinement; one that starts from noise does without the encoder."""
NETWORK_OF = {"conditioner": "conditioner", "encoder": "vae", "dit": "dit",
              "decoder": "vae", "query": "vae"}  # fmt: skip


class Signature(NamedTuple):
    """Names of the inputs and outputs of a part, and which axes may have any length."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dynamic: dict[str, dict[int, str]]
    """Input -> axis -> name of its length."""


SIGNATURES = {
    "conditioner": Signature(("image", "mask"), ("tokens", "keep"), {}),
    "encoder": Signature(
        ("surface", "centres"), ("mean",), {"surface": {1: "points"}, "centres": {1: "latents"}}
    ),
    "dit": Signature(
        ("x", "t", "context", "voxels"),
        ("velocity",),
        {"x": {1: "latents"}, "context": {1: "image_tokens"}, "voxels": {1: "latents"}},
    ),
    "decoder": Signature(("latents",), ("keys", "values"), {"latents": {1: "latents"}}),
    "query": Signature(
        ("points", "keys", "values"),
        ("field",),
        {"points": {1: "queries"}, "keys": {2: "latents"}, "values": {2: "latents"}},
    ),
}


class ConditionerPart(nn.Module):
    """All image tokens, and which of them show the object."""

    resize: Tensor
    pick: Tensor
    constants: Tensor

    def __init__(self, conditioner: ImageConditioner, side: int) -> None:
        super().__init__()
        self.conditioner = conditioner
        size = conditioner.params.image_size
        # The size is fixed, so the resize with antialiasing is a product with fixed weights: those
        # that torch gives to the pixels of a unit matrix. No runtime has to have its filter.
        unit = torch.eye(side)[None, None]
        weights = F.interpolate(unit, size=(size, side), mode="bilinear", antialias=True)[0, 0]
        self.register_buffer("resize", weights)
        self.register_buffer("pick", torch.arange(size) * side // size)
        constants = torch.tensor([PIXEL_MEAN, PIXEL_STD])[..., None, None]
        self.register_buffer("constants", constants)

    def forward(
        self,
        image: Tensor,  # [1, 3, S, S] in [-1, 1], as `preprocess_inference` makes it
        mask: Tensor,  # [1, 1, S, S], background exactly -1
    ) -> tuple[Tensor, Tensor]:  # [1, L, X], [1, L] bool
        """Return the tokens of all patches, and for each whether it is kept."""
        params, model = self.conditioner.params, self.conditioner.main_image_encoder.model
        resized = self.resize @ ((image + 1) / 2) @ self.resize.T
        mean, std = self.constants
        tokens = model((resized - mean) / std)
        shown = mask.index_select(2, self.pick).index_select(3, self.pick) != PADDING
        # A patch is kept where any of its pixels is.
        patches = shown.unflatten(3, (-1, params.patch_size)).any(-1)
        patches = patches.unflatten(2, (-1, params.patch_size)).any(3)
        keep = F.pad(patches.flatten(1).to(torch.uint8), (1, 0), value=1) != 0
        if not params.use_class_token:
            tokens, keep = tokens[:, 1:], keep[:, 1:]
        return tokens, keep


class EncoderPart(nn.Module):
    """Mean latents of a surface; times `scale_factor` they are where a flow starts."""

    def __init__(self, vae: ShapeVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, surface: Tensor, centres: Tensor) -> Tensor:
        """Return means [1, M, C] for points [1, N, 7], seen from voxel centres [1, M, 3]."""
        moments = self.vae.pre_kl(self.vae.encoder(surface, centres))
        return moments.chunk(2, dim=-1)[0]


class StepPart(nn.Module):
    """The velocity of latents; a context of one zero token is that of no image."""

    def __init__(self, dit: RefineDiT) -> None:
        super().__init__()
        self.dit = dit

    def forward(
        self,
        x: Tensor,  # [1, M, C]
        t: Tensor,  # [1] in [0, 1]
        context: Tensor,  # [1, L, X]
        voxels: Tensor,  # [1, M, 3] int64
    ) -> Tensor:  # [1, M, C]
        """Return the velocity data - noise."""
        return self.dit(x, t, context, voxels).velocity


class DecoderPart(nn.Module):
    """What queries read of latents, computed once for all of them."""

    def __init__(self, vae: ShapeVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values [1, H, M, D] of latents [1, M, C], by `scale_factor` divided."""
        return self.vae.geo_decoder.keys(self.vae.decode(latents))


class QueryPart(nn.Module):
    """The field at points."""

    def __init__(self, vae: ShapeVAE) -> None:
        super().__init__()
        self.geo_decoder = vae.geo_decoder

    def forward(self, points: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Return the field [1, Q] at points [1, Q, 3], positive inside."""
        return self.geo_decoder(self.geo_decoder.embed(points), keys, values)


def make_part(name: str, networks: Networks, spec: ModelSpec) -> nn.Module:
    """Return a part of networks in eval mode; it shares their weights."""
    build: dict[str, Callable[[], nn.Module]] = {
        "conditioner": lambda: ConditionerPart(networks.conditioner, spec.image_size),  # type: ignore[arg-type]
        "encoder": lambda: EncoderPart(networks.vae),  # type: ignore[arg-type]
        "dit": lambda: StepPart(networks.dit),  # type: ignore[arg-type]
        "decoder": lambda: DecoderPart(networks.vae),  # type: ignore[arg-type]
        "query": lambda: QueryPart(networks.vae),  # type: ignore[arg-type]
    }
    return build[name]().eval()


def example_inputs(name: str, spec: ModelSpec) -> tuple[Tensor, ...]:
    """Return inputs of the right shapes; an exporter reads no values from them."""
    side, latents, points, tokens = spec.image_size, 40, 48, 24
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    heads = spec.vae.num_heads // spec.vae.field_downsample
    keys = (1, heads, latents, spec.vae.width // spec.vae.num_heads)
    return {
        "conditioner": lambda: (normal(1, 3, side, side), normal(1, 1, side, side)),
        "encoder": lambda: (
            normal(1, points, 3 + spec.vae.num_point_features),
            normal(1, latents, 3),
        ),
        "dit": lambda: (
            normal(1, latents, spec.dit.in_channels),
            torch.tensor([0.5]),
            normal(1, tokens, spec.dit.context_channels),
            torch.arange(latents * 3).reshape(1, latents, 3) % spec.dit.voxel_resolution,
        ),
        "decoder": lambda: (normal(1, latents, spec.vae.latent_channels),),
        "query": lambda: (normal(1, points, 3), normal(*keys), normal(*keys)),
    }[name]()


def dynamic_shapes(name: str) -> dict[str, dict[int, torch.export.Dim]]:
    """Return which axes of a part's inputs may have any length, as torch.export takes it."""
    signature = SIGNATURES[name]
    lengths = {axis: torch.export.Dim(axis, min=1 if axis == "image_tokens" else 2)
               for axes in signature.dynamic.values() for axis in axes.values()}  # fmt: skip
    return {
        given: {axis: lengths[length] for axis, length in signature.dynamic.get(given, {}).items()}
        for given in signature.inputs
    }
