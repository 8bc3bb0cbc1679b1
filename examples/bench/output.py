"""What fewer faces, quads and a normal map keep of a mesh.

    python examples/bench/output.py [MESH ...] [--faces 5000] [--size 1024]

Closed meshes, or by default some of `examples/make_shapes.py`. Chamfer-L1 in the cube of side 2
against the full mesh; the angle is that between the full mesh's normals and those that a viewer
shows, at points of the surface: `with map` is with the baked normal map.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.finishing.finish import finish
from ultrashape_cli.finishing.surface import Finished, tangents
from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.decimate import decimate
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh, unit
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.synthetic.families import make_shape

SHAPES = ("figurine", "dragon", "head", "vase")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("meshes", type=Path, nargs="*")
    parser.add_argument("--faces", type=int, default=5000)
    parser.add_argument("--size", type=int, default=1024)
    arguments = parser.parse_args()
    print(f"{'mesh':14} {'as':10} {'faces':>6} {'open':>5} {'Chamfer':>8} {'angle':>6} "
          f"{'with map':>8} {'s':>6}")  # fmt: skip
    named = [(path.stem, load_mesh(path)) for path in arguments.meshes]
    for name, mesh in named or [(family, make_shape(family, 9000, 192)) for family in SHAPES]:
        full = Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)
        started = time.perf_counter()
        reduced = decimate(full, arguments.faces, watertight=True)
        show(name, "triangles", Finished(reduced), full, time.perf_counter() - started)
        for kind in ("triangles", "quads"):
            config = RefineConfig(
                faces=arguments.faces, topology=kind, bake="normal", bake_size=arguments.size
            )
            started = time.perf_counter()
            surface, _ = finish(reduced, full, config)
            show(name, f"{kind[:5]} map", surface, full, time.perf_counter() - started)


def show(name: str, kind: str, surface: Finished, full: Mesh, seconds: float) -> None:
    mesh = surface.mesh
    rng = np.random.default_rng(0)
    face = rng.choice(len(mesh.faces), 40_000, p=mesh.area_faces / mesh.area_faces.sum())
    share = rng.dirichlet((1, 1, 1), len(face))[..., None]

    def mixed(values: np.ndarray, index: np.ndarray) -> np.ndarray:
        return (values[index[face]] * share).sum(1)

    point, normal = mixed(mesh.vertices, mesh.faces), unit(mixed(mesh.vertex_normals, mesh.faces))
    _, closest = DistanceField(full, winding_exists=True).unsigned(point)
    wanted = full.face_normals[closest]
    with_map = "-"
    if surface.normal_map is not None:
        with_map = f"{angle(mapped(surface, face, share, normal), wanted):.1f}"
    count = len(mesh.faces) if surface.quads is None else len(surface.quads)
    off = compare_meshes(mesh, full, 50_000)["chamfer_l1"]
    print(f"{name:14} {kind:10} {count:6} {topology(mesh).boundary_edges:5} {off:8.5f} "
          f"{angle(normal, wanted):6.1f} {with_map:>8} {seconds:6.1f}", flush=True)  # fmt: skip


def mapped(
    surface: Finished, face: np.ndarray, share: np.ndarray, normal: np.ndarray
) -> np.ndarray:
    """Returns the normals that the map gives at points of faces."""
    assert surface.uv is not None
    assert surface.corners is not None
    assert surface.normal_map is not None
    tangent = (tangents(surface)[surface.corners[face]] * share).sum(1)
    along = unit(tangent[:, :3] - normal * (tangent[:, :3] * normal).sum(1, keepdims=True))
    across = np.cross(normal, along) * np.sign(tangent[:, 3:])
    place, size = (surface.uv[surface.corners[face]] * share).sum(1), len(surface.normal_map)
    rows = ((1 - place[:, 1]) * size).astype(int).clip(0, size - 1)
    columns = (place[:, 0] * size).astype(int).clip(0, size - 1)
    local = surface.normal_map[rows, columns] / 127.5 - 1
    return unit(local[:, :1] * along + local[:, 1:2] * across + local[:, 2:] * normal)


def angle(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.degrees(np.arccos((a * b).sum(1).clip(-1, 1))).mean())


if __name__ == "__main__":
    main()
