"""Finished surfaces as files: which formats hold what, and how."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultrashape_cli.config.refine import RefineConfig
from ultrashape_cli.errors import UsageError
from ultrashape_cli.files import temporary_path
from ultrashape_cli.finishing.surface import Finished, tangents
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.glb import write_glb
from ultrashape_cli.meshfiles.save import vertex_lines

QUAD_SUFFIXES = (".obj", ".ply", ".off")
UV_SUFFIXES = (".glb", ".obj")


def is_finished(config: RefineConfig) -> bool:
    """Says whether the settings ask for more than triangles."""
    return config.topology == "quads" or config.uv or config.bake != "none"


def check_finish(config: RefineConfig, target: Path) -> None:
    """Raises UsageError where a format cannot hold what the settings ask for."""
    if not is_finished(config):
        return
    suffix, uv = target.suffix.lower(), config.uv or config.bake != "none"
    if config.region:
        raise UsageError(
            "a region keeps the faces beside it, and these settings make all faces anew",
            hint="refine the region first, then finish its result",
        )
    if config.faces == 0:
        raise UsageError(
            "quads, texture coordinates and a normal map are for a reduced mesh",
            hint="--faces 20000, or as many as you need",
        )
    for wanted, suffixes, what in (
        (config.topology == "quads", QUAD_SUFFIXES, "quads"),
        (uv, UV_SUFFIXES, "texture coordinates"),
    ):
        if wanted and suffix not in suffixes:
            raise UsageError(
                f"{suffix or target.name} holds no {what}; {' '.join(suffixes)} do",
                hint=f"-o {target.with_suffix('.obj')}",
            )


def files_beside(config: RefineConfig, target: Path) -> list[Path]:
    """Returns what is written beside a finished mesh; GLB holds its normal map itself."""
    if config.bake == "none" or target.suffix.lower() != ".obj":
        return []
    return [target.with_suffix(".mtl"), target.with_name(f"{target.stem}_normal.png")]


def save_finished(surface: Finished, path: Path, colours: NDArray[np.uint8] | None = None) -> None:
    """Writes a finished surface; every file is replaced in one step, the mesh last.

    Args:
        surface: What to write.
        path: OBJ, GLB, PLY or OFF, as `check_finish` allows.
        colours: `[V, 3]` sRGB of the vertices of its mesh.
    """
    suffix = path.suffix.lower()
    image = None if surface.normal_map is None else _png(surface.normal_map)
    if suffix == ".glb":
        with temporary_path(path) as temporary:
            _write_glb(surface, temporary, colours, image)
        return
    if image is not None:
        material, picture = path.with_suffix(".mtl"), path.with_name(f"{path.stem}_normal.png")
        with temporary_path(picture) as temporary:
            temporary.write_bytes(image)
        lines = ["newmtl refined", "Kd 0.8 0.8 0.8", f"map_Bump -bm 1.0 {picture.name}",
                 f"norm {picture.name}"]  # fmt: skip
        with temporary_path(material) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with temporary_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in _lines(surface, suffix, path, colours):
            file.write(f"{line}\n")


def _png(image: NDArray[np.uint8]) -> bytes:
    held = io.BytesIO()
    Image.fromarray(image).save(held, "PNG")
    return held.getvalue()


def _write_glb(
    surface: Finished, path: Path, colours: NDArray[np.uint8] | None, image: bytes | None
) -> None:
    assert surface.uv is not None
    assert surface.source is not None
    assert surface.corners is not None
    source, mesh = surface.source, surface.mesh
    more = {
        "NORMAL": mesh.vertex_normals[source],
        "TANGENT": tangents(surface),
        # Pictures of glTF start at their upper edge.
        "TEXCOORD_0": np.column_stack([surface.uv[:, 0], 1 - surface.uv[:, 1]]),
    }
    split = Mesh(mesh.vertices[source], surface.corners)
    own = None if colours is None else colours[source]
    write_glb(split, path, own, {k: v.astype(np.float32) for k, v in more.items()}, image)


def _lines(
    surface: Finished, suffix: str, path: Path, colours: NDArray[np.uint8] | None
) -> Iterator[str]:
    mesh = surface.mesh
    polygons = list(_polygons(surface))
    if suffix == ".obj":
        if surface.normal_map is not None:
            yield f"mtllib {path.with_suffix('.mtl').name}"
        yield from vertex_lines(mesh, "v ", colours)
        if surface.uv is not None:
            yield from (f"vt {u:.7g} {v:.7g}" for u, v in surface.uv.tolist())
        if surface.normal_map is not None:
            yield "usemtl refined"
        for vertices, corners in polygons:
            places = (
                [str(v + 1) for v in vertices]
                if surface.uv is None
                else [f"{v + 1}/{c + 1}" for v, c in zip(vertices, corners, strict=True)]
            )
            yield f"f {' '.join(places)}"
    elif suffix == ".off":
        yield "OFF" if colours is None else "COFF"
        yield f"{len(mesh.vertices)} {len(polygons)} 0"
        yield from vertex_lines(mesh, "", colours, " %d %d %d 255")
        yield from (f"{len(v)} {' '.join(map(str, v))}" for v, _ in polygons)
    else:
        yield "ply\nformat ascii 1.0"
        yield f"element vertex {len(mesh.vertices)}"
        yield from (f"property double {axis}" for axis in "xyz")
        if colours is not None:
            yield from (f"property uchar {name}" for name in ("red", "green", "blue"))
        yield f"element face {len(polygons)}\nproperty list uchar int vertex_indices\nend_header"
        yield from vertex_lines(mesh, "", colours, " %d %d %d")
        yield from (f"{len(v)} {' '.join(map(str, v))}" for v, _ in polygons)


def _polygons(surface: Finished) -> Iterator[tuple[list[int], list[int]]]:
    """Yields vertices and corners of each face; a quad that a chart ends in is two triangles."""
    faces = surface.mesh.faces
    corners = faces if surface.corners is None else surface.corners
    if surface.quads is None:
        yield from zip(faces.tolist(), corners.tolist(), strict=True)
        return
    first, second = corners[0::2], corners[1::2]
    whole = (first[:, 0] == second[:, 0]) & (first[:, 2] == second[:, 1])
    for index, quad in enumerate(surface.quads.tolist()):
        a, b = first[index].tolist(), second[index].tolist()
        if whole[index]:
            yield quad, [*a, b[2]]
        else:
            yield quad[:3], a
            yield [quad[0], quad[2], quad[3]], b


def quad_share(surface: Finished) -> float:
    """Returns the share of faces that are written with four corners."""
    sides = [len(vertices) for vertices, _ in _polygons(surface)]
    return sum(count == 4 for count in sides) / max(len(sides), 1)
