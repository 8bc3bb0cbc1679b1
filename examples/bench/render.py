"""Times and judges the renderers, side by side in one run, each in its own process.

    python examples/bench/render.py MESH... [--size 1024] [--repeats 3] [--blender PROGRAM]

A run loads nothing and writes four views as PNG from a mesh in memory: structures, normals,
images, files. Seconds are CPU seconds of the fastest run, so that other work on the machine counts
little, except for Blender, whose process is timed by the clock. The peak is of the whole process.
PSNR is of the first view against 64 times the rays of the default without any filter, over the
pixels of the object; clipped is the worst view's share of pixels at 255.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame, up_axis
from ultrashape_cli.meshfiles.appearance import load_appearance
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.rendering.blender import blender_views, require_blender
from ultrashape_cli.rendering.cameras import Camera, bounding_radius, view_set
from ultrashape_cli.rendering.colours import SurfaceColours
from ultrashape_cli.rendering.output import write_views
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene

AMBIENT, SHADOW = 5, 3
PREVIEW = {"supersample": 1, "ambient_rays": 0, "shadow_rays": 1}
METHODS = ("full", "preview", "textured", "blender")


def draw(scene: Scene, cameras: list[Camera], method: str, program: str) -> Iterator[np.ndarray]:
    if method == "blender":
        return blender_views(scene, cameras, program=program)
    return render_views(scene, cameras, **(PREVIEW if method == "preview" else {}))


def noise(scene: Scene, camera: Camera, method: str) -> float:
    """Return the PSNR of the first view."""
    image = next(draw(scene, [camera], method, ""))
    more = {"ambient_rays": 64 * AMBIENT, "shadow_rays": 64 * SHADOW, "filter_size": 1}
    reference = next(render_views(scene, [camera], **more))
    inside = reference[..., 3] > 0
    error = np.square(image[inside][:, :3].astype(float) - reference[inside][:, :3]).mean()
    return 10 * math.log10(255**2 / max(error, 1e-9))


def measure(options: argparse.Namespace) -> dict[str, float]:
    path, method = Path(options.meshes[0]), options.method
    source = load_mesh(path)
    frame = fit_frame(source, up=up_axis("auto", path.suffix))
    mesh = Mesh(frame.to_normalised(source.vertices), source.faces)
    cameras = view_set(4, radius=bounding_radius(mesh), size=options.size)
    appearance = load_appearance(path) if method == "textured" else None
    if method == "textured" and appearance is None:
        raise DependencyError("the file has no colours")
    seconds, figures = [], {}
    clock = time.perf_counter if method == "blender" else time.process_time
    with tempfile.TemporaryDirectory() as folder:
        # The first run compiles or loads the kernels; Blender has none.
        for _ in range(options.repeats + 1):
            start = clock()
            colours = SurfaceColours(appearance, frame) if appearance else None
            scene = Scene(mesh, colours)
            images = draw(scene, cameras, method, options.blender)
            figures, _ = write_views(Path(folder), cameras, images)
            seconds.append(clock() - start)
    used = max(resource.getrusage(who).ru_maxrss for who in
               (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))  # fmt: skip
    result = {"seconds": min(seconds[1:] or seconds), "gib": used / 2**20, "faces": len(mesh.faces)}
    result["clipped"] = 100 * figures["clipped"]
    if method == "full":
        result["psnr"] = noise(scene, cameras[0], method)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("meshes", nargs="+")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest run counts")
    parser.add_argument("--blender", default="", help="Blender, or a Python that has bpy")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method:
        print(json.dumps(measure(options)))
        return
    try:
        require_blender(options.blender)
        missing = ""
    except DependencyError as error:
        missing = error.message
    print("mesh | renderer | faces | s per 4 views | peak GiB | PSNR dB | clipped %")
    for path in options.meshes:
        for method in METHODS:
            name = f"{Path(path).name} | {method}"
            if method == "blender" and missing:
                print(f"{name} | skipped: {missing}")
                continue
            repeats = 0 if method == "blender" else options.repeats
            command = [sys.executable, __file__, path, "--method", method, "--size",
                       str(options.size), "--repeats", str(repeats), "--blender",
                       options.blender]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                last = (done.stderr.strip().splitlines() or ["?"])[-1]
                print(f"{name} | skipped: {last.rpartition('Error: ')[2][:100]}")
                continue
            f = json.loads(done.stdout.splitlines()[-1])
            noise_text = f"{f['psnr']:.1f}" if "psnr" in f else "-"
            print(
                f"{name} | {f['faces']} | {f['seconds']:.2f} | {f['gib']:.2f} | {noise_text} | "
                f"{f['clipped']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
