"""Tells those who follow jobs that something has changed, with one look for all of them."""

from __future__ import annotations

import asyncio

from starlette.concurrency import run_in_threadpool

from ultrashape_cli.service.store import Store

LOOK_S = 0.2
_MOST_WAIT_S = 10.0


class Ticker:
    """Looks at the store again and again and wakes those who wait."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.count = 0
        """Grows with every change that was seen."""
        self._changed = asyncio.Event()
        self._seen: object = None

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                now = await run_in_threadpool(self._look)
            except OSError:
                continue
            if now != self._seen:
                self._seen = now
                self.count += 1
                self._changed.set()
                self._changed = asyncio.Event()

    async def after(self, seen: int) -> None:
        """Waits for a change after the count `seen`, or a while."""
        if self.count == seen:
            try:
                await asyncio.wait_for(self._changed.wait(), _MOST_WAIT_S)
            except TimeoutError:
                return

    def _look(self) -> object:
        query = "SELECT value FROM meta WHERE name = 'changes'"
        row = self.store.connection.execute(query).fetchone()
        return None if row is None else row[0]
