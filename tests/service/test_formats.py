"""A result comes in any format, with its colours where the format holds them."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import trimesh
from serving import files, wait_for

from ultrashape_cli.meshfiles.appearance import load_appearance
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.synthetic.figurines import make_figurine


def coloured_glb(path: Path) -> tuple[bytes, np.ndarray]:
    mesh = make_figurine(1, 16)
    colours = np.random.default_rng(0).integers(90, 256, (len(mesh.vertices), 3)).astype(np.uint8)
    save_mesh(mesh, path, colours)
    return path.read_bytes(), colours


def test_a_result_is_saved_in_another_format(http: httpx.Client, tmp_path: Path) -> None:
    sent, colours = coloured_glb(tmp_path / "a.glb")
    job = http.post("/refine", files=files(mesh=sent, name="a.glb")).json()["job_id"]
    wait_for(lambda: http.get(f"/jobs/{job}").json()["state"] == "done")
    answer = http.get(f"/jobs/{job}/download?format=ply")
    assert answer.status_code == 200, answer.text
    assert 'filename="a_refined.ply"' in answer.headers["content-disposition"]
    (tmp_path / "b.ply").write_bytes(answer.content)
    one, two = load_mesh(tmp_path / "a.glb"), load_mesh(tmp_path / "b.ply")
    assert np.array_equal(one.faces, two.faces)
    assert np.abs(one.vertices - two.vertices).max() < 1e-6
    kept = trimesh.load(tmp_path / "b.ply", process=False).visual.vertex_colors[:, :3]
    # The linear colours of glTF are read with eight bits, which are coarse in the dark.
    assert np.abs(kept.astype(int) - colours).max() <= 3


def test_a_format_that_is_none_and_a_file_that_is_no_mesh(http: httpx.Client) -> None:
    job = http.post("/refine", files=files(), data={"options": json.dumps({"seed": 1})}).json()
    path = f"/jobs/{job['job_id']}/download"
    wait_for(lambda: http.get(f"/jobs/{job['job_id']}").json()["state"] == "done")
    assert http.get(f"{path}?format=fbx").status_code == 422
    assert http.get(f"{path}?file=record&format=ply").json() == {}
    # The stand-in for a worker calls OFF what it was sent as GLB.
    answer = http.get(f"{path}?format=stl")
    assert (answer.status_code, answer.json()["code"]) == (422, "not-made")
    assert "there is no stl: " in answer.json()["detail"]
    assert "/" not in answer.json()["detail"]  # no folder of the service


def test_colours_in_textures_are_not_those_of_vertices(tmp_path: Path) -> None:
    coloured_glb(tmp_path / "a.glb")
    appearance = load_appearance(tmp_path / "a.glb")
    assert appearance is not None
    mesh = load_mesh(tmp_path / "a.glb")
    assert appearance.of_vertices(mesh) is not None
    assert appearance.of_vertices(mesh.with_faces(mesh.faces[1:])) is None
    appearance.materials[int(appearance.material[0])] = type(appearance.materials[0])(
        (1.0, 1.0, 1.0, 1.0), np.zeros((2, 2, 4), np.uint8)
    )
    assert appearance.of_vertices(mesh) is None
