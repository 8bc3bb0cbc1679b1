"""Single weight files: reading maps them into memory, writing streams them, both without a copy."""

import json
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ultrashape_cli.errors import CheckpointError, DiskError
from ultrashape_cli.files import temporary_path
from ultrashape_cli.models.file_check import REPLACE, require_whole

StateDict = dict[str, Tensor]
_LARGEST_HALF = torch.finfo(torch.float16).max

# Names of the safetensors format.
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.bool: "BOOL",
}


def read_safetensors_file(path: Path) -> StateDict:
    """Return the tensors of a safetensors file, mapped into memory."""
    require_whole(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"`{path}` is damaged ({error})", hint=REPLACE) from error


def read_torch_file(path: Path, *, mmap: bool = True) -> object:
    """Return the content of a torch file: only tensors and plain values.

    Args:
        path: The file.
        mmap: Map it into memory instead of reading it.

    Raises:
        CheckpointError: Truncated, not a torch file, or with code inside.
    """
    require_whole(path)
    try:
        # torch warns about foreign pickles before it refuses them; the refusal says enough.
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            return _load_tensors(path, mmap)
    except MemoryError:
        raise
    except Exception as error:  # damaged bytes lead the unpickler into any exception
        refused = isinstance(error, pickle.UnpicklingError)
        if refused and any(f"Unsupported {kind}" in str(error) for kind in ("global", "class")):
            raise CheckpointError(
                f"`{path}` is refused: it holds Python objects and not only tensors",
                hint="convert it to safetensors on a machine you can lose",
            ) from error
        # What torch and pickle say here is about their own state, not about the file.
        raise CheckpointError(
            f"`{path}` is damaged: its tensors cannot be read", hint=REPLACE
        ) from error


def _load_tensors(path: Path, mmap: bool) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)


def write_safetensors_file(
    path: Path, tensors: StateDict, metadata: Mapping[str, str], dtype: torch.dtype | None
) -> None:
    """Write a safetensors file; tensors are cast and written one at a time."""
    kinds = {key: target_dtype(tensor, dtype) for key, tensor in tensors.items()}
    # Wider types first keeps every tensor aligned to its element size.
    order = sorted(kinds, key=lambda key: (-kinds[key].itemsize, key))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for key in order:
        end = start + tensors[key].numel() * kinds[key].itemsize
        header[key] = {
            "dtype": DTYPE_NAMES[kinds[key]],
            "shape": list(tensors[key].shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with _replacing(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in order:
            _write_tensor(file, tensors[key], kinds[key])


def write_torch_file(path: Path, parts: Mapping[str, StateDict], dtype: torch.dtype | None) -> None:
    """Write a torch file with one dict of tensors per part."""
    content = {
        name: {key: _own_storage(tensor, dtype) for key, tensor in tensors.items()}
        for name, tensors in parts.items()
    }
    with _replacing(path) as temporary:
        torch.save(content, temporary)


def target_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """Return the dtype a tensor gets when floating-point tensors are cast; None keeps it."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def halved(tensor: Tensor) -> Tensor:
    """Return a wider tensor in 16 bit: fp16, which rounds less, where its range suffices."""
    if not tensor.is_floating_point() or tensor.element_size() <= 2:
        return tensor
    fits = not tensor.numel() or bool((tensor.abs().amax() < _LARGEST_HALF).item())
    return tensor.to(torch.float16 if fits else torch.bfloat16)


def dtype_name(dtype: torch.dtype) -> str:
    """Return `float16` for torch.float16."""
    return str(dtype).removeprefix("torch.")


def _write_tensor(file: IO[bytes], tensor: Tensor, dtype: torch.dtype) -> None:
    plain = tensor.detach().to("cpu", dtype).contiguous()
    # A tensor of one number may have any stride and still count as contiguous.
    flat = plain.as_strided((plain.numel(),), (1,))
    file.write(flat.view(torch.uint8).numpy().data)


def _own_storage(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """Return the tensor in a storage of its own: torch.save writes whole storages."""
    result = tensor.to("cpu", target_dtype(tensor, dtype)).contiguous()
    if result.untyped_storage().nbytes() == result.nbytes:
        return result
    return result.clone()


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    try:
        with temporary_path(path) as temporary:
            yield temporary
            # Some writers make private files; the result gets the mode of any other new file.
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
    except RuntimeError as error:
        # torch.save reports a full disk as a RuntimeError of its own.
        raise DiskError(f"{path}: cannot write the weights ({error})") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
