"""What the checkpoints of a service are, and which cards the machine has.

Started as `python -m ultrashape_cli.service.catalogue`, with the question on standard input: what
looks into weights loads torch, and the service's parent lives for months without it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from ultrashape_cli.errors import CheckpointError, UsageError, UShapeError
from ultrashape_cli.service.plan import Checkpoint


def look_up(
    checkpoints: Mapping[str, str], model: str | None, device: str
) -> tuple[dict[str, Checkpoint], list[str]]:
    """Returns the checkpoints by name, and the names of the cards.

    Args:
        checkpoints: Name -> path; empty takes what `refine` would take.
        model: What `--model` names.
        device: As of the settings.

    Raises:
        UShapeError: There are no such weights.
    """
    question = {"checkpoints": dict(checkpoints), "model": model, "device": device}
    done = subprocess.run(
        [sys.executable, "-P", "-m", __name__],
        input=json.dumps(question),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = done.stderr.strip().splitlines()[-1:] or ["no answer"]
        raise UShapeError(f"looking for weights failed: {last[0][:300]}") from None
    if error := answer.get("error"):
        kind = UsageError if error["usage"] else CheckpointError
        raise kind(error["message"], hint=error["hint"])
    found = {name: Checkpoint(**each) for name, each in answer["checkpoints"].items()}
    return found, answer["devices"]


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    from ultrashape_cli.devices import choose_device

    try:
        paths = question["checkpoints"]
        found = {name: _describe(path, None) for name, path in paths.items()}
        if not found or question["model"]:
            each = _describe(None, question["model"])
            found[question["model"] or each["family"]] = each
        device = choose_device(question["device"])
        return {"checkpoints": found, "devices": _cards(device.type)}
    except UShapeError as error:
        usage = isinstance(error, UsageError)
        return {"error": {"message": error.message, "hint": error.hint, "usage": usage}}


def _describe(path: str | None, named: str | None) -> dict[str, Any]:
    from pathlib import Path

    from ultrashape_cli.hub import LICENCES
    from ultrashape_cli.models.registry import model_spec
    from ultrashape_cli.models.sources import find_weights

    source = find_weights(None if path is None else Path(path), named)
    spec = model_spec(source.model)
    licence = LICENCES.get(spec.licence)
    return {
        "path": None if path is None else os.path.abspath(path) if os.path.exists(path) else path,
        "named": named,
        "family": source.model,
        "licence": spec.licence,
        "licence_url": None if licence is None else licence.url,
        "limits": None if licence is None else licence.limits,
        "files": {network: file.name for network, file in source.files.items()},
        "distilled": source.distilled and source.distilled.as_dict(),
        "views": source.views and source.views.as_dict(),
    }


def _cards(kind: str) -> list[str]:
    import torch

    if kind != "cuda":
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(json.loads(sys.stdin.read()))) + "\n")
