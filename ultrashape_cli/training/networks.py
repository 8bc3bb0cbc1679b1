"""What a run trains, what it calls, and its loss, from weights of any origin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import nn

from ultrashape_cli.config.profiles import get_profile
from ultrashape_cli.config.schema import Config
from ultrashape_cli.devices import compute_dtype
from ultrashape_cli.models.attention import AttentionLayer
from ultrashape_cli.models.attention_choice import (
    conditioner_shapes,
    dit_shapes,
    encoder_shapes,
    use_backend,
)
from ultrashape_cli.models.compiling import compile_regions
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.moe import set_expert_dispatch
from ultrashape_cli.models.registry import ModelSpec, Networks, model_spec
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.training.memory.plan import plan_run
from ultrashape_cli.training.objectives.distill import DistillObjective, check_distillation
from ultrashape_cli.training.objectives.flow import ConditionedDiT, FlowObjective
from ultrashape_cli.training.objectives.generated import GeneratedObjective, Pick
from ultrashape_cli.training.objectives.latents import LatentCache
from ultrashape_cli.training.objectives.policy import Judge, PolicyObjective
from ultrashape_cli.training.objectives.preference import PreferenceObjective
from ultrashape_cli.training.objectives.tokens import TokenCache, check_token_cache
from ultrashape_cli.training.objectives.vae import VAEObjective, VAETrainee
from ultrashape_cli.training.objectives.views import check_views

MakeJudge = Callable[[ShapeVAE], Judge]


class Load(Protocol):
    """Returns networks with their weights; the arguments are those of `load_networks`."""

    def __call__(self, *, components: Any, **options: Any) -> Networks:
        """Returns the named networks."""


def build_networks(
    config: Config,
    load: Load,
    device: torch.device,
    *,
    cache: LatentCache | None = None,
    tokens: TokenCache | None = None,
    pick: Pick | None = None,
    judge: MakeJudge | None = None,
) -> tuple[nn.Module, nn.Module, FlowObjective | VAEObjective]:
    """Returns the network to save, the network to call, and the objective.

    Args:
        config: Settings of the run.
        load: Where the weights come from.
        device: Where the frozen networks go; the trained ones follow their strategy later.
        cache: Where the latents of `train.latent_variants` are kept.
        tokens: Where the image tokens of `train.token_cache` are kept.
        pick: The generations that the run trains on, where it does.
        judge: Makes of the autoencoder what judges generations, where the run makes its own.

    Raises:
        ConfigError: Tokens are to be kept of images that never come again; it cannot distil, or
            not show several views.
    """
    settings, spec = config.train, model_spec(config.train.model)
    check_token_cache(settings)
    check_distillation(settings)
    check_views(settings)
    if settings.stage == "vae":
        vae = load_trained(config, load)
        assert isinstance(vae, ShapeVAE)
        return (
            vae,
            VAETrainee(vae),
            VAEObjective(spec.vae, num_latents=settings.num_latents, seed=config.seed),
        )
    net = load_trained(config, load)
    dit = net.dit if isinstance(net, ConditionedDiT) else net
    assert isinstance(dit, RefineDiT)
    half = compute_dtype(settings.dtype)
    # Only what the loss needs is resident.
    frozen = load(
        components=("vae",) if net is not dit else ("vae", "conditioner"),
        vae_parts=settings.frozen_vae_parts,
        device=device,
        dtype=half,
    )
    assert frozen.vae is not None
    frozen.vae.requires_grad_(False)
    dit.checkpoint_blocks = _checkpoint_blocks(config, spec, device)
    set_expert_dispatch(dit, settings.expert_dispatch, device=device, dtype=half)
    _choose_attention(config, spec, dit, frozen, device, half)
    if settings.compile:
        compile_regions(dit, device)
    beside = partial(_beside, config, load, dit, device, half)
    kind = _objective_kind(config, beside, frozen.vae, pick, judge)
    objective = kind(
        frozen.vae,
        frozen.conditioner,
        settings,
        params=spec.dit,
        start=spec.start,
        seed=config.seed,
        cache=cache,
        tokens=tokens,
    )
    return net, net, objective


def _objective_kind(
    config: Config,
    beside: Callable[[], nn.Module | None],
    vae: ShapeVAE,
    pick: Pick | None,
    judge: MakeJudge | None,
) -> Callable[..., FlowObjective]:
    """Returns what makes the objective of the settings; `beside` loads the network as it was."""
    settings, reward = config.train, config.reward
    if settings.objective == "distill":
        return partial(
            DistillObjective,
            distill=config.distill,
            inference_steps=config.refine.steps,
            teacher=beside(),
        )
    if settings.objective == "dpo":
        return partial(PreferenceObjective, pick=pick, reward=reward, reference=beside())
    if settings.objective == "grpo":
        assert judge is not None
        reference = beside() if reward.kl else None
        return partial(PolicyObjective, judge=judge(vae), reward=reward, reference=reference)
    return FlowObjective if pick is None else partial(GeneratedObjective, pick=pick)


def _beside(
    config: Config, load: Load, dit: RefineDiT, device: torch.device, dtype: torch.dtype
) -> nn.Module | None:
    """Returns the network as it was beside one without adapters, frozen; None beside one with."""
    if config.train.strategy == "lora":
        return None
    teacher = load(components=("dit",), device=device, dtype=dtype).dit
    assert teacher is not None
    # Chosen for the student just before, which is of the same sizes.
    for ours, theirs in zip(dit.modules(), teacher.modules(), strict=True):
        if isinstance(ours, AttentionLayer) and isinstance(theirs, AttentionLayer):
            theirs.backend = ours.backend
    set_expert_dispatch(teacher, config.train.expert_dispatch, device=device, dtype=dtype)
    return teacher.eval().requires_grad_(False)


def _choose_attention(
    config: Config,
    spec: ModelSpec,
    dit: RefineDiT,
    frozen: Networks,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Lets each network use the back end of the settings, or the fastest for what it will see."""
    settings = config.train
    side = settings.image_size or spec.conditioner.image_size
    seen = conditioner_shapes(spec.conditioner, settings.microbatch, side)
    keys = seen[0].num_keys * settings.views
    shapes = dit_shapes(spec.dit, settings.microbatch, settings.num_latents, keys)
    use = partial(use_backend, name=settings.attention, device=device, dtype=dtype)
    use(dit, shapes=shapes, backward=True)
    encoder = encoder_shapes(spec.vae, settings.surface_points, settings.num_latents)
    assert frozen.vae is not None
    use(frozen.vae, shapes=encoder)
    if frozen.conditioner is not None:
        use(frozen.conditioner, shapes=seen)


def load_trained(config: Config, load: Load, **options: Any) -> nn.Module:
    """Returns the network that a run trains, and saves.

    Args:
        config: Settings of the run.
        load: Where the weights come from.
        options: Device and dtype.
    """
    made = load(components=config.train.trained_networks, **options)
    net = made.dit or made.vae
    assert net is not None
    if made.dit and config.train.views > 1 and made.dit.view_embedder is None:
        made.dit.add_view_embedder()
    return ConditionedDiT(made.dit, made.conditioner) if made.dit and made.conditioner else net


def _checkpoint_blocks(config: Config, spec: ModelSpec, device: torch.device) -> int:
    wanted = config.train.activation_checkpointing
    if wanted == "auto" and device.type == "cuda":
        return plan_run(config, get_profile(config.profile)).checkpoint_blocks
    return spec.dit.depth if wanted == "all" else 0
