"""Code of others that may crash, hang or take all memory: run in a process of its own.

`python -m ultrashape_cli.finishing.native TASK FOLDER GIB` reads FOLDER/in.npz, writes
FOLDER/out.npz.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.errors import DependencyError, MeshError

Arrays = dict[str, NDArray[Any]]
TIMEOUT_S = 600.0
MEMORY_GIB = 8
MISSING = 3
"""Exit code where the package does not load."""
PACKAGES = {"quads": "pynanoinstantmeshes", "unwrap": "xatlas"}


def run_native(task: str, arrays: Arrays, timeout: float = TIMEOUT_S) -> Arrays:
    """Returns what a task makes of arrays.

    Args:
        task: A key of `PACKAGES`.
        arrays: By the name of the task's argument.
        timeout: Seconds until it is ended.

    Raises:
        DependencyError: Its package does not load.
        MeshError: It crashed, took too long, or too much memory.
    """
    package = PACKAGES[task]
    with tempfile.TemporaryDirectory(prefix="ushape-finish-") as folder:
        np.savez(Path(folder) / "in.npz", **arrays)  # type: ignore[arg-type]
        command = [sys.executable, "-m", __name__, task, folder, str(MEMORY_GIB)]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise MeshError(
                f"{package} was not ready after {timeout:g} s", hint="fewer --faces"
            ) from error
        if ended.returncode == MISSING:
            raise DependencyError(
                f"{package} does not load: {_last(ended.stderr)}",
                hint="pip install 'ultrashape-cli[output]'",
            )
        if ended.returncode:
            raise MeshError(f"{package} failed ({ended.returncode}): {_last(ended.stderr)}")
        with np.load(Path(folder) / "out.npz", allow_pickle=False) as found:
            return {name: found[name] for name in found.files}


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "it said nothing"


def _quads(given: Arrays) -> Arrays:
    import pynanoinstantmeshes

    # It cuts each face of its own into about four.
    vertices, faces = pynanoinstantmeshes.remesh(
        given["vertices"].astype(np.float32),
        given["faces"].astype(np.uint32),
        -1,
        face_count=max(int(given["count"]) // 4, 4),
        deterministic=True,
        smooth_iter=2,
        creaseAngle=30.0,
    )
    return {"vertices": np.asarray(vertices, np.float64), "faces": np.asarray(faces, np.int64)}


def _unwrap(given: Arrays) -> Arrays:
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(given["vertices"].astype(np.float32), given["faces"].astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution, options.padding, options.bilinear = int(given["size"]), 4, True
    atlas.generate(pack_options=options)
    source, faces, uv = atlas[0]
    return {
        "source": np.asarray(source, np.int64),
        "faces": np.asarray(faces, np.int64),
        "uv": np.asarray(uv, np.float64),
        "charts": np.asarray(atlas.chart_count),
        "used": np.asarray(float(atlas.utilization)),
    }


def main() -> None:
    """Runs one task; the memory of the process is limited first."""
    task, folder, gib = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (gib << 30, gib << 30))
    except (ImportError, ValueError, OSError):  # not every system has limits
        pass
    with np.load(folder / "in.npz", allow_pickle=False) as found:
        given = {name: found[name] for name in found.files}
    try:
        made = {"quads": _quads, "unwrap": _unwrap}[task](given)
    except ImportError as error:
        sys.stderr.write(str(error))
        raise SystemExit(MISSING) from error
    np.savez(folder / "out.npz", **made)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
