"""Every setting of ushape as frozen dataclasses: plain values that round-trip through TOML.

A field's key on the command line and in files is `section.field`. The string below a field is
its help text; `ushape VERB --show-config` prints the values with their origins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

Contents = Literal["dit", "full"]
EngineKind = Literal["local", "ray"]
UpAxis = Literal["y", "z", "auto"]
Stage = Literal["dit", "vae"]
Strategy = Literal["full", "full-8bit", "full-offload", "experts-frozen", "lora", "sharded"]
Checkpointing = Literal["auto", "all", "none"]
DtypePolicy = Literal["fp32", "bf16"]
Attention = Literal["auto", "sdpa", "cudnn", "flash"]


@dataclass(frozen=True, kw_only=True, slots=True)
class WatertightConfig:
    """The watertight step: a dirty source mesh becomes a closed one in the normalised frame."""

    resolution: int = 512
    """Cells along the longest side of the remesher; memory and time grow with its square."""
    keep_cavities: bool = False
    """Leave enclosed cavities empty instead of filling them."""
    max_faces: int = 0
    """Reduce the result to about this many faces, within `max_error`; 0 leaves it as it is."""
    max_error: float = 0.001
    """Distance the reduction may move the surface, as part of the diagonal of the box."""
    up: UpAxis = "auto"
    """Axis of the source that points up; `auto` is z for STL and 3MF and y for the rest."""
    max_memory_gib: float = 6.0
    """Remeshing that would need more memory is refused before it starts."""
    max_file_gib: float = 4.0
    """Source files above this size are refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RenderConfig:
    """The render step: RGBA reference views of the watertight mesh."""

    views: int = 8
    """Views per asset: front, right, back, left first."""
    size: int = 1024
    """Pixels along one side of a view."""
    supersample: int = 2
    """Rays per pixel along one axis."""
    ambient_rays: int = 8
    """Ambient-occlusion rays per sample; 0 turns it off."""
    shadow_rays: int = 4
    """Shadow rays per light and sample."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """The sample step: surface points, and query points with distances when asked."""

    surface_points: int = 300_000
    """Area-uniform surface points per asset."""
    curvature_points: int = 300_000
    """Curvature-weighted surface points per asset."""
    contents: Contents = "dit"
    """`dit`: surface points only. `full`: also query points with distances, for the VAE stage."""
    near_points: int = 600_000
    """Query points near uniform surface points (`full`)."""
    near_curvature_points: int = 300_000
    """Query points near curvature-weighted surface points (`full`)."""
    space_points: int = 400_000
    """Query points uniform in the cube (`full`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """The split step: train and validation lists, by asset id."""

    val: float = 0.1
    """Share of the assets that goes to validation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """The workers that run the preparation steps."""

    kind: EngineKind = "local"
    """`local` runs workers on this machine, `ray` on the nodes of a Ray cluster."""
    address: str = "auto"
    """Ray cluster to join, HOST:PORT; `auto` takes the one of this machine or starts one."""
    workers: int = 0
    """Worker processes; 0 takes one per core, as far as the memory allows."""
    timeout_s: float = 600.0
    """Seconds one step of one asset may take before its worker is killed."""
    memory_gib: float = 8.0
    """Memory of one worker; beyond it the step fails with cause `memory`."""
    recycle_after: int = 200
    """Assets a worker handles before a fresh one replaces it."""
    retries: int = 1
    """Further attempts at a step that failed by a cause of `retry_causes`."""
    retry_causes: tuple[str, ...] = ("crash", "timeout")
    """Causes worth another attempt in the same run: crash, timeout, memory, error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityConfig:
    """Quality control: which measured assets are left out of the splits."""

    filter: str = "none"
    """`none`, `collectibles`, or a TOML file with rules."""
    vae_check: str = ""
    """Checkpoint whose VAE encodes and decodes every asset; empty leaves the check out."""
    vae_tokens: int = 8192
    """Latent tokens of the VAE check; at most what the model has."""
    vae_resolution: int = 256
    """Cells along one side of the field that the VAE check decodes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The fine-tune. The hardware profile sets dtype to num_workers."""

    data: str = "data"
    """Prepared dataset."""
    model: str = "ultrashape-1.0"
    """Row of the model table."""
    stage: Stage = "dit"
    """`dit` trains the diffusion transformer, `vae` the autoencoder."""
    init: str = ""
    """Weights to start from: a run, a safetensors file or the reference bundle."""
    steps: int = 50_000
    """Optimizer steps of the whole run."""
    dtype: DtypePolicy = "fp32"
    """Autocast of the forward pass; the strategy decides what the weights are kept in."""
    strategy: Strategy = "full"
    """Which weights train, in which precision, and where the optimizer's state lives."""
    optimizer: Literal["auto", "adamw", "adamw-8bit"] = "auto"
    """`auto` is the strategy's own; `adamw-8bit` keeps 2 bytes of state per weight, not 8."""
    weights: Literal["auto", "fp32", "bf16"] = "auto"
    """What trained weights are kept in; `auto` is the strategy's own."""
    lora_rank: int = 32
    """Rank of the adapters (`lora`)."""
    lora_experts: bool = False
    """Adapters on the routed experts too (`lora`)."""
    lora_base: Literal["auto", "int8", "nf4"] = "auto"
    """Frozen weights below the adapters: `auto` is `dtype`, `int8` a half of it, `nf4` a quarter
    (`lora`)."""
    attention: Attention = "sdpa"
    """Attention kernel of the DiT; `auto` times those that run here and takes the fastest."""
    expert_dispatch: Literal["loop", "grouped"] = "loop"
    """Routed experts in turn, or as one grouped product where a probe shows that it works."""
    activation_checkpointing: Checkpointing = "none"
    """Blocks recomputed in the backward pass, for a third more time: `all`, `none`, or `auto`, as
    few as the card's memory allows."""
    microbatch: int = 1
    """Samples per process and forward pass."""
    accumulation: int = 4
    """Forward passes per optimizer step."""
    num_workers: int = 2
    """Loader processes per training process; 0 loads in the training process."""
    learning_rate: float = 1e-5
    """Peak learning rate of AdamW; the strategy `lora` starts from 1e-4."""
    lr_reference_batch: int = 0
    """Global batch that `learning_rate` is meant for; another one scales it by the square root of
    their ratio. 0 does not scale."""
    warmup_steps: int = 500
    """Steps of linear warm-up; at most a tenth of the run."""
    weight_decay: float = 0.01
    """AdamW weight decay on matrices; biases and norms have none."""
    clip_norm: float = 1.0
    """Largest global gradient norm."""
    condition_dropout: float = 0.1
    """Probability that a sample trains without its image."""
    timesteps: Literal["uniform", "logit-normal"] = "uniform"
    """Distribution of t; the reference draws it uniformly."""
    timestep_mean: float = 0.0
    """Mean of the normal variable behind t (`logit-normal`)."""
    timestep_std: float = 1.0
    """Its standard deviation (`logit-normal`)."""
    timestep_shift: float = 1.0
    """Above 1 moves t towards the data (`logit-normal`)."""
    num_latents: int = 8192
    """Latent tokens per sample; lower it if memory runs out."""
    image_size: int = 0
    """Pixels of the conditioning image; 0 is the model's own."""
    curriculum: tuple[str, ...] = ()
    """Stages `STEP:TOKENS@PIXELS` that replace num_latents and image_size from that step on."""
    latent_variants: int = 0
    """Encode each asset only so many times, with different points and voxels, and keep the
    results in the run; 0 encodes anew every time."""
    voxel_drop: float = 0.0
    """Share of the occupied voxels left out: coarse meshes lack some."""
    voxel_add: float = 0.0
    """Share of voxels added beside occupied ones: coarse meshes are thicker."""
    voxel_jitter: float = 0.0
    """Share of the occupied voxels moved to a neighbour: coarse meshes are displaced."""
    ema_decay: float = 0.0
    """Decay per step of an fp32 average of the weights in host memory; 0 keeps none."""
    max_bad_steps: int = 10
    """Steps in a row without a finite loss and gradient after which the run stops."""
    spike_factor: float = 0.0
    """Skip a step whose gradient norm exceeds its running mean so many times; 0 skips none."""
    overfit: int = 0
    """Train on the first so many assets only; 0 on all."""
    skip_bad: bool = False
    """Leave out samples that cannot be read, and count them, instead of stopping."""
    surface_points: int = 163_840
    """Surface points the VAE encoder reads per sample."""
    query_points: int = 100_000
    """Query points per set (near uniform, near sharp, space) of the VAE stage."""
    validate_every_steps: int = 1000
    """Steps between validations; 0 turns them off."""
    save_every_steps: int = 2500
    """Steps between checkpoints."""
    keep_checkpoints: int = 3
    """Newest checkpoints kept, beside the best."""
    keep_every_steps: int = 0
    """Checkpoints at multiples of this are kept for good; 0 keeps none."""
    async_checkpoints: bool = True
    """Train on while a checkpoint is written, from a copy in host memory where that has room."""
    log_every_steps: int = 10
    """Steps between lines of metrics.jsonl."""
    trackers: tuple[str, ...] = ()
    """Extra trackers beside metrics.jsonl: `wandb`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RefineConfig:
    """Coarse mesh and image to refined mesh."""

    steps: int = 50
    """Points of the sampler's schedule."""
    guidance_scale: float = 5.0
    """Classifier-free guidance; 0 samples without guidance."""
    tokens: int = 32_768
    """Most latent tokens (occupied voxels of the coarse mesh)."""
    grid_resolution: int = 1024
    """Cells along one side of the decoded field."""
    chunk_size: int = 8192
    """Most queries decoded at once; lower it if memory runs out."""
    max_memory_gib: float = 0.0
    """Memory of one decoding call; 0 takes half of what is free."""
    attention: Attention = "sdpa"
    """Attention kernel of the DiT; `auto` times those that run here and takes the fastest."""
    surface_points: int = 409_600
    """Surface samples that mark the occupied voxels."""
    faces: int = 0
    """Faces of the result, reduced by quadric edge collapse; 0 keeps all."""
    dtype: DtypePolicy = "fp32"
    """Autocast of the networks; latents and logits stay fp32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """Processes and machines of a training run."""

    num_processes: int = 1
    """Training processes over all machines, one per GPU."""
    num_machines: int = 1
    """Machines that take part."""
    machine_rank: int = 0
    """Rank of this machine."""
    main_process_ip: str = "127.0.0.1"
    """Address of machine 0."""
    main_process_port: int = 29_500
    """Port of machine 0; 0 picks a free one on a single machine."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All settings of one command, plus what every section shares."""

    profile: str = "auto"
    """Row of the hardware profile table; `auto` detects it."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `mps`."""
    seed: int = 0
    """Seed of everything random."""
    watertight: WatertightConfig = field(default_factory=WatertightConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    sample: SampleConfig = field(default_factory=SampleConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)


POSITIVE = frozenset(
    {
        *("watertight.resolution", "watertight.max_file_gib", "render.views", "render.size"),
        *("watertight.max_error", "watertight.max_memory_gib"),
        *("render.supersample", "render.shadow_rays", "sample.surface_points"),
        *("sample.curvature_points", "sample.near_points", "sample.near_curvature_points"),
        *("sample.space_points", "engine.timeout_s", "engine.memory_gib", "engine.recycle_after"),
        *("quality.vae_tokens",),
        *("train.steps", "train.microbatch", "train.accumulation", "train.learning_rate"),
        *("train.clip_norm", "train.num_latents", "train.surface_points", "train.query_points"),
        *("train.save_every_steps", "train.keep_checkpoints", "train.log_every_steps"),
        *("refine.steps", "refine.tokens", "refine.grid_resolution", "refine.chunk_size"),
        *("refine.surface_points", "launch.num_processes", "launch.num_machines"),
        *("train.lora_rank", "train.timestep_std", "train.timestep_shift", "train.max_bad_steps"),
    }
)
"""Keys whose value must be above zero."""

RANGES: dict[str, tuple[float, float]] = {
    "watertight.resolution": (32, 2048),
    "watertight.max_faces": (0, 100_000_000),
    "watertight.max_error": (0.0, 0.1),
    "render.views": (1, 1000),
    "render.size": (16, 8192),
    "render.supersample": (1, 8),
    "render.ambient_rays": (0, 256),
    "render.shadow_rays": (1, 256),
    "split.val": (0.0, 0.9),
    "engine.workers": (0, 1024),
    "engine.memory_gib": (0.25, 65536),
    "engine.retries": (0, 10),
    "quality.vae_resolution": (16, 1024),
    "train.condition_dropout": (0.0, 1.0),
    "train.num_workers": (0, 256),
    "train.warmup_steps": (0, float("inf")),
    "train.weight_decay": (0.0, 1.0),
    "train.validate_every_steps": (0, float("inf")),
    "train.keep_every_steps": (0, float("inf")),
    "train.lr_reference_batch": (0, float("inf")),
    "train.image_size": (0, 4096),
    "train.overfit": (0, 1_000_000),
    "train.latent_variants": (0, 1000),
    "train.voxel_drop": (0.0, 0.9),
    "train.voxel_add": (0.0, 4.0),
    "train.voxel_jitter": (0.0, 1.0),
    "train.ema_decay": (0.0, 0.999999),
    "train.spike_factor": (0.0, float("inf")),
    "refine.steps": (2, 1000),
    "refine.guidance_scale": (0.0, 100.0),
    "refine.grid_resolution": (8, 2048),
    "refine.max_memory_gib": (0.0, 1024.0),
    "launch.machine_rank": (0, 4096),
    "launch.main_process_port": (0, 65535),
    "seed": (0, 2**63 - 1),
}
"""Inclusive bounds of keys that have some."""


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Returns every leaf of a config (or section) as `{"section.field": value}`."""
    leaves: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        key = f"{prefix}{item.name}"
        if is_dataclass(value):
            leaves.update(flatten(value, f"{key}."))
        else:
            leaves[key] = value
    return leaves
