"""A run's copy elsewhere: what a machine that vanishes leaves, and how another one goes on."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from s3_server import BUCKET, s3_server
from serving import wait_for
from train_and_read import checkpoints, losses, same, train_run, weights

import ultrashape_cli.training.mirror_writer as mirror_module
from ultrashape_cli.errors import UsageError
from ultrashape_cli.packing.location import Location, StorageError
from ultrashape_cli.runs import RunFolder
from ultrashape_cli.training.mirror import Mirror
from ultrashape_cli.training.mirror_writer import send_last


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "_WAITS_S", (0.01,))


def names(place: Path) -> list[str]:
    return sorted(path.parent.name for path in place.glob("checkpoints/*/manifest.json"))


def test_another_machine_goes_on_bit_for_bit(make_run, stop_after, tmp_path: Path) -> None:
    straight, _ = make_run("straight", steps=6)
    train_run(straight)
    place = tmp_path / "copy"
    settings = {"steps": 6, "save_every_steps": 1, "keep_checkpoints": 2, "mirror": str(place)}
    run, _ = make_run("first", **settings)
    assert train_run(run, on_step=stop_after(4)) == 143
    assert names(place) == ["step-00000003", "step-00000004"]
    assert (place / "metrics.jsonl").read_bytes() == run.metrics.read_bytes()
    shutil.rmtree(run.root)

    other = RunFolder(tmp_path / "second")
    assert Mirror(str(place)).bring(other) == other.checkpoints / "step-00000004"
    make_run("second", **settings)
    assert train_run(other) == 0
    assert same(weights(other), weights(straight))
    assert losses(other) == losses(straight)
    assert names(place) == ["step-00000005", "step-00000006"]
    # Nothing there is beyond what is here.
    assert Mirror(str(place)).bring(other) is None


def test_what_is_not_whole_is_passed_over(make_run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    run, _ = make_run(steps=4, save_every_steps=1, keep_checkpoints=4, mirror=str(place))
    train_run(run)
    # Killed while it was sent, cut off, and a byte that flipped.
    (place / "checkpoints/step-00000004/manifest.json").unlink()
    (place / "checkpoints/step-00000003/trainer.pt").write_bytes(b"short")
    file = place / "checkpoints/step-00000002/model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    other, told = RunFolder(tmp_path / "other"), []
    assert Mirror(str(place)).bring(other, told.append) == other.checkpoints / "step-00000001"
    assert any("step-00000002 is passed over" in line for line in told)


def test_rests_of_what_was_being_sent_go(make_run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    run, _ = make_run(steps=4, save_every_steps=1, keep_checkpoints=4, mirror=str(place))
    train_run(run)
    (place / "checkpoints/step-00000002/manifest.json").unlink()
    (place / "checkpoints/notes").mkdir()
    (place / "checkpoints/notes/mine.txt").write_text("mine")
    mirror = Mirror(str(place))
    mirror.claim(run)
    mirror.send(run, checkpoints(run)[-1], keep=4)
    assert not list((place / "checkpoints").glob("step-00000002/*"))
    assert names(place) == ["step-00000001", "step-00000003", "step-00000004"]
    assert (place / "checkpoints/notes/mine.txt").exists()


def test_a_hostile_manifest_names_no_file_outside(make_run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    run, _ = make_run(steps=1, mirror=str(place))
    train_run(run)
    file = place / "checkpoints/step-00000001/manifest.json"
    manifest = json.loads(file.read_text())
    for name in ("../../evil", "/tmp/evil", ".hidden"):
        entry = manifest["files"]["trainer.pt"]
        file.write_text(json.dumps(manifest | {"files": {name: entry}}))
        assert Mirror(str(place)).checkpoints() == []


def test_a_place_with_another_run_is_refused(make_run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    run, _ = make_run(steps=1, mirror=str(place))
    train_run(run)
    other, _ = make_run("other", steps=1, mirror=str(place))
    for call in (Mirror(str(place)).require_mine, Mirror(str(place)).bring):
        with pytest.raises(UsageError, match="holds another run"):
            call(other)
    with pytest.raises(UsageError, match="--force leaves alone"):
        Mirror(str(place)).require_mine(run, force=True)
    before = (place / "run.json").read_bytes()
    with pytest.raises(UsageError, match="holds another run"):
        train_run(other)
    assert (place / "run.json").read_bytes() == before


@pytest.mark.parametrize("name", ["log.txt", "checkpoints/step-00000001/mine.txt"])
def test_what_is_no_run_is_left_alone(make_run, tmp_path: Path, name: str) -> None:
    file = tmp_path / "documents" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    run, _ = make_run(steps=3, save_every_steps=1, mirror=str(tmp_path / "documents"))
    with pytest.raises(UsageError, match="and no run"):
        train_run(run)
    assert [path for path in (tmp_path / "documents").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


def test_another_run_is_known_before_it_is_brought(make_run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    run, config = make_run(steps=1, mirror=str(place))
    train_run(run)
    Mirror(str(place)).require_same(config, ["ball-0", "new"])
    _, other = make_run("other", seed=7, steps=1)
    with pytest.raises(UsageError, match="seed"):
        Mirror(str(place)).require_same(other, ["ball-0"])
    with pytest.raises(UsageError, match="none of its 4 assets"):
        Mirror(str(place)).require_same(config, ["new"])


def test_a_machine_that_wakes_again_sends_nothing(make_run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    settings = {"save_every_steps": 1, "keep_checkpoints": 9, "mirror": str(place)}
    run, _ = make_run("slept", steps=3, **settings)
    other, told = RunFolder(tmp_path / "took-over"), []

    def on_step(progress) -> None:
        if progress.step == 2 and not other.root.exists():
            wait_for(lambda: names(place) == ["step-00000001"])
            Mirror(str(place)).bring(other)
            Mirror(str(place)).claim(other)

    with pytest.raises(StorageError, match="has gone on with this run"):
        train_run(run, on_step=on_step, tell=told.append)
    assert names(place) == ["step-00000001"]
    assert len(checkpoints(run)) == 3
    make_run("took-over", steps=2, **settings)
    assert train_run(other) == 0
    assert names(place) == ["step-00000001", "step-00000002"]


def test_a_place_that_vanishes_costs_only_the_copy(
    make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = make_run(steps=3, save_every_steps=1, mirror=str(tmp_path / "copy"))
    told = []

    send = Location.send

    def fail(self: Location, path: Path, name: str) -> None:
        if "step-" in name:
            raise StorageError("the bucket is gone")
        send(self, path, name)

    with monkeypatch.context() as patch:
        patch.setattr(Location, "send", fail)
        with pytest.raises(StorageError, match=r"is in `.*` alone, not in .*the bucket is gone"):
            train_run(run, tell=told.append)
    assert run.read_status()["state"] == "finished"
    assert told[-1].startswith("step-00000003 is not in")
    assert len(checkpoints(run)) == 3
    # What was not sent is sent by the next process, also where nothing is left to train.
    send_last(str(tmp_path / "copy"), run, 3, told.append)
    assert names(tmp_path / "copy") == ["step-00000003"]
    make_run(steps=4, save_every_steps=10, mirror=str(tmp_path / "copy"))
    assert train_run(run) == 0
    assert names(tmp_path / "copy")[-1] == "step-00000004"


def test_a_checkpoint_stays_while_it_is_sent(
    make_run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "copy"
    run, _ = make_run(
        steps=5, save_every_steps=1, keep_checkpoints=1, mirror=str(place), async_checkpoints=False
    )
    go_on, send = threading.Event(), Location.send

    def slowly(self: Location, path: Path, name: str) -> None:
        if "step-" in name:
            go_on.wait(20)
        send(self, path, name)

    monkeypatch.setattr(Location, "send", slowly)
    seen: list[list[str]] = []

    def on_step(progress) -> None:
        seen.append([path.name for path in checkpoints(run)])
        if progress.step == 5:
            threading.Timer(0.2, go_on.set).start()

    assert train_run(run, on_step=on_step) == 0
    assert "step-00000001" in seen[-1]
    assert len(seen[-1]) <= 3
    # The first was being sent; the ones that waited gave way to the last.
    assert names(place) == ["step-00000005"]
    assert names(run.root)[-1] == "step-00000005"


def test_the_best_copy_stays(make_run, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    run, _ = make_run(steps=1, keep_checkpoints=4, mirror=str(place))
    train_run(run)
    first = checkpoints(run)[0]
    mirror = Mirror(str(place))
    mirror.claim(run)
    for step, score in ((2, 0.1), (3, 0.5), (4, 0.4)):
        copy = run.checkpoints / f"step-{step:08d}"
        shutil.copytree(first, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps(manifest | {"score": score}))
        mirror.send(run, copy, keep=1)
    assert names(place) == ["step-00000002", "step-00000004"]
    assert [copied.step for copied in Mirror(str(place)).checkpoints()] == [2, 4]
    assert not list(place.glob("checkpoints/step-00000003/*"))


@pytest.mark.slow
def test_the_same_command_goes_on_elsewhere(
    ushape, ball_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(steps: int, *more: object):
        return ushape(
            *("train", "--data", ball_data, "--model", "small", "--out", tmp_path / "run"),
            *("--steps", steps, "--profile", "cpu", "--device", "cpu", "--no-progress"),
            *("--set", "train.validate_meshes=0", "--set", "train.num_latents=16"),
            *("--set", "train.num_workers=0", "--set", "train.surface_points=256", *more),
        )  # fmt: skip

    with s3_server(monkeypatch):
        address = f"s3://{BUCKET}/runs/balls"
        copy = ("--set", f"train.mirror={address}")
        result = train(1, "--resume-from", address)
        assert result.code == 2
        assert "no whole checkpoint" in result.err
        assert not (tmp_path / "run").exists()
        assert train(2, *copy).code == 0
        shutil.rmtree(tmp_path / "run")
        result = train(3, *copy, "--dry-run")
        assert result.code == 0
        assert not (tmp_path / "run").exists()
        result = train(3, *copy)
        assert result.code == 0
        assert f"resumes from {address}/checkpoints/step-00000002" in result.err
        assert "password" not in result.err + (tmp_path / "run/config.toml").read_text()
        shutil.rmtree(tmp_path / "run")
        # Elsewhere once, without a copy of what comes.
        assert train(4, "--resume-from", address).code == 0
        assert [c.step for c in Mirror(address).checkpoints()] == [2, 3]
        result = train(4, *copy, "--force")
        assert result.code == 2
        assert "--force leaves alone" in result.err
        result = train(5, "--set", "train.mirror=s3://no-such-bucket/x")
        assert result.code == 1
        assert "no-such-bucket" in result.err
    for inside in (ball_data, ball_data / "copy", tmp_path / "run", tmp_path / "run/copy"):
        result = train(5, "--set", f"train.mirror={inside}", "--dry-run")
        assert result.code == 2, inside
        assert "train.mirror=PLACE" in result.err
