"""A mesh encoded by the autoencoder and decoded again: the ceiling of what refinement can reach."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.surface import curvature_weights, sample_faces
from ultrashape_cli.inference.cleanup import surface_mesh
from ultrashape_cli.inference.decode import decode_field, fitting_chunk
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.models.voxels import occupied_voxels, select_voxels, voxel_centres

_SURFACE_POINTS = 81_920
_DECODE_GIB = 1.0


@torch.inference_mode()
def reconstruct(
    vae: ShapeVAE, mesh: Mesh, num_tokens: int, resolution: int, seed: int
) -> Mesh | None:
    """Returns the mesh after encoding and decoding, or None where the field has no surface.

    Args:
        vae: With encoder and decoder.
        mesh: Watertight, in the normalised frame.
        num_tokens: Most latent tokens.
        resolution: Cells along one side of the decoded field.
        seed: Of samples and voxels.
    """
    params = vae.params
    device = next(vae.parameters()).device
    limit = params.num_latents * params.downsample_ratio
    surface = _surface(mesh, min(_SURFACE_POINTS, limit), seed)
    generator = torch.Generator().manual_seed(seed)
    occupied = occupied_voxels(surface[:, :3], params.voxel_resolution)
    tokens = min(num_tokens, params.num_latents)
    voxels = select_voxels([occupied], tokens, generator)
    queries = voxel_centres(voxels, params.voxel_resolution)
    posterior = vae.encode(surface[None].to(device), queries.to(device), generator)
    field = vae.field(vae.decode(posterior.mean))
    chunk = fitting_chunk(field, _DECODE_GIB, device)
    try:
        return surface_mesh(decode_field(field, resolution, chunk_size=chunk, device=device))
    except MeshError:
        return None


def _surface(mesh: Mesh, count: int, seed: int) -> Tensor:  # [N, 7]
    """Returns points, normals and the sharp flag, half of them weighted by curvature."""
    rng = np.random.default_rng(seed)
    parts = []
    for flag, weights in ((0.0, None), (1.0, curvature_weights(mesh))):
        points, normals, _ = sample_faces(mesh, count // 2, rng, weights)
        parts.append(np.concatenate([points, normals, np.full((len(points), 1), flag)], axis=1))
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))
