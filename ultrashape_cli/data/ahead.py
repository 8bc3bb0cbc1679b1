"""Samples of a dataset elsewhere are on their way before a loader process asks for them.

What a sampler gives out next is known, so waiting for one file after the other is not needed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sized
from queue import SimpleQueue
from typing import TypeVar

from torch.utils.data import Sampler

from ultrashape_cli.errors import UShapeError

_Batch = TypeVar("_Batch", bound=Sized)
_AHEAD = 16
"""Items that are on their way, or here, before the loader processes know of them."""
_THREADS = 3
"""Files that come at the same time; each waits for its answer most of the time."""


class ReadAhead(Sampler[_Batch]):
    """The microbatches of a sampler, whose files are asked for before they are given out.

    Args:
        order: The sampler.
        bring: Makes the files of a microbatch be here. What it raises is left to whoever reads
            the files, and tells.
    """

    def __init__(self, order: Sampler[_Batch], bring: Callable[[_Batch], None]) -> None:
        self.order = order
        self.bring = bring

    def __iter__(self) -> Iterator[_Batch]:
        wanted: SimpleQueue[_Batch] = SimpleQueue()
        for _ in range(_THREADS):
            # Not a pool's: the interpreter would wait for them at its end.
            threading.Thread(target=self._work, args=(wanted,), daemon=True).start()
        upcoming: deque[_Batch] = deque()
        known = 0
        for batch in self.order:
            wanted.put(batch)
            upcoming.append(batch)
            known += len(batch)
            while known > _AHEAD:
                known -= len(upcoming[0])
                yield upcoming.popleft()
        yield from upcoming

    def _work(self, wanted: SimpleQueue[_Batch]) -> None:
        while True:
            try:
                self.bring(wanted.get())
            except UShapeError:
                continue
