"""Render meshes side by side: python examples/preview.py OUT.png MESH [MESH ...]"""

import argparse
from pathlib import Path

import numpy as np

from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.rendering.cameras import bounding_radius, view_set
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("meshes", type=Path, nargs="+")
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    # The last mesh sets the frame, so that all are seen at the same size and place.
    sources = [load_mesh(path) for path in arguments.meshes]
    frame = fit_frame(sources[-1])
    placed = [Mesh(frame.to_normalised(mesh.vertices), mesh.faces) for mesh in sources]
    cameras = view_set(1, radius=bounding_radius(placed[-1]), size=arguments.size)
    images = [next(iter(render_views(Scene(mesh), cameras))) for mesh in placed]
    save_png(np.concatenate(images, axis=1), arguments.out)


if __name__ == "__main__":
    main()
