"""Training on what a network made itself: which generations count, and what is learned of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from generations import keep_balls
from safetensors.torch import load_file, save_file
from train_and_read import checkpoints, losses, make_trainer, same, train_run, weights

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.errors import DatasetError, TrainingError
from ultrashape_cli.files import file_hash, write_json
from ultrashape_cli.rewards.generations import KeptGenerations
from ultrashape_cli.training.generations import find_picks, require_training_assets
from ultrashape_cli.training.guards import fallen_before, fallen_reward

REJECT = {"objective": "reject", "learning_rate": 1e-3, "condition_dropout": 0.0}


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return str(keep_balls(tmp_path / "kept"))


def test_the_best_and_the_worst_of_each_group_are_picked(make_run, pairs: str) -> None:
    _, config = make_run(pairs=pairs, **REJECT)
    picks = find_picks(config)
    assert picks is not None
    # The rewards of the last asset's are alike.
    assert picks.assets == ["ball-0", "ball-1", "ball-2"]
    assert set(picks.places.values()) == {(0, 3)}
    best, worst = picks("ball-1", False), picks("ball-1", True)
    assert float(best.latents.square().mean()) < float(worst.latents.square().mean())
    assert find_picks(make_run("plain", pairs=pairs)[1]) is None


def test_the_best_generations_are_learned_and_a_resumed_run_learns_the_same(
    make_run, pairs: str, stop_after
) -> None:
    straight, _ = make_run("straight", steps=30, pairs=pairs, validate_every_steps=15, **REJECT)
    assert train_run(straight) == 0
    found = losses(straight)
    assert sum(found[-8:]) < 0.9 * sum(found[:8])
    last = json.loads(straight.metrics.read_text().splitlines()[-1])
    # Validation is that of the plain objective, on the data.
    assert last["val_loss"] > 0
    assert json.loads(straight.data.read_text())["generations"].keys() == {
        "ball-0", "ball-1", "ball-2"}  # fmt: skip
    stopped, _ = make_run("stopped", steps=30, pairs=pairs, validate_every_steps=15, **REJECT)
    assert train_run(stopped, on_step=stop_after(7)) == 143
    assert train_run(stopped) == 0
    assert losses(stopped) == found
    assert same(weights(stopped), weights(straight))


def test_loader_processes_change_nothing(make_run, pairs: str) -> None:
    one, _ = make_run("one", steps=2, pairs=pairs, **REJECT)
    two, _ = make_run("two", steps=2, pairs=pairs, **REJECT, num_workers=1)
    train_run(one)
    train_run(two)
    assert losses(one) == losses(two)


def test_a_loss_is_that_of_the_latents_as_they_were_kept(make_run, pairs: str) -> None:
    run, config = make_run(steps=1, pairs=pairs, **REJECT)
    objective = make_trainer(config, run).objective
    picks = find_picks(config)
    assert picks is not None
    batch = {"uid": ["ball-1"], "counter": torch.tensor([5]), "image": torch.zeros(1, 3, 56, 56),
             "mask": torch.ones(1, 1, 56, 56)}  # fmt: skip
    (group,) = objective.encode(batch, noisy=True).groups
    assert torch.equal(group.latents[0], picks("ball-1", False).latents)
    assert group.start.std() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pairs": ""}, "none are given"),
        ({"objective": "flow"}, "reads no generations"),
        ({"rewards": []}, "`train.rewards` has none"),
        ({"model": "tiny"}, "are of model `small`"),
        ({"rewards": ["chamfr:1"]}, "did you mean `chamfer`"),
        ({"field_loss": 1.0}, "no true field"),
        ({"overfit": 2}, "is asked of plain data"),
        ({"stage": "vae"}, "only the DiT"),
    ],
)
def test_what_cannot_be_learned_is_refused(
    ushape, ball_data: Path, pairs: str, settings: dict, said: str
) -> None:
    values = {"model": "small", "pairs": pairs, "num_latents": 16, **REJECT, **settings}
    texts = {n: ",".join(v) if isinstance(v, list) else v for n, v in values.items()}
    more = [word for name, value in texts.items() for word in ("--set", f"train.{name}={value}")]
    refused = ushape("train", "--data", ball_data, "--profile", "cpu", "--dry-run", *more)
    assert refused.code == 2
    assert said in refused.err


def _of_record(**values: object) -> Callable[[Path], None]:
    """Changes the first generation of a record."""

    def damage(root: Path) -> None:
        record = json.loads((root / "ball-1.json").read_text())
        record["generations"][0] |= values
        (root / "ball-1.json").write_text(json.dumps(record))

    return damage


def _of_tensors(hashed: bool, **changed: torch.Tensor) -> Callable[[Path], None]:
    """Changes tensors of a file, and its hash in the record if it is to seem whole."""

    def damage(root: Path) -> None:
        file = root / "ball-1.safetensors"
        save_file(load_file(file) | {k.replace("_", "."): v for k, v in changed.items()}, file)
        record = json.loads((root / "ball-1.json").read_text())
        record["sha256"] = file_hash(file) if hashed else record["sha256"]
        (root / "ball-1.json").write_text(json.dumps(record))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_of_record(rewards={}), "have no reward `chamfer`"),
        (_of_record(rewards=[]), "rewards are []"),
        (_of_record(rewards={"chamfer": 1e300, "components": 0}), "`chamfer` is 1e+300"),
        (_of_record(rewards={"chamfer": True, "components": 0}), "`chamfer` is True"),
        (_of_record(rewards={"chamfer": 10**400, "components": 0}), "`chamfer` is 1000"),
        (lambda root: (root / "ball-1.json").write_text('{"generations": []}'), "there are none"),
        (lambda root: (root / "ball-1.json").write_text("9" * 5000), "are damaged"),
        (lambda root: (root / "ball-1.safetensors").unlink(), "is missing"),
        (_of_tensors(False, latents_0=torch.zeros(15, 8)), "not the file that was written"),
        (_of_tensors(True, latents_0=torch.full((15, 8), torch.nan)), "not all latents"),
        (_of_tensors(True, latents_0=torch.zeros(15, 3)), "do not fit the model"),
        (_of_tensors(True, voxels_0=torch.full((15, 3), 30_000)), "do not fit the model"),
        (_of_tensors(True, image=torch.zeros(8, 8, 1)), "its image is torch.float32"),
    ],
)
def test_damaged_generations_are_told_before_the_work(
    ushape, ball_data: Path, pairs: str, damage: Callable[[Path], None], said: str
) -> None:
    damage(Path(pairs))
    command = ("train", "--data", ball_data, "--model", "small", "--objective", "reject", "--pairs",
               pairs, "--profile", "cpu", "--set", "train.num_latents=16", "--dry-run")  # fmt: skip
    refused = ushape(*command)
    assert refused.code not in (0, 3)
    assert said in " ".join(refused.err.split())
    assert "ball-1" in refused.err


def test_other_files_in_a_folder_of_generations_are_left_alone(
    ushape, ball_data: Path, pairs: str
) -> None:
    (Path(pairs) / "notes.json").write_text("{}")
    assert "notes" not in KeptGenerations(Path(pairs)).assets()
    refused = ushape("evaluate", "--data", ball_data, "--model", "tiny", "-o", pairs)
    assert refused.code == 2
    assert "holds generations of --keep" in refused.err


def test_held_out_assets_are_not_learned_from(make_run, pairs: str) -> None:
    picks = find_picks(make_run(pairs=pairs, **REJECT)[1])
    assert picks is not None
    require_training_assets(picks, ["ball-0", "ball-1", "ball-2", "more"])
    with pytest.raises(DatasetError, match="such as `ball-2`: what is held out"):
        require_training_assets(picks, ["ball-0", "ball-1"])


def test_nothing_to_choose_from_is_told(tmp_path: Path) -> None:
    alike = keep_balls(tmp_path / "alike", assets=1)
    flags = {"train.model": "small", "train.objective": "reject", "train.pairs": str(alike)}
    config = resolve(flags=flags, environ={}).config
    with pytest.raises(DatasetError, match="no generation is better"):
        find_picks(config)
    write_json(alike / "generations.json", {"schema": 99})
    with pytest.raises(DatasetError, match="that this version reads"):
        find_picks(config)


def test_the_command_plans_and_trains(ushape, ball_data: Path, pairs: str, tmp_path: Path) -> None:
    command = [
        *("train", "--data", ball_data, "--model", "small", "--objective", "reject"),
        *("--pairs", pairs, "--steps", 2, "--profile", "cpu", "--device", "cpu"),
        *("--set", "train.num_latents=16", "--set", "train.num_workers=0"),
        *("--set", "train.surface_points=256", "--set", "train.validate_meshes=0"),
    ]
    planned = ushape(*command, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert "3 assets" in planned.err
    assert "are of other weights than this run starts from" in " ".join(planned.err.split())
    assert "no held-out assets" not in planned.err
    done = ushape(*command, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    # The same generations elsewhere are the same, and other rewards of them are others.
    moved = Path(pairs).rename(tmp_path / "moved")
    command[command.index(pairs)] = moved
    assert ushape(*command, "--out", tmp_path / "run").code == 0
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "val_held_normals": 0.8, "val_base_held_normals": 0.9}\n')
    refused = ushape(*command, "--out", tmp_path / "run")
    assert (refused.code, "has fallen by 11.1 %" in refused.err) == (1, True)
    allowed = ushape(*command, "--out", tmp_path / "run", "--set", "reward.max_drop=0")
    assert (allowed.code, "nothing left to train" in allowed.err) == (0, True)
    assert "--benchmark has no generations" in ushape(*command, "--benchmark", 1).err


WATCHED = {"validate_every_steps": 1, "validate_meshes": 1, "mesh_every_validations": 1,
           "mesh_resolution": 24, "rewards": ("chamfer:1",)}  # fmt: skip


def test_validation_watches_rewards_and_the_distance_to_the_start(
    make_run, pairs: str, ball_weights: Path
) -> None:
    settings = {**REJECT, **WATCHED, "strategy": "lora", "lora_rank": 4, "init": str(ball_weights)}
    settings["mesh_every_validations"] = 2
    run, _ = make_run(steps=2, pairs=pairs, **settings)
    assert train_run(run) == 0
    first, last = (json.loads(line) for line in run.metrics.read_text().splitlines())
    for kind in ("", "base_", "coarse_"):
        names = (f"val_{kind}reward_chamfer", f"val_{kind}held_f_score", f"val_{kind}held_normals")
        assert all(name in last for name in names)
    assert last["val_base_seed_spread"] > 0
    # Adapters start at nothing.
    assert 0 < first["val_drift"] < last["val_drift"]


def test_a_run_stops_where_a_held_out_reward_falls(
    make_run, pairs: str, ball_weights: Path, monkeypatch
) -> None:
    import ultrashape_cli.training.mesh_validation as module

    calls = []

    def falling(mesh, names, evidence):
        calls.append(names)
        # Of the start and its input, then of the first and the second validation.
        return {"chamfer": 1.0, "f_score": 0.5, "silhouette": 0.5,
                "normals": (0.9, 0.9, 0.89, 0.87)[len(calls) - 1]}  # fmt: skip

    monkeypatch.setattr(module, "measure", falling)
    run, _ = make_run(steps=5, pairs=pairs, init=str(ball_weights), **REJECT, **WATCHED)
    with pytest.raises(TrainingError, match=r"`normals` from 0.9000 to 0.8700 has fallen by 3.3 %"):
        train_run(run)
    assert run.read_status()["state"] == "failed"
    assert checkpoints(run)[-1].name == "step-00000002"
    # What a queue repeats stays stopped.
    assert "by 3.3 %" in fallen_before(run.metrics, 0.02).message
    assert fallen_before(run.metrics, 0.05) is None
    assert fallen_before(run.root / "none.jsonl", 0.02) is None


@pytest.mark.parametrize(
    ("now", "limit", "falls"), [(0.491, 0.02, False), (0.48, 0.02, True), (0.1, 0.0, False)]
)
def test_what_counts_as_a_fall(now: float, limit: float, falls: bool) -> None:
    values = {"val_held_f_score": now, "val_base_held_f_score": 0.5, "val_loss": 1.0}
    error = fallen_reward(values, 7, limit)
    assert (error is not None) == falls
    # A start of nothing has a fall too.
    values = {"val_held_components": -0.1, "val_base_held_components": 0.0}
    assert "by 100.0 %" in fallen_reward(values, 7, 0.02).message
