"""Reads uploaded meshes and images before a worker does, in a process with limits.

Started as `python -m ultrashape_cli.service.guard PIPE_FD MEMORY_BYTES`. A file that crashes,
hangs or floods a reader costs this process and its own job, and never a loaded model. The process
holds no torch and serves many files.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.errors import UShapeError
from ultrashape_cli.service.child import Child, end_with_starter
from ultrashape_cli.service.content import BadFile, check_image, check_mesh, limits_of

RECYCLE_AFTER = 100
"""Files after which a fresh process takes over."""
_POLL_S = 0.2
_MOST_KILLS = 3
_KILLED = "killed"
"""Of a process that was ended from outside, which is no fault of the file: it is read again."""
_THREADS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    "MALLOC_ARENA_MAX": "2",
}


class Guard:
    """The process that reads, started when it is needed and replaced when it ends."""

    def __init__(self, config: ServeConfig, log: Path) -> None:
        self.config, self.log = config, log
        self._child: Child | None = None
        self._read = 0

    def warm(self) -> None:
        """Starts the process, so that the first file need not wait for it."""
        if self._child is None or not self._child.alive or self._read >= RECYCLE_AFTER:
            self.close()
            memory = int(self.config.parse_memory_gib * 2**30)
            self._child = Child(__name__, [str(memory)], _THREADS, self.log)
            self._read = 0

    def check(
        self, mesh: Path, image: Path, meanwhile: Callable[[], None] = lambda: None
    ) -> dict[str, Any] | None:
        """Reads the files of a job; returns what is wrong with them: code, message and hint.

        `meanwhile` is called again and again, and may raise to end the reading.
        """
        for _ in range(_MOST_KILLS):
            found = self._check(mesh, image, meanwhile)
            if found is None or found["code"] != _KILLED:
                return found
        return _no_memory(self.config)

    def _check(
        self, mesh: Path, image: Path, meanwhile: Callable[[], None]
    ) -> dict[str, Any] | None:
        self.warm()
        assert self._child is not None
        self._read += 1
        config = self.config
        self._child.send(
            {
                "mesh": str(mesh),
                "image": str(image),
                "limits": [config.max_mesh_mb, config.max_image_mb, config.max_megapixels,
                           config.max_faces],
            }
        )  # fmt: skip
        until = time.monotonic() + config.parse_timeout_s
        try:
            while time.monotonic() < until:
                answer = self._child.receive(_POLL_S)
                if answer is not None:
                    return answer["problem"]
                if self._child.memory_bytes() > config.parse_memory_gib * 2**30:
                    return self._over(_no_memory(config))
                meanwhile()
        except EOFError:
            death = self._child.death()
            if "MemoryError" in death or "bad_alloc" in self._child.said():
                return self._over(_no_memory(config))
            return self._over(
                {
                    "code": _KILLED if self._child.was_killed else "damaged",
                    "message": f"reading the mesh {death}",
                    "hint": "export the mesh again, for example as GLB",
                }
            )
        seconds = config.parse_timeout_s
        return self._over(
            {"code": "too-complex", "message": f"reading the mesh took longer than {seconds:g} s",
             "hint": "reduce the mesh"}
        )  # fmt: skip

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _over(self, problem: dict[str, Any]) -> dict[str, Any]:
        self.close()
        return problem


def _no_memory(config: ServeConfig) -> dict[str, Any]:
    limit = config.parse_memory_gib
    message = f"reading the mesh needs more than {limit:g} GiB"
    return {"code": "too-complex", "message": message, "hint": "reduce the mesh"}


def problem_of(mesh: Path, image: Path, config: ServeConfig) -> dict[str, Any] | None:
    """Returns what is wrong with the files of a job, in this process."""
    from PIL import Image

    from ultrashape_cli.meshfiles.load import load_mesh

    limits = limits_of(config)
    try:
        check_mesh(mesh, mesh.suffix[1:], limits)
        check_image(image, limits)
        found = load_mesh(mesh)
        if len(found.faces) > limits.faces:
            raise BadFile(422, "too-many-faces", f"the mesh has {len(found.faces):,} faces; "
                          f"{limits.faces:,} are taken", hint="reduce the mesh")  # fmt: skip
        Image.MAX_IMAGE_PIXELS = None  # ours has been looked at
        with Image.open(image) as picture:
            picture.load()
    except UShapeError as error:
        code = error.code if isinstance(error, BadFile) else "bad-mesh"
        # Names of folders are nobody's business.
        message = error.message.replace(f"{mesh}", "mesh").replace(f"{image}", "image")
        return {"code": code, "message": " ".join(message.split())[:400], "hint": error.hint}
    except MemoryError:
        return _no_memory(config)
    except Exception as error:  # Pillow's readers raise anything
        message = f"the image cannot be read ({type(error).__name__}: {error})"[:300]
        return {"code": "bad-image", "message": message, "hint": "export the image again as PNG"}
    return None


def serve(pipe: Connection) -> None:
    """Answers until the pipe closes."""
    while True:
        try:
            task = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        mb, image_mb, megapixels, faces = task["limits"]
        config = ServeConfig(
            max_mesh_mb=mb, max_image_mb=image_mb, max_megapixels=megapixels, max_faces=faces
        )
        problem = problem_of(Path(task["mesh"]), Path(task["image"]), config)
        pipe.send_bytes(json.dumps({"problem": problem}).encode())


def main() -> None:
    """Limits the process, then serves the inherited pipe."""
    import resource  # Windows has none

    fd, memory = int(sys.argv[1]), int(sys.argv[2])
    end_with_starter()
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Compiled code and readers load now and not with the first file.
    import PIL.Image  # noqa: F401

    import ultrashape_cli.meshfiles.load  # noqa: F401

    serve(Connection(fd))


if __name__ == "__main__":
    main()
