"""How far exported parts are from the networks, on shapes and images as a refinement has them.

Random numbers would prove little: routers of experts and attention see other values in use. So
every part gets what the parts before it made of a shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

import torch
from torch import Tensor, nn

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.images import preprocess_inference
from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.exporting.graphs import Graph, eager_graph
from ultrashape_cli.inference.encoding import encoder_surface
from ultrashape_cli.inference.prepared import prepare_mesh
from ultrashape_cli.models.conditioner import pack_tokens
from ultrashape_cli.models.registry import ModelSpec
from ultrashape_cli.models.voxels import voxel_centres
from ultrashape_cli.rendering.portrait import portraits
from ultrashape_cli.synthetic.coarsen import coarsen
from ultrashape_cli.synthetic.figurines import make_figurine

SIZES = (128, 512, 2048)
"""Most latent tokens of the three shapes; a shape may occupy fewer voxels."""
TIMES = (0.0, 0.35, 0.8)
"""Where on the way of the flow each is."""
LIMIT = 1e-4
"""Error above which an export has failed, relative to the largest value."""

Inputs = tuple[Tensor, ...]


class Cases:
    """Three shapes on their way through the parts of a model.

    Args:
        spec: The model.
        sizes: Most latent tokens of each.
    """

    def __init__(self, spec: ModelSpec, sizes: Sequence[int] = SIZES) -> None:
        self.spec = spec
        config: RefineConfig = resolve(model=spec.name, environ={}).config.refine
        self.shapes = []
        for seed, size in enumerate(sizes):
            shape = make_figurine(seed, resolution=64)
            image = portraits(shape, None, size=spec.image_size)[0]
            settings = RefineConfig(tokens=size, surface_points=config.surface_points)
            self.shapes.append((prepare_mesh(coarsen(shape), seed, spec, settings), image))
        self.context: list[Tensor] = []
        self.latents: list[Tensor] = []
        self.keys: list[Inputs] = []

    @property
    def tokens(self) -> list[int]:
        """Latent tokens of each shape."""
        return [prepared.voxels.shape[1] for prepared, _ in self.shapes]

    def inputs(self, name: str) -> list[Inputs]:
        """Returns what a part gets, after `follow` has had the parts before it."""
        return [getattr(self, f"_{name}")(index) for index in range(len(self.shapes))]

    def follow(self, name: str, part: nn.Module) -> tuple[list[Inputs], list[Inputs]]:
        """Returns what a part gets and what it makes of it, and goes on from there."""
        graph = eager_graph(part)
        with torch.no_grad():
            if name == "dit":
                # From the start to where a step would be.
                given = []
                for (x, _, *rest), time in zip(self.inputs(name), cycle(TIMES), strict=False):
                    (velocity,) = graph(x, torch.zeros(1), *rest)
                    given.append((x + time * velocity, torch.tensor([time]), *rest))
                # The pass without the image.
                x, t, context, voxels = given[-1]
                given.append((x, t, torch.zeros_like(context[:, :1]), voxels))
            else:
                given = self.inputs(name)
            made = [graph(*one) for one in given]
        self._keep(name, given, made)
        return given, made

    def _keep(self, name: str, given: list[Inputs], made: list[Inputs]) -> None:
        if name == "conditioner":
            self.context = [pack_tokens(*one)[0] for one in made]
        elif name == "encoder":
            self.latents = [mean * self.spec.vae.scale_factor for (mean,) in made]
        elif name == "dit":
            self.latents = [
                one[0] + (1 - time) * out[0]
                for one, out, time in zip(
                    given[: len(self.shapes)], made, cycle(TIMES), strict=False
                )
            ]
        elif name == "decoder":
            self.keys = made

    def _conditioner(self, index: int) -> Inputs:
        image, mask = preprocess_inference(self.shapes[index][1], self.spec.image_size)
        return image[None], mask[None].float()

    def _encoder(self, index: int) -> Inputs:
        prepared, params = self.shapes[index][0], self.spec.vae
        surface = encoder_surface(prepared.mesh, params, prepared.seed)
        return surface, voxel_centres(prepared.voxels, params.voxel_resolution)

    def _dit(self, index: int) -> Inputs:
        voxels = self.shapes[index][0].voxels
        if self.spec.start == "noise":
            generator = torch.Generator().manual_seed(index)
            start = torch.randn(
                (1, voxels.shape[1], self.spec.dit.in_channels), generator=generator
            )
        else:
            start = self.latents[index]
        return start, torch.zeros(1), self.context[index], voxels

    def _decoder(self, index: int) -> Inputs:
        return (self.latents[index] / self.spec.vae.scale_factor,)

    def _query(self, index: int) -> Inputs:
        # About the surface, four to a voxel, as on the finer grids.
        params = self.spec.vae
        centres = voxel_centres(self.shapes[index][0].voxels, params.voxel_resolution)
        generator = torch.Generator().manual_seed(index)
        moved = [
            centres + (torch.rand(centres.shape, generator=generator) - 0.5) * 4 * params.truncation
            for _ in range(4)
        ]
        return torch.cat(moved, dim=1), *self.keys[index]


def errors_of(graph: Graph, given: list[Inputs], made: list[Inputs]) -> list[float]:
    """Returns the error of a graph for each of its inputs, relative to the largest value.

    Args:
        graph: A part as another backend runs it.
        given: Inputs.
        made: What the networks made of them.
    """
    found = []
    for inputs, expected in zip(given, made, strict=True):
        pairs = zip(graph(*inputs), expected, strict=True)
        found.append(max(relative(ours, theirs) for ours, theirs in pairs))
    return found


def relative(ours: Tensor, theirs: Tensor) -> float:
    """Returns the largest difference over the largest value, infinite for other shapes or NaN."""
    if ours.shape != theirs.shape or not ours.isfinite().all():
        return float("inf")
    gap = (ours.double() - theirs.double()).abs().max().item()
    return gap / max(theirs.double().abs().max().item(), 1e-30)


def require_parity(errors: dict[str, list[float]], limit: float = LIMIT) -> None:
    """Raises CheckpointError where a part is further from the network than the limit."""
    for part, found in errors.items():
        if all(error <= limit for error in found):
            continue
        raise CheckpointError(
            f"the exported `{part}` is off by {max(found):.1e} of its largest value, more than "
            f"{limit:g}",
            hint="report it with this line and the versions of torch, onnx and onnxruntime; "
            "nothing was written",
        )


def sizes_of(
    given: list[Inputs], names: Sequence[str], dynamic: dict[str, dict[int, str]]
) -> list[dict[str, int]]:
    """Returns the lengths of the axes of any length, for each of a part's inputs."""
    return [
        {
            length: value.shape[axis]
            for name, value in zip(names, inputs, strict=True)
            for axis, length in dynamic.get(name, {}).items()
        }
        for inputs in given
    ]
