"""Metric sinks beside metrics.jsonl. One that fails is dropped; training goes on."""

from __future__ import annotations

import importlib.util
import logging
import netrc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from ultrashape_cli.dotenv import masked_arguments, masked_text
from ultrashape_cli.errors import ConfigError, DependencyError
from ultrashape_cli.files import read_json
from ultrashape_cli.formatting import cause
from ultrashape_cli.runs import RunFolder

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """Where metrics, pictures and messages of a run go."""

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Takes the metrics of a step."""

    def images(self, files: Mapping[str, Path], step: int) -> None:
        """Takes pictures by name."""

    def alert(self, title: str, text: str) -> None:
        """Takes a message for whoever watches."""

    def finish(self, state: str, best: Path | None) -> None:
        """Ends; `best` is the best checkpoint's folder."""


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Takes the metrics of a step; only numbers are passed on."""
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        self._each(lambda tracker: tracker.log(numbers, step))

    def images(self, files: Mapping[str, Path], step: int) -> None:
        """Takes pictures by name."""
        self._each(lambda tracker: tracker.images(files, step))

    def alert(self, title: str, text: str) -> None:
        """Takes a message for whoever watches."""
        self._each(lambda tracker: tracker.alert(title, text))

    def finish(self, state: str, best: Path | None = None) -> None:
        """Ends all trackers."""
        self._each(lambda tracker: tracker.finish(state, best))
        self._trackers.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # whatever a tracker does, training goes on
                logger.warning("tracker %s stopped: %s", name, masked_text(cause(error)))
                del self._trackers[name]


def make_trackers(
    names: Sequence[str], run: RunFolder, *, step: int = 0, alerts: bool = False
) -> Trackers:
    """Returns the named trackers of a run that starts or goes on at a step.

    Args:
        names: `tensorboard`, `wandb`.
        run: Its folder; TensorBoard writes below it, and so does wandb without a key.
        step: The last step that is done.
        alerts: Pass messages and the best checkpoint on to wandb.

    Raises:
        ConfigError: No such tracker.
        DependencyError: Its package is not installed.
    """
    unknown = set(names) - set(TRACKERS)
    if unknown:
        raise ConfigError(f"no tracker `{min(unknown)}`", hint=f"trackers: {', '.join(TRACKERS)}")
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise DependencyError(
                f"tracker `{name}` needs the package {name}", hint=f"pip install {name}"
            )
    found: dict[str, Tracker] = {}
    for name in names:
        try:
            found[name] = TRACKERS[name](run, step, alerts)
        except Exception as error:  # as above: no tracker keeps a run from starting
            logger.warning("tracker %s did not start: %s", name, masked_text(cause(error)))
    return Trackers(found)


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


def start_wandb(**values: Any) -> Any:
    """Returns what `wandb.init` does with these values; the command line it records is masked."""
    import wandb

    typed, sys.argv = sys.argv, masked_arguments(sys.argv)
    try:
        return wandb.init(**values)
    finally:
        sys.argv = typed


class _TensorBoard:
    def __init__(self, run: RunFolder, step: int, alerts: bool) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # What a stopped run logged after its last checkpoint is done again.
        self._writer = SummaryWriter(
            run.root / "tensorboard", purge_step=step + 1 if step else None
        )

    def log(self, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            group = "validation" if name.startswith("val_") else "train"
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def images(self, files: Mapping[str, Path], step: int) -> None:
        for name, path in files.items():
            self._writer.add_image(name, _pixels(path), step, dataformats="HWC")
        self._writer.flush()

    def alert(self, title: str, text: str) -> None:
        self._writer.add_text("alerts", f"{title}: {text}")

    def finish(self, state: str, best: Path | None) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, run: RunFolder, step: int, alerts: bool) -> None:
        # Without a key a run is recorded offline; `wandb sync` uploads it later.
        if wandb_key() is None:
            os.environ.setdefault("WANDB_MODE", "offline")
        import wandb

        self._wandb, self._alerts = wandb, alerts
        self._run = start_wandb(
            project=os.environ.get("WANDB_PROJECT", "ushape"),
            name=run.root.name,
            # Not of the path: a moved run is the same, one made anew by --force is another.
            id=read_json(run.identity)["id"],
            resume="allow",
            dir=run.root,
        )

    def log(self, values: Mapping[str, Any], step: int) -> None:
        self._run.log(dict(values), step=step)

    def images(self, files: Mapping[str, Path], step: int) -> None:
        pictures = {name: self._wandb.Image(str(path)) for name, path in files.items()}
        self._run.log(pictures, step=step)

    def alert(self, title: str, text: str) -> None:
        if self._alerts:
            self._run.alert(title=title, text=text)

    def finish(self, state: str, best: Path | None) -> None:
        if self._alerts and best is not None and state == "finished":
            artifact = self._wandb.Artifact(f"{self._run.name}-best", type="model")
            artifact.add_dir(str(best))
            self._run.log_artifact(artifact)
        self._run.finish(exit_code=0 if state == "finished" else 1)


def _pixels(path: Path) -> Any:  # [H, W, 3] uint8
    import numpy as np
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


TRACKERS: dict[str, Callable[[RunFolder, int, bool], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
}
