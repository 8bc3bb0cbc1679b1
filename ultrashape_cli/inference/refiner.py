"""Coarse mesh and reference image to refined mesh (spec sections 2 to 7).

One seed covers the surface samples, the voxel subset and the noise, all drawn on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.data.images import preprocess_inference
from ultrashape_cli.devices import autocast, compute_dtype, empty_cache, upload
from ultrashape_cli.diffusion.sampler import sample
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import Topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Up
from ultrashape_cli.geometry.places import in_own_places
from ultrashape_cli.inference.backends import backend_record, choose_backend, load_graphs
from ultrashape_cli.inference.cleanup import Tokens, clean, stitched, surface_mesh
from ultrashape_cli.inference.course import Course, Hold, course, times_of
from ultrashape_cli.inference.decode import (
    SMALLEST_CHUNK,
    coarsest_cells,
    decode_field,
    fitting_chunk,
    level_cells,
)
from ultrashape_cli.inference.encoding import encoder_surface
from ultrashape_cli.inference.memory import is_out_of_memory, memory_errors, refuse_int8
from ultrashape_cli.inference.prepared import Prepared, prepare_mesh, timed
from ultrashape_cli.inference.streaming import BlockStream, Placement, quantise_dit
from ultrashape_cli.inference.velocity import NetworkVelocity, Seen, ViewsVelocity, joined
from ultrashape_cli.models.attention import kept_backends
from ultrashape_cli.models.attention_choice import (
    AttentionShape,
    conditioner_shapes,
    decoder_shapes,
    dit_shapes,
    use_backend,
)
from ultrashape_cli.models.compiling import compile_blocks
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.registry import ModelSpec, Networks, model_spec
from ultrashape_cli.models.sources import WeightSource, load_networks
from ultrashape_cli.models.voxels import voxel_centres

Progress = Callable[[str, int, int], None]
"""Stage, done, total."""


@dataclass(slots=True)
class Refined:
    """The refined mesh and how it came about."""

    mesh: Mesh
    """In the frame that the settings ask for."""
    topology: Topology
    tokens: int
    passes: int
    """Passes through the DiT."""
    memory: str
    """Where the weights waited."""
    backend: dict[str, str]
    """What ran the networks, and its versions."""
    repaired: bool
    """The field left its grid open and the watertight step closed it."""
    floaters: int
    """Components removed."""
    dropped_faces: int
    """Degenerate and repeated faces removed."""
    full: Mesh | None
    """The mesh before faces were reduced, where they were."""
    seconds: dict[str, float] = field(default_factory=dict)


class Refiner:
    """Refines meshes with the networks of one model.

    Args:
        networks: In eval mode; on `device`, or on the host where `refine.memory` says so. The
            autoencoder needs its `ModelSpec.inference_parts()` only, and unconditional
            refinement no conditioner.
        spec: The model they belong to.
        config: Settings of the sampler and the decoder.
        device: Where the networks are.
    """

    def __init__(
        self, networks: Networks, spec: ModelSpec, config: RefineConfig, device: torch.device
    ) -> None:
        self.networks = networks
        self.spec = spec
        self.config = config
        self.device = device
        mode = "resident" if config.memory == "auto" else config.memory
        self.placement = Placement(networks, device, mode)
        self.passes = 0
        """Passes through the DiT of the last sampling, one of twice the batch counted twice."""
        if config.compile and mode != "streamed":
            assert networks.dit is not None
            compile_blocks(networks.dit, device)

    @classmethod
    def load(cls, source: WeightSource, config: RefineConfig, device: torch.device) -> Refiner:
        """Returns a refiner with the weights of a checkpoint, in the dtype of the settings.

        `refine.memory` says where the weights wait; `auto`, which a plan resolves, is `resident`.

        Raises:
            CheckpointError: The weights do not fit the model.
            UsageError: They are quantised, and the mode is `int8`; or the backend cannot run them.
        """
        if (backend := choose_backend(source, config, device)) != "torch":
            return cls(load_graphs(source, backend), model_spec(source.model), config, device)
        if (quantised := source.quantised) is not None:
            refuse_int8(config, quantised)
        dtype = compute_dtype(config.dtype)
        home = device if config.memory in ("auto", "resident") else torch.device("cpu")
        parts = model_spec(source.model).inference_parts(encodes=config.encodes)
        networks = load_networks(source, vae_parts=parts, device=home, dtype=dtype)
        if config.memory == "int8":
            assert networks.dit is not None
            quantise_dit(networks.dit, device)
        return cls(networks, model_spec(source.model), config, device)

    def with_config(self, config: RefineConfig) -> Refiner:
        """Returns a refiner with other settings and the same networks, where they are."""
        other = Refiner(self.networks, self.spec, replace(config, compile=False), self.device)
        other.config, other.placement = config, self.placement
        return other

    def refine(
        self,
        mesh: Mesh,
        rgba: np.ndarray | None,
        seed: int,
        progress: Progress = lambda stage, done, total: None,
    ) -> Refined:
        """Returns the refined mesh.

        Args:
            mesh: Coarse mesh in any frame.
            rgba: Reference image, uint8 [H, W, 4]; None samples without image and guidance.
            seed: Of everything random.
            progress: Called as the stages advance.

        Raises:
            MeshError: The decoded field has no surface.
        """
        prepared = self.prepare(mesh, seed)
        return self.finish(prepared, self.evaluate(prepared, rgba, progress))

    def prepare(self, mesh: Mesh, seed: int, up: Up = "y") -> Prepared:
        """Returns the mesh in the normalised frame and its voxels; needs no network.

        Args:
            mesh: Coarse mesh in any frame.
            seed: Of everything random.
            up: Axis of its frame that points up.

        Raises:
            MeshError: The mesh is empty or has no extent.
        """
        return prepare_mesh(mesh, seed, self.spec, self.config, up)

    @torch.inference_mode()
    def evaluate(
        self,
        prepared: Prepared,
        rgba: np.ndarray | None,
        progress: Progress = lambda stage, done, total: None,
    ) -> BrickGrid:
        """Returns the refined field; this is all that the networks do.

        Raises:
            MeshError: The field has no surface.
        """
        seconds, tokens = prepared.seconds, prepared.voxels.shape[1]
        with timed(seconds, "condition"), memory_errors("condition", "--device cpu"):
            context, lengths = self.condition(rgba)
            further = [] if rgba is None else prepared.asked[1:]
            more = [self._seen(prepared.views[view].rgba) for view in further]
            cameras: Tensor | None = None
            if self.config.view_mode == "trained" and context is not None and prepared.views:
                asked = [prepared.views[view] for view in prepared.asked]
                context, lengths, cameras = joined([Seen(context, lengths), *more], asked)
                more = []
        with timed(seconds, "sample"), memory_errors("sample", f"--tokens {max(tokens // 2, 1)}"):
            start, hold = self.course(prepared)
            latents = self.sample(
                *(prepared.voxels, start, context, lengths, progress),
                more=more,
                cameras=cameras,
                shares=prepared.shares,
                hold=hold,
            )
            prepared.passes = self.passes
        coarser = f"--grid-resolution {max(self.config.grid_resolution // 2, 8)}"
        with timed(seconds, "decode"), memory_errors("decode", coarser):
            return self.decode(latents, progress)

    def finish(self, prepared: Prepared, grid: BrickGrid) -> Refined:
        """Returns the cleaned surface of a field in its frame; needs no network.

        Raises:
            MeshError: The field does not change its sign.
        """
        coarser = f"--grid-resolution {max(self.config.grid_resolution // 2, 8)}"
        with timed(prepared.seconds, "mesh"), memory_errors("mesh", coarser):
            voxels = prepared.voxels[0].cpu().numpy()
            tokens = Tokens(voxels, self.spec.vae.voxel_resolution)
            cleaned = clean(surface_mesh(grid), self.config, tokens)
            if prepared.region is not None:
                cleaned = stitched(cleaned, prepared.mesh, prepared.region)

            def place(mesh: Mesh) -> Mesh:
                if self.config.frame == "normalised":
                    return in_own_places(mesh)
                # In the precision of the frame it is written in.
                return in_own_places(Mesh(prepared.frame.to_source(mesh.vertices), mesh.faces))

            return Refined(
                mesh=place(cleaned.mesh),
                topology=cleaned.topology,
                tokens=prepared.voxels.shape[1],
                passes=prepared.passes,
                memory=self.placement.mode,
                backend=backend_record(self.networks),
                repaired=cleaned.repaired,
                floaters=cleaned.floaters,
                dropped_faces=cleaned.dropped_faces,
                full=cleaned.full and place(cleaned.full),
                seconds=prepared.seconds,
            )

    def condition(self, rgba: np.ndarray | None) -> tuple[Tensor | None, list[int] | None]:
        """Returns the image tokens [1, L, X] and their number, or twice None without an image."""
        if rgba is None:
            return None, None
        image, mask = preprocess_inference(rgba, self.spec.image_size)
        assert self.networks.conditioner is not None
        conditioner, params = self.networks.conditioner, self.spec.conditioner
        # In a validation the networks belong to a training, which has chosen for itself.
        with kept_backends(conditioner), self.placement.using("conditioner"):
            self._choose_attention(conditioner, conditioner_shapes(params, 1, image.shape[-1]))
            with autocast(self.device, self.config.dtype):
                return conditioner.encode(upload(image[None], self.device), mask[None])

    def _seen(self, rgba: np.ndarray) -> Seen:
        context, lengths = self.condition(rgba)
        assert context is not None
        return Seen(context, lengths)

    def start(self, prepared: Prepared) -> Tensor:  # [1, M, C] fp32
        """Returns where the flow starts: seeded noise, or the latents of the coarse mesh."""
        return self.course(prepared).start

    def course(self, prepared: Prepared) -> Course:
        """Returns where the flow starts, and what holds it where the mesh may not change."""
        noise: Tensor | None = None
        latents = torch.empty(0)
        if self.config.encodes or self.spec.start == "coarse":
            latents = self.encode(prepared)
        if self.spec.start == "noise":
            generator = torch.Generator().manual_seed(prepared.seed + 1)
            shape = 1, prepared.voxels.shape[1], self.spec.dit.in_channels
            noise = upload(torch.randn(shape, generator=generator), self.device)
        weights = None if prepared.weights is None else upload(prepared.weights, self.device)
        return course(noise, latents, weights, self.config.strength)

    def encode(self, prepared: Prepared) -> Tensor:  # [1, M, C] fp32
        """Returns the latents of the coarse mesh at its voxels."""
        vae, params = self.networks.vae, self.spec.vae
        assert vae is not None
        surface = encoder_surface(prepared.mesh, params, prepared.seed)
        centres = voxel_centres(prepared.voxels, params.voxel_resolution)
        with self.placement.using("vae"), autocast(self.device, self.config.dtype):
            found = vae.encode(upload(surface, self.device), upload(centres, self.device))
        return found.mean * params.scale_factor

    def sample(
        self,
        voxels: Tensor,  # [1, M, 3]
        start: Tensor,  # [1, M, C], from `start`
        context: Tensor | None,  # [1, L, X]
        lengths: list[int] | None,
        progress: Progress,
        on_step: Callable[[float, Tensor], None] = lambda t, x: None,
        *,
        more: Sequence[Seen] = (),
        cameras: Tensor | None = None,  # [1, L, F]
        shares: Tensor | None = None,  # [K, M]
        hold: Hold | None = None,
    ) -> Tensor:  # [1, M, C] fp32
        """Integrates the flow from its start to latents; without context, unguided.

        `on_step` gets t and x at the start and after each step. `more` are views beside the first,
        with the shares of all K in each token; `hold` is that of the `Course`. `cameras` tell of
        each image token from where it was seen (`RefineDiT.seen_from`).
        """
        dit = self.networks.dit
        assert dit is not None
        config, params, tokens = self.config, self.spec.dit, voxels.shape[1]
        seen_tokens = 0 if context is None else context.shape[1]
        with kept_backends(dit), self.placement.using("dit") as stream:
            shapes = dit_shapes(params, 1, tokens, seen_tokens)
            self.attention = self._choose_attention(dit, shapes)
            if cameras is not None:
                assert context is not None
                with autocast(self.device, config.dtype):
                    context = dit.seen_from(context, cameras)
            views = [] if context is None else [Seen(context, lengths), *more]
            if views and config.cache_context:
                with autocast(self.device, config.dtype):
                    views = [self._keys_of(dit, view, stream) for view in views]
            places = upload(voxels, self.device)
            velocity = self._velocity(dit, views, shares, places)
            times, x = times_of(self.spec, config), start

            def callback(step: int, steps: int, x: Tensor) -> None:
                progress("sample", step, steps)
                on_step(float(times[step]), x)

            on_step(0.0, x)
            guided = velocity.guided()
            x = sample(guided, x, times, solver=config.solver, callback=callback, hold=hold)
            self.passes = velocity.evaluations
            return x

    @staticmethod
    def _keys_of(dit: RefineDiT, seen: Seen, stream: BlockStream | None) -> Seen:
        assert isinstance(seen.context, Tensor)
        blocks = None if stream is None else stream.each()
        return Seen(dit.context_keys(seen.context, blocks), seen.lengths)

    def _velocity(
        self, dit: RefineDiT, views: Sequence[Seen], shares: Tensor | None, places: Tensor
    ) -> NetworkVelocity:
        if len(views) > 1:
            assert shares is not None
            share, in_turn = upload(shares, self.device), self.config.view_mode == "stochastic"
            return ViewsVelocity(dit, views, share, in_turn, places, self.config, self.device)
        context, lengths = views[0] if views else (None, None)
        return NetworkVelocity(dit, context, lengths, places, self.config, self.device)

    @property
    def levels(self) -> list[int]:
        """Cells an axis of the grids that a field is decoded on, coarse to fine."""
        smallest = coarsest_cells(self.spec.vae.truncation)
        return level_cells(self.config.grid_resolution, smallest)

    def decode(self, latents: Tensor, progress: Progress) -> BrickGrid:
        """Evaluates the field of latents [1, M, C] near its surface."""
        vae = self.networks.vae
        assert vae is not None
        with self.placement.using("vae"):
            # A chunk's size is known only once its keys are; the back ends differ as for any.
            shapes = decoder_shapes(self.spec.vae, latents.shape[1], latents.shape[1])
            self._choose_attention(vae, shapes)
            with autocast(self.device, self.config.dtype):
                query = vae.field(vae.decode(latents / self.spec.vae.scale_factor))

            def ask(points: Tensor) -> Tensor:
                with autocast(self.device, self.config.dtype):
                    return in_halves(query, points)

            return decode_field(
                ask,
                self.config.grid_resolution,
                cells=self.levels,
                chunk_size=min(self.config.chunk_size, fitting_chunk(query, None, self.device)),
                device=self.device,
                progress=lambda level, done, total: progress(f"decode {level}", done, total),
            )

    def _choose_attention(self, network: nn.Module, shapes: list[AttentionShape]) -> str:
        """Lets a network use the back end of the settings, or the fastest for what it will see."""
        weight = next((p.dtype for p in network.parameters()), torch.float32)  # graphs have none
        half = torch.bfloat16 if self.config.dtype == "bf16" else weight
        return use_backend(network, self.config.attention, shapes, device=self.device, dtype=half)


def in_halves(query: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:  # [Q, 3] -> [Q]
    """Evaluates a field at points; where memory runs out, in halves, down to `SMALLEST_CHUNK`."""
    try:
        return query(points)
    except (MemoryError, RuntimeError) as error:
        if len(points) <= SMALLEST_CHUNK or not is_out_of_memory(error):
            raise
    empty_cache(points.device)
    return torch.cat([in_halves(query, half) for half in points.chunk(2)])
