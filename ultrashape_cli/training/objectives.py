"""What is trained, and its loss: the flow of the DiT (spec section 8) or the VAE (section 9)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ultrashape_cli.data.dataset import Item, sample_generator
from ultrashape_cli.data.samples import QUERY_SETS
from ultrashape_cli.diffusion.flow import (
    draw_noise,
    draw_timesteps,
    flow_loss,
    interpolate,
    velocity_target,
)
from ultrashape_cli.models.conditioner import ImageConditioner, draw_drops, drop_condition
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.vae import ShapeVAE, VAEParams
from ultrashape_cli.models.voxels import (
    farthest_points,
    occupied_voxels,
    select_voxels,
    voxel_centres,
)

KL_WEIGHT = 1e-3


class Losses(NamedTuple):
    """One microbatch's losses."""

    total: Tensor  # [], what is differentiated
    per_sample: Tensor  # [B], what is reported
    parts: dict[str, Tensor]  # further scalars to log


class FlowObjective:
    """Rectified-flow loss of the DiT on latents of the frozen VAE.

    Args:
        vae: Encoder half, frozen.
        conditioner: Image encoder, frozen.
        num_latents: Most tokens per sample.
        condition_dropout: Probability that a sample trains without its image.
        seed: With a sample's counter, fixes its voxels, t, noise and dropout.
    """

    def __init__(
        self,
        vae: ShapeVAE,
        conditioner: ImageConditioner,
        *,
        num_latents: int,
        condition_dropout: float,
        seed: int,
    ) -> None:
        self.vae = vae
        self.conditioner = conditioner
        self.num_latents = num_latents
        self.condition_dropout = condition_dropout
        self.seed = seed

    def __call__(self, net: nn.Module, batch: Item, t: Tensor | None = None) -> Losses:
        """Returns the losses of one microbatch.

        Args:
            net: The DiT, possibly wrapped for several processes.
            batch: From `ShapeDataset`, on the device.
            t: Fixed timesteps [B] for validation, which also turns the dropout off.
        """
        draws = [sample_generator(self.seed, int(counter)) for counter in batch["counter"]]
        drawn_t = torch.cat([draw_timesteps(1, g) for g in draws])
        dropped = torch.cat([draw_drops(1, self.condition_dropout, g) for g in draws])
        latents, voxels = self.encode(batch["surface"], draws)
        noise = torch.stack([draw_noise(latents.shape[1:], g) for g in draws]).to(latents)
        tokens, lengths = self.conditioner.encode(batch["image"], batch["mask"])
        if t is None:
            t = drawn_t
            tokens = drop_condition(tokens, dropped)
        t = t.to(latents.device)
        output = net(interpolate(latents, noise, t), t, tokens, voxels, lengths)
        per_sample = flow_loss(output.velocity, velocity_target(latents, noise))
        aux = output.aux_losses.sum()
        return Losses(per_sample.mean() + aux, per_sample.detach(), {"aux_loss": aux.detach()})

    @torch.no_grad()
    def encode(self, surface: Tensor, draws: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Returns scaled latents [B, M, C] and voxel indices [B, M, 3] of surfaces [B, N, 7]."""
        params = self.vae.params
        occupied = [occupied_voxels(points[:, :3], params.voxel_resolution) for points in surface]
        count = min(self.num_latents, *(len(voxels) for voxels in occupied))
        voxels = torch.cat(
            [select_voxels([v], count, g) for v, g in zip(occupied, draws, strict=True)]
        )
        posterior = self.vae.encode(
            surface, voxel_centres(voxels, params.voxel_resolution), draws[0]
        )
        noise = torch.stack([draw_noise(posterior.mean.shape[1:], g) for g in draws])
        return posterior.sample(noise.to(posterior.mean)) * params.scale_factor, voxels


class VAETrainee(nn.Module):
    """The VAE with a forward pass, so that it can be wrapped for several processes."""

    def __init__(self, vae: ShapeVAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(
        self,
        surface: Tensor,  # [B, N, 7]
        queries: Tensor,  # [B, M, 3]
        noise: Tensor,  # [B, M, C]
        points: Tensor,  # [B, Q, 3]
    ) -> tuple[Tensor, Tensor]:  # field [B, Q], kl [B]
        """Encodes, samples, decodes and queries."""
        posterior = self.vae.encode(surface, queries)
        features = self.vae.decode(posterior.sample(noise))
        return self.vae.query_field(features, points), posterior.kl()


class VAEObjective:
    """Reconstruction and KL loss of the VAE with jittered queries (spec section 9)."""

    def __init__(self, params: VAEParams, *, num_latents: int, seed: int) -> None:
        self.params = params
        self.num_latents = num_latents
        self.seed = seed

    def __call__(self, net: nn.Module, batch: Item) -> Losses:
        """Returns the losses of one microbatch."""
        surface = batch["surface"]
        draws = [sample_generator(self.seed, int(counter)) for counter in batch["counter"]]
        queries = self._jitter(surface, draws)
        shape = (queries.shape[1], self.params.latent_channels)
        noise = torch.stack([draw_noise(shape, g) for g in draws]).to(surface)
        supervision = torch.cat([batch[name] for name in QUERY_SETS], dim=1)
        field, kl = net(surface, queries, noise, supervision[..., :3])
        target = (-supervision[..., 3] / self.params.truncation).clamp(-1.0, 1.0)
        error = (field.float() - target).flatten(1)
        per_sample = error.square().mean(1) + error.abs().mean(1)
        agree = ((field > 0) == (target > 0)).float().mean()
        total = per_sample.mean() + KL_WEIGHT * kl.mean()
        parts = {"kl": kl.mean().detach(), "sign_accuracy": agree.detach()}
        return Losses(total, per_sample.detach(), parts)

    def _jitter(self, surface: Tensor, draws: list[torch.Generator]) -> Tensor:
        """Returns encoder queries [B, M, 3]: far-apart surface points, moved by half a voxel."""
        # Farthest points of a random subset: exact ones of all 163,840 points cost M passes over
        # them, and the subset keeps the spread.
        keep = min(surface.shape[1], max(self.num_latents * 4, 2048))
        rows = torch.stack([torch.randperm(surface.shape[1], generator=g)[:keep] for g in draws])
        index = rows.to(surface.device)[..., None].expand(-1, -1, 3)
        points = surface[..., :3].float().gather(1, index)
        start = torch.zeros(len(points), dtype=torch.long)
        far = farthest_points(points, min(self.num_latents, keep), start)
        picked = points.gather(1, far[..., None].expand(-1, -1, 3))
        offset = torch.stack([torch.rand(picked.shape[1:], generator=g) for g in draws]) - 0.5
        return picked + offset.to(picked.device) / (self.params.voxel_resolution // 2)


def trainable_parameters(net: nn.Module, strategy: str) -> list[nn.Parameter]:
    """Freezes what the strategy does not train and returns the rest."""
    for name, parameter in net.named_parameters():
        frozen = strategy == "experts-frozen" and ".moe.experts." in f".{name}"
        parameter.requires_grad_(not frozen)
    return [p for p in net.parameters() if p.requires_grad]


def parameter_groups(net: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns AdamW groups: decay on matrices, none on biases and norms."""
    trained = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def set_checkpointing(net: nn.Module, enabled: bool) -> None:
    """Turns per-block activation checkpointing of the DiT on or off."""
    if isinstance(net, RefineDiT):
        net.checkpoint_blocks = enabled
