"""The flow of the DiT and its loss (spec section 8)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.data.dataset import Item, sample_generator, variant_counter
from ultrashape_cli.data.samples import QUERY_SETS
from ultrashape_cli.devices import upload
from ultrashape_cli.diffusion.flow import (
    draw_noise,
    draw_timesteps,
    flow_loss,
    interpolate,
    velocity_target,
)
from ultrashape_cli.models.conditioner import (
    PADDING,
    ImageConditioner,
    draw_drops,
    drop_condition,
)
from ultrashape_cli.models.dit import DiTOutput, DiTParams, RefineDiT
from ultrashape_cli.models.vae import Posterior, ShapeVAE
from ultrashape_cli.models.voxels import (
    occupied_voxels,
    select_voxels,
    voxel_centres,
)
from ultrashape_cli.training.objectives.latents import LatentCache, Moments
from ultrashape_cli.training.objectives.losses import (
    GroupSums,
    Losses,
    Objective,
    field_errors,
    field_target,
)
from ultrashape_cli.training.objectives.perturbation import VoxelNoise
from ultrashape_cli.training.objectives.tokens import TokenCache, View
from ultrashape_cli.training.objectives.views import ShownViews


class ConditionedDiT(nn.Module):
    """The DiT with its conditioner in front, where both train."""

    def __init__(self, dit: RefineDiT, conditioner: ImageConditioner) -> None:
        super().__init__()
        self.dit = dit
        self.conditioner = conditioner
        self.lengths: list[int] = []
        """Valid image tokens of the last batch's samples."""

    def forward(
        self,
        x: Tensor,  # [B, M, C]
        t: Tensor,  # [B]
        image: Tensor,  # [B, 3, S, S]
        mask: Tensor,  # [B, 1, S, S]
        dropped: Tensor | None,  # [B] bool
        voxels: Tensor,  # [B, M, 3]
        shown: ShownViews | None = None,
    ) -> DiTOutput:
        """Encodes the images and predicts the velocity; `shown` tells whose images they are."""
        tokens, self.lengths = self.conditioner.encode(image, mask, image.shape[-1])
        cameras = None
        if shown is not None:
            tokens, self.lengths, cameras = shown.join(tokens, self.lengths)
        if dropped is not None:
            tokens = drop_condition(tokens, dropped)
            cameras = None if cameras is None else drop_condition(cameras, dropped)
        return self.dit(x, t, tokens, voxels, self.lengths, cameras)


class Group(NamedTuple):
    """Samples of a microbatch that share a forward pass."""

    rows: Tensor  # [G] of the microbatch
    latents: Tensor  # [G, M, C], scaled
    start: Tensor  # [G, M, C], noise or the scaled latents of the coarse mesh
    inputs: tuple[Any, ...]
    """What the network takes after x and t."""
    queries: Tensor | None  # [G, Q, 4], position and distance, where the field counts


class Encoded(NamedTuple):
    """A microbatch as the network sees it; nothing but `t` depends on the timestep."""

    t: Tensor  # [B], as drawn
    groups: list[Group]
    walked: Tensor | None = None
    """[B] bool, samples at which a distilled student arrives by its own steps."""
    paired: bool = False
    """The first half of the samples are preferred to the second, one to one."""


class FlowObjective(Objective):
    """Rectified-flow loss of the DiT on latents of the frozen VAE.

    Args:
        vae: Frozen; its encoder, and with `train.field_loss` its decoder too.
        conditioner: Image encoder, frozen; None where it trains, inside a `ConditionedDiT`.
        settings: Tokens, dropout, timesteps and voxel noise.
        seed: With a sample's counter, fixes its voxels, t, noise and dropout.
        params: Sizes of the DiT.
        start: Where the flow starts, as of `ModelSpec`. From the coarse mesh's latents all is the
            mean of its posterior, and voxels are always those of that mesh.
        cache: Where the latents of `train.latent_variants` are kept.
        tokens: Where the image tokens of `train.token_cache` are kept.
    """

    def __init__(
        self,
        vae: ShapeVAE,
        conditioner: ImageConditioner | None,
        settings: TrainConfig,
        *,
        params: DiTParams,
        seed: int,
        start: str = "noise",
        cache: LatentCache | None = None,
        tokens: TokenCache | None = None,
    ) -> None:
        self.vae = vae
        self.conditioner = conditioner
        self.settings = settings
        self.num_latents = settings.num_latents
        self.seed = seed
        self.cache = cache
        self.tokens = tokens
        self.params = params
        self.start = start
        self.voxel_noise = VoxelNoise(
            settings.voxel_drop, settings.voxel_add, settings.voxel_jitter
        )

    def __call__(self, net: nn.Module, batch: Item, t: Tensor | None = None) -> Losses:
        """Returns the losses of one microbatch.

        Samples with the same number of tokens share a forward pass; nothing that is drawn for a
        sample depends on its neighbours.

        Args:
            net: The DiT or `ConditionedDiT`, possibly wrapped for several processes.
            batch: From `to_device`.
            t: Fixed timesteps [B] for validation, which also turns dropout and noise off.
        """
        return self.losses(net, self.encode(batch, noisy=t is None), t)

    def encode(self, batch: Item, *, noisy: bool) -> Encoded:
        """Returns what the frozen networks and the draws make of a microbatch.

        Args:
            batch: From `to_device`.
            noisy: With dropout and noise on the voxels, as in training.
        """
        draws = [sample_generator(self.seed, int(counter)) for counter in batch["counter"]]
        t = torch.cat([self._draw_timestep(g) for g in draws])
        dropout = self.settings.condition_dropout
        dropped = torch.cat([draw_drops(1, dropout, g) for g in draws])
        with self.timed("encode"):
            entries = [self._moments(batch, i, g, noisy=noisy) for i, g in enumerate(draws)]
            condition = self._condition(batch, dropped if noisy else None)
            has_field = self.settings.field_loss and noisy
            queries = torch.cat([batch[n] for n in QUERY_SETS], dim=1) if has_field else None
            groups = []
            for rows in _rows_of_equal_length([len(entry.mean) for entry in entries]):
                latents, start = self._latents([entries[r] for r in rows], [draws[r] for r in rows])
                index = upload(torch.tensor(rows), latents.device)
                voxels = torch.stack([entries[r].voxels for r in rows])
                inputs = condition(rows, index, voxels)
                found = None if queries is None else queries[index]
                groups.append(Group(index, latents, start, inputs, found))
        return Encoded(upload(t, batch["image"].device), groups)

    def losses(self, net: nn.Module, encoded: Encoded, t: Tensor | None = None) -> Losses:
        """Returns the losses of what `encode` made, which may be asked for at several times.

        Args:
            net: The DiT or `ConditionedDiT`, possibly wrapped for several processes.
            encoded: The microbatch.
            t: Timesteps [B] instead of those that were drawn.
        """
        t = encoded.t if t is None else upload(t, encoded.t.device)
        per_sample, field, sums = t.new_zeros(len(t)), t.new_zeros(()), GroupSums(self.params, t)
        for rows, latents, start, inputs, queries in encoded.groups:
            x = interpolate(latents, start, t[rows])
            output = net(x, t[rows], *inputs)
            if self.conditioner:
                lengths = inputs[2]
            else:
                # Wrapped for several processes, the network itself is `module`.
                lengths = cast("ConditionedDiT", getattr(net, "module", net)).lengths
            target = velocity_target(latents, start)
            per_sample = per_sample.index_put((rows,), flow_loss(output.velocity, target))
            sums.add(output, target, lengths)
            if queries is not None:
                end = x + (1 - t[rows])[:, None, None] * output.velocity
                field = field + self._field_error(end, queries) * (len(rows) / len(t))
        parts = sums.parts()
        if self.settings.field_loss:
            parts["field_loss"] = field.detach()
        total = per_sample.mean() + sums.aux + self.settings.field_loss * field
        return Losses(total, per_sample.detach(), parts, sums.flops, t)

    def _field_error(self, latents: Tensor, queries: Tensor) -> Tensor:  # [G, M, C], [G, Q, 4]
        """Returns how far the field that the frozen decoder makes of latents is off."""
        vae = self.vae
        features = vae.decode(latents / vae.params.scale_factor)
        field = vae.query_field(features, queries[..., :3])
        return field_errors(field, field_target(queries[..., 3], vae.params.truncation)).mean()

    def _condition(
        self, batch: Item, dropped: Tensor | None
    ) -> Callable[[list[int], Tensor, Tensor], tuple[Any, ...]]:
        """Returns what the network takes after x and t, for some rows and their voxels.

        The rows come twice: as numbers, and on the device.
        """
        image, mask, shown = batch["image"], batch["mask"], ShownViews.of(batch)
        if self.conditioner is None:
            return partial(_images, image, mask, dropped, shown)
        if self.tokens is None:
            tokens, lengths = self.conditioner.encode(image, mask, image.shape[-1])
        else:
            owners = range(len(image)) if shown is None else shown.owners
            kept = [self._tokens(batch, i, row, self.tokens) for i, row in enumerate(owners)]
            lengths = [len(found) for found in kept]
            # Padded as a batch that is encoded together.
            tokens = pad_sequence(kept, batch_first=True, padding_value=PADDING)
        cameras: Tensor | None = None
        if shown is not None:
            tokens, lengths, cameras = shown.join(tokens, lengths)
        if dropped is not None:
            tokens = drop_condition(tokens, dropped)
            cameras = None if cameras is None else drop_condition(cameras, dropped)
        return lambda rows, index, voxels: (
            *(tokens[index], voxels, [lengths[r] for r in rows]),
            *([] if cameras is None else [cameras[index]]),
        )

    @torch.no_grad()
    def _tokens(self, batch: Item, index: int, row: int, cache: TokenCache) -> Tensor:  # [L, C]
        """Returns the tokens of one image of a sample, computed alone where they are not kept."""
        assert self.conditioner is not None
        image, mask = batch["image"][index], batch["mask"][index]
        place, checksum = int(batch["view"][index]), int(batch["checksum"][index])
        view = View(batch["uid"][row], place, checksum, image.shape[-1])
        kept = cache.read(view)
        if kept is not None:
            return upload(kept, image.device)
        tokens, _ = self.conditioner.encode(image[None], mask[None], image.shape[-1])
        cache.write(view, tokens[0])
        return tokens[0]

    def _draw_timestep(self, draw: torch.Generator) -> Tensor:
        settings = self.settings
        return draw_timesteps(
            1,
            draw,
            distribution=settings.timesteps.replace("-", "_"),
            mean=settings.timestep_mean,
            std=settings.timestep_std,
            shift=settings.timestep_shift,
        )

    @torch.no_grad()
    def _moments(self, batch: Item, index: int, draw: torch.Generator, *, noisy: bool) -> Moments:
        """Returns the posterior of one sample, from the cache where it is there."""
        uid, device = batch["uid"][index], self.vae.pre_kl.weight.device
        variant = int(batch["variant"][index])
        if variant >= 0:
            draw = sample_generator(self.seed, variant_counter(uid, variant))
            cached = self.cache and self.cache.read(uid, variant, self.num_latents)
            if cached:
                return cached.on(device)
        params, surface = self.vae.params, batch["surface"][index]
        points, given = surface[:, :3], surface[None]
        if self.start == "coarse":
            coarse = batch["coarse"][index]
            points, given = coarse[:, :3], torch.stack([surface, coarse])
        elif noisy and "coarse" in batch:
            share = float(torch.rand(1, generator=draw))
            points = batch["coarse"][index] if share < self.settings.voxel_coarse else points
        occupied = occupied_voxels(points, params.voxel_resolution)
        if noisy and self.voxel_noise:
            occupied = self.voxel_noise.apply(occupied, params.voxel_resolution, draw)
        voxels = select_voxels([occupied], self.num_latents, draw)
        centres = voxel_centres(voxels, params.voxel_resolution)
        mean, logvar = self.vae.encode(given, centres.expand(len(given), -1, -1), draw)
        start = mean[1] if len(given) > 1 else None
        found = Moments(mean[0], logvar[0], voxels[0], start)
        if variant >= 0 and self.cache:
            self.cache.write(uid, variant, self.num_latents, found)
        return found

    def _latents(
        self, entries: list[Moments], draws: list[torch.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Returns scaled latents and what their flow starts from, [B, M, C] each."""
        scale = self.vae.params.scale_factor
        mean = torch.stack([entry.mean for entry in entries])
        if self.start == "coarse":
            starts = [entry.start for entry in entries if entry.start is not None]
            return mean * scale, torch.stack(starts) * scale
        logvar = torch.stack([entry.logvar for entry in entries])
        shape = mean.shape[1:]
        spread = self._noise(shape, draws, mean)
        if self.settings.overfit:
            # What the posterior leaves open cannot be memorised.
            spread = torch.zeros_like(spread)
        latents = Posterior(mean, logvar).sample(spread) * scale
        return latents, self._noise(shape, draws, latents)

    @staticmethod
    def _noise(shape: torch.Size, draws: list[torch.Generator], like: Tensor) -> Tensor:
        """Returns noise [B, *shape], drawn by the host while the device still encodes."""
        return upload(torch.stack([draw_noise(shape, g) for g in draws]), like.device).to(like)


def _images(
    image: Tensor,
    mask: Tensor,
    dropped: Tensor | None,
    shown: ShownViews | None,
    rows: list[int],
    index: Tensor,
    voxels: Tensor,
) -> tuple[Any, ...]:
    """Returns what a `ConditionedDiT` takes after x and t, for some rows and their voxels."""
    gone = None if dropped is None else dropped[rows]
    if shown is None:
        return image[index], mask[rows], gone, voxels
    places = shown.places(rows)
    seen = upload(torch.tensor(places), image.device)
    return image[seen], mask[places], gone, voxels, shown.of_rows(rows, seen)


def _rows_of_equal_length(lengths: list[int]) -> list[list[int]]:
    rows: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        rows.setdefault(length, []).append(row)
    return list(rows.values())
