"""A coarse mesh in the frame of the networks, before they see it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.errors import UsageError
from ultrashape_cli.geometry.front import front_axis
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import Frame, Up, fit_frame
from ultrashape_cli.geometry.surface import sample_faces, sample_sharp_edges
from ultrashape_cli.inference.region import Region, parse_region, place_region, require_tokens
from ultrashape_cli.inference.stitch import require_solid
from ultrashape_cli.inference.view_shares import facing, shares, useful
from ultrashape_cli.inference.views import View
from ultrashape_cli.models.registry import ModelSpec
from ultrashape_cli.models.voxels import occupied_voxels, select_voxels, voxel_centres


@dataclass(slots=True)
class Prepared:
    """A coarse mesh before the networks see it. Legend: K views, M tokens."""

    frame: Frame
    mesh: Mesh
    """In the normalised frame."""
    voxels: Tensor  # [1, M, 3]
    seed: int
    seconds: dict[str, float] = field(default_factory=dict)
    passes: int = 0
    """Passes through the DiT, once it has been sampled."""
    region: Region | None = None
    """What may change; None is all."""
    weights: Tensor | None = None  # [M]
    """How much each token may change."""
    views: list[View] = field(default_factory=list)
    """References and where they were seen from, the one that `evaluate` is given first."""
    asked: list[int] = field(default_factory=lambda: [0])
    """Which of the views the network sees."""
    shares: Tensor | None = None  # [asked, M]
    """Of each view that is asked in each token; None where one speaks for all."""

    def share(self, view: int) -> float:
        """Returns the mean share of the tokens that listen to a view; 0 where it is not asked."""
        if view not in self.asked:
            return 0.0
        return 1.0 if self.shares is None else float(self.shares[self.asked.index(view)].mean())


def prepare_mesh(
    mesh: Mesh, seed: int, spec: ModelSpec, config: RefineConfig, up: Up = "y"
) -> Prepared:
    """Returns a coarse mesh as `Refiner.prepare` does, before there are weights.

    Raises:
        MeshError: It is empty or has no extent, or a region does not go with it.
        UsageError: The region is none.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "voxels"):
        frame = frame_of(mesh, config, up)
        placed = Mesh(frame.to_normalised(mesh.vertices), mesh.faces)
        region = None
        if config.region:
            placed, region = _limited(placed, frame, config)
        prepared = Prepared(frame, placed, torch.empty(0), seed, seconds, region=region)
        _draw(prepared, spec, config)
    return prepared


def frame_of(mesh: Mesh, config: RefineConfig, up: Up) -> Frame:
    """Returns the normalised frame of a coarse mesh, its front where the settings say.

    Raises:
        MeshError: It is empty or has no extent.
    """
    return fit_frame(mesh, up=up, front=front_axis(config.front, mesh, up))


def redrawn(prepared: Prepared, seed: int, spec: ModelSpec, config: RefineConfig) -> Prepared:
    """Returns the same mesh, region and references with what another seed or setting draws.

    The settings may differ in what the networks do (tokens, feather, view mode), not in what they
    are given.
    """
    other = replace(prepared, seed=seed, seconds={}, passes=0)
    with timed(other.seconds, "voxels"):
        _draw(other, spec, config)
    if other.views:
        add_views(other, other.views, spec, config)
    return other


def _limited(mesh: Mesh, frame: Frame, config: RefineConfig) -> tuple[Mesh, Region]:
    """Returns the solid that a mesh bounds, and the region of the settings."""
    if config.faces:
        raise UsageError(
            "refine.faces reduces the whole mesh, and a region keeps all beside it as it is",
            hint="--set refine.faces=0, and reduce afterwards",
        )
    return require_solid(mesh), place_region(parse_region(config.region), frame)


def _draw(prepared: Prepared, spec: ModelSpec, config: RefineConfig) -> None:
    """Adds the voxels of its seed, and how much each of them may change."""
    prepared.voxels = voxelise(prepared.mesh, prepared.seed, spec, config)
    if prepared.region is None:
        return
    resolution = spec.vae.voxel_resolution
    prepared.region = replace(prepared.region, feather=config.region_feather * 2 / resolution)
    centres = voxel_centres(prepared.voxels[0], resolution).double().numpy()
    weights = prepared.region.weight(centres)
    require_tokens(weights, config.region)
    prepared.weights = torch.from_numpy(weights).float()


def add_views(prepared: Prepared, views: list[View], spec: ModelSpec, config: RefineConfig) -> None:
    """Adds references, and the share in every token of those that add something.

    Weights that were trained with several decide themselves what of which a token listens to.
    """
    prepared.views = views
    if len(views) == 1:
        return
    voxels, resolution = prepared.voxels[0].numpy(), spec.vae.voxel_resolution
    directions = [(view.azimuth, view.elevation) for view in views]
    seen = facing(prepared.mesh, voxels, resolution, directions)
    prepared.asked = useful(seen, config.max_views)
    prepared.shares = None
    if config.view_mode != "trained":
        prepared.shares = torch.from_numpy(shares(seen[prepared.asked], config.view_mode))


def voxelise(mesh: Mesh, seed: int, spec: ModelSpec, config: RefineConfig) -> Tensor:  # [1, M, 3]
    """Returns the voxels that a surface in the normalised frame occupies, at most `tokens`."""
    rng = np.random.default_rng(seed)
    count = config.surface_points
    points = sample_faces(mesh, count // 2, rng)[0]
    sharp = sample_sharp_edges(mesh, count - count // 2, rng)
    if sharp is not None:
        points = np.concatenate([points, sharp[0]])
    occupied = occupied_voxels(torch.from_numpy(points).float(), spec.vae.voxel_resolution)
    generator = torch.Generator().manual_seed(seed)
    return select_voxels([occupied], config.tokens, generator)


@contextlib.contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Notes how long a stage takes."""
    started = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - started, 3)
