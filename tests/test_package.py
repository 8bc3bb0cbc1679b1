"""The package as a user meets it: entry points, start-up cost, help."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ultrashape_cli import __version__

ROOT = Path(__file__).parent.parent
VERBS = ("prepare", "render", "sample", "split", "train", "refine", "evaluate", "monitor", "runs",
         "report", "doctor", "show", "serve", "weights")  # fmt: skip
HEAVY = ("torch", "trimesh", "open3d", "pymeshlab", "wandb", "accelerate", "numpy", "numba")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [["--help"], *[[verb, "--help"] for verb in VERBS]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from ultrashape_cli.cli import run\n"
        f"code = run({arguments!r})\n"
        f"loaded = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "sys.exit(f'{code} {loaded}' if code or loaded else 0)"
    )
    result = _python(code)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


WEIGHTS_VERBS = ("pull", "export", "convert", "quantise", "inspect", "verify", "push")
COMMANDS = [*((verb,) for verb in VERBS if verb != "weights"),
            *(("weights", verb) for verb in WEIGHTS_VERBS),
            *(("serve", "token", verb) for verb in ("add", "list", "remove"))]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_names_values_one_way_and_fills_the_line(ushape, monkeypatch, command) -> None:
    monkeypatch.setenv("COLUMNS", "600")
    # Verbs below a verb are listed last, by their names.
    text = ushape(*command, "--help").out.split("─ Commands ─")[0]
    rows = re.findall(r"^│ (?:\*  )? *(\S.*?)│$", text, re.MULTILINE)
    assert rows
    for cells in (re.split(r"  +", row.strip()) for row in rows):
        if cells[0].startswith("--help"):  # typer's own
            continue
        if not cells[0].startswith("-"):
            assert re.fullmatch(r"[A-Z_|/]+(\.\.\.)?", cells[0]), cells
            continue
        value = next(cell for cell in cells if not re.match(r"-[-\w]+$", cell))
        # A name in capitals, choices, or already the sentence about a flag.
        choices = r"[a-z0-9-]+(\|[a-z0-9-]+)+"
        name = r"(\w+ )?[A-Z][A-Z_/:=,.]*(\|\w+)*"
        assert re.match(rf"({name}|{choices})( \[|$)|[^<\s]+ \S+ ", value), cells
    # On so wide a terminal each paragraph is one line.
    prose = text.split("╭")[0].split("Examples:")[0]
    paragraphs = [part for part in re.split(r"\n\s*\n", prose) if part.strip()]
    assert all("\n" not in part.strip() for part in paragraphs), prose


def test_version_prints_only_the_version(ushape) -> None:
    result = ushape("--version")
    assert result == (0, f"{__version__}\n", "")


def test_no_arguments_print_help_and_exit_2(ushape) -> None:
    result = ushape()
    assert result.code == 2
    assert "Usage" in result.out + result.err


def test_a_bug_is_written_down_without_secrets(ushape, tmp_path: Path, monkeypatch) -> None:
    def post(*_: object, **__: object) -> None:
        raise RuntimeError("no answer of https://hooks/T/secret1")

    monkeypatch.setattr("ultrashape_cli.commands.settings.resolve_settings", post)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = ushape("monitor", tmp_path, "--set", "alerts.webhook=https://hooks/T/secret1")
    assert result.code == 3
    assert "no answer of ...ret1" in result.err
    (file,) = tmp_path.glob("ushape-bug-*.txt")
    assert str(file) in result.err
    assert "--set alerts.webhook=...ret1" in file.read_text()
    assert "secret" not in result.err + file.read_text()


def test_importing_the_package_imports_nothing_else() -> None:
    code = (
        "import sys; before = set(sys.modules); import ultrashape_cli\n"
        "sys.exit(str(set(sys.modules) - before - {'ultrashape_cli'}) if "
        "set(sys.modules) - before != {'ultrashape_cli'} else 0)"
    )
    assert _python(code).returncode == 0


def test_pymeshlab_and_open3d_are_optional(tmp_path: Path) -> None:
    """Where their system libraries are missing the watertight step still works."""
    code = (
        "import sys\n"
        "sys.modules['pymeshlab'] = sys.modules['open3d'] = None\n"
        "from ultrashape_cli.synthetic.figurines import make_figurine\n"
        "from ultrashape_cli.watertight.ladder import make_watertight\n"
        "m = make_figurine(0, 24); m = m.with_faces(m.faces[50:])\n"
        "sys.exit(0 if make_watertight(m, 32).measurements['watertight'] else 1)"
    )
    result = _python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("render", "."), ("sample", "."), ("split", "."), ("split", ".", "--check"),
        ("prepare", "--review", "-o", "."), ("train", "--data", ".", "--model", "tiny"),
        ("evaluate", "--data", ".", "--model", "tiny"), ("monitor", ".", "--once"), ("report", "."),
        ("weights", "export", "."), ("evaluate", "--pairs", "."), ("prepare", ".", "-o", "new"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_folder_of_another_kind_is_bad_usage_everywhere(
    ushape, tmp_path: Path, monkeypatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ushape(*command)
    assert result.code == 2, result.err
    assert "error: " in result.err
    assert "hint: " in result.err
    assert not any(tmp_path.iterdir())
