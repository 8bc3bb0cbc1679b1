"""What is there of a refinement already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultrashape_cli.commands.refine.scores import verdict_of

if TYPE_CHECKING:
    from pathlib import Path

    from ultrashape_cli.inference.files import Job
    from ultrashape_cli.ui import UI


def already_made(
    ui: UI, job: Job, recipe: dict[str, Any], inputs: dict[str, Any], force: bool
) -> bool:
    """Says whether the result of a job is there, and if so shows it.

    Args:
        ui: Where to say so.
        job: Its files.
        recipe: Everything the result depends on, as the record holds it.
        inputs: What to name as inputs.
        force: Make it anew where this command made it before.

    Raises:
        UsageError: Something else is there.
    """
    from ultrashape_cli.errors import UsageError
    from ultrashape_cli.inference.files import is_made

    require_ours(job.target, job.record, job.preview)
    if force:
        return False
    if is_made(job, recipe):
        ui.info(f"{job.target} is already made from these inputs")
        measured = result_in(job.record) or {}
        ui.result(
            inputs=inputs,
            outputs=outputs_of(job),
            counts={"skipped": 1},
            result=measured,
            **verdict_of(measured.get("metrics", {})),
        )
        return True
    if job.target.exists() and not is_made(job, recipe, ignore_preview=True):
        raise UsageError(
            f"`{job.target}` exists and was made from something else",
            hint="another -o, or --force",
        )
    return False


def require_ours(target: Path, record: Path, preview: Path | None) -> None:
    """Raises UsageError where a file of a result is there that this command did not make.

    As of `--force` everywhere: what this command made is replaced, and nothing else.
    """
    from ultrashape_cli.errors import UsageError

    made = result_in(record)
    ours = made is not None
    previewed = made.get("preview") if made else None
    for path in (target, record, preview):
        known = ours and (path != preview or str(path) == previewed)
        if path is not None and path.exists() and not known:
            raise UsageError(
                f"`{path}` exists, and `ushape refine` did not make it",
                hint="another -o or --preview, or remove it first",
            )


def result_in(record: Path) -> dict[str, Any] | None:
    """Returns what was measured, as the record of a refinement holds it; None of another file."""
    from ultrashape_cli.files import read_json

    found = read_json(record)
    result = found.get("result") if isinstance(found, dict) else None
    return result if isinstance(result, dict) else None


def outputs_of(job: Job) -> dict[str, str]:
    """Returns the files of a job that are there."""
    files = {"mesh": job.target, "full": job.full_target, "preview": job.preview}
    kept = {"full": job.keep_full}
    for seed in range(job.seed, job.seed + job.candidates):
        files[f"seed{seed}"] = job.candidate_target(seed)
    return {
        name: str(path)
        for name, path in files.items()
        if path is not None and kept.get(name, True) and path.exists()
    }
