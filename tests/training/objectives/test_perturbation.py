"""Voxel noise: what is dropped, added and moved."""

import torch

from ultrashape_cli.training.objectives.perturbation import VoxelNoise

SIDE = 32


def _shell() -> torch.Tensor:
    grid = torch.stack(torch.meshgrid(*[torch.arange(SIDE)] * 3, indexing="ij"), -1).view(-1, 3)
    return grid[grid[:, 2] == 16]


def _apply(**shares: float) -> torch.Tensor:
    return VoxelNoise(**shares).apply(_shell(), SIDE, torch.Generator().manual_seed(0))


def test_no_share_changes_nothing() -> None:
    assert not VoxelNoise()
    assert torch.equal(_apply(), _shell())


def test_the_shares_are_kept() -> None:
    count = len(_shell())
    assert abs(len(_apply(drop=0.25)) - 0.75 * count) < 0.05 * count
    added = _apply(add=0.5)
    off = (added[:, 2] != 16).sum()
    # A third of the steps leave the plane.
    assert abs(int(off) - count / 6) < 0.1 * count
    moved = (_apply(jitter=0.3)[:, 2] != 16).sum()
    assert abs(int(moved) - 0.1 * count) < 0.05 * count


def test_voxels_stay_in_the_cube_without_doubles_and_one_remains() -> None:
    found = VoxelNoise(drop=0.9, add=2.0, jitter=1.0).apply(
        torch.zeros(1, 3, dtype=torch.long), SIDE, torch.Generator().manual_seed(1)
    )
    assert len(found) >= 1
    assert found.min() >= 0
    assert len(found.unique(dim=0)) == len(found)


def test_the_same_draw_gives_the_same_voxels() -> None:
    assert torch.equal(_apply(drop=0.2, add=0.2, jitter=0.2), _apply(drop=0.2, add=0.2, jitter=0.2))
