"""Triangle meshes as arrays and the files they come from; colours are read in appearance.py."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray

from ultrashape_cli.errors import DependencyError, MeshError
from ultrashape_cli.files import temporary_path
from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.optional import load_optional, missing_reason
from ultrashape_cli.geometry.rows import first_equal_rows

MESH_SUFFIXES = (".obj", ".stl", ".ply", ".glb", ".gltf", ".off", ".3mf")
MAX_FILE_BYTES = 4 * 2**30

# An archive that would unpack to more than both is a bomb: XML packs 5 to 20 times.
_BOMB_BYTES, _BOMB_RATIO = 64 * 2**20, 100

_EXPORT_HINT = "export the mesh again, for example as binary PLY or GLB"
_PLY_BYTES = {
    "char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2,
    "uint16": 2, "int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4,
    "double": 8, "float64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mesh:
    """Vertices `[V, 3]` float64 and triangles `[F, 3]` int64, in any frame."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]

    @classmethod
    def from_arrays(cls, vertices: ArrayLike, faces: ArrayLike) -> Mesh:
        """Return a mesh from anything array-like, converted to float64 and int64."""
        return cls(
            vertices=np.ascontiguousarray(vertices, dtype=np.float64).reshape(-1, 3),
            faces=np.ascontiguousarray(faces, dtype=np.int64).reshape(-1, 3),
        )

    @property
    def bounds(self) -> NDArray[np.float64]:
        """Lowest and highest corner `[2, 3]` of the vertices that faces use."""
        if len(self.faces) == 0:
            return np.zeros((2, 3))
        used = np.zeros(len(self.vertices), bool)
        used[self.faces] = True
        points = self.vertices[used]
        return np.stack([points.min(axis=0), points.max(axis=0)])

    @property
    def extents(self) -> NDArray[np.float64]:
        """Side lengths `[3]` of the bounding box."""
        low, high = self.bounds
        return high - low

    @property
    def triangles(self) -> NDArray[np.float64]:
        """Corner positions `[F, 3, 3]`."""
        return self.vertices[self.faces]

    @property
    def area_vectors(self) -> NDArray[np.float64]:
        """Normals `[F, 3]` whose length is the area of the face."""
        return _area_vectors(self.vertices, self.faces)

    @property
    def area_faces(self) -> NDArray[np.float64]:
        """Face areas `[F]`."""
        return np.linalg.norm(self.area_vectors, axis=1)

    @property
    def face_normals(self) -> NDArray[np.float64]:
        """Unit normals `[F, 3]`; zero for a face without area."""
        return unit(self.area_vectors)

    @property
    def vertex_normals(self) -> NDArray[np.float64]:
        """Unit area-weighted normals `[V, 3]`; zero for a vertex without faces."""
        vectors = self.area_vectors
        total = np.zeros_like(self.vertices)
        for corner in range(3):
            for axis in range(3):
                total[:, axis] += np.bincount(
                    self.faces[:, corner], vectors[:, axis], len(self.vertices)
                )
        return unit(total)

    @property
    def volume(self) -> float:
        """Signed volume; positive when faces point outward. Meaningful for closed meshes."""
        if len(self.faces) == 0:
            return 0.0
        # Measured from the centre of the box: an origin far away would cancel all digits.
        centre = self.bounds.mean(axis=0)
        a = self.vertices[self.faces[:, 0]] - centre
        return float(np.einsum("ij,ij->", a, self.area_vectors) / 3)

    def flipped(self) -> Mesh:
        """Return the mesh with every face reversed."""
        return Mesh(self.vertices, np.ascontiguousarray(self.faces[:, ::-1]))

    def with_faces(self, faces: NDArray[np.int64]) -> Mesh:
        """Return a mesh of these faces `[F, 3]` without the vertices they leave unused."""
        used = np.zeros(len(self.vertices), bool)
        used[faces] = True
        renumber = np.cumsum(used) - 1
        return Mesh(self.vertices[used], renumber[faces])


@kernel
def _area_vectors(vertices, faces):
    vectors = np.empty((len(faces), 3))
    for f in range(len(faces)):
        a, b, c = vertices[faces[f, 0]], vertices[faces[f, 1]], vertices[faces[f, 2]]
        for x in range(3):
            y, z = (x + 1) % 3, (x + 2) % 3
            vectors[f, x] = (b[y] - a[y]) * (c[z] - a[z]) - (b[z] - a[z]) * (c[y] - a[y])
            vectors[f, x] /= 2
    return vectors


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return vectors `[..., 3]` scaled to length one; zero vectors stay zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def weld(mesh: Mesh) -> Mesh:
    """Return the mesh with identical vertices merged, degenerate and repeated faces dropped."""
    # Adding zero turns -0.0 into 0.0, which have different bytes.
    keys = np.ascontiguousarray(mesh.vertices + 0.0).view(np.int64)
    faces = first_equal_rows(keys)[mesh.faces]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    keep = first_equal_rows(np.sort(faces, axis=1)) == np.arange(len(faces))
    return mesh.with_faces(faces[keep])


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
        mesh = _read(path, suffix)
        if len(mesh.faces) == 0 and suffix == ".ply":
            mesh = _read_with_pymeshlab(path) or mesh
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
        raise MeshError(message, hint=_EXPORT_HINT) from error
    return _checked(path, mesh)


def save_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh in the format of the suffix; the file is replaced in one step.

    Raises:
        MeshError: The suffix is not a format that can be written.
        DiskError: The folder cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES or suffix == ".gltf":
        raise MeshError(f"{path}: cannot write {suffix!r}", hint="use .ply, .glb, .obj or .stl")
    if suffix == ".ply":
        with temporary_path(path) as temporary:
            _write_ply(mesh, temporary)
        return
    exported = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    try:
        with temporary_path(path) as temporary:
            exported.export(temporary)
    except ImportError as error:
        raise DependencyError(
            f"{path}: writing {suffix} needs the package {error.name or error}",
            hint="pip install trimesh[easy], or write .ply",
        ) from error


def _write_ply(mesh: Mesh, path: Path) -> None:
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


class FolderResolver(trimesh.resolvers.FilePathResolver):
    """Gives a loader the files it names, but none outside the folder of the mesh."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._folder = path.resolve().parent

    def get(self, name: str) -> Any:
        """Return the bytes of a file; ValueError if it lies outside the folder."""
        target = (self._folder / str(name)).resolve()
        if not target.exists():
            # GLTF percent-encodes its URIs.
            target = (self._folder / unquote(str(name))).resolve()
        if not target.is_relative_to(self._folder):
            raise ValueError(f"refers to {name}, outside its own folder")
        return target.read_bytes()


def _read(path: Path, suffix: str) -> Mesh:
    options: dict[str, Any] = {"skip_materials": True} if suffix == ".obj" else {}
    with path.open("rb") as file:
        scene = trimesh.load_scene(
            file, file_type=suffix[1:], resolver=FolderResolver(path), process=False, **options
        )
    vertices, faces, offset = [], [], 0
    for name in sorted(scene.graph.nodes_geometry):
        transform, geometry_name = scene.graph[name]
        geometry = scene.geometry[geometry_name]
        if not isinstance(geometry, trimesh.Trimesh):
            continue
        part = np.asarray(geometry.vertices, np.float64)
        triangles = np.asarray(geometry.faces, np.int64)
        if not np.array_equal(transform, np.eye(4)):
            part = part @ transform[:3, :3].T + transform[:3, 3]
            if np.linalg.det(transform[:3, :3]) < 0:
                triangles = triangles[:, ::-1]
        vertices.append(part)
        faces.append(triangles + offset)
        offset += len(part)
    if not vertices:
        return Mesh.from_arrays(np.zeros((0, 3)), np.zeros((0, 3)))
    return Mesh.from_arrays(np.concatenate(vertices), np.concatenate(faces))


def _read_with_pymeshlab(path: Path) -> Mesh | None:
    """Read a PLY whose faces trimesh does not understand, such as triangle strips."""
    if missing_reason("pymeshlab") is not None:
        return None
    pymeshlab = load_optional("pymeshlab")
    meshes = pymeshlab.MeshSet(verbose=False)
    meshes.load_new_mesh(str(path))
    current = meshes.current_mesh()
    return Mesh.from_arrays(current.vertex_matrix(), current.face_matrix())


def _checked(path: Path, mesh: Mesh) -> Mesh:
    """Return the mesh without faces that touch a non-finite vertex, if it is usable."""
    if len(mesh.faces) == 0:
        hint = "point clouds and curves cannot be used; " + _EXPORT_HINT
        raise MeshError(f"{path}: has no faces", hint=hint)
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise MeshError(f"{path}: a face uses a vertex that does not exist", hint=_EXPORT_HINT)
    finite = np.asarray(np.isfinite(mesh.vertices).all(axis=1))
    if not finite.all():
        faces = mesh.faces[finite[mesh.faces].all(axis=1)]
        if len(faces) == 0:
            raise MeshError(f"{path}: no face has finite coordinates", hint=_EXPORT_HINT)
        mesh = mesh.with_faces(faces)
    extent = float(mesh.extents.max())
    # The square of an extent beyond these bounds leaves the range of float64 areas and volumes.
    if not 1e-90 < extent < 1e90:
        raise MeshError(f"{path}: its longest side is {extent:g}", hint=_EXPORT_HINT)
    if not mesh.area_faces.sum() > 0:
        raise MeshError(f"{path}: all faces have zero area", hint=_EXPORT_HINT)
    return mesh


def _check_header(path: Path, suffix: str, head: bytes, size: int, max_bytes: int) -> None:
    """Refuse a file that is empty, too large, or shorter than its header says."""
    if size == 0:
        raise MeshError(f"{path}: is empty", hint=_EXPORT_HINT)
    declared = size
    if suffix == ".3mf" and head[:2] == b"PK":
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
            if min(unpacked, max_bytes) > max(_BOMB_BYTES, _BOMB_RATIO * size):
                message = f"{path}: would unpack to {unpacked / size:.0f} times its size"
                raise MeshError(message, hint=_EXPORT_HINT)
            # Reads in small pieces. A size that lies shows as a wrong checksum.
            if unpacked <= max_bytes and (damaged := archive.testzip()):
                raise ValueError(f"{damaged} in it is damaged")
        size = max(size, unpacked)
    if size > max_bytes:
        message = f"{path}: {size / 2**30:.1f} GiB is above the limit of {max_bytes / 2**30:.1f}"
        raise MeshError(message, hint="reduce the mesh")
    readers: dict[str, Callable[[bytes], int]] = {
        ".stl": _declared_stl_bytes, ".glb": _declared_glb_bytes, ".ply": _declared_ply_bytes,
    }  # fmt: skip
    if suffix in readers:
        declared = readers[suffix](head)
    if declared > size:
        message = f"{path}: truncated: its header needs {declared} bytes, the file has {size}"
        raise MeshError(message, hint="copy or download the file again")


def _declared_stl_bytes(head: bytes) -> int:
    # Some binary writers start their free-text header with "solid" as well.
    is_text = head.lstrip()[:5].lower() == b"solid" and b"facet" in head[:1024].lower()
    if is_text or len(head) < 84:
        return 0 if is_text or head.lstrip()[:5].lower() == b"solid" else 84
    return 84 + 50 * int.from_bytes(head[80:84], "little")


def _declared_glb_bytes(head: bytes) -> int:
    if head[:4] != b"glTF":
        raise ValueError("is not a binary glTF file")
    return int.from_bytes(head[8:12], "little") if len(head) >= 12 else 12


def _declared_ply_bytes(head: bytes) -> int:
    """Return a lower bound: lists count as three items, the fewest a face can have."""
    text, marker, _ = head.partition(b"end_header\n")
    if not marker:
        text, marker, _ = head.partition(b"end_header\r\n")
    if not marker:
        return 0
    total, count = len(text) + len(marker), 0
    if b"format ascii" in text:
        # A number needs a digit and a separator; the last line may lack its end.
        total, sizes = total - 1, dict.fromkeys(_PLY_BYTES, 2)
    else:
        sizes = _PLY_BYTES
    for words in (line.split() for line in text.decode("ascii", "replace").splitlines()):
        if words[:1] == ["element"]:
            count = int(words[2])
        elif words[:2] == ["property", "list"]:
            items = 3 if words[4] in ("vertex_indices", "vertex_index") else 0
            total += count * (sizes[words[2]] + items * sizes[words[3]])
        elif words[:1] == ["property"]:
            total += count * sizes[words[1]]
    return total
