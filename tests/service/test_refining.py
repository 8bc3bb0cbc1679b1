"""With the model: a service's result is what `ushape refine` makes, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Served, png, served, wait_for

from ultrashape_cli import __version__
from ultrashape_cli.files import file_hash
from ultrashape_cli.inference.memory import OutOfMemory
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.figurines import make_figurine

OPTIONS = {"quality": "draft", "grid_resolution": 48, "tokens": 512, "seed": 7}
FLAGS = ("--quality", "draft", "--grid-resolution", 48, "--tokens", 512, "--seed", 7)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("inputs")
    mesh, image = folder / "figure.ply", folder / "view.png"
    save_mesh(make_figurine(3, resolution=24), mesh)
    image.write_bytes(png())
    return mesh, image


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("real") / "data"
    with served(folder, job="ultrashape_cli.service.worker", lease_s=30.0) as found:
        yield found


def refined(http: httpx.Client, inputs: tuple[Path, Path], **options: Any) -> dict[str, Any]:
    mesh, image = inputs
    answer = http.post(
        "/refine",
        files=[("mesh_file", (mesh.name, mesh.read_bytes())),
               ("image_file", (image.name, image.read_bytes()))],
        data={"options": json.dumps({**OPTIONS, **options})},
    )  # fmt: skip
    assert answer.status_code == 202, answer.text
    url = answer.headers["location"]
    return wait_for(lambda: (j := http.get(url).json())["state"] in ("done", "failed") and j, 60)


@pytest.mark.slow
def test_the_result_is_that_of_refine_bit_for_bit(
    http: httpx.Client, inputs: tuple[Path, Path], ushape, tmp_path: Path
) -> None:
    mesh, image = inputs
    direct = tmp_path / "direct.glb"
    told = ushape("refine", mesh, image, "-o", direct, "--model", "tiny", "--device", "cpu",
                  "--profile", "cpu", *FLAGS)  # fmt: skip
    assert told.code == 0, told.err
    found = refined(http, inputs)
    assert found["state"] == "done", found["error"]
    job = f"/jobs/{found['job_id']}/download"
    assert http.get(job).content == direct.read_bytes()

    record = http.get(f"{job}?file=record").json()
    theirs = json.loads(direct.with_name("direct.glb.json").read_text())
    assert record["version"] == __version__
    assert record["settings"] == theirs["settings"]
    assert record["seed"] == 7
    assert record["inputs"]["mesh_sha256"] == file_hash(mesh)
    assert record["inputs"]["image_sha256"] == file_hash(image)
    assert record["inputs"]["mesh"] == "figure.ply"
    assert record["service"]["memory_modes"] == ["resident"]
    assert record["result"]["faces"] == theirs["result"]["faces"]
    assert "/" not in "".join(w["path"] for w in record["inputs"]["weights"].values())


@pytest.mark.slow
def test_a_job_makes_all_that_it_is_asked_for(
    http: httpx.Client, inputs: tuple[Path, Path]
) -> None:
    asked = {"format": "obj", "faces": 400, "keep_full": True, "metrics": True, "picture": True}
    found = refined(http, inputs, **asked)
    assert found["state"] == "done", found["error"]
    assert set(found["files"]) == {"mesh", "full", "record", "picture"}
    assert found["result"]["metrics"]["to_input"]
    job = f"/jobs/{found['job_id']}"
    assert http.get(f"{job}/download?file=picture").content[:4] == b"\x89PNG"
    assert http.get(f"{job}/download").text.lstrip().startswith(("#", "v", "o"))
    assert http.get(f"{job}/preview").content[:4] == b"glTF"


def test_a_mesh_that_cannot_be_refined_is_a_failed_job_with_a_hint(http: httpx.Client) -> None:
    opaque = _opaque_png()
    answer = http.post(
        "/refine",
        files=[("mesh_file", ("a.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n")),
               ("image_file", ("a.png", opaque))],
        data={"options": json.dumps({**OPTIONS, "background": "white"})},
    )  # fmt: skip
    url = answer.headers["location"]
    found = wait_for(lambda: (j := http.get(url).json())["state"] == "failed" and j)
    assert found["error"]["code"] == "bad-image"
    assert found["error"]["hint"]
    assert "/tmp" not in found["error"]["message"]


def _opaque_png() -> bytes:
    import io

    from PIL import Image

    data = io.BytesIO()
    Image.new("RGB", (64, 64), (255, 255, 255)).save(data, "PNG")
    return data.getvalue()


def test_out_of_memory_is_tried_once_more_in_the_next_cheaper_mode(
    inputs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from serving import make_plan

    from ultrashape_cli.inference.refiner import Refiner
    from ultrashape_cli.service.models import LoadedModels
    from ultrashape_cli.service.refining import refine_job

    notes: list[str] = []

    class Told:
        def progress(self, stage: str, percent: int) -> None:
            return

        def note(self, text: str) -> None:
            notes.append(text)

    plain, calls = Refiner.evaluate, []

    def evaluate(self: Refiner, *args: Any) -> Any:
        calls.append(self.placement.mode)
        if len(calls) == 1:
            raise OutOfMemory("out of memory in stage `sample`", option="--tokens 256")
        return plain(self, *args)

    monkeypatch.setattr(Refiner, "evaluate", evaluate)
    models = LoadedModels(make_plan())
    task = task_of(inputs, tmp_path)
    end = refine_job(task, models, Told())  # type: ignore[arg-type]
    assert calls == ["resident", "int8"]
    assert end["result"]["memory_modes"] == ["resident", "int8"]
    assert "once more in mode `int8`" in notes[-1]
    record = json.loads((tmp_path / "refined.glb.json").read_text())
    assert record["service"]["memory_modes"] == ["resident", "int8"]

    # Once only: what does not fit then fails.
    calls.clear()
    monkeypatch.setattr(Refiner, "evaluate", lambda self, *_: _no_room(calls, self))
    with pytest.raises(OutOfMemory):
        refine_job(task, LoadedModels(make_plan()), Told())  # type: ignore[arg-type]
    assert calls == ["resident", "int8"]


def _no_room(calls: list[str], refiner: Any) -> None:
    calls.append(refiner.placement.mode)
    raise OutOfMemory("out of memory", option="--tokens 1")


def task_of(inputs: tuple[Path, Path], made: Path) -> dict[str, Any]:
    refine = {name: OPTIONS[name] for name in OPTIONS if name != "seed"}
    return {
        "do": "refine", "job": "j", "model": "tiny", "attempt": 1, "made": str(made),
        "mesh": str(inputs[0]), "image": str(inputs[1]),
        "inputs": {"mesh": {"name": "figure.ply"}, "image": {"name": "view.png"}},
        "options": {"refine": refine, "seed": 7, "format": "glb", "keep_full": False,
                    "metrics": False, "picture": False},
    }  # fmt: skip


def test_models_are_kept_by_use(inputs: tuple[Path, Path]) -> None:
    from dataclasses import replace

    from serving import make_plan

    from ultrashape_cli.service.models import LoadedModels

    plan = make_plan(max_models=2)
    one = next(iter(plan.checkpoints.values()))
    plan = replace(plan, checkpoints={"a": one, "b": one, "c": one})
    models = LoadedModels(plan)
    config = plan.settings.resolve("tiny", {}).config.refine

    def use(name: str) -> None:
        models.get(name, config, models.plan_for(name, config, 64))

    for name in ("a", "b", "a", "c"):
        use(name)
    assert [name for name, _ in models._loaded] == ["a", "c"]
