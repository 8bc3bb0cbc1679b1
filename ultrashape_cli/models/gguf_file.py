"""Reading weights that others have quantised into GGUF files (package `gguf`).

Tensors are named as in the released weights. Of the format's codes Q8_0 is read, which is eight
bits with a scale for 32, beside plain floats; coarser ones are not: what they change is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ultrashape_cli.errors import CheckpointError, DependencyError
from ultrashape_cli.models.file_check import REPLACE, require_whole
from ultrashape_cli.models.weight_files import halved

READ = ("F32", "F16", "BF16", "Q8_0")
"""Types of tensors that are read."""


def read_gguf_file(path: Path) -> dict[str, Tensor]:
    """Returns the tensors of a GGUF file, codes as what they stand for, in 16 bit.

    Raises:
        CheckpointError: It is damaged, or holds other codes.
        DependencyError: The package `gguf` is not installed.
    """
    require_whole(path)
    try:
        import gguf
    except ImportError as error:
        raise DependencyError(
            f"`{path}` is a GGUF file, and the package gguf does not load: {error}",
            hint="pip install 'ultrashape-cli[gguf]'",
        ) from error
    try:
        tensors = gguf.GGUFReader(path).tensors
    # What the reader trips over in damaged bytes is anything.
    except Exception as error:
        raise CheckpointError(f"`{path}` is damaged ({error!r:.200})", hint=REPLACE) from error
    kinds = {tensor.tensor_type.name for tensor in tensors}
    if others := sorted(kinds - set(READ)):
        raise CheckpointError(
            f"`{path}` holds {', '.join(others)} codes; {', '.join(READ)} are read",
            hint="take a Q8_0 file, or `ushape weights quantise` the weights it was made from",
        )
    return {tensor.name: _plain(gguf, tensor) for tensor in tensors}


def _plain(gguf: Any, tensor: Any) -> Tensor:
    values = gguf.quants.dequantize(np.asarray(tensor.data), tensor.tensor_type)
    # The format counts from the innermost side.
    found = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    found = found.reshape([int(side) for side in reversed(tensor.shape)])
    return found if tensor.tensor_type.name == "F32" else halved(found)
