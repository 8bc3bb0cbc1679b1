"""The table of known model families and how to build them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, NamedTuple

import torch

from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.conditioner import ConditionerParams, ImageConditioner
from ultrashape_cli.models.dit import DiTParams, RefineDiT
from ultrashape_cli.models.vae import ShapeVAE, VAEParams

COMPONENTS = ("vae", "dit", "conditioner")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSpec:
    """One model family: its three networks and where its weights come from."""

    name: str
    repo_id: str | None
    """Hugging Face repository; None when there are no released weights"""
    files: tuple[str, ...]
    """weight files inside the repository"""
    licence: str
    image_size: int
    """pixels per side of the preprocessed inference image"""
    start: Literal["noise", "coarse"] = "noise"
    """where the flow starts: normal noise, or the latents of the coarse mesh itself"""
    vae: VAEParams = field(default_factory=VAEParams)
    dit: DiTParams = field(default_factory=DiTParams)
    conditioner: ConditionerParams = field(default_factory=ConditionerParams)

    def inference_parts(self, *, encodes: bool = False) -> tuple[str, ...]:
        """Halves of the autoencoder that refinement needs; `encodes`: of which the input is one."""
        return ("encoder", "decoder") if encodes or self.start == "coarse" else ("decoder",)

    def __post_init__(self) -> None:
        pairs = (
            ("latent channels", self.vae.latent_channels, self.dit.in_channels),
            ("context channels", self.conditioner.width, self.dit.context_channels),
            ("voxel resolution", self.vae.voxel_resolution, self.dit.voxel_resolution),
        )
        for what, ours, theirs in pairs:
            if ours != theirs:
                raise ValueError(f"{self.name}: {what} differ between networks: {ours}, {theirs}")


MODELS = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="ultrashape-1.0",
            # The public name as known; `ushape weights pull --repo` takes another.
            repo_id="infinith/UltraShape",
            files=("ultrashape_v1.pt",),
            licence="Tencent Hunyuan 3D 2.1 Community License",
            image_size=1024,
        ),
        ModelSpec(
            name="tiny",
            repo_id=None,
            files=(),
            licence="Apache-2.0",
            image_size=256,
            start="coarse",
            vae=VAEParams(
                num_latents=3072,
                downsample_ratio=10,
                width=64,
                num_heads=2,
                latent_channels=32,
                num_freqs=7,
                num_encoder_layers=2,
                num_decoder_layers=2,
                voxel_resolution=32,
                # The same part of a voxel as in the released model.
                truncation=0.04,
                # One over the standard deviation of its latents.
                scale_factor=0.67,
            ),
            dit=DiTParams(
                in_channels=32,
                width=96,
                context_channels=64,
                depth=7,
                num_heads=4,
                num_moe_layers=2,
                num_experts=4,
                voxel_resolution=32,
            ),
            conditioner=ConditionerParams(
                width=64, num_layers=2, num_heads=2, position_grid=16, image_size=224
            ),
        ),
    )
}


class Networks(NamedTuple):
    """The networks of a model; None for those not asked for."""

    vae: ShapeVAE | None
    dit: RefineDiT | None
    conditioner: ImageConditioner | None


def model_spec(name: str) -> ModelSpec:
    """Return the spec of a known model."""
    if name not in MODELS:
        close = get_close_matches(name, MODELS, n=1)
        raise ConfigError(
            f"unknown model `{name}`; known: {', '.join(MODELS)}",
            hint=f"did you mean `{close[0]}`?" if close else None,
        )
    return MODELS[name]


def build(
    spec: ModelSpec,
    *,
    device: str | torch.device = "meta",
    components: Sequence[str] = COMPONENTS,
    vae_parts: Sequence[str] = ("encoder", "decoder"),
) -> Networks:
    """Build networks with random weights, or without storage on the meta device.

    Args:
        spec: Which model.
        device: Where; "meta" for weights that are loaded next.
        components: Which of vae, dit and conditioner.
        vae_parts: Which halves of the autoencoder.
    """
    unknown = set(components) - set(COMPONENTS)
    if unknown:
        raise ValueError(f"unknown components {sorted(unknown)}; known: {', '.join(COMPONENTS)}")
    with torch.device(device):
        return Networks(
            vae=ShapeVAE(spec.vae, parts=vae_parts) if "vae" in components else None,
            dit=RefineDiT(spec.dit) if "dit" in components else None,
            conditioner=(
                ImageConditioner(spec.conditioner) if "conditioner" in components else None
            ),
        )
