"""The files of one refinement; what there is to say about them without a network at hand."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.files import disk_errors, read_json
from ultrashape_cli.inference.coarse_files import CoarseRecipe
from ultrashape_cli.inference.view_files import ViewFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One mesh to refine."""

    name: str
    mesh: Path
    image: Path
    target: Path
    """Mesh to write; its suffix is the format."""
    seed: int
    ground_truth: Path | None = None
    """Mesh in the frame of the input that the result is compared with."""
    preview: Path | None = None
    """Picture to write."""
    metrics: bool = False
    """Compare the result with the input, and with the ground truth."""
    keep_full: bool = False
    """Also write the mesh before faces are reduced."""
    views: tuple[ViewFile, ...] = ()
    """References with their sides, the image among them; none where the image is the only one."""
    beside: tuple[Path, ...] = ()
    """What a finished mesh has beside it (`finishing.write.files_beside`)."""
    candidates: int = 0
    """Results of other seeds that are written too, of this one and those that follow it."""
    mask: Path | None = None
    """Mesh whose colours say what may change, as the settings name it."""
    coarse: CoarseRecipe | None = None
    """What `mesh` is made of where it is no input."""

    @property
    def record(self) -> Path:
        """Returns the file that says what the mesh was made from."""
        return self.target.with_name(f"{self.target.name}.json")

    @property
    def full_target(self) -> Path:
        """Returns where the mesh before the reduction goes."""
        return self.target.with_name(f"{self.target.stem}_full{self.target.suffix}")

    def candidate_target(self, seed: int) -> Path:
        """Returns where the result of another seed goes."""
        return self.target.with_name(f"{self.target.stem}_seed{seed}{self.target.suffix}")

    @property
    def inputs(self) -> list[Path]:
        """Returns the files that are read beside the weights."""
        mesh = self.mesh if self.coarse is None else None
        return [p for p in (mesh, self.image, self.ground_truth, self.mask) if p] + [
            view.path for view in self.views if view.path != self.image
        ]

    @property
    def outputs(self) -> list[Path]:
        """Returns the files that are written."""
        full = self.full_target if self.keep_full else None
        others = [self.candidate_target(self.seed + k) for k in range(self.candidates)]
        mesh = self.mesh if self.coarse is not None else None
        files = (self.target, self.record, full, self.preview, mesh, *others, *self.beside)
        return [p for p in files if p]


def check_writable(folder: Path) -> None:
    """Makes a folder where it is missing and proves that files can be made in it.

    Raises:
        DiskError: They cannot.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def is_made(job: Job, recipe: dict[str, Any], *, ignore_preview: bool = False) -> bool:
    """Says whether the files of a job are there and come from this recipe."""
    made = read_json(job.record)
    if not isinstance(made, dict) or not isinstance(made.get("result"), dict):
        return False
    if {key: made.get(key) for key in recipe} != recipe:
        return False
    wanted = [job.target, *job.beside]
    if job.preview is not None and not ignore_preview:
        wanted.append(job.preview)
    return all(path.exists() for path in wanted)
