from __future__ import annotations

import os
from pathlib import Path

import pytest

from ultrashape_cli.dotenv import DotEnv, load_dotenv, masked, masked_arguments, masked_text

TEXT = """# a comment
WANDB_API_KEY=abc
export HF_TOKEN = "h f"
USHAPE_SEED='7'   \nNCCL_DEBUG=INFO # loud
CUDA_VISIBLE_DEVICES=
PATH=/evil
no variable
HF_HOME=/old
=3
WANDB_NOTE=a=b#c
"""


def test_known_names_fill_what_is_not_set(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(TEXT)
    environ = {"HF_HOME": "/mine", "PATH": "/bin"}
    found = load_dotenv(tmp_path, environ)
    assert environ == {
        "HF_HOME": "/mine",
        "PATH": "/bin",
        "WANDB_API_KEY": "abc",
        "HF_TOKEN": "h f",
        "USHAPE_SEED": "7",
        "NCCL_DEBUG": "INFO",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_NOTE": "a=b#c",
    }
    assert (found.kept, found.ignored) == (("HF_HOME",), ("PATH",))
    assert len(found.taken) == 6


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.write_bytes(b"\xff\xfe=\n"), None])
def test_no_file_and_no_text_set_nothing(tmp_path: Path, make) -> None:
    if make:
        make(tmp_path / ".env")
    assert load_dotenv(tmp_path, {}) == DotEnv()


def test_secrets_show_their_last_characters_only() -> None:
    assert masked("WANDB_API_KEY", "0123456789abcdef") == "...cdef"
    assert masked("HF_TOKEN", "short") == "..."
    assert masked("HF_HOME", "/cache/of/models") == "/cache/of/models"
    assert masked("USHAPE_ALERTS_WEBHOOK", "https://hooks/secret1") == "...ret1"
    # What is secret under any name, and what only sounds so.
    assert masked("USHAPE_ALERT_HOOK", "https://hooks/secret1") == "...ret1"
    assert masked("HF_ENDPOINT", "https://hf-mirror.com/") == "https://hf-mirror.com/"
    assert masked("USHAPE_REFINE_TOKENS", "4096") == "4096"
    assert masked("train.tracker_alerts", "true") == "true"


HOOK = "https://hooks.slack.com/services/T0/B0/secret"


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        (["--set", f"alerts.webhook={HOOK}"], ["--set", "alerts.webhook=...cret"]),
        ([f"--set=alerts.webhook={HOOK}?a=b"], ["--set=alerts.webhook=...?a=b"]),
        (["--set", "alerts.command=notify me secret"], ["--set", "alerts.command=...cret"]),
        (["--set", f"alerts.webhook:{HOOK}"], ["--set", "alerts.webhook:...cret"]),
        (["--out", "https://me:secret@host"], ["--out", "...host"]),
        (["--set", "x=hf_" + "a" * 30], ["--set", "x=...aaaa"]),
        (["--token", "ushape_" + "-a_b" * 10], ["--token", "...-a_b"]),
        (["-o", "ushape_figurines_of_july"], ["-o", "ushape_figurines_of_july"]),
        (["train", "--set", "refine.tokens=64", "a=b/c d"], None),
        (["--set", "train.init=/data/keys.pt", "--set=alerts.temperature=80"], None),
    ],
)
def test_a_recorded_command_line_holds_no_secret(typed, shown) -> None:
    assert masked_arguments(typed) == (shown or typed)


def test_a_text_for_others_holds_no_secret() -> None:
    environ = {"WANDB_API_KEY": "0123456789abcdef", "HF_TOKEN": "1", "HOME": "/home/ann/models"}
    text = f"cannot post to '{HOOK}' with 0123456789abcdef from /home/ann/models, line 1"
    assert masked_text(text, environ) == (
        "cannot post to '...cret' with ...cdef from /home/ann/models, line 1"
    )


def test_commands_see_the_file_of_the_working_folder(ushape, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("USHAPE_TRAIN_STEPS=77\n")
    result = ushape("train", "--profile", "cpu", "--show-config")
    assert "77" in result.out
    assert "$USHAPE_TRAIN_STEPS" in result.out
