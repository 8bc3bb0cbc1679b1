"""Figures and causes as people read them."""

from __future__ import annotations

import re


def duration(seconds: float) -> str:
    """Returns a short human duration such as `1h05m` or `12s`."""
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"


def cause(error: BaseException) -> str:
    """Returns why something of others failed, in one line without numbers and type names."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, BaseException):  # urllib wraps what the network said
        return cause(reason)
    if isinstance(error, OSError) and isinstance(reason, str):
        return reason
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if type(error).__module__.startswith("pydantic"):
        return "; ".join(map(_problem, error.errors()))  # type: ignore[attr-defined]
    lines = str(error).strip().splitlines()
    return re.sub(r"^\[Errno -?\d+\] ", "", lines[0]) if lines else type(error).__name__


def _problem(found: dict[str, object]) -> str:
    """Returns what pydantic says of one value: `mode` is wrong: ..."""
    place = found["loc"]
    name = ".".join(map(str, place)) if isinstance(place, tuple) else ""
    said = str(found["msg"]).removeprefix("Value error, ")
    return f"`{name}` is wrong: {said}"
