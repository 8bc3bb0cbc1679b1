"""The VAE in training and its loss (spec section 9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ultrashape_cli.data.dataset import Item, sample_generator
from ultrashape_cli.data.samples import QUERY_SETS
from ultrashape_cli.devices import upload
from ultrashape_cli.diffusion.flow import draw_noise
from ultrashape_cli.models.flops import vae_flops
from ultrashape_cli.models.vae import ShapeVAE, VAEParams
from ultrashape_cli.models.voxels import farthest_points
from ultrashape_cli.training.objectives.losses import Losses, Objective, field_errors, field_target

KL_WEIGHT = 1e-3


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


class VAEObjective(Objective):
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
        noise = torch.stack([draw_noise(shape, g) for g in draws])
        noise = upload(noise, surface.device).to(surface.dtype)
        supervision = torch.cat([batch[name] for name in QUERY_SETS], dim=1)
        field, kl = net(surface, queries, noise, supervision[..., :3])
        target = field_target(supervision[..., 3], self.params.truncation)
        per_sample = field_errors(field, target)
        agree = ((field > 0) == (target > 0)).float().mean()
        total = per_sample.mean() + KL_WEIGHT * kl.mean()
        power = (target.square() + target.abs()).mean()
        parts = {
            "kl": kl.mean().detach(),
            "sign_accuracy": agree.detach(),
            "target_power": power.detach(),
        }
        flops = vae_flops(self.params, surface.shape[1], queries.shape[1], supervision.shape[1])
        return Losses(total, per_sample.detach(), parts, flops * len(surface))

    def _jitter(self, surface: Tensor, draws: list[torch.Generator]) -> Tensor:
        """Returns encoder queries [B, M, 3]: far-apart surface points, moved by half a voxel."""
        # Farthest points of a random subset: exact ones of all 163,840 points cost M passes over
        # them, and the subset keeps the spread.
        keep = min(surface.shape[1], max(self.num_latents * 4, 2048))
        rows = torch.stack([torch.randperm(surface.shape[1], generator=g)[:keep] for g in draws])
        index = upload(rows, surface.device)[..., None].expand(-1, -1, 3)
        points = surface[..., :3].float().gather(1, index)
        start = torch.zeros(len(points), dtype=torch.long)
        far = farthest_points(points, min(self.num_latents, keep), start)
        picked = points.gather(1, far[..., None].expand(-1, -1, 3))
        offset = torch.stack([torch.rand(picked.shape[1:], generator=g) for g in draws]) - 0.5
        return picked + upload(offset, picked.device) / (self.params.voxel_resolution // 2)
