"""The VAE's round trip: what an asset looks like after it was encoded and decoded.

A shape the VAE cannot reproduce (fragments, noise, sheets) cannot be learnt from its latents.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.geometry.surface import curvature_weights, sample_faces

if TYPE_CHECKING:
    from torch import Tensor

    from ultrashape_cli.models.vae import ShapeVAE

TAU = 0.02
"""Distance of the F-score, in half-sides of the cube [-1, 1]^3."""
_SURFACE_POINTS = 81_920
_METRIC_POINTS = 50_000
_DECODE_GIB = 1.0


def weights_fingerprint(checkpoint: str) -> list[list[object]]:
    """Returns name, size and time of the file with the VAE; the check is redone if they change."""
    from ultrashape_cli.models.sources import resolve_weights

    source = resolve_weights(Path(checkpoint))
    stat = source.files["vae"].stat()
    return [[source.model, str(source.files["vae"]), stat.st_size, stat.st_mtime_ns]]


@functools.lru_cache(maxsize=1)
def load_vae(checkpoint: str, device: str) -> ShapeVAE:
    """Returns the VAE; a worker loads it once for all its assets."""
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.models.sources import load_networks, resolve_weights

    source = resolve_weights(Path(checkpoint))
    networks = load_networks(source, components=("vae",), device=choose_device(device))
    assert networks.vae is not None
    return networks.vae


def round_trip(
    vae: ShapeVAE, mesh: Mesh, num_tokens: int, resolution: int, seed: int
) -> dict[str, float | bool]:
    """Returns F-score and Chamfer distance of the decoded mesh against the mesh.

    A field without a surface scores 0.

    Args:
        vae: With encoder and decoder.
        mesh: Watertight, in the normalised frame.
        num_tokens: Most latent tokens.
        resolution: Cells along one side of the decoded field.
        seed: Of samples and voxels.
    """
    decoded = reconstruct(vae, mesh, num_tokens, resolution, seed)
    if decoded is None:
        return {"vae_f_score": 0.0, "vae_has_surface": False}
    figures = compare_meshes(decoded, mesh, _METRIC_POINTS, seed, taus=(TAU,))
    return {
        "vae_f_score": figures[f"f_score@{TAU:g}"],
        "vae_chamfer": figures["chamfer_l1"],
        "vae_normal_consistency": figures["normal_consistency"],
        "vae_has_surface": True,
    }


def reconstruct(
    vae: ShapeVAE, mesh: Mesh, num_tokens: int, resolution: int, seed: int
) -> Mesh | None:
    """Returns the mesh after encoding and decoding, or None where the field has no surface."""
    import torch

    from ultrashape_cli.errors import MeshError
    from ultrashape_cli.inference.cleanup import surface_mesh
    from ultrashape_cli.inference.decode import decode_field, fitting_chunk
    from ultrashape_cli.models.voxels import occupied_voxels, select_voxels, voxel_centres

    params = vae.params
    device = next(vae.parameters()).device
    limit = params.num_latents * params.downsample_ratio
    surface = _surface(mesh, min(_SURFACE_POINTS, limit), seed)
    generator = torch.Generator().manual_seed(seed)
    occupied = occupied_voxels(surface[:, :3], params.voxel_resolution)
    tokens = min(num_tokens, params.num_latents)
    voxels = select_voxels([occupied], tokens, generator)
    queries = voxel_centres(voxels, params.voxel_resolution)
    with torch.inference_mode():
        posterior = vae.encode(surface[None].to(device), queries.to(device), generator)
        field = vae.field(vae.decode(posterior.mean))
        chunk = fitting_chunk(field, _DECODE_GIB, device)
        try:
            return surface_mesh(decode_field(field, resolution, chunk_size=chunk, device=device))
        except MeshError:
            return None


def _surface(mesh: Mesh, count: int, seed: int) -> Tensor:  # [N, 7]
    """Returns points, normals and the sharp flag, half of them weighted by curvature."""
    import torch

    rng = np.random.default_rng(seed)
    parts = []
    for flag, weights in ((0.0, None), (1.0, curvature_weights(mesh))):
        points, normals, _ = sample_faces(mesh, count // 2, rng, weights)
        parts.append(np.concatenate([points, normals, np.full((len(points), 1), flag)], axis=1))
    return torch.from_numpy(np.concatenate(parts).astype(np.float32))
