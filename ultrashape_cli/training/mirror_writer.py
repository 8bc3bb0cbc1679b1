"""Sends the checkpoints of a run elsewhere while it trains on."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path

from ultrashape_cli.errors import UsageError, UShapeError
from ultrashape_cli.formatting import cause
from ultrashape_cli.packing.location import StorageError
from ultrashape_cli.runs import RunFolder, complete_checkpoints
from ultrashape_cli.training.mirror import Mirror

logger = logging.getLogger(__name__)

_WAITS_S = (5.0, 30.0, 120.0)
"""Before each further try to send a checkpoint that no newer one has replaced."""


class MirrorWriter:
    """Sends checkpoints one after another while training goes on; only the newest that waits.

    Args:
        mirror: Where to.
        run: Whose.
        keep: Newest copies that stay there.
        tell: Gets a line for what went wrong.
    """

    def __init__(
        self,
        mirror: Mirror,
        run: RunFolder,
        *,
        keep: int,
        tell: Callable[[str], None] = logger.warning,
    ) -> None:
        self.mirror = mirror
        self.run = run
        self.keep = keep
        self.tell = tell
        self.lost: str | None = None
        """Why the newest checkpoint is not there, once that is known."""
        self.pinned: set[Path] = set()
        """Checkpoints that must not be removed yet."""
        self._waiting: Path | None = None
        self._changed = threading.Condition()
        if here := complete_checkpoints(run.checkpoints):
            # A process that was killed may not have sent it.
            self._waiting = here[-1]
            self.pinned.add(here[-1])
        # Not waited for at the end of the interpreter: `finish` is.
        threading.Thread(target=self._work, name="mirror", daemon=True).start()

    def offer(self, checkpoint: Path) -> None:
        """Takes a checkpoint that is whole; one that still waits is left out for it."""
        with self._changed:
            if self._waiting is not None:
                self.pinned.discard(self._waiting)
            self._waiting = checkpoint
            self.pinned.add(checkpoint)
            self._changed.notify_all()

    def finish(self) -> None:
        """Returns when the last checkpoint is there, or has failed for good."""
        with self._changed:
            if self.pinned:
                logger.info("waiting until the last checkpoint is in %s", self._address)
            self._changed.wait_for(lambda: not self.pinned)

    def require_sent(self) -> None:
        """Raises StorageError where the newest checkpoint is not there."""
        if self.lost is not None:
            raise StorageError(
                f"the newest checkpoint is in `{self.run.root}` alone, not in `{self._address}`: "
                f"{self.lost}",
                hint="repeat the command: it is sent again",
            )

    @property
    def _address(self) -> str:
        return self.mirror.place.address

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None)
                checkpoint, self._waiting = self._waiting, None
            assert checkpoint is not None
            self._send(checkpoint)
            with self._changed:
                self.pinned.discard(checkpoint)
                self._changed.notify_all()

    def _send(self, checkpoint: Path) -> None:
        for wait in (*_WAITS_S, math.nan):
            try:
                self.mirror.send(self.run, checkpoint, self.keep)
            except (UShapeError, OSError) as error:
                text = error.message if isinstance(error, UShapeError) else cause(error)
                with self._changed:
                    last = math.isnan(wait) or isinstance(error, UsageError)
                    if last or self._changed.wait_for(lambda: bool(self._waiting), wait):
                        self.lost = text
                        self.tell(f"{checkpoint.name} is not in {self._address}: {text}")
                        return
            else:
                self.lost = None
                logger.info("sent %s to %s", checkpoint.name, self._address)
                return


def send_last(address: str, run: RunFolder, keep: int, tell: Callable[[str], None]) -> None:
    """Sends the newest checkpoint of a finished run, where it is not there yet.

    Raises:
        StorageError: It cannot be sent.
        UsageError: The place holds another run.
    """
    mirror = Mirror(address)
    mirror.claim(run)
    writer = MirrorWriter(mirror, run, keep=keep, tell=tell)
    writer.finish()
    writer.require_sent()
