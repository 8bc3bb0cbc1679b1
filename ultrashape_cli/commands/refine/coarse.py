"""`ushape refine --coarse-with NAME`: the coarse mesh comes from an image or a text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ultrashape_cli.commands.refine.request import target_of

if TYPE_CHECKING:
    import numpy as np

    from ultrashape_cli.commands.refine.request import Request
    from ultrashape_cli.config.coarse import CoarseCommand
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.ui import UI


def with_coarse_mesh(
    ui: UI, request: Request, resolved: Resolved
) -> tuple[Request, dict[str, Any]]:
    """Returns a request that has a coarse mesh, and the settings that go with it.

    The mesh is written beside the result, as OUT_coarse, and the image of a text as OUT_image.

    Raises:
        ConfigError: There is no such command, or it is written wrongly.
        AssetError: It failed.
        UsageError: Something else is where its mesh goes, or it makes nothing of this.
    """
    from ultrashape_cli.config.coarse import HULL, read_coarse
    from ultrashape_cli.errors import ConfigError, UsageError

    assert request.coarse_with is not None
    name, config = request.coarse_with, request.config
    command: CoarseCommand | None = None
    if name != HULL:
        if config is None:
            raise ConfigError(
                f"no file says what `{name}` is",
                hint=f"--config FILE with a table [coarse.{name}], or --coarse-with hull",
            )
        command = read_coarse(config, name)
    if request.text and (command is None or not (command.from_text or command.image_command)):
        raise UsageError(f"`{name}` makes nothing of a text", hint="--image FILE")
    if request.image is None and not request.views and not (command and command.image_command):
        raise UsageError(
            f"`{name}` makes a mesh of a text, and refining needs an image too",
            hint=f"an image_command in [coarse.{name}]",
        )
    target = target_of(request)
    if request.dry_run:
        ui.info(f"would make a coarse mesh with `{name}` and refine it into {target}")
        ui.result(
            inputs={"image": str(request.image or ""), "text": request.text or "",
                    "coarse_with": name},
            outputs={"mesh": str(target)}, counts={"planned": 1},
        )  # fmt: skip
        return request, {}
    if request.text and command is not None and not command.from_text:
        request = request._replace(image=_image_of_text(ui, command, request, resolved, target))
    suffix = ".glb" if command is None else command.suffix
    coarse = target.with_name(f"{target.stem}_coarse{suffix}")
    content = (
        _hull(request, resolved)
        if command is None
        else (_made(ui, command, request, resolved, target))
    )
    _write(coarse, content, _record(command, request, resolved))
    own: dict[str, Any] = {"refine.repair": True}
    if command is not None:
        own |= {"refine.up": command.up, "refine.front": command.front}
    settings = {key: value for key, value in own.items() if resolved.origins[key] == "default"}
    return request._replace(
        mesh=coarse, out=request.out if request.varies else target, coarse_with=None
    ), settings


def _record(command: CoarseCommand | None, request: Request, resolved: Resolved) -> dict[str, Any]:
    """Returns what made a coarse mesh; of a command's variables the names alone."""
    from ultrashape_cli import __version__
    from ultrashape_cli.files import file_hash

    made: dict[str, Any] = {"version": __version__, "coarse_with": request.coarse_with}
    if command is not None:
        made |= {
            "command": list(command.command),
            "image_command": list(command.image_command),
            "cwd": command.cwd,
            "env": sorted(command.env),
        }
    if request.image is not None:
        made |= {"image": str(request.image), "image_sha256": file_hash(request.image)}
    return {**made, "views": list(request.views), "text": request.text,
            "seed": resolved.config.seed}  # fmt: skip


def _image_of_text(
    ui: UI, command: CoarseCommand, request: Request, resolved: Resolved, target: Path
) -> Path:
    """Returns the image that a command makes of the text; one that is there is taken."""
    from ultrashape_cli.files import read_json, write_json
    from ultrashape_cli.inference.coarse_mesh import image_of_command

    image = target.with_name(f"{target.stem}_image.png")
    record = image.with_name(f"{image.name}.json")
    made = {"text": request.text, "command": list(command.image_command),
            "seed": resolved.config.seed}  # fmt: skip
    if image.is_file() and read_json(record) == made and not request.force:
        ui.info(f"image of `{request.text}` as it was made before: {image}")
        return image
    if image.exists() and not record.exists():
        _refuse(image)
    ui.info(f"`{command.name}` makes an image of `{request.text}`")
    target.parent.mkdir(parents=True, exist_ok=True)
    image_of_command(command, request.text or "", resolved.config.seed, image)
    write_json(record, made)
    return image


def _reference(request: Request, resolved: Resolved) -> np.ndarray | None:
    from ultrashape_cli.data.background import load_reference

    if request.image is None:
        return None
    return load_reference(request.image, resolved.config.refine.background)


def _hull(request: Request, resolved: Resolved) -> bytes:
    """Returns the GLB of what the outlines of the images allow."""
    import tempfile

    from ultrashape_cli.data.background import load_reference
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.inference.hull import hull
    from ultrashape_cli.inference.view_files import parse_views
    from ultrashape_cli.meshfiles.save import save_mesh

    views = parse_views(request.views)
    unknown = [view.path for view in views if view.direction is None]
    if unknown:
        raise UsageError(
            f"there is no mesh yet that would tell from where `{unknown[0]}` was seen",
            hint=f"--view back={unknown[0]}",
        )
    front = _reference(request, resolved)
    images = [] if front is None else [front]
    directions = [] if front is None else [(0.0, 0.0)]
    for view in views:
        assert view.direction is not None
        images.append(load_reference(view.path, resolved.config.refine.background))
        directions.append(view.direction)
    mesh = hull([rgba[..., 3] >= 128 for rgba in images], directions)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "hull.glb"
        save_mesh(mesh, path)
        return path.read_bytes()


def _made(
    ui: UI, command: CoarseCommand, request: Request, resolved: Resolved, target: Path
) -> bytes:
    from ultrashape_cli.inference.coarse_mesh import mesh_of_command

    rgba = None if command.from_text else _reference(request, resolved)
    target.parent.mkdir(parents=True, exist_ok=True)
    seed = resolved.config.seed
    return mesh_of_command(command, rgba, request.text or "", seed, ui.info).read_bytes()


def _write(path: Path, content: bytes, made: dict[str, Any]) -> None:
    """Writes the coarse mesh and what made it, unless it is there; no other file is touched."""
    import hashlib

    from ultrashape_cli.files import disk_errors, file_hash, read_json, temporary_path, write_json

    record = path.with_name(f"{path.name}.json")
    if path.exists():
        before = read_json(record)
        known = before.get("mesh_sha256") if isinstance(before, dict) else None
        if known != file_hash(path):
            _refuse(path)
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with temporary_path(path) as temporary:
        temporary.write_bytes(content)
    write_json(record, {**made, "mesh_sha256": hashlib.sha256(content).hexdigest()})


def _refuse(path: Path) -> None:
    from ultrashape_cli.errors import UsageError

    raise UsageError(
        f"`{path}` exists, and `ushape refine` did not make it", hint="another -o, or remove it"
    )
