"""Which assets make a shard: a function of their names and sizes, and of nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ultrashape_cli.packing.layout import place


class Planned(NamedTuple):
    """A shard to be."""

    bits: str
    """First bits that the places of its assets have in common, and no other asset's have."""
    assets: list[str]
    """In the order of their places."""


def plan_shards(sizes: dict[str, int], limit: int) -> list[Planned]:
    """Returns the shards of a dataset in order.

    Assets stand in the order of their places, which are as good as random. All of them are one
    shard where they fit, else two of half the places each, and so on: most shards come to between
    half of the limit and the limit, and a new asset changes the one shard it falls into, whenever
    and wherever the dataset is packed.

    Args:
        sizes: Bytes of each asset's files.
        limit: Bytes of a shard; a single asset may have more.
    """
    order = sorted((place(asset), asset) for asset in sizes)
    return list(_split(order, sizes, limit, ""))


def _split(
    order: Sequence[tuple[str, str]], sizes: dict[str, int], limit: int, bits: str
) -> list[Planned]:
    if not order:
        return []
    assets = [asset for _, asset in order]
    if len(order) == 1 or len(bits) == 64 or sum(sizes[asset] for asset in assets) <= limit:
        return [Planned(bits, assets)]
    middle = next((i for i, (p, _) in enumerate(order) if p[len(bits)] == "1"), len(order))
    return [
        *_split(order[:middle], sizes, limit, bits + "0"),
        *_split(order[middle:], sizes, limit, bits + "1"),
    ]
