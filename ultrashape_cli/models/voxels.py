"""Voxel queries: which voxels of the cube [-1, 1]^3 a point cloud occupies.

Legend: B batch, N points, M tokens, V occupied voxels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ultrashape_cli.devices import upload


def occupied_voxels(points: Tensor, resolution: int) -> Tensor:  # [N, 3] -> [V, 3] int64
    """Return the unique voxel indices of the points, in lexicographic xyz order.

    Points outside the cube count for the voxel at its border.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"points must be [N, 3], got {tuple(points.shape)}")
    index = ((points.float() + 1) / 2 * resolution).floor().long().clamp(0, resolution - 1)
    flat = (index[:, 0] * resolution + index[:, 1]) * resolution + index[:, 2]
    flat = flat.unique()
    x, rest = flat // resolution**2, flat % resolution**2
    return torch.stack([x, rest // resolution, rest % resolution], dim=1)


def select_voxels(
    occupied: Sequence[Tensor],  # B of [V_b, 3]
    max_tokens: int,
    generator: torch.Generator,
) -> Tensor:  # [B, M, 3]
    """Draw the same number of voxels from each sample, without replacement, in random order.

    M is `max_tokens` or the smallest number of occupied voxels in the batch. The generator
    lives on the CPU, so that a seed means the same on every device.
    """
    count = min(max_tokens, *(len(voxels) for voxels in occupied))
    if count == 0:
        raise ValueError("a sample without points has no voxels")
    picks = []
    for voxels in occupied:
        order = torch.randperm(len(voxels), generator=generator)[:count]
        picks.append(voxels[upload(order, voxels.device)])
    return torch.stack(picks)


def voxel_centres(indices: Tensor, resolution: int) -> Tensor:  # [..., 3] -> [..., 3] fp32
    """Return the centres of voxels in the cube [-1, 1]^3."""
    return (indices.float() + 0.5) * (2.0 / resolution) - 1.0


def voxel_queries(
    surface: Tensor,  # [B, N, 3 or more], xyz first
    resolution: int,
    max_tokens: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # centres [B, M, 3] fp32, indices [B, M, 3] int64
    """Return encoder queries at occupied voxels and the indices the DiT uses as positions."""
    occupied = [occupied_voxels(points, resolution) for points in surface[..., :3]]
    indices = select_voxels(occupied, max_tokens, generator)
    return voxel_centres(indices, resolution), indices


def farthest_points(
    points: Tensor,  # [B, N, 3]
    count: int,
    start: Tensor,  # [B] index of the first point
) -> Tensor:  # [B, count] int64
    """Return the indices of a greedy farthest-point sample; ties take the lowest index."""
    if not 1 <= count <= points.shape[1]:
        raise ValueError(f"cannot take {count} of {points.shape[1]} points")
    points = points.float()
    last = upload(start, points.device)[:, None]
    distance = torch.full(points.shape[:2], torch.inf, device=points.device)
    picks = [last]
    for _ in range(count - 1):
        chosen = points.gather(1, last[..., None].expand(-1, 1, 3))
        distance = torch.minimum(distance, (points - chosen).square().sum(-1))
        last = distance.argmax(1, keepdim=True)
        picks.append(last)
    return torch.cat(picks, dim=1)


def jitter_queries(
    surface: Tensor,  # [B, N, 3 or more], xyz first
    resolution: int,
    count: int,
    generator: torch.Generator,
) -> Tensor:  # [B, count, 3]
    """Return farthest points moved by up to half a voxel per axis (the VAE's training queries)."""
    points = surface[..., :3].float()
    start = torch.randint(points.shape[1], (points.shape[0],), generator=generator)
    index = farthest_points(points, count, start)
    picked = points.gather(1, index[..., None].expand(-1, -1, 3))
    noise = torch.rand(picked.shape, generator=generator).to(picked.device) - 0.5
    return picked + noise / (resolution // 2)
