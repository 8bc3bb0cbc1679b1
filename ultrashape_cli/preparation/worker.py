"""The worker process: runs steps of assets it is sent, one at a time, under a memory limit.

Started as `python -m ultrashape_cli.preparation.worker FD MEMORY_BYTES`. Whatever third-party
code does to this process (crash, hang, runaway) costs one record and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import sys
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ultrashape_cli.config.resolve import restore
from ultrashape_cli.config.schema import Config
from ultrashape_cli.data.layout import Dataset, Record, StepRecord
from ultrashape_cli.errors import DiskError, UShapeError
from ultrashape_cli.packing.location import StorageError
from ultrashape_cli.preparation.remote import drop_source, is_remote, local_path
from ultrashape_cli.preparation.steps import STEP_TABLE
from ultrashape_cli.processes import end_with_parent

MESSAGE_LENGTH = 400


def run_step(dataset: Dataset, record: Record, name: str, config: Config) -> StepRecord:
    """Runs one step of one asset and returns its record, failed or done. Never raises."""
    step = STEP_TABLE[name]
    started = time.perf_counter()
    # The parent knows the key; it also has to set it where no worker was left to answer.
    result = StepRecord("failed", "", step.params(config))
    try:
        measurements, paths = step.run(dataset, record, config)
        result.status = "done"
        result.measurements = _plain(measurements)
        result.outputs = dataset.output_sizes(paths)
    except UShapeError as error:
        # A full disk is no property of the asset: the parent stops on it.
        kinds = {DiskError: "disk", StorageError: "storage"}
        cause = kinds.get(type(error), "error")
        message = _one_line(_placed(error.message, dataset, record))
        result.error = {"cause": cause, "message": message, "hint": error.hint}
    except MemoryError:
        limit = config.engine.memory_gib
        message = f"the {name} step needs more memory than the {limit:g} GiB of a worker"
        hint = f"--set engine.memory_gib={limit * 2:g}"
        result.error = {"cause": "memory", "message": message, "hint": hint, "limit": limit}
    except Exception as error:
        traceback.print_exc()
        message = _one_line(f"{type(error).__name__}: {error}")
        result.error = {"cause": "error", "message": message, "hint": None}
    result.seconds = round(time.perf_counter() - started, 3)
    return result


def _placed(message: str, dataset: Dataset, record: Record) -> str:
    """Names a mesh from elsewhere by its address, not by where it lay while it was read."""
    address = str(record.source["path"])
    if not is_remote(address):
        return message
    return message.replace(str(local_path(dataset, record)), address)


def serve(pipe: Connection) -> None:
    """Answers tasks until the pipe closes.

    A task is `{root, settings, record, steps}`; the answers are one `{step}` when a step starts
    and one `{step, result}` when it ends, then `{}`.
    """
    while True:
        try:
            task = _receive(pipe)
        except EOFError:
            return
        dataset = Dataset(Path(task["root"]))
        config = restore(task["settings"])
        record = Record.from_json(task["record"])
        # The claim on the asset is ours: whoever left half-written views here has ended.
        dataset.drop_partial(record.id, os.getpid())
        drop_source(dataset, record.id)
        for name in task["steps"]:
            _send(pipe, {"step": name})
            result = run_step(dataset, record, name, config)
            record.steps[name] = result
            fields = {key: getattr(result, key) for key in StepRecord.__slots__}
            _send(pipe, {"step": name, "result": fields})
            if result.status == "failed":
                break
        drop_source(dataset, record.id)
        _send(pipe, {})


def _receive(pipe: Connection) -> dict[str, Any]:
    return json.loads(pipe.recv_bytes())


def _send(pipe: Connection, message: dict[str, Any]) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _plain(value: Any) -> Any:
    """Returns plain JSON values: numpy's become Python's, non-finite numbers None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _one_line(text: str) -> str:
    return " ".join(text.split())[:MESSAGE_LENGTH]


def _die_first() -> None:
    """Asks Linux, where the machine runs out of memory, to end this process and not its parent."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def main() -> None:
    """Limits the process, then serves the inherited pipe."""
    import resource  # Windows has none

    fd, memory = int(sys.argv[1]), int(sys.argv[2])
    end_with_parent(signal.SIGKILL)
    _die_first()
    # RLIMIT_DATA counts private writable memory, not the address space that JIT and BVH reserve.
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(Connection(fd))


if __name__ == "__main__":
    main()
