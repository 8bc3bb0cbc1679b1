"""Meshes to files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from ultrashape_cli.errors import DependencyError, MeshError
from ultrashape_cli.files import temporary_path
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES
from ultrashape_cli.meshfiles.ply import write_ply

WRITABLE_SUFFIXES = tuple(suffix for suffix in MESH_SUFFIXES if suffix != ".gltf")


def save_mesh(mesh: Mesh, path: str | Path) -> None:
    """Write a mesh in the format of the suffix; the file is replaced in one step.

    Raises:
        MeshError: The suffix is not a format that can be written.
        DiskError: The folder cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES:
        hint = f"use one of {' '.join(WRITABLE_SUFFIXES)}"
        raise MeshError(f"{path}: cannot write {suffix!r}", hint=hint)
    if suffix == ".ply":
        with temporary_path(path) as temporary:
            write_ply(mesh, temporary)
        return
    exported = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    try:
        with temporary_path(path) as temporary:
            exported.export(temporary, **_precision(mesh, suffix))
    except ImportError as error:
        raise DependencyError(
            f"{path}: writing {suffix} needs the package {error.name or error}",
            hint="pip install trimesh[easy], or write .ply",
        ) from error


def _precision(mesh: Mesh, suffix: str) -> dict[str, Any]:
    """Return the decimals that a format of text needs for nine digits of the largest coordinate.

    A mesh in metres would otherwise be written to a hundredth of a micrometre, however small it is.
    """
    size = float(np.abs(mesh.vertices).max(initial=0.0))
    if suffix not in (".obj", ".off") or not size > 0:
        return {}
    return {"digits": max(8, 8 - math.floor(math.log10(size)))}
