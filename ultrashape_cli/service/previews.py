"""Meshes small enough for a viewer, or in another format, made when somebody asks for them.

In a process of their own: `python -m ultrashape_cli.service.previews SOURCE TARGET FACES MEMORY`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.service.problems import Problem, disk_full

if TYPE_CHECKING:
    from ultrashape_cli.geometry.mesh import Mesh

MAX_FACES = 200_000
_SMALL_BYTES = 4 << 20
"""A GLB of this size has no more faces: 12 bytes of indices and 12 of half a vertex each."""
_LIMIT_S = 120.0
_MERGED_FROM = 2
_making: dict[Path, asyncio.Lock] = {}
_slot = asyncio.Semaphore(1)


async def make(source: Path, config: ServeConfig, *, own: bool) -> Path:
    """Returns a GLB of at most `MAX_FACES` faces of a mesh file, kept beside it.

    Args:
        source: The mesh.
        config: Limits of the process that makes it.
        own: The file was made here, and not sent by somebody.

    Raises:
        Problem: It could not be made.
    """
    if own and source.suffix == ".glb" and source.stat().st_size <= _SMALL_BYTES:
        return source
    target = source.with_name(f"{source.stem}-preview.glb")
    await _made(source, target, MAX_FACES, config)
    return target


async def convert(source: Path, form: str, config: ServeConfig) -> Path:
    """Returns a result in another format, kept beside it; the colours of vertices where it has any.

    Args:
        source: The mesh, which was made here.
        form: The format, as the suffix of a file.
        config: Limits of the process that makes it.

    Raises:
        Problem: It could not be made.
    """
    if source.suffix == f".{form}":
        return source
    target = source.with_suffix(f".{form}")
    await _made(source, target, 0, config)
    return target


async def _made(source: Path, target: Path, faces: int, config: ServeConfig) -> None:
    lock = _making.setdefault(target, asyncio.Lock())
    try:
        async with lock:
            if not target.is_file():
                async with _slot:
                    await _run(source, target, faces, config)
    finally:
        if not lock.locked():
            _making.pop(target, None)


async def _run(source: Path, target: Path, faces: int, config: ServeConfig) -> None:
    memory = int(config.parse_memory_gib * 2**30)
    what = ("preview", "download the mesh") if faces else (target.suffix[1:], "another format")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", __name__),
        *(str(source), str(target), str(faces), str(memory)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        start_new_session=True,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), _LIMIT_S)
    except BaseException as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        if isinstance(error, TimeoutError):
            raise Problem(422, "not-made", f"the {what[0]} took too long",
                          hint=what[1]) from None  # fmt: skip
        raise
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:] or ["it crashed"]
        if "DiskError" in last[0] and "no space" in last[0]:
            raise disk_full()
        # The folders of this machine are not for clients.
        cause = last[0].replace(f"{source.parent}{os.sep}", "")[:200]
        raise Problem(422, "not-made", f"there is no {what[0]}: {cause}", hint=what[1])


def main() -> None:
    """Writes one mesh anew, under a memory limit."""
    import resource  # Windows has none

    from ultrashape_cli.processes import end_with_parent

    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    faces, memory = int(sys.argv[3]), int(sys.argv[4])
    end_with_parent(signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from ultrashape_cli.meshfiles.appearance import appearance_of
    from ultrashape_cli.meshfiles.load import mesh_of, read_contents
    from ultrashape_cli.meshfiles.save import COLOUR_SUFFIXES, save_mesh

    contents = read_contents(source, colours=True)
    mesh = mesh_of(source, contents)
    if faces and len(mesh.faces) > faces:
        save_mesh(reduced(mesh, faces), target)
        return
    appearance = appearance_of(contents) if target.suffix in COLOUR_SUFFIXES else None
    save_mesh(mesh, target, appearance.of_vertices(mesh) if appearance else None)


def reduced(mesh: Mesh, num_faces: int = MAX_FACES) -> Mesh:
    """Returns a mesh with at most about so many faces, for looking at.

    Edge collapse takes ten seconds for a million faces; what has more is merged on a grid before,
    and so is what no package for edge collapse loads for.
    """
    from ultrashape_cli.errors import DependencyError
    from ultrashape_cli.geometry.decimate import decimate

    if len(mesh.faces) > _MERGED_FROM * num_faces:
        mesh = merged(mesh, _MERGED_FROM * num_faces)
    try:
        return decimate(mesh, num_faces, watertight=False)
    except DependencyError:
        return merged(mesh, num_faces)


def merged(mesh: Mesh, num_faces: int) -> Mesh:
    """Returns a mesh whose vertices in one cell of a grid are one, with about so many faces."""
    import numpy as np

    from ultrashape_cli.geometry.mesh import Mesh

    # A surface meets about a cell for each vertex, and has two faces for each.
    cell = np.sqrt(2 * mesh.area_faces.sum() / num_faces)
    low = mesh.vertices.min(axis=0)
    places = ((mesh.vertices - low) / cell).astype(np.int64)
    _, groups = np.unique(places, axis=0, return_inverse=True)
    groups = groups.reshape(-1)
    counts = np.bincount(groups)
    vertices = np.stack([np.bincount(groups, axis) / counts for axis in mesh.vertices.T], axis=1)
    faces = groups[mesh.faces]
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    return Mesh.from_arrays(vertices, faces[whole])


if __name__ == "__main__":
    main()
