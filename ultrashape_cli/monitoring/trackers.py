"""Metric sinks beside metrics.jsonl. One that fails is dropped; training goes on."""

from __future__ import annotations

import logging
import netrc
import os
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

from ultrashape_cli.errors import ConfigError
from ultrashape_cli.runs import RunFolder

logger = logging.getLogger(__name__)

Tracker = Callable[[dict[str, Any], int], None]
TRACKERS = ("wandb",)


def make_tracker(names: Sequence[str], run: RunFolder) -> Tracker:
    """Returns a function (values, step) that feeds all named trackers.

    Raises:
        ConfigError: No such tracker.
    """
    unknown = set(names) - set(TRACKERS)
    if unknown:
        raise ConfigError(f"no tracker `{min(unknown)}`", hint=f"trackers: {', '.join(TRACKERS)}")
    if "wandb" not in names:
        return lambda values, step: None
    return _wandb(run)


def wandb_address() -> str:
    """Returns the server of Weights & Biases, without a slash at its end."""
    return os.environ.get("WANDB_BASE_URL", "").rstrip("/") or "https://api.wandb.ai"


def wandb_key() -> str | None:
    """Returns the key of this user, from WANDB_API_KEY or where `wandb login` puts it."""
    if key := os.environ.get("WANDB_API_KEY"):
        return key
    try:
        entry = netrc.netrc().authenticators(urlsplit(wandb_address()).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return entry[2] if entry else None


def _wandb(run: RunFolder) -> Tracker:
    # Without a key a run is recorded offline; `wandb sync` uploads it later.
    if not os.environ.get("WANDB_API_KEY"):
        os.environ.setdefault("WANDB_MODE", "offline")
    session: list[Any] = []

    def track(values: dict[str, Any], step: int) -> None:
        try:
            if not session:
                import wandb

                session.append(wandb.init(project="ushape", name=run.root.name, dir=run.root))
            if session[0] is not None:
                session[0].log(values, step=step)
        except Exception as error:  # whatever a tracker does, training goes on
            logger.warning("wandb stopped: %s", error)
            session[:] = [None]

    return track
