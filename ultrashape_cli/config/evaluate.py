"""Settings of `ushape evaluate`; a section of `schema.Config`."""

from __future__ import annotations

from dataclasses import dataclass

from ultrashape_cli.config.choices import Solver


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Refined held-out assets against their ground truth."""

    coarse_resolution: int = 32
    """Cells along the longest side of the coarse version that refinement starts from."""
    coarse_smoothing: int = 5
    """Its Laplacian smoothing steps."""
    points: int = 100_000
    """Surface samples of each mesh."""
    earth_movers_points: int = 1024
    """Samples of each mesh that the earth mover's distance assigns, exactly; 0 leaves it out."""
    views: int = 4
    """Views that are compared; 0 for none."""
    view_size: int = 256
    """Pixels along one side of a view."""
    reference_views: int = 1
    """Images of each asset that the weights are shown, evenly around it from the front on; several
    as `ushape refine --view` shows them."""
    round_trip: bool = True
    """The truth through the autoencoder is a row too: what refining can reach."""
    curve_evaluations: tuple[int, ...] = (3, 6, 12, 24, 48)
    """Evaluations of the velocity over the whole way that `--curve` compares."""
    curve_solvers: tuple[Solver, ...] = ("euler", "ab2", "dpm", "heun")
    """Solvers that `--curve` compares."""
    keep_noise: float = 0.0
    """Noise along the way that tells the generations of `--keep` apart, in units of the latents; 0
    for flows that start from noise, which differ by that."""
