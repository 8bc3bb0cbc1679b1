"""Runs that distil: resumed, chained, refused, and what is said of their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from train_and_read import checkpoints, losses, same, train_run

from ultrashape_cli.config.distilled import Distilled, for_distilled
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.sources import resolve_weights
from ultrashape_cli.models.weights import read_metadata
from ultrashape_cli.runs import RunFolder

STUDENT = {
    "objective": "distill",
    "strategy": "lora",
    "lora_rank": 4,
    "learning_rate": 1e-2,
}


def adapters(run: RunFolder) -> dict:
    return load_file(checkpoints(run)[-1] / "adapter_model.safetensors")


def test_a_student_learns_and_a_resumed_one_learns_the_same(make_run, stop_after) -> None:
    straight, config = make_run("straight", steps=16, **STUDENT)
    assert config.distill.evaluations == 0
    train_run(straight)
    found = losses(straight)
    assert sum(found[-5:]) < 0.7 * sum(found[:5])
    stopped, _ = make_run("stopped", steps=16, **STUDENT)
    assert train_run(stopped, on_step=stop_after(7)) == 143
    assert train_run(stopped) == 0
    assert losses(stopped) == found
    assert same(adapters(stopped), adapters(straight))


def test_a_student_of_all_weights_follows_what_it_was(make_run, stop_after) -> None:
    """Also when resumed: the teacher is the network at the start of the run, not of the resume."""
    whole = {**STUDENT, "strategy": "full", "learning_rate": 3e-3}
    straight, _ = make_run("straight", steps=12, **whole)
    train_run(straight)
    found = losses(straight)
    assert sum(found[-4:]) < 0.8 * sum(found[:4])
    stopped, _ = make_run("stopped", steps=12, **whole)
    assert train_run(stopped, on_step=stop_after(5)) == 143
    assert train_run(stopped) == 0
    assert losses(stopped) == found


def test_weights_say_how_they_are_sampled(make_run, ushape, tmp_path: Path) -> None:
    run, _ = make_run(steps=1, **STUDENT)
    train_run(run)
    expected = Distilled(0, 2.0, "small")
    assert resolve_weights(run.root).distilled == expected
    file = tmp_path / "student.safetensors"
    assert ushape("weights", "convert", run.root, file).code == 0
    assert resolve_weights(file).distilled == expected
    assert json.loads(read_metadata(file)["distilled"])["solver"] == "euler"
    # The reference's form has no room for it.
    lost = ushape("weights", "convert", file, tmp_path / "student.pt")
    assert "does not say that these weights were distilled" in lost.err
    lost = ushape("weights", "export", run.root, "--format", "reference", "-o", tmp_path / "b.pt")
    assert "does not say that these weights were distilled" in lost.err
    refused = ushape("distill", "--init", file, "--evaluations", 0, "--model", "small")
    assert "have guidance in them" in refused.err
    codes = tmp_path / "codes.safetensors"
    assert ushape("weights", "quantise", file, codes).code == 0
    assert resolve_weights(codes).distilled == expected
    assert "is quantised (int8)" in ushape("distill", "--init", codes, "--model", "small").err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "sharded"}, "has no whole teacher"),
        ({"stage": "vae"}, "only the DiT"),
        ({"field_loss": 1.0}, "no loss of the field"),
    ],
)
def test_what_cannot_distil_is_refused(make_run, settings: dict, said: str) -> None:
    run, _ = make_run(steps=1, **{**STUDENT, **settings})
    with pytest.raises(ConfigError, match=said):
        train_run(run)


@pytest.mark.slow
def test_phases_follow_each_other_and_go_on(ushape, ball_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "distilled"
    command = [
        *("distill", "--data", ball_data, "--model", "small", "--evaluations", 24, "-o", out),
        *("--steps", 2, "--profile", "cpu", "--device", "cpu", "--set", "train.num_latents=16"),
        *("--set", "train.surface_points=256", "--set", "train.num_workers=0"),
        *("--set", "train.validate_meshes=0", "--set", "train.lora_rank=4"),
        *("--set", f"train.mirror={tmp_path}/copies"),
    ]
    planned = ushape(*command, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    phases = json.loads(planned.out)["phases"]
    assert [phase["phase"] for phase in phases] == ["guidance", "24"]
    assert not out.exists()
    done = ushape(*command, "--json")
    assert done.code == 0, done.err
    student = out / "student.safetensors"
    assert json.loads(done.out)["outputs"] == {"weights": str(student)}
    assert resolve_weights(student).distilled == Distilled(24, 2.0, "guidance.safetensors")
    copies = sorted(path.parent.name for path in tmp_path.glob("copies/*/run.json"))
    assert copies == ["24", "guidance"]
    settings = (out / "24/config.toml").read_text()
    assert f'init = "{out / "guidance.safetensors"}"' in settings
    assert "rollout_share = 0.3" in settings
    again = ushape(*command)
    assert again.code == 0
    assert again.err.count("nothing left to train") == 2

    # What would not hang together, or is another's, is told before anything is trained.
    refused = ushape(*command, "--steps", 3)
    assert (refused.code, "later phases were taught by" in refused.err) == (2, True)
    alien = tmp_path / "alien"
    alien.mkdir()
    for name in ("student.safetensors", "guidance.safetensors", "24/notes.txt"):
        file = alien / name
        file.parent.mkdir(exist_ok=True)
        shutil.copy(student, file)
        for more in ((), ("--force",)):
            refused = ushape(*command, "-o", alien, *more)
            assert (refused.code, f"{alien}-2" in refused.err) == (2, True), name
        assert file.read_bytes() == student.read_bytes()
        file.unlink()
    assert not any(alien.glob("guidance*"))
    refused = ushape(*command, "-o", alien / "x", "--set", "train.strategy=sharded", "--dry-run")
    assert "leave train.strategy out" in refused.err

    # Fine-tuned or distilled once more, it is told.
    more = [*command[1:5], "--init", student, *command[9:-2], "--dry-run"]
    assert "fine-tunes of such weights drift" in ushape("train", *more).err
    assert "would be counted on top" in ushape(
        *("train", *more), *("--set", "train.objective=distill")).err  # fmt: skip
    assert "has a guidance of 2 in it" in ushape("distill", *more, "--guidance-scale", 3).err
    twice = ushape("distill", *more, "--evaluations", 20, "--json")
    assert [phase["phase"] for phase in json.loads(twice.out)["phases"]] == ["20"]
    assert ushape("distill", *more, "--evaluations", 24).code == 2


def test_only_what_was_not_set_follows_the_weights() -> None:
    student = Distilled(6, 5.0, "teacher")
    plain = for_distilled(resolve(environ={}), student)
    refine = plain.config.refine
    assert (refine.steps, refine.solver, refine.guidance_scale) == (7, "euler", 0.0)
    assert plain.origins["refine.steps"] == "distilled weights"
    own = resolve(environ={}, flags={"refine.steps": 4, "refine.guidance_scale": 0.0})
    assert for_distilled(own, student).config.refine.steps == 4
    guided = resolve(environ={}, overrides=["refine.guidance_scale=3"])
    with pytest.raises(ConfigError, match="would count it twice"):
        for_distilled(guided, student)
    anywhere = for_distilled(resolve(environ={}), student._replace(evaluations=0)).config.refine
    assert (anywhere.steps, anywhere.guidance_scale) == (13, 0.0)
    assert for_distilled(guided, None) is guided


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"evaluations": "many", "guidance": 1}',
             '{"evaluations": 1e9, "guidance": 1}', '{"evaluations": null, "guidance": 1}'],
)  # fmt: skip
def test_what_files_say_is_not_believed_blindly(text: str) -> None:
    assert Distilled.parse(text) is None
