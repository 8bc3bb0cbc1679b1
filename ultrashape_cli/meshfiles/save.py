"""Meshes to files, without rounding the shape away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.files import temporary_path
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.glb import step_of, write_glb
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

WRITABLE_SUFFIXES = tuple(suffix for suffix in MESH_SUFFIXES if suffix != ".gltf")
COLOUR_SUFFIXES = (".ply", ".glb", ".obj", ".off")
"""Formats in which colours of vertices are written."""
_COARSEST = 1e-5
"""Step of single precision, as part of the extent, above which STL would spoil a shape."""


def save_mesh(mesh: Mesh, path: str | Path, colours: NDArray[np.uint8] | None = None) -> None:
    """Write a mesh in the format of the suffix; the file is replaced in one step.

    PLY, OBJ and OFF read back exactly. GLB holds single precision around the centre, which its
    node keeps in double precision.

    Args:
        mesh: What to write.
        path: Where.
        colours: `[V, 3]` sRGB of the vertices; only formats in `COLOUR_SUFFIXES` hold them.

    Raises:
        MeshError: The suffix is not a format that can be written, or would round the shape away.
        DiskError: The folder cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        hint = f"use one of {' '.join(WRITABLE_SUFFIXES)}"
        raise MeshError(f"{path}: cannot write {suffix!r}", hint=hint)
    require_precision(mesh.bounds, path)
    with temporary_path(path) as temporary:
        if suffix == ".ply":
            _write_ply(mesh, temporary, colours)
        elif suffix == ".glb":
            write_glb(mesh, temporary, colours)
        elif suffix == ".obj":
            lines = map("f %d %d %d".__mod__, map(tuple, (mesh.faces + 1).tolist()))
            _write_text(temporary, vertex_lines(mesh, "v ", colours), lines)
        elif suffix == ".off":
            head = [
                "OFF" if colours is None else "COFF",
                f"{len(mesh.vertices)} {len(mesh.faces)} 0",
            ]
            lines = map("3 %d %d %d".__mod__, map(tuple, mesh.faces.tolist()))
            points = vertex_lines(mesh, "", colours, " %d %d %d 255")
            _write_text(temporary, head, points, lines)
        else:
            trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).export(temporary)


def require_precision(bounds: NDArray[np.float64], path: Path) -> None:
    """Raise MeshError where single precision cannot hold a shape in this box `[2, 3]`."""
    if path.suffix.lower() == ".stl" and step_of(bounds) > _COARSEST:
        raise MeshError(
            f"{path}: STL holds seven digits, and this mesh lies too far from its origin: they "
            f"would round it to {step_of(bounds):.1g} of its size",
            hint=f"write {path.with_suffix('.ply').name} or {path.with_suffix('.glb').name}",
        )


def vertex_lines(
    mesh: Mesh,
    head: str,
    colours: NDArray[np.uint8] | None,
    form: str = " %.4f %.4f %.4f",
) -> Iterator[str]:
    """Yield a line for each vertex, with its colour `[V, 3]` in a form, where there are some."""
    scale = 255 if "." in form else 1
    ends = repeat("") if colours is None else (
        form % (r / scale, g / scale, b / scale) for r, g, b in colours.tolist()
    )  # fmt: skip
    # The shortest text that reads back as the same number.
    for (x, y, z), end in zip(mesh.vertices.tolist(), ends, strict=False):
        yield f"{head}{x!r} {y!r} {z!r}{end}"


def _write_ply(mesh: Mesh, path: Path, colours: NDArray[np.uint8] | None) -> None:
    """Write binary PLY that reads back exactly: doubles where single precision would round."""
    vertices, kind = mesh.vertices.astype("<f4"), "float"
    if not np.array_equal(vertices, mesh.vertices):
        vertices, kind = mesh.vertices.astype("<f8"), "double"
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {kind} {axis}" for axis in "xyz"]
    if colours is not None:
        header += [f"property uchar {name}" for name in ("red", "green", "blue")]
        rows = np.empty(len(vertices), [("place", vertices.dtype, 3), ("colour", "u1", 3)])
        rows["place"], rows["colour"] = vertices, colours
        vertices = rows
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("vertices", "<i4", 3)])
    faces["count"], faces["vertices"] = 3, mesh.faces
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
    with path.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode())
        file.write(vertices.tobytes())
        file.write(faces.tobytes())


def _write_text(path: Path, *blocks: Iterable[str]) -> None:
    with path.open("w", encoding="ascii", newline="\n") as file:
        for block in blocks:
            file.write("\n".join(block))
            file.write("\n")
