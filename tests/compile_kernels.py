"""Compiles the numba kernels into their cache, before several test processes do it side by side.

Reads and writes nothing else: a figurine is made, closed, sampled and rendered.
"""

from __future__ import annotations

import numpy as np
from shapes import joined, moved

from ultrashape_cli.config.schema import SampleConfig
from ultrashape_cli.data.sampling import sample_mesh
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.metrics import compare_meshes
from ultrashape_cli.geometry.normalize import fit_frame
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
frame = fit_frame(figurine.vertices)
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
