from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ultrashape_cli.errors import DiskError, UsageError
from ultrashape_cli.files import (
    check_outputs,
    disk_errors,
    end_torn_line,
    read_json,
    temporary_path,
    write_atomic,
    write_json,
)


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    # The last name holds a byte that is no UTF-8, as file names of old archives do.
    value = {"name": "模型", "n": [1, 2.5, None], "path": os.fsdecode(b"caf\xe9.obj")}
    write_json(tmp_path / "new" / "a.json", value)
    assert read_json(tmp_path / "new" / "a.json") == value
    assert os.listdir(tmp_path / "new") == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00"])
def test_a_torn_json_file_reads_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    assert read_json(tmp_path / "a.json") is None


def test_an_absent_json_file_reads_as_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "file" / "a.json") is None


def test_json_refuses_numbers_that_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), ValueError("bad"),
                                     KeyboardInterrupt()])  # fmt: skip
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, failure) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file) -> None:
        file.write(b"half")
        raise failure

    with pytest.raises(DiskError if isinstance(failure, OSError) else type(failure)):
        write_atomic(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_the_temporary_file_keeps_the_suffix_and_is_hidden(tmp_path: Path) -> None:
    with temporary_path(tmp_path / "a.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.name.startswith(".")
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert not (tmp_path / "a.png").exists()
    assert (tmp_path / "a.png").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_storage_errors_name_the_file_and_the_reason(tmp_path: Path, number: int, text: str):
    with pytest.raises(DiskError, match=text) as caught, disk_errors(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "x") in caught.value.message
    assert caught.value.exit_code == 1
    assert caught.value.hint


def test_other_system_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), disk_errors(tmp_path):
        (tmp_path).open("w")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_device_is_a_disk_error() -> None:
    with (
        pytest.raises(DiskError, match="no space left"),
        disk_errors(Path("/dev/full")),
        open("/dev/full", "wb", buffering=0) as file,
    ):
        file.write(b"x")


def test_a_file_in_the_place_of_a_folder_is_a_disk_error(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(DiskError, match="folder"):
        write_json(tmp_path / "data" / "a.json", {})


@pytest.mark.parametrize("before", [None, "", "{}\n", "{}"])
def test_a_torn_line_is_ended(tmp_path: Path, before: str | None) -> None:
    path = tmp_path / "events.jsonl"
    if before is not None:
        path.write_text(before)
    end_torn_line(path)
    assert (path.read_text() if path.exists() else None) == ("{}\n" if before == "{}" else before)


@pytest.fixture
def read(tmp_path: Path) -> Path:
    """A folder with a file `in.obj` in it, and links to both beside it."""
    folder = tmp_path / "read"
    folder.mkdir()
    (folder / "in.obj").write_text("mesh")
    (tmp_path / "soft.obj").symlink_to(folder / "in.obj")
    (tmp_path / "hard.obj").hardlink_to(folder / "in.obj")
    (tmp_path / "other").symlink_to(folder)
    return folder


@pytest.mark.parametrize(
    ("output", "what"),
    [
        ("read/in.obj", "is"),
        ("read/../read/in.obj", "is"),
        ("soft.obj", "is"),
        ("hard.obj", "is"),
        ("other/in.obj", "is"),
        ("read/in.obj/deeper", "lies in"),
    ],
)
def test_no_name_of_an_input_is_an_output(
    read: Path, tmp_path: Path, monkeypatch, output: str, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"`{output}` {what} the input") as caught:
        check_outputs([Path("fine"), Path(output)], [read / "in.obj"], hint="-o out.obj")
    assert caught.value.hint == "-o out.obj"


@pytest.mark.parametrize(
    ("output", "what"), [("read", "is"), ("read/new/a.obj", "lies in"), ("other/a.obj", "lies in"),
                         ("read/in.obj", "lies in"), (".", "holds"), ("..", "holds")],
)  # fmt: skip
def test_nothing_is_written_into_or_around_a_folder_that_is_read(
    read: Path, tmp_path: Path, monkeypatch, output: str, what: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"`{output}` {what} the input `{read}`"):
        check_outputs([Path(output)], [read], hint="")


def test_a_link_in_a_folder_that_is_read_is_not_replaced(read: Path, tmp_path: Path) -> None:
    (read / "away.obj").symlink_to(tmp_path / "elsewhere.obj")
    with pytest.raises(UsageError, match="lies in"):
        check_outputs([read / "away.obj"], [read], hint="")


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are one file"):
        check_outputs([tmp_path / "a.glb", tmp_path / "x" / ".." / "a.glb"], [], hint="")


def test_outputs_beside_the_inputs_are_fine(read: Path, tmp_path: Path) -> None:
    outputs = [read / "out.obj", tmp_path / "new" / "out.obj", tmp_path / "read2"]
    check_outputs(outputs, [read / "in.obj", tmp_path / "gone.obj"], hint="")
