"""Triangle meshes as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.geometry.rows import first_equal_rows


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
        points = self.vertices if used.all() else self.vertices[used]
        # Axis by axis: NumPy is slow along rows of three.
        return np.array([[x.min() for x in points.T], [x.max() for x in points.T]])

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
