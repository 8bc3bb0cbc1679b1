"""Low-rank adapters in peft's file layout, merged into the weights they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.files import read_json
from ultrashape_cli.models.view_embedding import EMBEDDER
from ultrashape_cli.models.weight_files import read_safetensors_file
from ultrashape_cli.runs import ADAPTER_CONFIG, ADAPTER_FILE

PREFIX = "base_model.model."


@torch.no_grad()
def merge_adapters(
    weights: Mapping[str, Tensor], folder: Path, file_name: str = ADAPTER_FILE
) -> dict[str, Tensor]:
    """Returns weights with scale * B @ A added to every adapted one.

    The layer for the cameras of several views, which trains whole, is taken from the adapters.

    Args:
        weights: Of the network the adapters were trained on; not changed.
        folder: Holds adapter_model.safetensors and adapter_config.json.
        file_name: Another file of the folder with the adapters, such as their average.

    Raises:
        CheckpointError: A file is missing or broken, or fits another network.
    """
    file = folder / file_name
    settings = read_json(folder / ADAPTER_CONFIG)
    try:
        scale = settings["lora_alpha"] / settings["r"]
    except (TypeError, KeyError) as error:
        raise CheckpointError(
            f"`{folder / ADAPTER_CONFIG}` is missing, or does not tell the rank of the adapters",
            hint="copy the whole folder again",
        ) from error
    tensors = read_safetensors_file(file)
    merged = dict(weights)
    embedder = f"{EMBEDDER}.weight"
    if (whole := tensors.get(PREFIX + embedder)) is not None:
        merged[embedder] = whole
    for key, down in tensors.items():
        if not key.endswith(".lora_A.weight"):
            continue
        name = key.removeprefix(PREFIX).replace(".lora_A.weight", ".weight")
        up = tensors.get(key.replace(".lora_A.", ".lora_B."))
        base = merged.get(name)
        if up is None or base is None or base.shape != (up.shape[0], down.shape[1]):
            raise CheckpointError(
                f"`{file}`: the adapter of {name} does not fit", hint="use the run it belongs to"
            )
        merged[name] = (base.float() + scale * (up.float() @ down.float())).to(base.dtype)
    return merged
