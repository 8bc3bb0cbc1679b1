"""PLY: exact writing, the size a header announces, faces that trimesh does not understand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.optional import load_optional, missing_reason

_TYPE_BYTES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2,
    "uint16": 2, "int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4,
    "double": 8, "float64": 8,
}  # fmt: skip


def declared_bytes(head: bytes) -> int:
    """Return the bytes that a file with this beginning must have at least.

    Lists count as three items, the fewest a face can have.
    """
    text, marker, _ = head.partition(b"end_header\n")
    if not marker:
        text, marker, _ = head.partition(b"end_header\r\n")
    if not marker:
        return 0
    total, count = len(text) + len(marker), 0
    if b"format ascii" in text:
        # A number needs a digit and a separator; the last line may lack its end.
        total, sizes = total - 1, dict.fromkeys(_TYPE_BYTES, 2)
    else:
        sizes = _TYPE_BYTES
    for words in (line.split() for line in text.decode("ascii", "replace").splitlines()):
        if words[:1] == ["element"]:
            count = int(words[2])
        elif words[:2] == ["property", "list"]:
            items = 3 if words[4] in ("vertex_indices", "vertex_index") else 0
            total += count * (sizes[words[2]] + items * sizes[words[3]])
        elif words[:1] == ["property"]:
            total += count * sizes[words[1]]
    return total


def write_ply(mesh: Mesh, path: Path) -> None:
    """Write binary PLY that reads back exactly: doubles where single precision would round."""
    vertices = mesh.vertices.astype("<f4")
    kind = "float"
    if not np.array_equal(vertices, mesh.vertices):
        vertices, kind = mesh.vertices.astype("<f8"), "double"
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("vertices", "<i4", 3)])
    faces["count"], faces["vertices"] = 3, mesh.faces
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {kind} {axis}" for axis in "xyz"]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    with path.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode())
        file.write(vertices.tobytes())
        file.write(faces.tobytes())


def read_with_pymeshlab(path: Path) -> Mesh | None:
    """Return a mesh whose faces trimesh does not understand, such as triangle strips.

    None where pymeshlab cannot load.
    """
    if missing_reason("pymeshlab") is not None:
        return None
    pymeshlab = load_optional("pymeshlab")
    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.load_new_mesh(str(path))
    current = meshes.current_mesh()
    return Mesh.from_arrays(current.vertex_matrix(), current.face_matrix())
