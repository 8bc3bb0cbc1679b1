"""What a `ushape refine` command asks for."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ultrashape_cli.config.resolve import Resolved
    from ultrashape_cli.inference.files import Job


class Request(NamedTuple):
    """What the user asked for, beside the settings."""

    mesh: Path | None
    image: Path | None
    out: Path | None
    batch: Path | None
    checkpoint: Path | None
    model: str | None
    ground_truth: Path | None
    preview: Path | None
    metrics: bool
    keep_full: bool
    compare_speed: bool
    num_processes: int
    limit: int | None
    fail_fast: bool
    force: bool
    dry_run: bool
    server: str | None
    token: str
    views: tuple[str, ...]
    keep_candidates: bool
    sweep: tuple[str, ...]
    seeds: int | None
    coarse_with: str | None
    text: str | None
    image_option: Path | None
    config: Path | None
    """The file of `--config`."""

    @property
    def varies(self) -> bool:
        """Says whether the settings are varied."""
        return bool(self.sweep or self.seeds)


def check_usage(request: Request) -> Request:
    """Returns a request whose image stands where an image does.

    Raises:
        UsageError: Its parts do not go together.
    """
    from ultrashape_cli.errors import UsageError

    for given, option in ((request.mesh, "--batch"), (request.image, "--view")):
        if given is not None and given.is_dir():
            what = "of meshes and images" if option == "--batch" else "of renders and their cameras"
            raise UsageError(
                f"`{given}` is a folder", hint=f"{option} {shlex.quote(str(given))} for one {what}"
            )
    if request.image_option is not None:
        if request.image is not None:
            raise UsageError(
                f"`{request.image}` and `--image {request.image_option}` are both given",
                hint="leave one of them out",
            )
        request = request._replace(image=request.image_option, image_option=None)
    if request.coarse_with is not None:
        request = _check_coarse(request)
    elif request.text:
        raise UsageError("`--text` needs `--coarse-with`", hint="ushape refine --help")
    _check_parts(request)
    return request


def _check_coarse(request: Request) -> Request:
    """Returns a request whose image stands where an image does.

    Raises:
        UsageError: Its parts do not go together.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.inference.batch_jobs import IMAGE_SUFFIXES

    name = "--coarse-with"
    if request.server:
        raise UsageError(
            f"`{name}` and `--server` do not go together",
            hint=f"`{name}` works here alone: leave out --server",
        )
    if request.batch is not None:
        for what, present in (("IMAGE", request.image), ("--text", request.text)):
            if present:
                raise UsageError(
                    f"`{what}` has no meaning with --batch", hint="a folder or a CSV names images"
                )
        return request
    if request.mesh is not None and request.mesh.suffix.lower() in IMAGE_SUFFIXES:
        # As `ushape refine picture.png --coarse-with NAME` is typed.
        if request.image is not None:
            raise UsageError(
                f"`{request.mesh}` and `{request.image}` are both images", hint="--view for more"
            )
        request = request._replace(mesh=None, image=request.mesh)
    if request.mesh is not None:
        raise UsageError(
            f"`{name}` makes the coarse mesh, and `{request.mesh}` is one",
            hint="leave one of them out",
        )
    if request.image is None and not request.text and not request.views:
        raise UsageError(f"`{name}` needs an image or a text", hint="--image FILE, or --text TEXT")
    if request.text and request.image is None and request.out is None:
        raise UsageError("a text gives a result no name", hint="-o lion.glb")
    return request


def _check_parts(request: Request) -> None:
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.meshfiles.save import WRITABLE_SUFFIXES

    if request.batch is not None:
        for name, given in (
            ("MESH", request.mesh),
            ("--preview", request.preview),
            ("--ground-truth", request.ground_truth),
            ("--compare-speed", request.compare_speed),
            ("--view", request.views),
            ("--sweep", request.sweep),
            ("--seeds", request.seeds),
        ):
            if given:
                raise UsageError(
                    f"`{name}` has no meaning with --batch",
                    hint="a CSV names meshes, views and ground truths; previews are always written",
                )
        return
    has_image = request.image is not None or request.views or request.text
    if (request.mesh is None and request.coarse_with is None) or not has_image:
        raise UsageError(
            "a mesh and an image are needed", hint="ushape refine MESH IMAGE, or --batch CSV|DIR"
        )
    if request.num_processes > 1:
        raise UsageError("`--num-processes` needs --batch", hint="leave it out for one mesh")
    if request.image is not None and request.mesh is not None:
        _check_order(request.mesh, request.image)
    for name, given in (("--compare-speed", request.compare_speed), ("--preview", request.preview)):
        if given and request.varies:
            raise UsageError(
                f"`{name}` has no meaning with --sweep and --seeds",
                hint="the contact sheet shows all results",
            )
    if request.compare_speed and request.views:
        raise UsageError("`--view` has no meaning with --compare-speed", hint="leave it out")
    if request.varies:
        return
    target = target_of(request)
    if target.suffix.lower() not in WRITABLE_SUFFIXES:
        known = " ".join(WRITABLE_SUFFIXES)
        raise UsageError(
            f"`{target}` does not end in the name of a format that can be written: {known}",
            hint=f"-o {target.with_suffix('.glb')}",
        )


def _check_order(mesh: Path, image: Path) -> None:
    """Raises UsageError where mesh and image stand in each other's place."""
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

    if image.suffix.lower() in MESH_SUFFIXES and mesh.suffix.lower() not in MESH_SUFFIXES:
        command, (one, two) = sys.argv[1:], (str(mesh), str(image))
        if one in command and two in command:
            first, second = command.index(one), command.index(two)
            command[first], command[second] = two, one
        raise UsageError(
            f"the mesh is `{mesh}` and the image `{image}`: swapped?",
            hint=shlex.join(["ushape", *command]),
        )


def target_of(request: Request) -> Path:
    """Returns the mesh file that a request for one mesh writes."""
    if request.out is not None:
        return request.out
    # Of a mesh that is still to be made the image has the name.
    named = request.mesh or request.image or Path(request.views[0].rpartition("=")[2])
    return named.with_name(f"{named.stem}_refined.glb")


def make_job(request: Request, resolved: Resolved) -> Job:
    """Returns the job of a request for one mesh."""
    from ultrashape_cli.finishing.write import files_beside
    from ultrashape_cli.inference.files import Job
    from ultrashape_cli.inference.region import parse_region
    from ultrashape_cli.inference.view_files import ViewFile, parse_views

    assert request.mesh is not None
    views, image, refine = parse_views(request.views), request.image, resolved.config.refine
    if image is not None and views:
        front = ViewFile(image, (0.0, 0.0))
        views = (front, *(view for view in views if view != front))
    return Job(
        name=request.mesh.stem,
        mesh=request.mesh,
        image=image or views[0].path,
        target=target_of(request),
        seed=resolved.config.seed,
        ground_truth=request.ground_truth,
        preview=request.preview,
        metrics=request.metrics,
        keep_full=request.keep_full,
        views=views,
        candidates=refine.best_of if request.keep_candidates else 0,
        beside=tuple(files_beside(refine, target_of(request))),
        mask=parse_region(refine.region).file if refine.region else None,
    )


@contextlib.contextmanager
def naming_the_command() -> Iterator[None]:
    """Lets the error of exhausted memory show the whole command that needs less."""
    from ultrashape_cli.dotenv import masked_arguments
    from ultrashape_cli.inference.memory import OutOfMemory

    try:
        yield
    except OutOfMemory as error:
        if not error.option:  # no option helps, and the same command least of all
            raise
        typed = masked_arguments(_without(sys.argv[1:], error.option.split()[::2]))
        command = shlex.join(["ushape", *typed])
        raise OutOfMemory(error.message, hint=f"{command} {error.option}") from error


def _without(arguments: list[str], names: list[str]) -> list[str]:
    """Returns a command line without options that take a value once, `--set` is not one."""
    kept: list[str] = []
    drop = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        named = name in names and name != "--set"
        if not named and not drop:
            kept.append(argument)
        drop = named and not equals
    return kept
