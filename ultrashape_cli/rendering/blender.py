"""Renders by Blender Cycles, in a process of its own that serves one view after another."""

from __future__ import annotations

import atexit
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ultrashape_cli.errors import DependencyError
from ultrashape_cli.rendering.cameras import Camera
from ultrashape_cli.rendering.lights import RigName, light_rig
from ultrashape_cli.rendering.normals import CREASE_DEGREES
from ultrashape_cli.rendering.scene import Scene
from ultrashape_cli.rendering.shading import CLAY_ALBEDO

MIN_VERSION = (4, 2)
_SCRIPT = Path(__file__).with_name("blender_script.py")
_HINT = "install Blender 4.2 or later on PATH or `pip install bpy`, or use --renderer rays"


def blender_command(program: str = "") -> list[str]:
    """Return the command that runs the script in Blender.

    Args:
        program: Blender, or a Python that has bpy; empty looks for `blender` on PATH, then for
            bpy in this Python.

    Raises:
        DependencyError: There is none.
    """
    found = shutil.which(program or "blender")
    if found and "python" in Path(found).name:
        return [found, str(_SCRIPT)]
    if found:
        return [found, "--background", "--factory-startup", "--python", str(_SCRIPT)]
    if program:
        raise DependencyError(f"`{program}` is not a program (render.blender)", hint=_HINT)
    if importlib.util.find_spec("bpy") is None:
        raise DependencyError("Blender is not installed", hint=_HINT)
    return [sys.executable, str(_SCRIPT)]


class BlenderProcess:
    """A running Blender that renders tasks until it is closed."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it and check its version.

        Raises:
            DependencyError: It does not start, or is too old.
        """
        # A pipe that nobody reads while Blender renders would block it.
        self._log: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._program = command[0]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
            )
        except OSError as error:
            reason = f"`{self._program}` does not start: {error.strerror}"
            raise DependencyError(reason, hint=_HINT) from error
        version = tuple(self._receive()["version"])
        if version < MIN_VERSION:
            self.close()
            text = ".".join(map(str, version))
            raise DependencyError(f"`{self._program}` is Blender {text}, too old", hint=_HINT)

    def render(self, task: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
        """Yield the image `[H, W, 4]` of each camera of a task, see `blender_script`.

        Raises:
            DependencyError: Blender fails or ends.
        """
        finished = False
        try:
            self._send(json.dumps(task))
            for _ in task["cameras"]:
                self._receive()
                with Image.open(task["image"]) as image:
                    yield np.asarray(image.convert("RGBA"))
                self._send("")
            finished = True
        finally:
            # Halfway through a task it would answer the next one with the wrong views.
            if not finished:
                self.close()

    @property
    def alive(self) -> bool:
        """Whether the process can take tasks."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            if pipe is not None:
                pipe.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._failure("ended") from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Blender itself greets on standard output before the script takes it over.
            if line.startswith("{"):
                answer = json.loads(line)
                if "error" in answer:
                    raise self._failure(answer["error"])
                return answer
        raise self._failure(f"ended with exit code {self._process.wait()}")

    def _failure(self, reason: str) -> DependencyError:
        self._log.seek(0)
        last = (self._log.read().strip().splitlines() or ["no message"])[-1][:200]
        self.close()
        return DependencyError(f"Blender (`{self._program}`): {reason}: {last}", hint=_HINT)


_running: dict[tuple[str, ...], BlenderProcess] = {}


def _process(program: str) -> BlenderProcess:
    """Return this process's Blender, started on first use and after its end."""
    command = tuple(blender_command(program))
    if command not in _running or not _running[command].alive:
        _running[command] = BlenderProcess(command)
        atexit.register(_running[command].close)
    return _running[command]


def require_blender(program: str = "") -> None:
    """Start Blender once to see that it can be used.

    Raises:
        DependencyError: It is missing, does not start, or is too old.
    """
    BlenderProcess(blender_command(program)).close()


def blender_views(
    scene: Scene,
    cameras: Sequence[Camera],
    *,
    lights: RigName = "studio",
    samples: int = 48,
    seed: int = 0,
    program: str = "",
) -> Iterator[NDArray[np.uint8]]:
    """Yield one image `[H, W, 4]` for each camera, as `render_views` does.

    Colours are taken at the vertices, so that textures are as fine as the mesh; alpha masks leave
    no holes.

    Args:
        scene: The surface.
        cameras: Views of it.
        lights: The rig.
        samples: Samples per pixel, before the denoiser.
        seed: Seed of Cycles and of random lights.
        program: See `blender_command`.

    Raises:
        DependencyError: Blender is missing, too old, or fails.
    """
    process = _process(program)
    mesh = scene.mesh
    colours = np.zeros((0, 3), np.float32)
    if scene.colours is not None:
        normals = mesh.vertex_normals.astype(np.float32)
        colours = scene.colours.at(mesh.vertices.astype(np.float32), normals)[:, :3]
    rigs = []
    for number, camera in enumerate(cameras):
        rig = light_rig(lights, seed, number)
        directions = rig.world_directions(camera.world_to_camera)
        rigs.append({
            "directions": directions.tolist(), "colours": rig.colours.tolist(),
            "ambient": rig.ambient.tolist(), "key_radius": rig.key_radius,
        })  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ushape-blender-") as folder:
        np.savez(
            Path(folder) / "mesh.npz", vertices=mesh.vertices.astype(np.float32),
            faces=mesh.faces.astype(np.int32), colours=colours, albedo=CLAY_ALBEDO,
            crease_degrees=CREASE_DEGREES,
        )  # fmt: skip
        yield from process.render({
            "mesh": f"{folder}/mesh.npz", "image": f"{folder}/view.png", "lights": rigs,
            "cameras": [camera.to_dict() for camera in cameras], "samples": samples, "seed": seed,
        })  # fmt: skip
