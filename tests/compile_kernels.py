"""Compiles the numba kernels into their cache, before several test processes do it side by side.

A figurine is made, closed, sampled and rendered, and a triangle and a pentagon read from text.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from shapes import joined, moved

from ultrashape_cli.config.schema import SampleConfig
from ultrashape_cli.data.sampling import sample_mesh
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.meshfiles.obj import read_obj
from ultrashape_cli.meshfiles.off import read_off
from ultrashape_cli.meshfiles.ply import read_ply
from ultrashape_cli.meshfiles.stl import read_stl
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.maps import view_maps
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.synthetic.figurines import make_figurine
from ultrashape_cli.watertight.ladder import make_watertight

figurine = make_figurine(0, resolution=24)
# Two that overlap, one open and one turned inside out: all rungs and their repairs.
pair = joined(figurine.with_faces(figurine.faces[50:]), moved(figurine.flipped(), 0.9))
for mesh in (figurine, figurine.with_faces(figurine.faces[50:]), pair):
    make_watertight(mesh, 48, keep_cavities=mesh is pair)
frame = fit_frame(figurine)
placed = Mesh(frame.to_normalised(figurine.vertices), figurine.faces)
small = {"surface_points": 500, "curvature_points": 500, "sharp_points": 500}
queries = {"near_points": 500, "near_curvature_points": 500, "space_points": 500}
settings = SampleConfig(contents="full", coarse_points=500, **small, **queries)
sample_mesh(placed, settings, np.random.default_rng(0))
compare_meshes(placed, figurine, num_points=500)
scene = Scene(placed, None)
cameras = view_set(2, radius=bounding_radius(placed), size=32)
list(render_views(scene, cameras, lights="studio", seed=0))
for camera in cameras:
    view_maps(scene, camera, 1)

points = ["0 0 0", "1 0 0", "2 2 0", "1 1 0", "0.12345678901234567890 2 0"]
loop = "\n".join(["outer loop", *(f"vertex {point}" for point in points), "endloop"])
ply = "ply\nformat {} 1.0\nelement vertex {}\nproperty {} x\nproperty {} y\nproperty {} z\n"
ply += "element face 2\nproperty list uchar uchar vertex_indices\nend_header\n"
polygons = "3 0 1 2\n5 0 1 2 3 4\n"
files = {
    "obj": "\n".join(
        [*(f"v {point}" for point in points), "vt 0 0", "f 1/1 2/1 3/1", "f 1 2 3 4 5"]
    ),
    "stl": f"solid a\nfacet normal 0 0 1\n{loop}\nendfacet\n",
    "off": "\n".join(["OFF 5 2 0", *points, polygons]),
    "ply": "\n".join([ply.format("ascii", 5, *["float"] * 3) + points[0], *points[1:], polygons]),
    "binary.ply": ply.format("binary_little_endian", 5, *["uchar"] * 3)
    + "".join(
        map(chr, [0, 0, 0, 1, 0, 0, 2, 2, 0, 1, 1, 0, 0, 2, 0, 3, 0, 1, 2, 5, 0, 1, 2, 3, 4])
    ),
}
readers = {"obj": read_obj, "stl": read_stl, "off": read_off, "ply": read_ply}
with TemporaryDirectory() as folder:
    for name, text in files.items():
        path = Path(folder) / f"a.{name}"
        path.write_text(text)
        assert readers[name.split(".")[-1]](path, colours=True).parts[0].faces.shape[0] > 0
