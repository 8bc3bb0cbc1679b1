"""Blender as a process: a stand-in for its failures, the real one where it is installed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.rendering import blender
from ultrashape_cli.rendering.blender import blender_command, blender_views, require_blender
from ultrashape_cli.rendering.cameras import view_set
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

STAND_IN = """#!{python}
import json, os, sys
import numpy as np
from PIL import Image
print("Blender greets", flush=True)
if "{fault}" == "start":
    sys.exit("library missing")
print(json.dumps(dict(version=[3 if "{fault}" == "old" else 5, 0, 1])), flush=True)
for line in sys.stdin:
    task = json.loads(line)
    faces = len(np.load(task["mesh"])["faces"])
    for number, camera in enumerate(task["cameras"]):
        if "{fault}" == "view" and number == 1:
            print(json.dumps(dict(error="out of memory")), flush=True)
            break
        if "{fault}" == "crash" and number == 1:
            os._exit(11)
        pixels = np.full((camera["height"], camera["width"], 4), number + 1, np.uint8)
        pixels[0, 0] = faces, os.getpid() % 251, os.getpid() // 251 % 251, 255
        Image.fromarray(pixels).save(task["image"])
        print(json.dumps(dict(view=number)), flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def scene() -> Scene:
    box = trimesh.creation.box()
    return Scene(Mesh.from_arrays(box.vertices, box.faces))


@pytest.fixture
def stand_in(tmp_path: Path):
    """Makes a program that speaks Blender's part, with a fault."""
    made: list[str] = []

    def make(fault: str = "") -> str:
        path = tmp_path / f"blender{fault}"
        path.write_text(STAND_IN.format(python=sys.executable, fault=fault))
        path.chmod(0o755)
        made.append(str(path))
        return made[-1]

    yield make
    for command in [key for key in blender._running if key[0] in made]:
        blender._running.pop(command).close()


def test_one_process_serves_all_views_and_assets(scene: Scene, stand_in) -> None:
    program = stand_in()
    cameras = view_set(3, size=16)
    images = list(blender_views(scene, cameras, program=program))
    assert [image[5, 5, 0] for image in images] == [1, 2, 3]
    assert images[0][0, 0, 0] == 12
    (again,) = blender_views(scene, cameras[:1], program=program)
    assert np.array_equal(again, images[0])


def test_an_abandoned_asset_does_not_disturb_the_next(scene: Scene, stand_in) -> None:
    program = stand_in()
    next(blender_views(scene, view_set(3, size=16), program=program))
    images = list(blender_views(scene, view_set(2, size=8), program=program))
    assert [image.shape for image in images] == [(8, 8, 4)] * 2
    assert [image[5, 5, 0] for image in images] == [1, 2]


@pytest.mark.parametrize(
    ("fault", "message"), [("view", "out of memory"), ("crash", "exit code 11")]
)
def test_a_failing_blender_is_an_error_and_starts_anew(
    scene: Scene, stand_in, fault: str, message: str
) -> None:
    program = stand_in(fault)
    with pytest.raises(DependencyError, match=message):
        list(blender_views(scene, view_set(2, size=16), program=program))
    assert len(list(blender_views(scene, view_set(1, size=16), program=program))) == 1


@pytest.mark.parametrize(
    ("fault", "message"), [("old", "is Blender 3.0.1, too old"), ("start", "library missing")]
)
def test_an_unusable_blender_is_told(stand_in, fault: str, message: str) -> None:
    with pytest.raises(DependencyError, match=message) as error:
        require_blender(stand_in(fault))
    assert "--renderer rays" in error.value.hint


def test_a_missing_blender_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="Blender is not installed"):
        require_blender()
    with pytest.raises(DependencyError, match="`/no/blender` is not a program"):
        require_blender("/no/blender")


def test_a_python_runs_the_script_itself() -> None:
    command = blender_command(sys.executable)
    assert command[0] == sys.executable
    assert command[1].endswith("blender_script.py")


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("blender") and importlib.util.find_spec("bpy") is None,
    reason="needs Blender on PATH or the package bpy",
)
@pytest.mark.parametrize("orthographic", [False, True])
def test_both_renderers_draw_the_same_silhouette(orthographic: bool) -> None:
    parts = [
        trimesh.creation.icosphere(subdivisions=4, radius=0.5),
        trimesh.creation.torus(0.7, 0.2),
    ]
    shape = trimesh.util.concatenate(parts)
    scene = Scene(Mesh.from_arrays(shape.vertices, shape.faces))
    cameras = view_set(6, radius=0.9, size=512, orthographic=orthographic)[3:]
    ours = render_views(scene, cameras, ambient_rays=0)
    theirs = blender_views(scene, cameras, samples=16)
    for a, b in zip(ours, theirs, strict=True):
        a, b = a[..., 3] > 127, b[..., 3] > 127
        assert (a & b).sum() / (a | b).sum() > 0.995
