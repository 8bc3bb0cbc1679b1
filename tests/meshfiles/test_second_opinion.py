"""What other readers say of the same files, in a process of their own: some of them crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.optional import missing_reason
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh

SUFFIXES = (".obj", ".ply", ".off", ".stl", ".glb")
CHILDREN = {
    "open3d": """
import json, sys, open3d
found = [open3d.io.read_triangle_mesh(path) for path in sys.argv[1:]]
print(json.dumps([[len(m.triangles), m.get_surface_area(), list(m.get_center())] for m in found]))
""",
    "pymeshlab": """
import json, sys, pymeshlab
rows = []
for path in sys.argv[1:]:
    meshes = pymeshlab.MeshSet()
    meshes.load_new_mesh(path)
    mesh = meshes.current_mesh()
    area = meshes.get_geometric_measures()["surface_area"]
    rows.append([mesh.face_number(), area, mesh.vertex_matrix().mean(axis=0).tolist()])
print(json.dumps(rows))
""",
}


@pytest.mark.parametrize("reader", CHILDREN)
def test_others_read_what_is_written_as_we_do(tmp_path: Path, torus: Mesh, reader: str) -> None:
    if reason := missing_reason(reader):
        pytest.skip(reason)
    placed = Mesh(torus.vertices * 3 + (1, 2, -5), torus.faces)
    paths = [tmp_path / f"a{suffix}" for suffix in SUFFIXES]
    for path in paths:
        save_mesh(placed, path)
    command = [sys.executable, "-c", CHILDREN[reader], *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for path, (faces, area, centre) in zip(
        paths, json.loads(done.stdout.splitlines()[-1]), strict=True
    ):
        ours = load_mesh(path)
        assert faces == len(ours.faces), path.name
        assert area == pytest.approx(float(ours.area_faces.sum()), rel=1e-5), path.name
        if path.suffix != ".stl":  # whose corners each of them merges in its own way
            assert centre == pytest.approx(ours.vertices.mean(axis=0).tolist(), abs=1e-4), path.name
