"""`ushape evaluate --keep`: generations with rewards, made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from generations import QUICK

from ultrashape_cli.errors import AssetError, DatasetError
from ultrashape_cli.inference.view_files import seen_from
from ultrashape_cli.rewards.generations import KeptGenerations
from ultrashape_cli.rewards.group import weigh


@pytest.fixture
def command(ball_assets: Path, ball_weights: Path, tmp_path: Path) -> list[object]:
    return [
        *("evaluate", "--checkpoint", ball_weights, "--data", ball_assets, "--split", "train"),
        *("--keep", 2, "--limit", 2, "-o", tmp_path / "kept", "--json", *QUICK),
    ]


def test_generations_are_kept_with_their_rewards(
    ushape, command, ball_assets: Path, ball_weights: Path, tmp_path: Path
) -> None:
    planned = ushape(*command, "--dry-run")
    assert planned.code == 0, planned.err
    assert not (tmp_path / "kept").exists()
    done = ushape(*command)
    assert done.code == 0, done.err
    # The next command starts from the weights that made them.
    assert f"--init {ball_weights} --objective reject" in done.err
    body = json.loads(done.out)
    assert body["counts"] == {"made": 2, "skipped": 0, "failed": 0, "without_mesh": 0}
    assert body["rewards"]["chamfer"]["worst"] <= body["rewards"]["chamfer"]["best"]
    kept = KeptGenerations(tmp_path / "kept")
    assert kept.assets() == ["ball-0", "ball-1"]
    about = kept.about()
    assert (about["model"], about["count"]) == ("small", 2)
    assert len(about["weights"]["ball.safetensors"]) == 64
    first, second = kept.read("ball-1", 0), kept.read("ball-1", 1)
    # One condition: only the noise differs, and so the latents.
    assert torch.equal(first.voxels, second.voxels)
    assert first.start is None
    assert not torch.equal(first.latents, second.latents)
    assert kept.image("ball-1").shape == (32, 32, 4)
    weights = {"chamfer": 1.0, "silhouette": 0.5}
    found = weigh(kept.rewards("ball-1", weights), weights)
    assert found.failed == 0
    assert found.best != found.worst

    # What is there is not made again; what is damaged is.
    (tmp_path / "kept/ball-0.safetensors").write_bytes(b"cut short")
    again = json.loads(ushape(*command).out)
    assert again["counts"] == {"made": 1, "skipped": 1, "failed": 0, "without_mesh": 0}
    assert torch.equal(kept.read("ball-1", 1).latents, second.latents)
    other = ushape(*command, "--seed", 7)
    assert (other.code, "made otherwise: seed" in other.err) == (2, True)
    other = ushape(*command, "--set", "refine.steps=4")
    assert "made otherwise: refine.steps" in other.err
    # Of another mesh they are others.
    data = tmp_path / "data"
    shutil.copytree(ball_assets, data)
    command[command.index(ball_assets)] = data
    assert json.loads(ushape(*command).out)["counts"]["skipped"] == 2
    shutil.copy(data / "meshes/ball-2.ply", data / "meshes/ball-1.ply")
    changed = json.loads(ushape(*command).out)["counts"]
    assert changed == {"made": 1, "skipped": 1, "failed": 0, "without_mesh": 0}
    coarse = ushape(*command, "--coarse", data / "meshes")
    assert "made otherwise: given_coarse" in coarse.err
    command[command.index("train")] = "val"
    (data / "data_list/train.json").rename(data / "data_list/val.json")
    held_out = ushape(*command, "--dry-run")
    assert "cannot be trained on" in held_out.err
    assert "is of one checkpoint" in ushape(*command, "--vae").err


def test_a_folder_of_others_is_left_alone(ushape, command, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/thesis.txt").write_text("mine")
    refused = ushape(*command)
    assert (refused.code, "holds no generations" in refused.err) == (2, True)


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    kept = KeptGenerations(tmp_path)
    with pytest.raises(DatasetError, match="holds no generations"):
        kept.about()
    (tmp_path / "a.json").write_text('{"generations": [{"rewards": {"chamfer": "many"}}]}')
    (tmp_path / "a.safetensors").write_bytes(b"nothing")
    with pytest.raises(AssetError, match="are damaged"):
        kept.rewards("a")
    with pytest.raises(AssetError, match="are damaged"):
        kept.read("a", 0)


def test_a_view_says_where_it_was_seen_from(tmp_path: Path) -> None:
    image = tmp_path / "view_001.png"
    assert seen_from(image) == (0.0, 0.0)
    rows = [{"azimuth": 0}, {"azimuth": 90, "elevation": 20}]
    (tmp_path / "cameras.json").write_text(json.dumps({"views": rows}))
    assert seen_from(image) == (90.0, 20.0)
