"""Weights on disk: safetensors of our own and bundles of the reference implementation.

A safetensors file holds all networks with keys prefixed `vae.`, `dit.` and `conditioner.`; a
folder may spread them over several files. A reference bundle is one torch file with a dict of
three state dicts. Nothing that a file contains is executed.
"""

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ultrashape_cli.errors import CheckpointError, DiskError
from ultrashape_cli.files import temporary_path

StateDict = dict[str, Tensor]

FORMAT = "ushape-1"
# Wrappers of trainers and distributed engines, outermost first.
WRAPPER_PREFIXES = ("_forward_module.", "module.", "_orig_mod.", "vae_model.", "model.")
ROOTS = {
    "vae": {"encoder", "pre_kl", "post_kl", "transformer", "geo_decoder"},
    "dit": {"x_embedder", "t_embedder", "blocks", "final_layer"},
    "conditioner": {"main_image_encoder"},
}


def read_state_dict(path: str | Path) -> dict[str, StateDict]:
    """Return the state dicts found in a file or folder, by component name.

    Args:
        path: A .safetensors file, a folder of them, or a torch file (bundle or trainer state).

    Raises:
        CheckpointError: Missing, truncated, not a checkpoint, or with code inside.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if not files:
            raise CheckpointError(f"{path}: the folder holds no .safetensors file")
        flat: StateDict = {}
        for file in files:
            shard = _read_safetensors(file)
            twice = flat.keys() & shard.keys()
            if twice:
                raise CheckpointError(f"{file}: key {min(twice)} is also in another file")
            flat |= shard
        return _split(flat, path)
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    if path.suffix == ".safetensors":
        return _split(_read_safetensors(path), path)
    return _unpack(_read_torch(path), path)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error


def load_into(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    path: str | Path,
    *,
    ignore: tuple[str, ...] = (),
    dtype: torch.dtype | None = None,
) -> None:
    """Load strictly; a module on the meta device takes over the tensors.

    Args:
        module: The network.
        state_dict: Its weights.
        path: Where they came from, for the error message.
        ignore: Key prefixes that may be left over (`ShapeVAE.absent_prefixes`).
        dtype: Cast floating-point weights; None keeps the file's.

    Raises:
        CheckpointError: A key is missing, left over or of another shape.
    """
    found = {k: v for k, v in state_dict.items() if not (ignore and k.startswith(ignore))}
    expected = module.state_dict()
    problems = [
        f"{key} is missing (expected {_shape(value)})"
        for key, value in expected.items()
        if key not in found
    ]
    problems += [
        f"{key} is unexpected (found {_shape(value)})"
        for key, value in found.items()
        if key not in expected
    ]
    problems += [
        f"{key} has shape {_shape(found[key])}, expected {_shape(value)}"
        for key, value in expected.items()
        if key in found and found[key].shape != value.shape
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(
            f"{path}: does not fit {type(module).__name__}: {problems[0]}{more}",
            hint="check that these weights belong to the chosen model",
        )
    if dtype is not None:
        found = {k: v.to(dtype) if v.is_floating_point() else v for k, v in found.items()}
    module.load_state_dict(found, strict=True, assign=True)


def write_safetensors(
    path: str | Path,
    components: Mapping[str, nn.Module | Mapping[str, Tensor]],
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write networks to one safetensors file; the old file stays until the new one is whole."""
    flat = {
        f"{name}.{key}": tensor
        for name, tensors in _state_dicts(components, dtype).items()
        for key, tensor in tensors.items()
    }
    header = {"format": FORMAT, **(metadata or {})}
    _write_atomically(Path(path), lambda temporary: save_file(flat, temporary, metadata=header))


def write_reference_bundle(
    path: str | Path,
    components: Mapping[str, nn.Module | Mapping[str, Tensor]],
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write networks as the torch file that the reference implementation loads."""
    bundle = _state_dicts(components, dtype)
    _write_atomically(Path(path), lambda temporary: torch.save(bundle, temporary))


def _read_safetensors(path: Path) -> StateDict:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: damaged, truncated or not a safetensors file ({error})",
            hint="download the file again",
        ) from error


def _read_torch(path: Path) -> object:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = str(error)
        if "Unsupported global" in message or "Unsupported class" in message:
            raise CheckpointError(
                f"{path}: refused, the file holds Python objects and not only tensors",
                hint="convert it to safetensors on a machine you can lose",
            ) from error
        raise CheckpointError(f"{path}: not a checkpoint file") from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path}: damaged, truncated or not a checkpoint file ({reason})",
            hint="download the file again",
        ) from error


def _unpack(content: object, path: Path) -> dict[str, StateDict]:
    """Return components of a bundle, or of a trainer's state that wraps one network."""
    while isinstance(content, dict) and not ROOTS.keys() & content.keys():
        inner = next((content[k] for k in ("state_dict", "module") if k in content), None)
        if not isinstance(inner, dict):
            break
        content = inner
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: holds no state dict")
    named = {name: part for name, part in content.items() if name in ROOTS}
    if not named or not all(isinstance(part, dict) for part in named.values()):
        return _split(content, path)
    result = {}
    for name, part in named.items():
        part = part.get("state_dict", part)
        _check_tensors(part, path)
        result[name] = {_strip(key): tensor for key, tensor in part.items()}
    return result


def _split(flat: Mapping[str, Tensor], path: Path) -> dict[str, StateDict]:
    """Sort prefixed or bare keys by the network they belong to."""
    _check_tensors(flat, path)
    result: dict[str, StateDict] = {}
    for key, tensor in flat.items():
        name, _, rest = key.partition(".")
        if name in ROOTS:
            rest = _strip(rest)
        else:
            rest = _strip(key)
            root = rest.partition(".")[0]
            owner = next((n for n, roots in ROOTS.items() if root in roots), None)
            if owner is None:
                raise CheckpointError(f"{path}: key {key} belongs to no known network")
            name = owner
        result.setdefault(name, {})[rest] = tensor
    if not result:
        raise CheckpointError(f"{path}: holds no weights")
    return result


def _strip(key: str) -> str:
    stripped = True
    while stripped:
        stripped = False
        for prefix in WRAPPER_PREFIXES:
            if key.startswith(prefix):
                key, stripped = key.removeprefix(prefix), True
    return key


def _check_tensors(tensors: Mapping[str, object], path: Path) -> None:
    for key, value in tensors.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise CheckpointError(f"{path}: entry {key!r} is {type(value).__name__}, not a tensor")


def _state_dicts(
    components: Mapping[str, nn.Module | Mapping[str, Tensor]], dtype: torch.dtype | None
) -> dict[str, StateDict]:
    result: dict[str, StateDict] = {}
    for name, source in components.items():
        if name not in ROOTS:
            raise ValueError(f"unknown component {name!r}; known: {', '.join(ROOTS)}")
        items: Iterable[tuple[str, Tensor]] = (
            source.state_dict() if isinstance(source, nn.Module) else source
        ).items()
        result[name] = {
            key: tensor.detach()
            .to("cpu", dtype if tensor.is_floating_point() else None)
            .contiguous()
            for key, tensor in items
        }
    return result


def _write_atomically(path: Path, write: Callable[[str], object]) -> None:
    try:
        with temporary_path(path) as temporary:
            write(str(temporary))
            # Some writers make private files; the result gets the mode of any other new file.
            temporary.chmod(0o666 & ~_umask())
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
    except (SafetensorError, RuntimeError) as error:
        raise DiskError(f"{path}: cannot write the weights ({error})") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
