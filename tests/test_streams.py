"""Streams whose reader goes while the work goes on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_CHILD = """
import logging, os, sys
from ultrashape_cli.streams import keep_talking
from ultrashape_cli.ui import UI
keep_talking()
ui = UI("train", json_output={json})
sys.stdin.readline()  # until the reader is gone
with ui.progress("train", 3) as bar:
    for step in range(3):
        bar.update(step + 1)
        ui.info("step")
        ui.warn(f"warning {{step}}")
        logging.getLogger("ultrashape_cli").warning("a log line")
        print("from a library", file=sys.stderr, flush=True)
ui.result(outputs={{"run": "x" * 100_000}})
os.write(int(sys.argv[1]), b"done")
"""


@pytest.mark.parametrize("json", [False, True])
def test_work_goes_on_when_nobody_reads(json: bool) -> None:
    reader, writer = os.pipe()
    done, told = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD.format(json=json), str(told)],
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=writer,
        pass_fds=[told],
    )
    for end in (reader, writer, told):
        os.close(end)
    process.communicate(b"\n", timeout=60)
    assert os.read(done, 10) == b"done"
    os.close(done)
    assert process.returncode == 0
