"""Checks of what lies behind the network. None of it is needed to train, and none waits long."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from ultrashape_cli.diagnosis.check import OK, WARN, Finding, Subject
from ultrashape_cli.dotenv import masked
from ultrashape_cli.formatting import cause
from ultrashape_cli.monitoring.trackers import wandb_address, wandb_key

TIMEOUT_S = 4.0
HUB = "https://huggingface.co"
MAX_SKEW_S = 60.0
OLDEST_TIME = 1_735_689_600.0
"""2025-01-01: a clock before this is wrong."""


def check_hub(subject: Subject) -> Iterator[Finding]:
    """Asks the hub for its page, and looks at the token and at the clock."""
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB
    reason, skew = reach(address)
    if reason:
        message = f"{address} cannot be reached: {reason}; weights must come from a disk"
        yield Finding("hub", WARN, message)
    else:
        yield Finding("hub", OK, f"{address} answers")
    from huggingface_hub import get_token

    token = get_token()
    message = (
        f"logged in ({masked('TOKEN', token)})"
        if token
        else "not logged in (hf auth login): public files only"
    )
    yield Finding("hub login", OK, message)
    yield from judge_clock(time.time(), skew)


def check_wandb(subject: Subject) -> Iterator[Finding]:
    """Looks for a key, and asks the server only where one is set."""
    address = wandb_address()
    wanted = "wandb" in subject.resolved.config.train.trackers
    key = wandb_key()
    if not key:
        status = WARN if wanted else OK
        message = "no key: runs are recorded offline" if wanted else "no key; it is optional"
        yield Finding("wandb", status, message, "wandb login" if wanted else "")
        return
    reason, _ = reach(address)
    if reason:
        yield Finding("wandb", WARN, f"{address} cannot be reached: {reason}",
                      "export WANDB_MODE=offline")  # fmt: skip
    else:
        yield Finding("wandb", OK, f"{address} answers, key {masked('KEY', key)}")


def judge_clock(now: float, skew_s: float | None) -> Iterator[Finding]:
    """Says whether the clock can be right.

    Args:
        now: This machine's clock.
        skew_s: How far it is ahead of a server's; None where none answered.
    """
    fix = "sudo timedatectl set-ntp true"
    text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
    if now < OLDEST_TIME:
        yield Finding("clock", WARN, f"{text} cannot be right", fix)
    elif skew_s is not None and abs(skew_s) > MAX_SKEW_S:
        yield Finding("clock", WARN, f"{text}, {skew_s:+.0f} s against the hub", fix)
    else:
        yield Finding("clock", OK, text)


def reach(address: str) -> tuple[str, float | None]:
    """Returns why an address does not answer, or nothing, and how far our clock is ahead of it."""
    request = urllib.request.Request(address, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return "", _skew(answer.headers.get("Date"))
    except urllib.error.HTTPError as error:  # it answers, and that is all that counts
        return "", _skew(error.headers.get("Date"))
    except (OSError, ValueError) as error:
        return cause(error), None


def _skew(date: str | None) -> float | None:
    try:
        return time.time() - parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
