"""Files to meshes: geometry alone; colours are read in appearance.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ultrashape_cli.errors import DependencyError, MeshError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles import glb, ply, stl
from ultrashape_cli.meshfiles.scene import EXPORT_HINT, read_scene
from ultrashape_cli.meshfiles.threemf import unpacked_bytes

MESH_SUFFIXES = (".obj", ".stl", ".ply", ".glb", ".gltf", ".off", ".3mf")
MAX_FILE_BYTES = 4 * 2**30

_DECLARED_BYTES: dict[str, Callable[[bytes], int]] = {
    ".stl": stl.declared_bytes,
    ".glb": glb.declared_bytes,
    ".ply": ply.declared_bytes,
}


def load_mesh(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> Mesh:
    """Return all geometry of a file as one mesh, in the units and axes of the file.

    Scenes are flattened with their transforms; polygons are triangulated. Vertices are neither
    merged nor reordered.

    Raises:
        MeshError: The file is missing, malformed, of an unknown type, too large, or its geometry
            has no faces, no finite position or no extent.
        DependencyError: The type needs a package that is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES:
        known = " ".join(MESH_SUFFIXES)
        raise MeshError(f"{path}: unknown mesh type {suffix!r}", hint=f"use one of {known}")
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise MeshError(message, hint="check the path and its permissions") from error
    try:
        _check_header(path, suffix, head, size, max_bytes)
        mesh = read_scene(path, suffix)
        if len(mesh.faces) == 0 and suffix == ".ply":
            mesh = ply.read_with_pymeshlab(path) or mesh
    except (MeshError, DependencyError):
        raise
    except ImportError as error:
        raise DependencyError(
            f"{path}: reading {suffix} needs the package {error.name or error}",
            hint="pip install trimesh[easy]",
        ) from error
    except MemoryError as error:
        raise MeshError(f"{path}: does not fit in memory", hint="reduce the mesh") from error
    except Exception as error:
        # The loaders raise whatever a malformed file makes them trip over: ValueError, IndexError,
        # KeyError, struct.error, JSONDecodeError ... All of them mean the same to the user.
        cause = str(error).strip().splitlines()[:1] or [""]
        message = f"{path}: cannot read: {type(error).__name__}: {cause[0][:200]}"
        raise MeshError(message, hint=EXPORT_HINT) from error
    return _checked(path, mesh)


def _checked(path: Path, mesh: Mesh) -> Mesh:
    """Return the mesh without faces that touch a non-finite vertex, if it is usable."""
    if len(mesh.faces) == 0:
        hint = "point clouds and curves cannot be used; " + EXPORT_HINT
        raise MeshError(f"{path}: has no faces", hint=hint)
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise MeshError(f"{path}: a face uses a vertex that does not exist", hint=EXPORT_HINT)
    finite = np.asarray(np.isfinite(mesh.vertices).all(axis=1))
    if not finite.all():
        faces = mesh.faces[finite[mesh.faces].all(axis=1)]
        if len(faces) == 0:
            raise MeshError(f"{path}: no face has finite coordinates", hint=EXPORT_HINT)
        mesh = mesh.with_faces(faces)
    extent = float(mesh.extents.max())
    # The square of an extent beyond these bounds leaves the range of float64 areas and volumes.
    if not 1e-90 < extent < 1e90:
        raise MeshError(f"{path}: its longest side is {extent:g}", hint=EXPORT_HINT)
    if not mesh.area_faces.sum() > 0:
        raise MeshError(f"{path}: all faces have zero area", hint=EXPORT_HINT)
    return mesh


def _check_header(path: Path, suffix: str, head: bytes, size: int, max_bytes: int) -> None:
    """Refuse a file that is empty, too large, or shorter than its header says."""
    if size == 0:
        raise MeshError(f"{path}: is empty", hint=EXPORT_HINT)
    if suffix == ".3mf" and head[:2] == b"PK":
        size = max(size, unpacked_bytes(path, max_bytes))
    if size > max_bytes:
        message = f"{path}: {size / 2**30:.1f} GiB is above the limit of {max_bytes / 2**30:.1f}"
        raise MeshError(message, hint="reduce the mesh")
    declared = _DECLARED_BYTES[suffix](head) if suffix in _DECLARED_BYTES else 0
    if declared > size:
        message = f"{path}: truncated: its header needs {declared} bytes, the file has {size}"
        raise MeshError(message, hint="copy or download the file again")
