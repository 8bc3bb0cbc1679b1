"""Figures as people read them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Returns a short human duration such as `1h05m` or `12s`."""
    seconds = max(0, round(seconds))
    hours, rest = divmod(seconds, 3600)
    minutes, seconds = divmod(rest, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
