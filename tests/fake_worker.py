"""A worker process without a model: what a job's seed says is what it does.

Below 1000 it takes so many milliseconds. CRASH ends the process, HANG hears nothing, SLOW takes
three seconds and LONG two minutes, FAIL fails.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ultrashape_cli.service.child import end_with_starter
from ultrashape_cli.service.telling import Cancelled, Teller, receive, send

CRASH, HANG, LONG, FAIL, SLOW = 1001, 1002, 1003, 1004, 1005


def work(task: dict[str, Any], teller: Teller) -> dict[str, Any]:
    seed, made = task["options"]["seed"], Path(task["made"])
    if seed == CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if seed == HANG:
        time.sleep(600)
    if seed == FAIL:
        error = {"code": "bad-mesh", "message": "no", "hint": "another"}
        return {"state": "failed", "error": error}
    steps = 480 if seed == LONG else 10
    for step in range(steps):
        teller.progress("sample", 100 * step // steps)
        time.sleep({LONG: 0.25, SLOW: 0.3}.get(seed, seed / 10_000))
    (made / "refined.glb").write_bytes(Path(task["mesh"]).read_bytes())
    (made / "refined.glb.json").write_text("{}")
    return {
        "state": "done",
        "result": {"faces": 1, "seconds": {"sample": seed / 1000}, "pid": os.getpid()},
        "files": {"mesh": "refined.glb", "record": "refined.glb.json"},
    }


def main() -> None:
    pipe = Connection(int(sys.argv[1]))
    end_with_starter()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if os.environ.get("FAKE_WORKER_FAILS"):
        send(pipe, {"error": {"message": "no such weights", "hint": "find them"}})
        return
    send(pipe, {"loaded": {"model": "tiny", "device": "none"}})
    while True:
        try:
            task = receive(pipe)
        except EOFError:
            return
        if task["do"] == "refine":
            try:
                end = work(task, Teller(pipe, task["job"]))
            except Cancelled:
                end = {"state": "cancelled"}
            except OSError as error:
                what = {"code": "disk-full", "message": str(error), "hint": None}
                end = {"state": "failed", "error": what}
            send(pipe, {"end": end})


if __name__ == "__main__":
    main()
