"""Files to meshes: a reader for each format, and what all have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import MeshError
from ultrashape_cli.formatting import cause
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.gltf import read_gltf
from ultrashape_cli.meshfiles.obj import read_obj
from ultrashape_cli.meshfiles.off import read_off
from ultrashape_cli.meshfiles.parts import Contents, Part, Unreadable
from ultrashape_cli.meshfiles.ply import read_ply
from ultrashape_cli.meshfiles.stl import read_stl
from ultrashape_cli.meshfiles.threemf import read_3mf, unpacked_bytes

MAX_FILE_BYTES = 4 * 2**30
EXPORT_HINT = "export the mesh again, for example as binary PLY or GLB"

NOT_READ = {
    ".fbx": "FBX",
    ".dae": "Collada",
    **dict.fromkeys((".usd", ".usda", ".usdc", ".usdz"), "USD"),
    ".blend": "a Blender file",
    **dict.fromkeys((".ztl", ".zpr"), "a ZBrush file"),
    **dict.fromkeys((".ma", ".mb", ".max", ".c4d", ".3ds", ".lwo"), "of a modelling program"),
    ".vrm": "VRM, GLB by another name",
    **dict.fromkeys((".step", ".stp", ".iges", ".igs"), "CAD, which has no triangles"),
    **dict.fromkeys((".x3d", ".wrl", ".abc", ".amf"), "a format of scenes"),
}
"""Files that hold meshes in formats that are not read, by suffix, and what they are."""
NOT_READ_HINT = "export it as GLB, or as OBJ with its textures beside it"

_KINDS: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"gltf\2\0\0\0", "GLB", (".glb", ".gltf")),
    (b"ply\n", "PLY", (".ply",)),
    (b"ply\r", "PLY", (".ply",)),
    (b"pk\3\4", "a ZIP archive", (".3mf",)),
    (b"\x1f\x8b", "packed by gzip", ()),
    (b"version https://git-lfs", "a pointer of Git LFS", ()),
    (b"kaydara fbx", "FBX", ()),
    (b"<!doctype html", "a web page", ()),
    (b"<html", "a web page", ()),
    (b"\x89png", "a picture", ()),
    (b"\xff\xd8\xff", "a picture", ()),
    (b"%pdf", "PDF", ()),
)
"""How files begin, in small letters; what they are; and the suffixes that they may have."""

_KIND_HINTS = {"packed by gzip": "unpack it", "a pointer of Git LFS": "git lfs pull"}

READERS: dict[str, Callable[..., Contents]] = {
    ".obj": read_obj,
    ".stl": read_stl,
    ".ply": read_ply,
    ".glb": read_gltf,
    ".gltf": read_gltf,
    ".off": read_off,
    ".3mf": read_3mf,
}
MESH_SUFFIXES = tuple(READERS)


def load_mesh(path: str | Path, *, max_bytes: int = MAX_FILE_BYTES) -> Mesh:
    """Return all geometry of a file as one mesh, in the units and axes of the file.

    Scenes are flattened with their transforms; polygons are triangulated. Vertices are neither
    merged nor reordered; those that no face uses are left out, and so are faces without area.

    Raises:
        MeshError: The file is missing, malformed, of an unknown type, too large, or its geometry
            has no faces, no finite position or no extent.
    """
    path = Path(path)
    return mesh_of(path, read_contents(path, colours=False, max_bytes=max_bytes))


def mesh_of(path: Path, contents: Contents) -> Mesh:
    """Return the surface in a file's contents as one mesh; notes what it lacks.

    Raises:
        MeshError: As of `load_mesh`; the path is for the message.
    """
    mesh = joined(contents.parts)
    _require_faces(path, mesh)
    kept = surface_faces(mesh)
    if not kept.any():
        raise MeshError(f"{path}: no face has an area and finite coordinates", hint=EXPORT_HINT)
    if not kept.all():
        corners = mesh.vertices[mesh.faces[~kept]]
        if lost := int((~np.isfinite(corners).all(axis=(1, 2))).sum()):
            what = f"{lost:,} of {len(kept):,} faces left out: their coordinates are not finite"
            contents.notes.append(what)
        mesh = Mesh(mesh.vertices, mesh.faces[kept])
    mesh = mesh.with_faces(mesh.faces) if _unused(mesh) else mesh
    # Axis by axis: NumPy is slow along rows of three.
    extent = max(float(np.ptp(axis)) for axis in mesh.vertices.T)
    # The square of an extent beyond these bounds leaves the range of float64 areas and volumes.
    if not 1e-90 < extent < 1e90:
        raise MeshError(f"{path}: its longest side is {extent:g}", hint=EXPORT_HINT)
    return mesh


def read_contents(path: Path, *, colours: bool, max_bytes: int = MAX_FILE_BYTES) -> Contents:
    """Return what the reader of the format says.

    Args:
        path: The file.
        colours: Also read colours.
        max_bytes: Larger files are refused.

    Raises:
        MeshError: The file is missing, malformed, of an unknown type or too large.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        if kind := NOT_READ.get(suffix):
            raise MeshError(f"{path}: is {kind}, which is not read", hint=NOT_READ_HINT)
        known = " ".join(MESH_SUFFIXES)
        raise MeshError(f"{path}: unknown mesh type {suffix!r}", hint=f"use one of {known}")
    try:
        _check_size(path, suffix, max_bytes)
        _check_kind(path, suffix)
        return READERS[suffix](path, colours=colours)
    except MeshError:
        raise
    except Unreadable as error:
        raise MeshError(f"{path}: {error}", hint=error.hint or EXPORT_HINT) from error
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise MeshError(message, hint="check the path and its permissions") from error
    except MemoryError as error:
        raise MeshError(f"{path}: does not fit in memory", hint="reduce the mesh") from error
    except Exception as error:
        # A malformed file can make a reader trip over anything: to the user it is the same.
        message = f"{path}: cannot be read ({type(error).__name__}: {cause(error)[:200]})"
        raise MeshError(message, hint=EXPORT_HINT) from error


def _check_kind(path: Path, suffix: str) -> None:
    """Refuse a file that begins as those of another kind do."""
    with path.open("rb") as file:
        head = file.read(64)
    for start, kind, own in _KINDS:
        if head[: len(start)].lower() == start and suffix not in own:
            hint = _KIND_HINTS.get(kind, NOT_READ_HINT)
            hint = f"rename it to {path.stem}{own[0]}" if own else hint
            raise MeshError(f"{path}: is {kind} by its content, not {suffix}", hint=hint)


def joined(parts: Sequence[Part]) -> Mesh:
    """Return the parts of a file as one mesh, in their order."""
    if not parts:
        return Mesh.from_arrays(np.zeros((0, 3)), np.zeros((0, 3)))
    if len(parts) == 1:
        return Mesh.from_arrays(parts[0].vertices, parts[0].faces)
    offsets = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + offset for part, offset in zip(parts, offsets, strict=False)]
    return Mesh.from_arrays(
        np.concatenate([part.vertices for part in parts]), np.concatenate(faces)
    )


def surface_faces(mesh: Mesh) -> NDArray[np.bool_]:
    """Return which faces `[F]` are surface: finite, and with an area.

    A face without area stays where all its corners belong to others that have one: it may close a
    gap of no width.
    """
    whole, solid = np.empty((2, len(mesh.faces)), bool)
    _judge(mesh.vertices, mesh.faces, whole, solid)
    if not np.array_equal(whole, solid):
        used = np.zeros(len(mesh.vertices), bool)
        used[mesh.faces[solid]] = True
        solid |= whole & used[mesh.faces].all(axis=1)
    return solid


@kernel
def _judge(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    whole: NDArray[np.bool_],  # to fill: finite and of three vertices
    solid: NDArray[np.bool_],  # to fill: whole, and with an area
) -> None:
    for f in range(len(faces)):
        # By index: a row of three is unpacked slowly.
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        a, b, c = vertices[i], vertices[j], vertices[k]
        finite, square = True, 0.0
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            finite = finite and np.isfinite(a[x]) and np.isfinite(b[x]) and np.isfinite(c[x])
            half = ((b[y] - a[y]) * (c[z] - a[z]) - (b[z] - a[z]) * (c[y] - a[y])) / 2
            square += half * half
        whole[f] = finite and i != j and j != k and k != i
        solid[f] = whole[f] and square > 0


def _unused(mesh: Mesh) -> bool:
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.faces] = True
    return not used.all()


def _require_faces(path: Path, mesh: Mesh) -> None:
    if len(mesh.faces) == 0:
        hint = "point clouds and curves cannot be used; " + EXPORT_HINT
        raise MeshError(f"{path}: has no faces", hint=hint)
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise MeshError(f"{path}: a face uses a vertex that does not exist", hint=EXPORT_HINT)


def _check_size(path: Path, suffix: str, max_bytes: int) -> None:
    """Refuse a file that is empty or too large."""
    size = path.stat().st_size
    if size == 0:
        raise MeshError(f"{path}: is empty", hint=EXPORT_HINT)
    with path.open("rb") as file:
        packed = suffix == ".3mf" and file.read(2) == b"PK"
    if packed:
        size = max(size, unpacked_bytes(path, max_bytes))
    if size > max_bytes:
        message = f"{path}: {size / 2**30:.1f} GiB is above the limit of {max_bytes / 2**30:.1f}"
        raise MeshError(message, hint="reduce the mesh")
