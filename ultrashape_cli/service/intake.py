"""A submission: from the body of a request to jobs in the queue."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile

from ultrashape_cli.config.serve import ServeConfig
from ultrashape_cli.service import content, jobs
from ultrashape_cli.service.jobs import NewJob
from ultrashape_cli.service.options import JobOptions, ResolveJob, parse_options
from ultrashape_cli.service.problems import Problem
from ultrashape_cli.service.store import Store, sync_tree

_FIELDS = ("mesh_file", "image_file", "options")
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Desk:
    """What the service takes."""

    store: Store
    config: ServeConfig
    models: Mapping[str, str]
    """Checkpoints by name, and their model families."""
    resolve: ResolveJob

    @property
    def default(self) -> str:
        """Name of the checkpoint of jobs that name none."""
        return next(iter(self.models))


@dataclass(slots=True)
class _File:
    """An upload that lies on the disk."""

    path: Path
    name: str
    type: str
    bytes: int
    sha256: str


@dataclass(slots=True)
class _Upload:
    mesh: _File
    images: list[_File] = field(default_factory=list)


async def read_form(request: Request, config: ServeConfig) -> FormData:
    """Returns the parts of a submission; files lie in the spool, unread.

    Raises:
        Problem: It is no multipart form, or has too many parts.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Problem(415, "bad-type", "the body is no multipart form",
                      hint="fields mesh_file, image_file, options")  # fmt: skip
    return await request.form(max_files=1 + config.max_images, max_fields=8, max_part_size=1 << 16)


async def accept(desk: Desk, form: FormData, owner: str, key: str | None) -> tuple[list[str], bool]:
    """Queues what a form asks for; returns the ids of the jobs, and whether they were there.

    Raises:
        Problem: The form is not taken.
        UShapeError: Neither are its files or options.
    """
    meshes, images = _parts(form, "mesh_file"), _parts(form, "image_file")
    if len(meshes) != 1 or not images:
        raise Problem(422, "missing-file", "one file `mesh_file` and one or more `image_file` "
                      "are needed", hint=f"there are {len(meshes)} and {len(images)}")  # fmt: skip
    unknown = sorted({name for name, _ in form.multi_items()} - {*_FIELDS})
    if unknown:
        raise Problem(422, "unknown-field", f"unknown field `{unknown[0][:80]}`",
                      hint=f"fields: {', '.join(_FIELDS)}")  # fmt: skip
    text = form.get("options", "")
    if not isinstance(text, str):
        text = (await text.read(1 << 16)).decode(errors="replace")
    options = parse_options(text, desk.models, desk.default, desk.resolve)
    return await run_in_threadpool(_take, desk, meshes[0], images, options, owner, key)


def _parts(form: FormData, name: str) -> list[UploadFile]:
    return [each for each in form.getlist(name) if isinstance(each, UploadFile)]


def _take(
    desk: Desk,
    mesh: UploadFile,
    images: list[UploadFile],
    options: JobOptions,
    owner: str,
    key: str | None,
) -> tuple[list[str], bool]:
    first = desk.store.job_folder(secrets.token_hex(12))
    folders = [first, *(desk.store.job_folder(secrets.token_hex(12)) for _ in images[1:])]
    taken = False
    try:
        first.mkdir()
        upload = _inspect(desk, first, mesh, images, options)
        new = [_lay_out(folder, upload, n, options) for n, folder in enumerate(folders)]
        for folder in folders:
            sync_tree(folder)
        body = json.dumps(
            [upload.mesh.sha256, [each.sha256 for each in upload.images], options.model,
             options.priority, options.webhook, options.values], sort_keys=True,
        )  # fmt: skip
        ids, known = jobs.submit(
            desk.store,
            owner,
            new,
            key=key,
            body=hashlib.sha256(body.encode()).hexdigest(),
            most=desk.config.max_queued,
            most_of_owner=desk.config.max_queued_per_token,
        )
        taken = not known
        return ids, known
    finally:
        if not taken:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)


def _inspect(
    desk: Desk, folder: Path, mesh: UploadFile, images: list[UploadFile], options: JobOptions
) -> _Upload:
    resolved = desk.resolve(options.model, options.values)
    cuts = importlib.util.find_spec("rembg") is not None
    needs_alpha = resolved.config.refine.background == "auto" and not cuts
    limits = content.limits_of(desk.config)
    found = _copy(mesh, folder / "mesh", limits.mesh_bytes, "mesh")
    found.type = content.mesh_type(found.path)
    content.check_mesh(found.path, found.type, limits)
    upload = _Upload(_named(found, mesh.filename))
    for n, image in enumerate(images):
        each = _copy(image, folder / f"image-{n}", limits.image_bytes, "image")
        each.type = content.check_image(each.path, limits)
        if needs_alpha and content.is_opaque(each.path):
            raise content.opaque()
        upload.images.append(_named(each, image.filename))
    return upload


def _copy(part: UploadFile, path: Path, limit: int, what: str) -> _File:
    """Copies an upload out of the spool, and hashes it on the way."""
    digest, size = hashlib.sha256(), 0
    part.file.seek(0)
    with path.open("wb") as file:
        while piece := part.file.read(_PIECE):
            size += len(piece)
            if size > limit:
                raise content.too_large(what, limit)
            digest.update(piece)
            file.write(piece)
    return _File(path, "", "", size, digest.hexdigest())


def _named(file: _File, name: str | None) -> _File:
    path = file.path.with_name(f"{file.path.name}.{file.type}")
    file.path.rename(path)
    file.path, file.name = path, content.safe_name(name, file.type)
    return file


def _lay_out(folder: Path, upload: _Upload, n: int, options: JobOptions) -> NewJob:
    """Puts mesh and image of a job into its folder; the mesh of several is one file."""
    folder.mkdir(exist_ok=True)
    image = upload.images[n]
    inputs, size = {}, 0
    for name, file in (("mesh", upload.mesh), ("image", image)):
        path = folder / f"{name}.{file.type}"
        if path != file.path:
            with suppress(FileExistsError):
                os.link(file.path, path)
        if name == "image":
            file.path.unlink()
        if n == 0 or name == "image":
            size += file.bytes
        inputs[name] = _described(file, path.name)
    return NewJob(folder.name, options.model, options.values, inputs, options.priority,
                  options.webhook, size)  # fmt: skip


def _described(file: _File, stored: str) -> dict[str, Any]:
    return {
        "name": file.name, "file": stored, "type": file.type, "bytes": file.bytes,
        "sha256": file.sha256,
    }  # fmt: skip
