"""The Typer app: registers the verbs and maps exceptions to exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ultrashape_cli import __version__
from ultrashape_cli.commands.data.verb import data
from ultrashape_cli.commands.distill import distill
from ultrashape_cli.commands.doctor.verb import doctor
from ultrashape_cli.commands.evaluate import evaluate
from ultrashape_cli.commands.import_.verb import import_
from ultrashape_cli.commands.monitor import monitor
from ultrashape_cli.commands.prepare import prepare
from ultrashape_cli.commands.refine.verb import refine
from ultrashape_cli.commands.render import render
from ultrashape_cli.commands.report import report
from ultrashape_cli.commands.runs import runs
from ultrashape_cli.commands.sample import sample
from ultrashape_cli.commands.serve.verb import serve
from ultrashape_cli.commands.show import show
from ultrashape_cli.commands.split import split
from ultrashape_cli.commands.train.verb import train
from ultrashape_cli.commands.weights.verb import weights
from ultrashape_cli.dotenv import load_dotenv, masked_arguments, masked_text
from ultrashape_cli.errors import DiskError, UShapeError
from ultrashape_cli.formatting import cause
from ultrashape_cli.options import add_verb

app = typer.Typer(
    name="ushape",
    help="Fine-tune and run UltraShape 1.0.\n\n"
    "prepare a dataset, train on it, refine meshes with the result, monitor the run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_verb(app, import_, "import")
for verb in (
    show, prepare, render, sample, split, train, distill, refine, evaluate, monitor, runs, report,
    doctor,
):  # fmt: skip
    add_verb(app, verb)
app.add_typer(serve)
app.add_typer(weights)
app.add_typer(data)


def _print_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"{__version__}\n")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def run(argv: Sequence[str]) -> int:
    """Runs one command line and returns its exit code.

    0 done, 1 something failed, 2 bad usage, 3 a bug, 130/143 stopped by a signal.
    """
    # Idle OpenMP threads that spin slow every other process on a shared CPU; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    load_dotenv(Path())
    try:
        app(args=list(argv))
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if code == 2:
            from ultrashape_cli.ui import fail_usage

            fail_usage(argv, code)
        elif code in (130, 143):
            _say_stopped(argv)
        return code
    except UShapeError as error:
        return _show(error)
    except BrokenPipeError:
        # The reader of our stdout is gone (`| head`); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        _say_stopped(argv)
        return 130
    except Exception as error:
        if (stopped := _stopped_by(error)) is not None:
            _say_stopped(argv)
            return stopped
        known = _known(error, argv[0] if argv else "")
        if known is None:
            return _report_bug(argv)
        return _show(known)
    return 0


def _stopped_by(error: Exception) -> int | None:
    """Returns the code of a signal that compiled code has turned into a SystemError."""
    cause = error.__cause__ or error.__context__
    if not isinstance(error, SystemError):
        return None
    if isinstance(cause, KeyboardInterrupt):
        return 130
    return cause.code if isinstance(cause, SystemExit) and isinstance(cause.code, int) else None


def _say_stopped(argv: Sequence[str]) -> None:
    from ultrashape_cli.ui import emit_stopped

    emit_stopped(argv)


def _show(error: UShapeError) -> int:
    # Imported on use: help needs none of it, and it takes a tenth of its time.
    from ultrashape_cli.ui import current_ui

    if os.environ.get("USHAPE_DEBUG"):
        traceback.print_exc()
    current_ui().error(error)
    return error.exit_code


_LESS_MEMORY = {
    "train": "a lower train.num_latents; --dry-run shows the plan",
    "refine": "a lower --tokens; --dry-run shows the plan",
    "evaluate": "a lower refine.tokens",
    **dict.fromkeys(("prepare", "render", "sample"), "--workers 1"),
}
_DISK = {
    errno.ENOENT: "check the path",
    errno.EACCES: "check who may read and write it",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "free some space, or name a place on a larger disk",
    errno.EDQUOT: "free some space, or name a place on a larger disk",
    errno.EMFILE: "ulimit -n 65536",
}
"""What helps against the most common errors of the system."""


def _known(error: Exception, verb: str) -> UShapeError | None:
    """Maps library exceptions that are not bugs to messages."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return UShapeError(
            f"out of memory ({cause(error)})",
            hint=f"repeat the command with {_LESS_MEMORY.get(verb, 'fewer assets at once')}",
        )
    if isinstance(error, OSError) and error.errno is not None:
        where = f" `{error.filename}`" if error.filename else ""
        hint = _DISK.get(error.errno, "check the path and the disk")
        return DiskError(f"cannot use{where}: {cause(error)}", hint=hint)
    return None


def _report_bug(argv: Sequence[str]) -> int:
    import tempfile

    # The file is made to be sent to others.
    trace = masked_text(traceback.format_exc())
    text = f"ushape {__version__}: {' '.join(masked_arguments(argv))}\n{trace}"
    with tempfile.NamedTemporaryFile(
        "w", prefix="ushape-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    summary = trace.strip().splitlines()[-1]
    bug = UShapeError(
        f"a bug in ushape: {summary}", hint=f"please report it with {Path(file.name)}"
    )
    bug.exit_code = 3
    return _show(bug)
