"""Figures for Prometheus, read from the store when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator

import psutil
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ultrashape_cli.service import views
from ultrashape_cli.service.store import Store


class _StoreCollector(Collector):
    def __init__(self, store: Store, used: int) -> None:
        self.store, self.used = store, used

    def collect(self) -> Iterator[Metric]:
        store = self.store
        counts = views.counts(store)
        jobs = GaugeMetricFamily("ushape_jobs", "Jobs by state.", labels=["state"])
        for state, count in counts.items():
            jobs.add_metric([state], count)
        yield jobs
        yield GaugeMetricFamily("ushape_queue_length", "Jobs that wait.", counts["queued"])
        ended = CounterMetricFamily("ushape_jobs_ended", "Jobs that ended.", labels=["state"])
        for name, (count, _) in views.totals(store, "jobs").items():
            ended.add_metric([name], count)
        yield ended
        errors = CounterMetricFamily("ushape_errors", "Failed jobs by kind.", labels=["code"])
        for name, (count, _) in views.totals(store, "errors").items():
            errors.add_metric([name], count)
        yield errors
        stages = SummaryMetricFamily("ushape_stage_seconds", "Time of a stage.", labels=["stage"])
        for name, (count, total) in views.totals(store, "seconds").items():
            stages.add_metric([name], count, total)
        yield stages
        yield from self._workers()
        yield GaugeMetricFamily("ushape_disk_used_bytes", "Files of all jobs.", self.used)
        yield GaugeMetricFamily("ushape_disk_free_bytes", "Free space.", store.free_bytes())
        rss = psutil.Process().memory_info().rss
        yield GaugeMetricFamily("ushape_web_memory_bytes", "Memory of the web process.", rss)

    def _workers(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("ushape_worker_up", "Model loaded.", labels=["worker", "state"])
        memory = GaugeMetricFamily("ushape_worker_memory_bytes", "Memory.", labels=["worker"])
        for each in views.workers(self.store):
            up = each["state"] in ("idle", "busy")
            states.add_metric([each["name"], each["state"]], float(up))
            if each.get("memory_bytes"):
                memory.add_metric([each["name"]], each["memory_bytes"])
        yield states
        yield memory


def render(store: Store, used: int) -> tuple[bytes, str]:
    """Returns all figures as text, and its media type.

    Args:
        store: Whose.
        used: Bytes of the files of all jobs.
    """
    registry = CollectorRegistry()
    registry.register(_StoreCollector(store, used))
    return generate_latest(registry), CONTENT_TYPE_LATEST
