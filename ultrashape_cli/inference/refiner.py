"""Coarse mesh and reference image to refined mesh (spec sections 2 to 7).

One seed covers the surface samples, the voxel subset and the noise, all drawn on the CPU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.data.images import preprocess_inference
from ultrashape_cli.devices import autocast
from ultrashape_cli.diffusion.sampler import sample, schedule
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import Topology
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame, Up, fit_frame
from ultrashape_cli.geometry.surface import sample_faces, sample_sharp_edges
from ultrashape_cli.inference.cleanup import clean, surface_mesh
from ultrashape_cli.inference.decode import SMALLEST_CHUNK, decode_field, fitting_chunk
from ultrashape_cli.inference.memory import is_out_of_memory, memory_errors
from ultrashape_cli.inference.velocity import NetworkVelocity
from ultrashape_cli.models.attention_choice import AttentionShape, use_backend
from ultrashape_cli.models.dit import ContextKeys
from ultrashape_cli.models.registry import ModelSpec, Networks, model_spec
from ultrashape_cli.models.sources import WeightSource, load_networks
from ultrashape_cli.models.voxels import occupied_voxels, select_voxels

Progress = Callable[[str, int, int], None]
"""Stage, done, total."""


@dataclass(slots=True)
class Prepared:
    """A coarse mesh before the networks see it."""

    frame: Frame
    mesh: Mesh
    """In the normalised frame."""
    voxels: Tensor  # [1, M, 3]
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Refined:
    """The refined mesh and how it came about."""

    mesh: Mesh
    """In the frame that the settings ask for."""
    topology: Topology
    tokens: int
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
        networks: On `device`, in eval mode; the autoencoder needs its decoder only, and
            unconditional refinement no conditioner.
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

    @classmethod
    def load(cls, source: WeightSource, config: RefineConfig, device: torch.device) -> Refiner:
        """Returns a refiner with the weights of a checkpoint, in the dtype of the settings.

        Raises:
            CheckpointError: The weights do not fit the model.
        """
        dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
        networks = load_networks(source, vae_parts=("decoder",), device=device, dtype=dtype)
        return cls(networks, model_spec(source.model), config, device)

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
        seconds: dict[str, float] = {}
        with _timed(seconds, "voxels"):
            frame = fit_frame(mesh.vertices, up=up)
            placed = Mesh(frame.to_normalised(mesh.vertices), mesh.faces)
            voxels = self.voxelise(placed, seed)
        return Prepared(frame, placed, voxels, seed, seconds)

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
        with _timed(seconds, "condition"), memory_errors("condition", "--device cpu"):
            context, lengths = self.condition(rgba)
        with _timed(seconds, "sample"), memory_errors("sample", f"--tokens {max(tokens // 2, 1)}"):
            latents = self.sample(prepared.voxels, context, lengths, prepared.seed, progress)
        coarser = f"--grid-resolution {max(self.config.grid_resolution // 2, 8)}"
        with _timed(seconds, "decode"), memory_errors("decode", coarser):
            return self.decode(latents, progress)

    def finish(self, prepared: Prepared, grid: BrickGrid) -> Refined:
        """Returns the cleaned surface of a field in its frame; needs no network.

        Raises:
            MeshError: The field does not change its sign.
        """
        coarser = f"--grid-resolution {max(self.config.grid_resolution // 2, 8)}"
        with _timed(prepared.seconds, "mesh"), memory_errors("mesh", coarser):
            cleaned = clean(surface_mesh(grid), self.config)

            def place(mesh: Mesh) -> Mesh:
                if self.config.frame == "normalised":
                    return mesh
                return Mesh(prepared.frame.to_source(mesh.vertices), mesh.faces)

            return Refined(
                mesh=place(cleaned.mesh),
                topology=cleaned.topology,
                tokens=prepared.voxels.shape[1],
                repaired=cleaned.repaired,
                floaters=cleaned.floaters,
                dropped_faces=cleaned.dropped_faces,
                full=cleaned.full and place(cleaned.full),
                seconds=prepared.seconds,
            )

    def voxelise(self, mesh: Mesh, seed: int) -> Tensor:  # [1, M, 3]
        """Returns the voxels the coarse surface occupies, at most `tokens` of them."""
        rng = np.random.default_rng(seed)
        count = self.config.surface_points
        points = sample_faces(mesh, count // 2, rng)[0]
        sharp = sample_sharp_edges(mesh, count - count // 2, rng)
        if sharp is not None:
            points = np.concatenate([points, sharp[0]])
        occupied = occupied_voxels(torch.from_numpy(points).float(), self.spec.vae.voxel_resolution)
        generator = torch.Generator().manual_seed(seed)
        return select_voxels([occupied], self.config.tokens, generator)

    def condition(self, rgba: np.ndarray | None) -> tuple[Tensor | None, list[int] | None]:
        """Returns the image tokens [1, L, X] and their number, or twice None without an image."""
        if rgba is None:
            return None, None
        image, mask = preprocess_inference(rgba, self.spec.image_size)
        assert self.networks.conditioner is not None
        with autocast(self.device, self.config.dtype):
            return self.networks.conditioner.encode(
                image[None].to(self.device), mask[None].to(self.device)
            )

    def sample(
        self,
        voxels: Tensor,  # [1, M, 3]
        context: Tensor | None,  # [1, L, X]
        lengths: list[int] | None,
        seed: int,
        progress: Progress,
    ) -> Tensor:  # [1, M, C] fp32
        """Integrates the flow from seeded noise to latents; without context, unguided."""
        dit = self.networks.dit
        assert dit is not None
        generator = torch.Generator().manual_seed(seed + 1)
        noise = torch.randn(1, voxels.shape[1], self.spec.dit.in_channels, generator=generator)
        config, params, tokens = self.config, self.spec.dit, voxels.shape[1] + 1
        use_backend(
            dit,
            config.attention,
            [AttentionShape(1, params.num_heads, tokens, tokens, params.width // params.num_heads)],
            device=self.device,
            dtype=dit.x_embedder.weight.dtype,
        )
        seen: Tensor | ContextKeys | None = context
        if context is not None and config.cache_context:
            with autocast(self.device, config.dtype):
                seen = dit.context_keys(context)
        velocity = NetworkVelocity(dit, seen, lengths, voxels.to(self.device), config, self.device)
        return sample(
            velocity.guided(),
            noise.to(self.device),
            schedule(config.steps),
            solver=config.solver,
            callback=lambda step, steps, _: progress("sample", step, steps),
        )

    def decode(self, latents: Tensor, progress: Progress) -> BrickGrid:
        """Evaluates the field of latents [1, M, C] near its surface."""
        vae = self.networks.vae
        assert vae is not None
        with autocast(self.device, self.config.dtype):
            features = vae.decode(latents / self.spec.vae.scale_factor)
            query = vae.field(features)

            limit = self.config.max_memory_gib or None

            def ask(points: Tensor) -> Tensor:
                with autocast(self.device, self.config.dtype):
                    return in_halves(query, points)

            return decode_field(
                ask,
                self.config.grid_resolution,
                chunk_size=min(self.config.chunk_size, fitting_chunk(query, limit, self.device)),
                device=self.device,
                progress=lambda level, done, total: progress(f"decode {level}", done, total),
            )


def in_halves(query: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:  # [Q, 3] -> [Q]
    """Evaluates a field at points; where memory runs out, in halves, down to `SMALLEST_CHUNK`."""
    try:
        return query(points)
    except (MemoryError, RuntimeError) as error:
        if len(points) <= SMALLEST_CHUNK or not is_out_of_memory(error):
            raise
    if points.is_cuda:
        torch.cuda.empty_cache()
    return torch.cat([in_halves(query, half) for half in points.chunk(2)])


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 3)
