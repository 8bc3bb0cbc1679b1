"""What `ushape prepare` does, on the stub worker; also a program, so that tests can kill it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ultrashape_cli.config.schema import Config, EngineConfig
from ultrashape_cli.data.layout import STEPS, Dataset
from ultrashape_cli.preparation.discover import find_meshes, new_records
from ultrashape_cli.preparation.pipeline import Outcome, Plan, plan_steps, run_plan

CONFIG = replace(Config(), engine=EngineConfig(workers=2, memory_gib=1.0, retries=0))


def stub_prepare(
    models: Path,
    dataset: Dataset,
    config: Config = CONFIG,
    steps: Sequence[str] = STEPS,
    *,
    force: bool = False,
    retry_failed: bool = False,
    stop: Callable[[], bool] = lambda: False,
    fail_fast: bool = False,
) -> tuple[Plan, Outcome]:
    known = dataset.load_records()
    records = list(new_records(find_meshes(models), known))
    plan = plan_steps(dataset, records, steps, config, force=force, retry_failed=retry_failed)
    for record in records:
        if record.id not in known or known[record.id].source != record.source:
            dataset.write_record(record)
    outcome = run_plan(dataset, plan, config, stop=stop, fail_fast=fail_fast, worker="stub_worker")
    return plan, outcome


def stub_step(dataset: Dataset, step: str, config: Config = CONFIG) -> tuple[Plan, Outcome]:
    """What `ushape render` and `ushape sample` do."""
    plan = plan_steps(dataset, list(dataset.load_records().values()), (step,), config)
    return plan, run_plan(dataset, plan, config, worker="stub_worker")


if __name__ == "__main__":
    stub_prepare(Path(sys.argv[1]), Dataset(Path(sys.argv[2])))
