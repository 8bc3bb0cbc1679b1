"""Runs in a process of its own: cases of the report, one after another.

`python -m ultrashape_cli.diagnosis.card.case NAME ...`, settings as JSON on standard input, one
JSON object per case on standard output as it is done. A kernel that hangs or aborts does so here,
and a limit of memory holds for this process alone. The name `identify` tells what the machine is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from typing import IO, TYPE_CHECKING, Any, cast

from ultrashape_cli.diagnosis.card.parts import Settings
from ultrashape_cli.processes import end_with_parent, leave

if TYPE_CHECKING:
    from ultrashape_cli.diagnosis.card.context import Context

IDENTIFY = "identify"


def main() -> None:
    """Prints a result for each name of the command line; ends after one that broke."""
    request = json.loads(sys.stdin.read())
    end_with_parent(signal.SIGKILL, request["parent"])
    # What libraries print is no result.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        started = time.monotonic()
        result = run(name, request)
        result["seconds"] = round(time.monotonic() - started, 3)
        _write(out, {"name": name, "result": result})
        if result.get("broken"):
            # A device may be of no more use to this process; the next one starts anew.
            leave(1)
    leave(0)


def run(name: str, request: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of one case: `status`, `figures`, and why there are none.

    Args:
        name: Of the case, or `identify`.
        request: `device`, and but for `identify` `settings`, `tflops` and `deadline`.
    """
    from ultrashape_cli.diagnosis.card.context import Failed, NotHere, NoTime
    from ultrashape_cli.errors import UShapeError

    try:
        return {"status": "ok", "figures": _figures(name, request)}
    except NoTime as late:
        return {"status": "not run", "reason": f"time: {late}", "needs": late.seconds}
    except NotHere as absent:
        return {"status": "skipped", "reason": str(absent)}
    except Failed as failed:
        return {"status": "failed", "reason": str(failed), "figures": failed.figures}
    except UShapeError as error:
        return {"status": "failed", "reason": error.message, "hint": error.hint}
    except Exception as error:
        traceback.print_exc()
        line = (str(error).strip().splitlines() or [""])[0]
        return {"status": "failed", "reason": f"{type(error).__name__}: {line}", "broken": True}


def _figures(name: str, request: dict[str, Any]) -> dict[str, Any]:
    from ultrashape_cli.devices import choose_device
    from ultrashape_cli.diagnosis.card import device
    from ultrashape_cli.diagnosis.card.context import Context

    if name == IDENTIFY:
        return device.identify(request["device"])
    settings = Settings(**request["settings"])
    context = Context(
        settings=settings,
        # First of all: it sets how memory is given out, which CUDA reads once.
        device=choose_device(settings.device),
        tflops=request["tflops"],
        deadline=request["deadline"],
    )
    part, _, rest = name.partition("/")
    # What a part does not need is not imported: that takes seconds.
    if part == "device":
        ways = {"products": device.measure_products, "bandwidth": device.measure_bandwidth}
        return ways[rest](context)
    if part == "twins":
        return _twin(rest, context)
    if part == "steps":
        from ultrashape_cli.diagnosis.card.steps import measure_steps

        return measure_steps(context, rest)
    if part == "refine":
        from ultrashape_cli.diagnosis.card.refinement import measure_refinement

        tokens, _, mode = rest.partition("/")
        return measure_refinement(context, int(tokens), cast(Any, mode))
    if part == "decode":
        from ultrashape_cli.diagnosis.card.decoding import measure_decoding

        return measure_decoding(context, int(rest))
    return _kernel(rest, context)


def _kernel(name: str, context: Context) -> dict[str, Any]:
    from ultrashape_cli.diagnosis.card import kernels

    if name.startswith("attention-"):
        return kernels.measure_attention(context, int(name.removeprefix("attention-")))
    if name == "experts":
        return kernels.measure_experts(context)
    return kernels.measure_compile(context, training=name == "compile-train")


def _twin(name: str, context: Context) -> dict[str, Any]:
    from ultrashape_cli.diagnosis.card.context import Failed
    from ultrashape_cli.diagnosis.card.twins import NETWORK_CHECKS
    from ultrashape_cli.diagnosis.card.twins_training import TRAINING_CHECKS

    twin = (NETWORK_CHECKS | TRAINING_CHECKS)[name](context.device)
    figures = {"error": twin.error, "allowed": twin.allowed, "note": twin.note}
    if not twin.passed:
        note = f" ({twin.note})" if twin.note else ""
        raise Failed(f"error {twin.error:.2e}, {twin.allowed:.2e} allowed{note}", figures)
    return figures


def _write(out: IO[str], value: dict[str, Any]) -> None:
    # A reader that is gone has no use for the rest; the process ends with it anyway.
    out.write(json.dumps(value) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
