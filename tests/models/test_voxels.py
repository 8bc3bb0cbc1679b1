import re

import pytest
import torch
from golden_data import assert_near, load_golden

from ultrashape_cli.models.voxels import (
    farthest_points,
    occupied_voxels,
    select_voxels,
    voxel_centres,
    voxel_queries,
)


def test_occupied_voxels_match_the_recording_exactly():
    golden = load_golden("voxelize")
    names = [k for k in golden.tensors if k.startswith("occupied.r")]
    assert names
    for name in names:
        resolution, sample = map(int, re.findall(r"\d+", name))
        found = occupied_voxels(golden["points"][sample], resolution)
        assert torch.equal(found, _sorted(golden[name]))


def test_occupied_voxels_of_the_encoder_match_the_recording_exactly():
    golden = load_golden("vae_tiny")
    resolution = golden.info["config"]["voxel_query_res"]
    for sample, surface in enumerate(golden["surface"]):
        found = occupied_voxels(surface[:, :3], resolution)
        assert torch.equal(found, _sorted(golden[f"occupied_voxels.{sample}"]))


def test_recorded_subsets_are_possible_draws():
    golden = load_golden("voxelize")
    for name in [k for k in golden.tensors if k.startswith("idx.r")]:
        resolution = int(name.removeprefix("idx.r"))
        indices = golden[name]
        assert_near(voxel_centres(indices, resolution), golden[f"centers.r{resolution}"], 1e-6)
        occupied = [occupied_voxels(p, resolution) for p in golden["points"]]
        drawn = select_voxels(occupied, indices.shape[1], torch.Generator().manual_seed(0))
        assert drawn.shape == indices.shape
        for subset, recorded, voxels in zip(drawn, indices, occupied, strict=True):
            whole = set(map(tuple, voxels.tolist()))
            for pick in (subset, recorded):
                assert len(pick.unique(dim=0)) == len(pick)
                assert set(map(tuple, pick.tolist())) <= whole


def test_the_count_is_the_smallest_of_the_batch():
    surface = torch.rand(2, 400, 7) * 2 - 1
    surface[1, :, :3] *= 0.1
    smallest = len(occupied_voxels(surface[1, :, :3], 32))
    centres, indices = voxel_queries(surface, 32, 10**6, torch.Generator().manual_seed(0))
    assert indices.shape == centres.shape == (2, smallest, 3)


def test_the_seed_decides_the_draw():
    surface = torch.rand(1, 400, 3) * 2 - 1
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)]
    a, b, c = (voxel_queries(surface, 32, 50, generator)[1] for generator in generators)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_points_outside_count_for_the_border():
    points = torch.tensor([[-5.0, 0.0, 1.0], [-1.0, 0.01, 0.99]])
    assert occupied_voxels(points, 4).tolist() == [[0, 2, 3]]


def test_farthest_points_of_a_line_are_its_ends_then_its_middle():
    line = torch.zeros(1, 101, 3)
    line[0, :, 0] = torch.arange(101)
    assert farthest_points(line, 4, torch.tensor([0])).tolist() == [[0, 100, 50, 25]]
    with pytest.raises(ValueError, match="cannot take"):
        farthest_points(line, 102, torch.tensor([0]))


def _sorted(voxels: torch.Tensor) -> torch.Tensor:
    return voxels.unique(dim=0)
