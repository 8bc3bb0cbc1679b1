"""Every setting of ushape as frozen dataclasses: plain values that round-trip through TOML.

A field's key on the command line and in files is `section.field`. The string below a field is
its help text; `ushape VERB --show-config` prints the values with their origins.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from ultrashape_cli.config.alerts import AlertConfig
from ultrashape_cli.config.choices import (
    Attention,
    Checkpointing,
    Contents,
    DtypePolicy,
    EngineKind,
    FrontAxis,
    GroupBy,
    Lights,
    MapName,
    Objective,
    Renderer,
    SampleFormat,
    Stage,
    Strategy,
    UpAxis,
)
from ultrashape_cli.config.distill import DistillConfig
from ultrashape_cli.config.evaluate import EvaluateConfig
from ultrashape_cli.config.launch import LaunchConfig
from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.config.reward import RewardConfig
from ultrashape_cli.config.serve import ServeConfig


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
    front: FrontAxis = "z"
    """Axis of the upright source that its front looks along; `auto` is x where its symmetry says
    so, and z for the rest."""
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
    elevations: tuple[float, ...] = ()
    """Rings of views at these degrees above the horizon, instead of the usual set."""
    fov_degrees: float = 40.0
    """Opening angle of a view."""
    orthographic: bool = False
    """Parallel rays instead of a pinhole camera."""
    lights: Lights = "studio"
    """`studio`, `soft`, or `random`: lights, opening angle and roll drawn for each view."""
    maps: tuple[MapName, ...] = ()
    """Extra files of each view: `depth`, `normal`, `mask`."""
    contact_sheet: bool = False
    """Also write one picture of all views."""
    textures: bool = True
    """Show the colours of the source file where it has some; otherwise all is clay."""
    supersample: int = 2
    """Samples per pixel along one axis."""
    ambient_rays: int = 5
    """Ambient-occlusion rays per pixel; 0 turns it off."""
    shadow_rays: int = 3
    """Shadow rays per pixel; 1 gives hard shadows."""
    renderer: Renderer = "rays"
    """`rays`, or `blender`: Cycles in a process of its own."""
    blender: str = ""
    """Blender program, or a Python that has bpy; empty looks for `blender`, then for bpy here."""
    blender_samples: int = 48
    """Cycles samples per pixel, before its denoiser."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleConfig:
    """The sample step: surface points, and query points with distances when asked."""

    surface_points: int = 300_000
    """Area-uniform surface points per asset."""
    curvature_points: int = 300_000
    """Curvature-weighted surface points per asset."""
    contents: Contents = "dit"
    """`dit`: surface points only. `full`: also query points with distances, for the VAE stage."""
    format: SampleFormat = "compact"
    """`compact`: quantised, a seventh of the size. `reference`: the reference's float32 arrays."""
    near_points: int = 600_000
    """Query points near uniform surface points (`full`)."""
    near_curvature_points: int = 300_000
    """Query points near curvature-weighted surface points (`full`)."""
    space_points: int = 400_000
    """Query points uniform in the cube (`full`)."""
    sharp_points: int = 0
    """Points on sharp edges, as `refine` takes them from its input; 0 for none."""
    coarse_points: int = 0
    """Points on a coarse version of the mesh, for training on coarse voxels or from coarse
    latents; 0 for none."""
    coarse_spread: float = 0.0
    """By how much the cells and the smoothing of that version differ from asset to asset, as a
    share; 0 makes all alike."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitConfig:
    """The split step: train, validation and test lists, by asset id."""

    train: float = 0.0
    """Share of the assets that trains; 0 is all that the other lists leave."""
    val: float = 0.1
    """Share of the assets that goes to validation."""
    test: float = 0.0
    """Share of the assets that is held out for the end; 0 writes no such list."""
    group_by: GroupBy = "none"
    """What stays together: a `folder`, a `prefix` of file names, near-`duplicates`, and of what
    was imported a `series` or all of an `author`."""
    stratify: str = ""
    """Measure that every list gets alike, such as `detail` or `faces`; empty for none."""


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
    """Prepared dataset, or a pack of one: a folder, s3://, gs://, hf:// or sftp://."""
    cache: str = ""
    """Folder for what is brought of a pack; empty is ~/.cache/ushape/packs."""
    cache_gib: float = 0.0
    """Most of it that is kept, the rest is brought again in each epoch; 0 keeps all."""
    mirror: str = ""
    """Place of copies of the checkpoints, for a new machine: s3://, gs://, sftp:// or a folder."""
    resume_from: str = ""
    """Place with a copy whose newest checkpoint is brought where none here is; empty: `mirror`."""
    model: str = "ultrashape-1.0"
    """Row of the model table."""
    objective: Objective = "flow"
    """`distill` teaches the DiT to need fewer passes, by the section `distill`; `reject` trains on
    the best of kept generations, `dpo` on the best against the worst, by the section `reward`;
    `grpo` on its own generations as it makes them."""
    pairs: str = ""
    """Folder of kept generations (`ushape evaluate --keep 8`), which `reject` and `dpo` take."""
    rewards: tuple[str, ...] = ("chamfer:1", "components:0.5")
    """What generations are judged by, NAME:WEIGHT, each normalised over those of an asset: chamfer,
    f_score, normals, components, open_edges, genus, crossings, thickness, silhouette, shading,
    view_normals, faces."""
    stage: Stage = "dit"
    """`dit` trains the diffusion transformer, `vae` the autoencoder."""
    init: str = ""
    """Weights to start from: a run, a safetensors file, the reference bundle, or `random`. Empty
    takes those that come with the package, where it has some of this model."""
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
    compile: bool = False
    """Compile the blocks of the DiT on first use: less memory traffic for a minute at the start."""
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
    train_conditioner: bool = False
    """Train the image conditioner along with the DiT, but for the strategies `lora` and `sharded`;
    the released one is best left as it is."""
    condition_dropout: float = 0.1
    """Probability that a sample trains without its image."""
    views: int = 1
    """Most reference views of a sample: half of the samples show the front alone, the others so
    many or fewer, with their cameras, for `refine --view`. 1 is any one view of an asset."""
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
    token_cache: bool = False
    """Keep the image tokens of every view in the run instead of computing them each time: of the
    full model up to 10.4 MiB a view (5,330 tokens of 1,024 channels and 2 bytes)."""
    voxel_drop: float = 0.0
    """Share of the occupied voxels left out: coarse meshes lack some."""
    voxel_add: float = 0.0
    """Share of voxels added beside occupied ones: coarse meshes are thicker."""
    voxel_jitter: float = 0.0
    """Share of the occupied voxels moved to a neighbour: coarse meshes are displaced."""
    voxel_coarse: float = 0.0
    """Share of samples whose voxels are those of the asset's coarsened mesh; needs
    `sample.coarse_points`."""
    field_loss: float = 0.0
    """Weight of the error of the decoded field at the end of the path, beside that of the latents;
    needs distances (`sample.contents=full`)."""
    ema_decay: float = 0.0
    """Decay per step of an fp32 average of the weights in host memory; 0 keeps none."""
    ema_every: int = 1
    """Steps between updates of the average, each by the decay of all of them: more of them spare a
    fast card the copy of all weights to the host."""
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
    colour_jitter: float = 0.0
    """Largest relative change of contrast and colour gains of a view; 0 for none."""
    crop_jitter: float = 0.0
    """Largest relative growth of the white border's square; 0 for none."""
    query_points: int = 100_000
    """Query points per set (near uniform, near sharp, space) of the VAE stage."""
    validate_every_steps: int = 1000
    """Steps between validations; 0 turns them off."""
    validate_meshes: int = 4
    """Held-out assets that are refined, measured and pictured; 0 for none."""
    mesh_every_validations: int = 5
    """Validations between those that refine meshes; the last one always does."""
    mesh_resolution: int = 256
    """Most cells along one side of the fields that validation decodes."""
    best_metric: str = "val_loss"
    """What decides the best checkpoint: `val_loss`, or a score of the meshes such as
    `val_chamfer_l1`, `val_f_score@0.01`, `val_ema_chamfer_l1`."""
    patience: int = 0
    """Values of best_metric in a row without improvement after which the run ends; 0 never."""
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
    """Extra trackers beside metrics.jsonl: `tensorboard`, `wandb`."""
    tracker_alerts: bool = False
    """Tell trackers of failures, odd numbers and the end; wandb gets the best checkpoint."""

    @property
    def trained_networks(self) -> list[str]:
        """Names of the networks that a run trains."""
        whole = self.strategy not in ("lora", "sharded") and self.objective == "flow"
        if self.stage == "dit" and self.train_conditioner and whole:
            return ["dit", "conditioner"]
        return [self.stage]

    @property
    def frozen_vae_parts(self) -> tuple[str, ...]:
        """Halves of the autoencoder that the DiT's loss, or its rewards, need."""
        decodes = self.field_loss or self.objective == "grpo"
        return ("encoder", "decoder") if decodes else ("encoder",)


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
    distill: DistillConfig = field(default_factory=DistillConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    alerts: AlertConfig = field(default_factory=AlertConfig)
    serve: ServeConfig = field(default_factory=ServeConfig)


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
