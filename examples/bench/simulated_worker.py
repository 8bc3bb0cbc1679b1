"""The worker of engine.py: tiny steps that fail as the name of the source says, and a log of all.

Every execution appends `asset step` to calls/PID.txt of the dataset.
"""

import os
import time
from dataclasses import replace
from pathlib import Path

from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.layout import Dataset, Record
from ultrashape_cli.preparation import worker
from ultrashape_cli.preparation.steps import STEP_TABLE, StepResult

MEASURES = {"rung": "keep", "source_faces": 12, "faces": 12, "detail": 2.0, "components": 1}


def _act(name: str, record: Record) -> None:
    kind = Path(record.source["path"]).stem.split("-")[0]
    if kind == "crash" and name == "render":
        os.abort()
    if kind == "hang" and name == "watertight":
        time.sleep(3600)
    if kind == "memory" and name == "sample":
        bytearray(2**34)
    if kind == "sleep":
        time.sleep(float(os.environ["SIMULATED_SECONDS"]))


def _simulated(name: str):
    def run(dataset: Dataset, record: Record, config: Config) -> StepResult:
        log = dataset.root / "calls"
        log.mkdir(exist_ok=True)
        with (log / f"{os.getpid()}.txt").open("a") as file:
            file.write(f"{record.id} {name}\n")
        _act(name, record)
        if name != "watertight":
            return dict(MEASURES), []
        path = dataset.mesh(record.id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mesh")
        return dict(MEASURES), [path]

    return run


for step in list(STEP_TABLE.values()):
    STEP_TABLE[step.name] = replace(step, run=_simulated(step.name))

if __name__ == "__main__":
    worker.main()
