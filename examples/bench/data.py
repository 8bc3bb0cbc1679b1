"""Time sampling, distances, sample files and training items on given meshes, beside other tools.

    python examples/bench/data.py MESH... [--data DATA] [--repeats 3]

Prints CPU seconds of one thread (the best of the repeats), so that another process on the machine
matters less. Meshes should be watertight; they are normalised first. Open3D and trimesh (with
rtree for distances) are used where they are installed; trimesh measures few points, and its figure
is scaled up. With `--data`, a prepared dataset, also times PNG decoding, resizing and drawing of
training items.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from ultrashape_cli.config.schema import SampleConfig
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.data.samples import NEAR_REACH, open_samples, write_arrays, write_samples
from ultrashape_cli.data.sampling import jitter, sample_mesh
from ultrashape_cli.geometry.distance import DistanceField
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.geometry.surface import curvature_weights, sample_faces
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.synthetic.figurines import make_figurine

SETTINGS = SampleConfig()
TRIMESH_POINTS = 300
BATCH_POINTS = 163_840
IMAGE_SIZE = 1022


def best(action: Callable[[], object], repeats: int) -> float:
    """Returns the least CPU seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        seconds.append(time.process_time() - start)
    return min(seconds)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def query_points(mesh: Mesh) -> np.ndarray:
    """Returns the 1.3 M query points of spec section 10.1."""
    uniform = sample_faces(mesh, 300_000, rng())[0]
    curved = sample_faces(mesh, 300_000, rng(), curvature_weights(mesh))[0]
    near = jitter(uniform, 600_000, (0.01, 0.1), rng(), 0.5)
    sharp = jitter(curved, 300_000, (0.002, 0.006, 0.012, 0.02, 0.04, 0.08), rng())
    return np.concatenate([near, sharp, rng().uniform(-1, 1, (400_000, 3))])


def sampling_rows(mesh: Mesh, repeats: int) -> dict[str, str]:
    def ours() -> None:
        sample_faces(mesh, 300_000, rng())
        sample_faces(mesh, 300_000, rng(), curvature_weights(mesh))

    rows = {"ushape": f"{best(ours, repeats):.2f}"}
    import trimesh

    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)

    def theirs() -> None:
        fresh = solid.copy()
        _, face = trimesh.sample.sample_surface(fresh, 600_000, seed=0)
        _ = fresh.face_normals[face]

    rows["trimesh"] = f"{best(theirs, repeats):.2f} uniform only"
    if importlib.util.find_spec("open3d"):
        import open3d

        other = open3d.geometry.TriangleMesh(
            open3d.utility.Vector3dVector(mesh.vertices),
            open3d.utility.Vector3iVector(mesh.faces.astype(np.int32)),
        )
        other.compute_triangle_normals()
        seconds = best(
            lambda: other.sample_points_uniformly(600_000, use_triangle_normal=True), repeats
        )
        rows["open3d"] = f"{seconds:.2f} uniform only"
    return rows


def distance_rows(mesh: Mesh, repeats: int) -> dict[str, str]:
    points = query_points(mesh)
    found = {}

    def ours() -> None:
        found["ushape"] = DistanceField(mesh).signed(points)

    rows = {"ushape": f"{best(ours, repeats):.1f}"}
    if importlib.util.find_spec("open3d"):
        import open3d

        def theirs() -> None:
            scene = open3d.t.geometry.RaycastingScene(nthreads=1)
            scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
            at = points.astype(np.float32)
            found["open3d"] = scene.compute_signed_distance(at, nthreads=1, nsamples=3).numpy()

        seconds = best(theirs, 1)
        apart = np.abs(np.abs(found["open3d"]) - np.abs(found["ushape"])).max()
        clear = np.abs(found["ushape"]) > 1e-5
        signs = (np.sign(found["open3d"]) != np.sign(found["ushape"]))[clear].sum()
        rows["open3d"] = f"{seconds:.1f}, {apart:.0e} apart, {signs} other signs"
    if importlib.util.find_spec("rtree"):
        import trimesh

        solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        few = points[:: len(points) // TRIMESH_POINTS]
        each = best(lambda: trimesh.proximity.signed_distance(solid, few), 1) / len(few)
        rows["trimesh"] = f"{each * len(points):.0f} from {len(few)} points"
    return rows


def file_rows(mesh: Mesh, repeats: int) -> dict[str, str]:
    rows = {}
    for kind in ("compact", "reference"):
        settings = replace(SETTINGS, format=kind)
        arrays, _ = sample_mesh(mesh, settings, rng())
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.npz"
            if kind == "compact":
                meta = {"contents": "dit", "num_uniform": 300_000, "near_reach": NEAR_REACH}
                write_samples(path, meta, arrays)
            else:
                write_arrays(path, arrays)
            milliseconds = 1e3 * best(
                lambda path=path: open_samples(path).draw_surface(BATCH_POINTS, rng()),
                5 * repeats,
            )
            rows[kind] = f"{path.stat().st_size / 1e6:.1f} MB, {milliseconds:.1f} ms"
    return rows


def item_rows(dataset: Dataset, repeats: int) -> dict[str, str]:
    import torch

    from ultrashape_cli.data.dataset import ShapeDataset
    from ultrashape_cli.data.images import load_rgba, preprocess_training

    torch.set_num_threads(1)
    ids = dataset.read_split("train")
    view = dataset.view_files(ids[0])[0]
    rgba = load_rgba(view)
    samples = dataset.samples(ids[0])
    items = ShapeDataset(
        dataset, ids, seed=0, surface_points=BATCH_POINTS, image_size=lambda counter: IMAGE_SIZE
    )
    count = 5 * repeats
    parts = {
        "decode": best(lambda: load_rgba(view), count),
        "crop and resize": best(lambda: preprocess_training(rgba, IMAGE_SIZE), count),
        "draw": best(lambda: open_samples(samples).draw_surface(BATCH_POINTS, rng()), count),
        "item": best(lambda: items[(0, 0)], count),
    }
    rows = {name: f"{1e3 * seconds:.1f} ms" for name, seconds in parts.items()}
    return {**rows, "items per second": f"{1 / parts['item']:.1f}"}


def show(title: str, rows: dict[str, str]) -> None:
    print(
        f"{title} | " + " | ".join(f"{name}: {value}" for name, value in rows.items()), flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("meshes", nargs="*")
    parser.add_argument("--data", type=Path, help="prepared dataset, for the training items")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest run counts")
    options = parser.parse_args()
    distance_rows(make_figurine(0, 24), 1)  # compiles the kernels
    for path in options.meshes:
        mesh = load_mesh(path)
        mesh = Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)
        name = f"{Path(path).name}, {len(mesh.faces)} faces"
        show(f"{name} | 600k samples, s", sampling_rows(mesh, options.repeats))
        show(f"{name} | 1.3 M signed distances, s", distance_rows(mesh, options.repeats))
        show(f"{name} | dit file and draw", file_rows(mesh, options.repeats))
    if options.data:
        show(f"{options.data} | training item", item_rows(Dataset(options.data), options.repeats))


if __name__ == "__main__":
    main()
