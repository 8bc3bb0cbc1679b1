"""How often a token may ask: buckets that fill with time."""

from __future__ import annotations

from ultrashape_cli.service.store import clock

_MOST_KNOWN = 10_000


class Rate:
    """So many a minute for each name; as many at once after a pause."""

    def __init__(self, per_minute: float) -> None:
        self.per_second = per_minute / 60
        self.size = max(1.0, per_minute)
        self._left: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> float:
        """Takes one; returns 0, or the seconds after which there is one again."""
        now = clock()
        if len(self._left) > _MOST_KNOWN:  # full buckets tell nothing
            self._left = {n: v for n, v in self._left.items() if self._now(v, now) < self.size}
        left = self._now(self._left.get(name, (self.size, now)), now)
        if left < 1:
            self._left[name] = (left, now)
            return (1 - left) / self.per_second
        self._left[name] = (left - 1, now)
        return 0.0

    def _now(self, known: tuple[float, float], now: float) -> float:
        return min(self.size, known[0] + (now - known[1]) * self.per_second)
