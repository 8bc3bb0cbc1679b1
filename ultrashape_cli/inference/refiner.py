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
from ultrashape_cli.diffusion.sampler import guided_velocity, sample, schedule
from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.bricks import BrickGrid
from ultrashape_cli.geometry.check import Topology, face_components, topology
from ultrashape_cli.geometry.decimate import decimate
from ultrashape_cli.geometry.isosurface import extract_isosurface
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.geometry.surface import sample_faces, sample_sharp_edges
from ultrashape_cli.geometry.watertight import make_watertight
from ultrashape_cli.inference.decode import decode_field, fitting_chunk, place_vertices
from ultrashape_cli.models.attention_choice import AttentionShape, use_backend
from ultrashape_cli.models.registry import ModelSpec, Networks, model_spec
from ultrashape_cli.models.sources import WeightSource, load_networks
from ultrashape_cli.models.voxels import occupied_voxels, select_voxels

FLOATER_RATIO = 0.005
"""Components with a smaller share of the largest one's faces are floaters (spec 2.5)."""
OUTSIDE = -1.0
"""Field value of the grid's border, so that every surface closes inside the cube."""

Progress = Callable[[str, int, int], None]
"""Stage, done, total."""


@dataclass(slots=True)
class Refined:
    """The refined mesh in the frame of the input, and how it came about."""

    mesh: Mesh
    topology: Topology
    tokens: int
    repaired: bool
    """The field left its grid open and the watertight step closed it."""
    floaters: int
    """Components removed."""
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

    @torch.inference_mode()
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
        seconds: dict[str, float] = {}
        frame = fit_frame(mesh.vertices)
        placed = Mesh(frame.to_normalised(mesh.vertices), mesh.faces)
        with _timed(seconds, "voxels"):
            voxels = self.voxelise(placed, seed)
        with _timed(seconds, "condition"):
            context, lengths = self.condition(rgba)
        with _timed(seconds, "sample"):
            latents = self.sample(voxels, context, lengths, seed, progress)
        with _timed(seconds, "decode"):
            grid = self.decode(latents, progress)
        with _timed(seconds, "mesh"):
            raw = surface_mesh(grid)
            kept, floaters = remove_floaters(raw)
            state = topology(kept)
            repaired = not state.watertight
            if repaired:
                kept = make_watertight(kept, max(64, min(self.config.grid_resolution, 1024))).mesh
                state = topology(kept)
            if self.config.faces:
                kept = decimate(kept, self.config.faces)
                state = topology(kept)
            out = Mesh(frame.to_source(kept.vertices), kept.faces)
        return Refined(out, state, voxels.shape[1], repaired, floaters, seconds)

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
        placed = voxels.to(self.device)
        params, tokens = self.spec.dit, voxels.shape[1] + 1
        use_backend(
            dit,
            self.config.attention,
            [AttentionShape(1, params.num_heads, tokens, tokens, params.width // params.num_heads)],
            device=self.device,
            dtype=dit.x_embedder.weight.dtype,
        )

        def conditional(x: Tensor, t: Tensor) -> Tensor:
            with autocast(self.device, self.config.dtype):
                return dit(x, t, context, placed, lengths).velocity

        def unconditional(x: Tensor, t: Tensor) -> Tensor:
            with autocast(self.device, self.config.dtype):
                return dit(x, t, None, placed).velocity

        scale = 0.0 if context is None else self.config.guidance_scale
        velocity = guided_velocity(conditional, unconditional, scale if scale > 0 else -1.0)
        return sample(
            velocity,
            noise.to(self.device),
            schedule(self.config.steps),
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
                    return query(points)

            return decode_field(
                ask,
                self.config.grid_resolution,
                chunk_size=min(self.config.chunk_size, fitting_chunk(query, limit, self.device)),
                device=self.device,
                progress=lambda level, done, total: progress(f"decode {level}", done, total),
            )


def surface_mesh(grid: BrickGrid) -> Mesh:
    """Returns the surface of a field (positive inside) on the cube [-1, 1]^3.

    Nodes on the border of the cube count as outside, so that the surface closes there.

    Raises:
        MeshError: The field does not change its sign.
    """
    nodes = grid.nodes(np.isfinite(grid.values))
    border = nodes[((nodes == 0) | (nodes == grid.num_cells)).any(1)]
    grid.set(border, np.minimum(grid.get(border), OUTSIDE))
    vertices, faces = extract_isosurface(grid, inside="positive")
    if len(faces) == 0:
        raise MeshError(
            "the decoded field has no surface",
            hint="train longer, or check that the checkpoint's VAE is trained",
        )
    return Mesh(place_vertices(vertices, grid.num_cells), faces)


def remove_floaters(mesh: Mesh, ratio: float = FLOATER_RATIO) -> tuple[Mesh, int]:
    """Drops components with fewer than `ratio` of the largest one's faces; returns how many."""
    labels = face_components(mesh.faces, len(mesh.vertices))
    sizes = np.bincount(labels)
    keep = sizes >= ratio * sizes.max()
    return mesh.with_faces(mesh.faces[keep[labels]]), int((~keep & (sizes > 0)).sum())


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 3)
