"""`ushape refine`: what it says about bad input, and what it leaves behind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from ball_networks import ball_networks

from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import check_outputs
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.sources import WeightSource
from ultrashape_cli.models.weights import write_safetensors


def test_a_missing_mesh_is_bad_usage(refine, inputs: Path) -> None:
    result = refine(mesh=inputs / "none.ply")
    assert result.code == 2
    # The box breaks its lines where the name of the folder makes it.
    assert "does not exist" in re.sub(r"[│\s]+", " ", result.err)


def test_an_image_that_is_none_is_named(refine, inputs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "picture.png"
    bad.write_text("not a picture")
    result = refine(image=bad)
    assert result.code == 1
    assert str(bad) in result.err
    assert "Traceback" not in result.err


def test_an_empty_mesh_is_named(refine, inputs: Path, tmp_path: Path) -> None:
    bad = tmp_path / "empty.obj"
    bad.write_text("# nothing\n")
    result = refine(mesh=bad)
    assert result.code == 1
    assert str(bad) in result.err


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x80\x04junk"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_checkpoint_that_is_none_is_named(
    refine, inputs: Path, tmp_path: Path, content: bytes, suffix: str
) -> None:
    bad = tmp_path / f"weights.{suffix}"
    bad.write_bytes(content)
    result = refine("--checkpoint", bad)
    assert result.code == 1
    assert str(bad) in result.err
    assert "Traceback" not in result.err


def test_no_weights_at_all_says_what_to_do(ushape, inputs: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = ushape("refine", inputs / "mesh.ply", inputs / "image.png", "--json")
    assert result.code == 1
    body = json.loads(result.out)
    assert body["error"]["message"].startswith("no weights")
    assert "--checkpoint" in body["error"]["hint"]


def test_weights_of_another_model_name_the_difference(refine, inputs: Path, tmp_path: Path) -> None:
    networks = build(model_spec("tiny"), device="cpu", components=("dit",))
    path = tmp_path / "half.safetensors"
    write_safetensors(path, {"dit": networks.dit}, {"model": "tiny"})  # type: ignore[dict-item]
    result = refine("--checkpoint", path)
    assert result.code == 1
    assert "holds no `vae`" in result.err or "holds no `conditioner`" in result.err


def test_weights_of_another_size_name_the_first_difference(
    refine, inputs: Path, tmp_path: Path
) -> None:
    path = tmp_path / "small.safetensors"
    write_safetensors(path, ball_networks()._asdict(), {"model": "tiny"})
    result = refine("--checkpoint", path)
    assert result.code == 1
    assert f"{path}: does not fit" in result.err
    assert "expected" in result.err


@pytest.mark.parametrize("name", ["out.blend", "out", "out.gltf"])
def test_an_unknown_output_format_is_bad_usage(refine, tmp_path: Path, name: str) -> None:
    result = refine("-o", tmp_path / name)
    assert result.code == 2
    assert f"`{tmp_path / name}`" in result.err
    assert ".obj .stl .ply .glb .off .3mf" in result.err
    assert f"-o {tmp_path / 'out.glb'}" in result.err


def test_swapped_mesh_and_image_are_asked_about(refine, inputs, tmp_path, monkeypatch) -> None:
    mesh, image = inputs / "mesh.ply", inputs / "image.png"
    monkeypatch.setattr("sys.argv", ["ushape", "refine", str(image), str(mesh), "--force"])
    result = refine("-o", tmp_path / "out.glb", mesh=image, image=mesh)
    assert result.code == 2
    assert "swapped?" in result.err
    assert f"hint: ushape refine {mesh} {image} --force" in result.err
    assert not any(tmp_path.iterdir())


@pytest.fixture
def own(inputs: Path, tmp_path: Path) -> Path:
    """A folder with mesh, image, ground truth and weights of the user."""
    for name in ("mesh.ply", "image.png", "weights.safetensors"):
        shutil.copy(inputs / name, tmp_path / name)
    shutil.copy(inputs / "mesh.ply", tmp_path / "truth.ply")
    (tmp_path / "link.ply").symlink_to(tmp_path / "mesh.ply")
    return tmp_path


@pytest.mark.parametrize(
    "output",
    [
        ("-o", "mesh.ply"),
        ("-o", "link.ply"),
        ("-o", "truth.ply"),
        ("-o", "new.ply", "--preview", "image.png"),
        ("-o", "new.ply", "--preview", "weights.safetensors"),
        ("-o", "new.ply", "--preview", "new.ply"),
        ("-o", "new.ply", "--keep-full", "--preview", "new_full.ply"),
    ],
)
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_no_output_replaces_what_is_read_or_another_output(
    refine, own: Path, output: tuple, force: tuple
) -> None:
    before = {path: path.read_bytes() for path in own.iterdir()}
    given = [own / word if "." in word else word for word in output]
    more = ("--checkpoint", own / "weights.safetensors", "--ground-truth", own / "truth.ply")
    result = refine(*given, *more, *force, mesh=own / "mesh.ply", image=own / "image.png")
    assert result.code == 2
    assert "--force" not in result.err
    assert {path: path.read_bytes() for path in own.iterdir()} == before


def test_the_checkpoints_of_a_run_that_is_read_stay(tmp_path: Path) -> None:
    step = tmp_path / "mine" / "checkpoints" / "step-00000010"
    step.mkdir(parents=True)
    (step / "manifest.json").write_text("{}")
    source = WeightSource("tiny", {"dit": step / "model.safetensors"})
    for output in (step / "model.safetensors", step.parent / "step-00000020" / "out.glb"):
        with pytest.raises(UsageError):
            check_outputs([output], source.inputs, hint="")
    check_outputs([tmp_path / "mine" / "out.glb"], source.inputs, hint="")


@pytest.mark.parametrize("name", ["out.glb", "out.glb.json", "view.png"])
@pytest.mark.parametrize("force", [(), ("--force",)])
def test_a_file_of_others_is_not_overwritten(refine, tmp_path: Path, name: str, force) -> None:
    (tmp_path / name).write_text("precious")
    result = refine("-o", tmp_path / "out.glb", "--preview", tmp_path / "view.png", *force)
    assert result.code == 2
    assert "did not make it" in result.err
    assert (tmp_path / name).read_text() == "precious"


def test_a_result_of_other_settings_is_replaced_when_forced(refine, tmp_path: Path) -> None:
    out = tmp_path / "out.glb"
    assert refine("-o", out).code == 0
    result = refine("-o", out, "--seed", 5)
    assert result.code == 2
    assert "--force" in result.err
    assert refine("-o", out, "--seed", 5, "--force").code == 0


def test_a_dry_run_writes_nothing(refine, inputs: Path, tmp_path: Path) -> None:
    result = refine("-o", tmp_path / "new" / "out.glb", "--dry-run")
    assert result.code == 0
    assert not any(tmp_path.iterdir())


def test_a_profile_that_does_not_exist_offers_close_matches(refine, inputs: Path) -> None:
    result = refine("--profile", "a4O")
    assert result.code == 2
    assert "did you mean `a40`" in result.err.replace(" or `a100`", "")


def test_an_output_below_a_file_is_a_disk_error(refine, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = refine("-o", tmp_path / "file" / "out.glb")
    assert result.code == 1
    assert "cannot write" in result.err


def test_the_record_names_the_adapters_of_a_run(tmp_path: Path) -> None:
    from ultrashape_cli.config.resolve import resolve
    from ultrashape_cli.inference.job import Job, recipe_of

    base, adapters = tmp_path / "base.safetensors", tmp_path / "adapter_model.safetensors"
    for path, size in ((base, 5), (adapters, 3)):
        path.write_bytes(bytes(size))
    source = WeightSource("tiny", {"dit": base}, {"dit": tmp_path})
    job = Job(name="a", mesh=base, image=base, target=tmp_path / "a.glb", seed=0)
    recipe = recipe_of(job, source, resolve(flags={"profile": "cpu"}, environ={}).config)
    assert recipe["inputs"]["weights"]["dit_adapters"]["bytes"] == 3
