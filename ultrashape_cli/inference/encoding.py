"""A mesh as the autoencoder's encoder reads it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.surface import sample_uniform_and_curved
from ultrashape_cli.models.vae import VAEParams

_SURFACE_POINTS = 81_920


def encoder_points(params: VAEParams) -> int:
    """Returns how many surface points the encoder reads of a mesh."""
    return min(_SURFACE_POINTS, params.num_latents * params.downsample_ratio)


def encoder_surface(mesh: Mesh, params: VAEParams, seed: int) -> Tensor:  # [1, N, 7]
    """Returns points, normals and the sharp label, half of them weighted by curvature.

    Args:
        mesh: In the normalised frame.
        params: Of the autoencoder; it reads so many points per latent at most.
        seed: Of the points.
    """
    count = encoder_points(params)
    points, normals = sample_uniform_and_curved(mesh, count, np.random.default_rng(seed))
    label = np.zeros((count, 1))
    label[count - count // 2 :] = 1.0
    joined = np.concatenate([points, normals, label], axis=1).astype(np.float32)
    return torch.from_numpy(joined)[None]
