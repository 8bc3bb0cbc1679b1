from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ultrashape_cli.packing.layout import place
from ultrashape_cli.packing.shards import plan_shards

SIZES = st.dictionaries(st.text(max_size=8), st.integers(0, 1000), max_size=60)


@given(SIZES, st.integers(1, 5000))
def test_every_asset_is_in_one_shard_that_fits(sizes: dict[str, int], limit: int) -> None:
    shards = plan_shards(sizes, limit)
    assert sorted(a for shard in shards for a in shard.assets) == sorted(sizes)
    for shard in shards:
        assert len(shard.assets) == 1 or sum(sizes[a] for a in shard.assets) <= limit
        assert all(place(asset).startswith(shard.bits) for asset in shard.assets)
    # No shard's bits begin another's: an asset's place leads to one.
    bits = [shard.bits for shard in shards]
    assert not [(a, b) for a in bits for b in bits if a is not b and b.startswith(a)]


@given(SIZES, SIZES)
def test_further_assets_change_only_the_shards_they_fall_into(
    sizes: dict[str, int], more: dict[str, int]
) -> None:
    after = plan_shards(more | sizes, 1500)
    new = [place(asset) for asset in more.keys() - sizes.keys()]
    for shard in plan_shards(sizes, 1500):
        if not any(p.startswith(shard.bits) for p in new):
            assert shard in after


def test_shards_of_many_alike_assets_hold_between_half_and_all() -> None:
    shards = plan_shards({f"asset-{i}": 5 for i in range(30_000)}, 512)
    full = [5 * len(shard.assets) for shard in shards]
    assert max(full) <= 512
    assert sum(total < 200 for total in full) < 0.02 * len(full)
