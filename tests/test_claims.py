from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ultrashape_cli.claims import in_shard, open_claims
from ultrashape_cli.errors import DiskError

HOLD = """
import sys, time
from pathlib import Path
from ultrashape_cli.claims import open_claims
with open_claims(Path(sys.argv[1])) as claims:
    print(claims.take("a"), claims.take("b"), flush=True)
    sys.stdin.readline()
    claims.release("b")
    print("released", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that claims a and b, and gives b back when it is told to."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "True True\n"
        yield process
        process.kill()


def test_an_asset_has_one_claim(tmp_path: Path, holder) -> None:
    with open_claims(tmp_path) as claims:
        assert [claims.take(name) for name in "abc"] == [False, False, True]


def test_a_released_claim_is_free(tmp_path: Path, holder) -> None:
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert holder.stdout.readline() == "released\n"
    with open_claims(tmp_path) as claims:
        assert [claims.take(name) for name in "ab"] == [False, True]


def test_claims_die_with_their_process(tmp_path: Path, holder) -> None:
    holder.kill()
    holder.wait()
    with open_claims(tmp_path) as claims:
        assert claims.take("a")


def test_a_folder_without_locks_is_named_with_its_remedy(tmp_path: Path, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with open_claims(tmp_path) as claims, pytest.raises(DiskError, match="No locks") as caught:
        claims.take("a")
    assert "nolock" in caught.value.hint


def test_shards_are_disjoint_complete_and_even() -> None:
    ids = [f"asset-{n}" for n in range(4000)]
    shards = Counter(shard for i in ids for shard in range(1, 5) if in_shard(i, shard, 4))
    assert sum(shards.values()) == 4000
    # Four standard deviations of 4000 draws with probability 1/4 are 110.
    assert all(890 <= count <= 1110 for count in shards.values())
    assert all(in_shard(i, 1, 1) for i in ids)
