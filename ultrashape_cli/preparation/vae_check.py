"""The VAE's round trip: what an asset looks like after it was encoded and decoded.

A shape the VAE cannot reproduce (fragments, noise, sheets) cannot be learnt from its latents.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes

if TYPE_CHECKING:
    from ultrashape_cli.models.vae import ShapeVAE

TAU = 0.02
"""Distance of the F-score, in half-sides of the cube [-1, 1]^3."""
_METRIC_POINTS = 50_000


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
    from ultrashape_cli.inference.round_trip import reconstruct

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
