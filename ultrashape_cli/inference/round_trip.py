"""A mesh encoded by the autoencoder and decoded again: the ceiling of what refinement can reach."""

from __future__ import annotations

import torch

from ultrashape_cli.errors import MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.cleanup import Tokens, remove_imagined, surface_mesh
from ultrashape_cli.inference.decode import coarsest_cells, decode_field, fitting_chunk
from ultrashape_cli.inference.encoding import encoder_surface
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.models.voxels import occupied_voxels, select_voxels, voxel_centres

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
    surface = encoder_surface(mesh, params, seed)
    generator = torch.Generator().manual_seed(seed)
    occupied = occupied_voxels(surface[0, :, :3], params.voxel_resolution)
    tokens = min(num_tokens, params.num_latents)
    voxels = select_voxels([occupied], tokens, generator)
    queries = voxel_centres(voxels, params.voxel_resolution)
    posterior = vae.encode(surface.to(device), queries.to(device), generator)
    field = vae.field(vae.decode(posterior.mean))
    chunk = fitting_chunk(field, _DECODE_GIB, device)
    smallest = coarsest_cells(params.truncation)
    try:
        grid = decode_field(
            field, resolution, min_resolution=smallest, chunk_size=chunk, device=device
        )
        made = surface_mesh(grid)
    except MeshError:
        return None
    return remove_imagined(made, Tokens(voxels[0].numpy(), params.voxel_resolution))[0]
