from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from ball_networks import SMALL, ball_networks

from ultrashape_cli.config.schema import RefineConfig
from ultrashape_cli.diffusion.sampler import schedule
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.inference.course import times_of
from ultrashape_cli.inference.refiner import Refiner, in_halves
from ultrashape_cli.inference.stages import Whole
from ultrashape_cli.synthetic.figurines import make_figurine

CONFIG = RefineConfig(
    steps=4, guidance_scale=2.0, tokens=200, grid_resolution=32, surface_points=4000
)


@pytest.fixture(scope="module")
def coarse() -> Mesh:
    mesh = make_figurine(0, resolution=24)
    return Mesh(mesh.vertices * 7 + (10.0, -3.0, 2.0), mesh.faces)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    pixels = np.zeros((40, 40, 4), np.uint8)
    pixels[5:35, 10:30] = (200, 150, 100, 255)
    pixels[10:20, 12:20, :3] = (20, 60, 180)
    return pixels


def refiner(**changes) -> Refiner:
    return Refiner(ball_networks(), SMALL, replace(CONFIG, **changes), torch.device("cpu"))


def test_the_result_lies_in_the_frame_of_the_input(coarse: Mesh, picture: np.ndarray) -> None:
    result = refiner().refine(coarse, picture, seed=0)
    assert result.topology.watertight
    centre = coarse.bounds.mean(0)
    assert np.abs(result.mesh.bounds.mean(0) - centre).max() < 0.2 * coarse.extents.max()
    assert 0.3 < result.mesh.extents.max() / coarse.extents.max() < 1.1


def test_one_seed_gives_the_same_mesh_and_another_one_another(
    coarse: Mesh, picture: np.ndarray
) -> None:
    first, again, other = (refiner().refine(coarse, picture, seed=s) for s in (3, 3, 4))
    assert np.array_equal(first.mesh.vertices, again.mesh.vertices)
    assert np.array_equal(first.mesh.faces, again.mesh.faces)
    same = first.mesh.vertices.shape == other.mesh.vertices.shape
    assert not (same and np.array_equal(first.mesh.vertices, other.mesh.vertices))


def test_without_an_image_the_context_is_zero_and_guidance_off(coarse: Mesh) -> None:
    unguided = refiner().refine(coarse, None, seed=0)
    guided = refiner(guidance_scale=7.0).refine(coarse, None, seed=0)
    assert np.array_equal(unguided.mesh.vertices, guided.mesh.vertices)
    networks = ball_networks()._replace(conditioner=None)
    bare = Refiner(networks, SMALL, CONFIG, torch.device("cpu")).refine(coarse, None, seed=0)
    assert np.array_equal(unguided.mesh.vertices, bare.mesh.vertices)


def test_the_tokens_are_the_occupied_voxels_up_to_the_limit(
    coarse: Mesh, picture: np.ndarray
) -> None:
    few = refiner(tokens=32).refine(coarse, picture, seed=0)
    all_of_them = refiner(tokens=100_000).refine(coarse, picture, seed=0)
    assert few.tokens == 32
    assert 32 < all_of_them.tokens < 100_000


def test_a_flow_from_the_coarse_mesh_ends_there_where_nothing_moves(coarse: Mesh) -> None:
    networks = ball_networks()
    assert networks.dit is not None
    networks.dit.final_layer.linear.weight.zero_()
    networks.dit.final_layer.linear.bias.zero_()
    spec = replace(SMALL, start="coarse")
    made = Refiner(networks, spec, CONFIG, torch.device("cpu"))
    prepared = made.prepare(coarse, seed=0)
    start = made.start(prepared)
    assert start.shape == (1, prepared.voxels.shape[1], SMALL.vae.latent_channels)
    end = made.sample(prepared.voxels, start, None, None, lambda *a: None)
    assert torch.equal(start, end)
    # What it starts from is the mesh, and not the seed of any noise.
    other = made.start(made.prepare(make_figurine(1, resolution=24), seed=0))
    assert other.shape != start.shape or not torch.allclose(other, start)


def test_every_stage_counts_in_the_progress_of_the_whole(coarse: Mesh, picture: np.ndarray) -> None:
    # Its band is wide: decoding starts on fewer cells than the reference does.
    made = refiner(grid_resolution=64)
    assert made.levels == [16, 32, 64]
    whole, percents = Whole(made.config, made.levels), []
    made.evaluate(made.prepare(coarse, 0), picture, lambda *s: percents.append(whole.percent(*s)))
    assert percents == sorted(percents)
    assert 0 < percents[0] < percents[-1] < 100


def test_strength_is_how_much_of_the_way_is_gone(coarse: Mesh) -> None:
    networks, spec = ball_networks(), replace(SMALL, start="coarse")

    def end(strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        config = replace(CONFIG, steps=2, strength=strength)
        made = Refiner(networks, spec, config, torch.device("cpu"))
        prepared = made.prepare(coarse, seed=0)
        start = made.start(prepared)
        return start, made.sample(prepared.voxels, start, None, None, lambda *a: None)

    start, whole = end(1.0)
    assert not torch.allclose(start, whole)
    assert torch.allclose(end(0.25)[1], start + 0.25 * (whole - start), atol=1e-5)
    assert torch.equal(end(0.0)[1], start)


def test_from_noise_a_share_of_the_way_starts_between_noise_and_input(coarse: Mesh) -> None:
    whole = refiner(steps=5)
    prepared = whole.prepare(coarse, seed=0)
    noise, latents = whole.start(prepared), refiner(strength=0.5).encode(prepared)
    half = refiner(steps=5, strength=0.6)
    assert torch.allclose(half.start(prepared), 0.4 * latents + 0.6 * noise)
    assert times_of(SMALL, half.config).tolist() == pytest.approx([0.4, 0.5, 0.75, 1, 1])
    assert torch.equal(times_of(SMALL, whole.config), schedule(5))
    none = refiner(steps=5, strength=0.0)
    start = none.start(prepared)
    end = none.sample(prepared.voxels, start, None, None, lambda *a: None)
    assert torch.equal(end, latents)
    assert none.passes == 0


def test_a_field_that_does_not_fit_is_asked_in_halves() -> None:
    asked = []

    def query(points: torch.Tensor) -> torch.Tensor:
        asked.append(len(points))
        if len(points) > 600:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return points[:, 0]

    points = torch.rand(2000, 3)
    assert torch.equal(in_halves(query, points), points[:, 0])
    assert asked == [2000, 1000, 500, 500, 1000, 500, 500]


def test_a_field_that_never_fits_is_an_error() -> None:
    def query(points: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_halves(query, torch.rand(2000, 3))
