"""Times reading mesh files, beside other readers, each measurement in a process of its own.

    python examples/bench/meshfiles.py [FOLDER] [--faces 1600000] [--repeats 5]

Reads koala.obj and nefertiti.obj of the folder, whichever are there, and the first of them
subdivided to about `--faces` faces, as OBJ, PLY, STL and GLB that trimesh writes. Each process has
imported its reader and read a tetrahedron of the format before, so that kernels are compiled; the
file is in the page cache. Seconds are of the fastest run; x is how many times as long as the
fastest reader's. GiB are what reading adds at its peak to the memory of the process, as Linux tells
it. Wanted are an x of at most 1.5, and the large OBJ in 2.5 s and 1 GiB.

`load_mesh` does more than the others in that time: it drops faces without area and vertices that no
face uses, and refuses what is not finite or has no extent. open3d and pymeshlab merge the corners
of an STL.
"""

import argparse
import importlib.util
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import trimesh

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh

MESHES = ("koala.obj", "nefertiti.obj")
FORMATS = (".obj", ".ply", ".stl", ".glb")
READERS = ("ushape", "trimesh", "open3d", "pymeshlab")


def reader(name: str) -> tuple[Callable[[str], object], Callable[[object], int]]:
    """Return how a reader reads a file, and how it counts the faces of what it read."""
    if name == "ushape":
        return load_mesh, lambda mesh: len(mesh.faces)
    if name == "trimesh":
        return (
            lambda path: trimesh.load(path, process=False),
            lambda scene: len(getattr(scene, "faces", ())) or scene.to_geometry().faces.shape[0],
        )
    if name == "open3d":
        import open3d

        return open3d.io.read_triangle_mesh, lambda mesh: len(mesh.triangles)
    import pymeshlab

    def read(path: str) -> pymeshlab.MeshSet:
        meshes = pymeshlab.MeshSet()
        meshes.load_new_mesh(path)
        return meshes

    return read, lambda meshes: meshes.current_mesh().face_number()


def resident(what: str) -> float:
    """Return memory of this process in GiB: VmRSS now, VmHWM at its peak."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{what}:\s+(\d+)", status)[1]) / 2**20


def measure(name: str, path: str, tiny: str) -> dict[str, float]:
    read, count = reader(name)
    read(tiny)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = resident("VmRSS")
    start = time.perf_counter()
    found = read(path)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "gib": resident("VmHWM") - before, "faces": count(found)}


def run(name: str, path: Path, tiny: Path) -> dict[str, float] | str:
    """Return the figures of a process, or in words why there are none."""
    if importlib.util.find_spec({"ushape": "ultrashape_cli"}.get(name, name)) is None:
        return "not installed"
    command = [sys.executable, __file__, str(path), "--reader", name, "--tiny", str(tiny)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:100]}"
    found = json.loads(done.stdout.splitlines()[-1])
    return found if found["faces"] else "failed: no faces"


def compare(path: Path, tiny: Path, repeats: int) -> None:
    """Print a row for each reader; they take turns, so that other work slows all alike."""
    path.read_bytes()
    rounds = [{name: run(name, path, tiny) for name in READERS} for _ in range(repeats)]
    best = {}
    for name in READERS:
        runs = [figures[name] for figures in rounds if not isinstance(figures[name], str)]
        best[name] = min(runs, key=lambda figures: figures["seconds"], default=None)
    fastest = min(row["seconds"] for row in best.values() if row)
    for name, row in best.items():
        text = rounds[0][name] if row is None else (
            f"{row['faces']} | {row['seconds']:.3f} | {row['seconds'] / fastest:.2f} | "
            f"{row['gib']:.2f}"
        )  # fmt: skip
        print(f"{path.name} | {name} | {text}", flush=True)


def write_meshes(source: Path, faces: int, folder: Path) -> list[Path]:
    """Write a mesh of about so many faces in all formats, and tetrahedra beside them."""
    mesh = trimesh.load(source, process=False)
    for _ in range(max(round(math.log(faces / len(mesh.faces), 4)), 0)):
        mesh = mesh.subdivide()
    mesh = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    # Of many digits, so that all kernels run.
    corners = Mesh.from_arrays(np.eye(4)[:, :3] / 3, [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    for suffix in FORMATS:
        mesh.export(folder / f"large{suffix}")
        save_mesh(corners, folder / f"tiny{suffix}")
    return [folder / f"large{suffix}" for suffix in FORMATS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/meshes"))
    parser.add_argument("--faces", type=int, default=1_600_000, help="of the large mesh")
    parser.add_argument("--repeats", type=int, default=5, help="the fastest run counts")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--tiny", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        print(json.dumps(measure(options.reader, str(options.folder), options.tiny)))
        return
    paths = [options.folder / name for name in MESHES if (options.folder / name).exists()]
    if not paths:
        parser.error(f"{options.folder} has none of {' '.join(MESHES)}")
    print("mesh | reader | faces | s | x | GiB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for path in [*paths, *write_meshes(paths[0], options.faces, folder)]:
            compare(path, folder / f"tiny{path.suffix}", options.repeats)


if __name__ == "__main__":
    main()
