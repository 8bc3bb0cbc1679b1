"""Times and judges ways to close a mesh, side by side in one run, each in its own process.

    python examples/bench/watertight.py MESH... [--resolution 512] [--repeats 3]

Distances go from the visible input surface to the output, as parts of the input's diagonal and in
voxels of the resolution. Hidden is the part of the output that none of 48 outside directions sees.
Seconds are of the fastest run; the peak is of the process that ran it, its imports and input
included.
"""

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

from ultrashape_cli.geometry.check import topology
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh, weld
from ultrashape_cli.geometry.rays import RayScene
from ultrashape_cli.geometry.surface import sample_faces
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.watertight.fidelity import visible
from ultrashape_cli.watertight.ladder import make_watertight


def ladder(mesh: Mesh, resolution: int) -> Mesh:
    return make_watertight(mesh, resolution).mesh


def forced_remesh(mesh: Mesh, resolution: int) -> Mesh:
    return make_watertight(mesh, resolution, first_rung="remesh").mesh


def pymeshlab_chain(mesh: Mesh, resolution: int) -> Mesh:
    from ultrashape_cli.watertight.repair import repair_manifold

    return repair_manifold(weld(mesh))


def trimesh_voxel_fill(mesh: Mesh, resolution: int) -> Mesh:
    import trimesh

    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    pitch = float(mesh.extents.max()) / resolution
    grid = solid.voxelized(pitch).fill()
    surface = grid.marching_cubes
    return Mesh.from_arrays(surface.vertices * pitch + grid.translation, surface.faces)


def point_cloud_utils(mesh: Mesh, resolution: int) -> Mesh:
    import point_cloud_utils

    vertices, faces = point_cloud_utils.make_mesh_watertight(
        mesh.vertices, mesh.faces.astype(np.int32), resolution=20_000
    )
    return weld(Mesh.from_arrays(vertices, faces))


METHODS: dict[str, tuple[Callable[[Mesh, int], Mesh], str]] = {
    "ushape": (ladder, ""),
    "ushape remesh": (forced_remesh, ""),
    "pymeshlab": (pymeshlab_chain, "pymeshlab"),
    "trimesh voxels": (trimesh_voxel_fill, ""),
    "point-cloud-utils": (point_cloud_utils, "point_cloud_utils"),
}


def judge(source: Mesh, result: Mesh) -> dict[str, float | bool]:
    """Return the figures of a result; distances as parts of the source's diagonal."""
    rng = np.random.default_rng(0)
    extent = float(np.linalg.norm(source.extents))
    points, normals, _ = sample_faces(source, 50_000, rng)
    seen = visible(RayScene(source), points, normals, 2e-5 * extent)
    distance, face = DistanceField(result).unsigned(points[seen])
    cosine = np.abs(np.einsum("ij,ij->i", result.face_normals[face], normals[seen]))
    there, outward, _ = sample_faces(result, 50_000, rng)
    shown = visible(RayScene(result), there, outward, 2e-5 * extent, two_sided=False)
    state = topology(result)
    return {
        "solid": state.solid,
        "parts": state.components,
        "genus": state.genus if state.watertight else float("nan"),
        "mean": float(distance.mean()) / extent,
        "p99.9": float(np.quantile(distance, 0.999)) / extent,
        "nc": float(cosine.mean()),
        "hidden": 100 * float(1 - shown.mean()),
    }


def measure(path: str, method: str, resolution: int, repeats: int) -> dict[str, float | bool]:
    source = load_mesh(path)
    close, _ = METHODS[method]
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = close(source, resolution)
        seconds.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    figures: dict[str, float | bool] = {"seconds": min(seconds), "gib": memory}
    voxels = float(np.linalg.norm(source.extents) / source.extents.max()) * resolution
    figures |= {"faces": len(result.faces), "diagonal_voxels": voxels}
    return figures | judge(source, result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("meshes", nargs="+")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--voxel-resolution", type=int, default=128, help="of the voxel fill")
    parser.add_argument("--repeats", type=int, default=2, help="the fastest run counts")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        path, count = options.meshes[0], options.repeats
        print(json.dumps(measure(path, options.method, options.resolution, count)))
        return
    print(
        "mesh | method | cells | s | peak GiB | faces | solid | parts | genus | mean | p99.9 | ",
        end="",
    )
    print("mean vox | p99.9 vox | NC | hidden %")
    for path in options.meshes:
        for method, (_, package) in METHODS.items():
            name = f"{path.rsplit('/', 1)[-1]} | {method}"
            if package and importlib.util.find_spec(package) is None:
                print(f"{name} | skipped: {package} is not installed")
                continue
            # The dense grids of the voxel fill take minutes at the resolution of the others.
            voxels = method == "trimesh voxels"
            cells = options.voxel_resolution if voxels else options.resolution
            command = [sys.executable, __file__, path, "--method", method]
            command += [
                "--resolution",
                str(cells),
                "--repeats",
                str(1 if voxels else options.repeats),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name} | failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:100]}")
                continue
            f = json.loads(done.stdout.splitlines()[-1])
            voxels = f["diagonal_voxels"]
            print(
                f"{name} | {cells} | {f['seconds']:.2f} | {f['gib']:.2f} | {f['faces']} | "
                f"{'yes' if f['solid'] else 'NO'} | {f['parts']} | {f['genus']:g} | "
                f"{f['mean']:.1e} | {f['p99.9']:.1e} | {f['mean'] * voxels:.3f} | "
                f"{f['p99.9'] * voxels:.2f} | {f['nc']:.4f} | {f['hidden']:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
