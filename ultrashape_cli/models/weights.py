"""Weights on disk: safetensors of our own and bundles of the reference implementation.

A safetensors file holds all networks with keys prefixed `vae.`, `dit.` and `conditioner.`; a
folder may spread them over several files. A reference bundle is one torch file with a dict of
three state dicts. Nothing that a file contains is executed. Reading maps the file into memory and
writing streams tensor by tensor: no full copy of the weights is made on the way.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.files import read_json
from ultrashape_cli.models.file_check import REPLACE, require_whole
from ultrashape_cli.models.gguf_file import read_gguf_file
from ultrashape_cli.models.view_embedding import EMBEDDER
from ultrashape_cli.models.weight_files import (
    StateDict,
    dtype_name,
    read_safetensors_file,
    read_torch_file,
    target_dtype,
    write_safetensors_file,
    write_torch_file,
)

FORMAT = "ushape-1"
# Wrappers of trainers and distributed engines, outermost first.
WRAPPER_PREFIXES = ("_forward_module.", "module.", "_orig_mod.", "vae_model.", "model.")
ROOTS = {
    "vae": {"encoder", "pre_kl", "post_kl", "transformer", "geo_decoder"},
    "dit": {"x_embedder", "t_embedder", "blocks", "final_layer", EMBEDDER},
    "conditioner": {"main_image_encoder"},
}
# Names of DINOv2 in newer transformers releases, and those of the released weights.
RENAMED = (
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
)
SHARD_INDEX = "model.safetensors.index.json"
POINT_FEATURES = 4  # normal and sharp label, the columns of a surface point after xyz
Components = Mapping[str, nn.Module | Mapping[str, Tensor]]


class Misfit(NamedTuple):
    """A key whose tensor is not the one the network has; a missing side is None."""

    key: str
    expected: str | None
    found: str | None

    def __str__(self) -> str:
        if self.found is None:
            return f"{self.key} is missing (expected {self.expected})"
        if self.expected is None:
            return f"{self.key} is unexpected (found {self.found})"
        return f"{self.key} has shape {self.found}, expected {self.expected}"


def read_state_dict(path: str | Path) -> dict[str, StateDict]:
    """Return the state dicts found in a file or folder, by component name.

    Args:
        path: A .safetensors file, a folder of them, a .gguf file, or a torch file (bundle or
            trainer state).

    Raises:
        CheckpointError: Missing, truncated, not a checkpoint, or with code inside.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint")
    if path.is_dir():
        return _split(_read_shards(path), path)
    if path.suffix == ".safetensors":
        return _split(read_safetensors_file(path), path)
    if path.suffix == ".gguf":
        return _split(read_gguf_file(path), path)
    return _unpack(read_torch_file(path), path)


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return the metadata of a safetensors file."""
    require_whole(Path(path))
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"`{path}` is damaged ({error})", hint=REPLACE) from error


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
        dtype: Cast floating-point weights; None keeps the file's. Buffers, which are the scales of
            quantised layers, keep it in any case.

    Raises:
        CheckpointError: A key is missing, left over, of another shape or no number of its kind.
    """
    found = {k: v for k, v in state_dict.items() if not (ignore and k.startswith(ignore))}
    own = module.state_dict()
    problems: list[object] = list(misfits(module, found))
    problems += [
        f"{key} holds {dtype_name(value.dtype)}, expected {dtype_name(own[key].dtype)}"
        for key, value in found.items()
        if key in own and not _same_kind(value, own[key])
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CheckpointError(
            f"{path}: does not fit {type(module).__name__}: {problems[0]}{more}",
            hint=f"ushape weights verify {shlex.quote(str(path))}",
        )
    if dtype is not None:
        weights = dict(module.named_parameters())
        found = {k: v.to(dtype) if k in weights else v for k, v in found.items()}
    module.load_state_dict(found, strict=True, assign=True)


def misfits(module: nn.Module, found: Mapping[str, Tensor]) -> list[Misfit]:
    """Return every key of a state dict that is missing, left over or of another shape."""
    expected = {key: _shape(value) for key, value in module.state_dict().items()}
    shapes = {key: _shape(value) for key, value in found.items()}
    missing = [Misfit(key, shape, None) for key, shape in expected.items() if key not in shapes]
    extra = [Misfit(key, None, shape) for key, shape in shapes.items() if key not in expected]
    other = [
        Misfit(key, shape, shapes[key])
        for key, shape in expected.items()
        if shapes.get(key, shape) != shape
    ]
    return missing + extra + other


def write_safetensors(
    path: str | Path,
    components: Components,
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write networks to one safetensors file; the old file stays until the new one is whole.

    The metadata gains the format, the number of parameters and the dtypes.
    """
    flat = {
        f"{name}.{key}": tensor
        for name, tensors in _state_dicts(components).items()
        for key, tensor in tensors.items()
    }
    header = {
        "format": FORMAT,
        "dtype": ",".join(sorted({dtype_name(target_dtype(t, dtype)) for t in flat.values()})),
        "num_parameters": str(sum(tensor.numel() for tensor in flat.values())),
        **(metadata or {}),
    }
    write_safetensors_file(Path(path), flat, header, dtype)


def write_reference_bundle(
    path: str | Path,
    components: Components,
    *,
    dtype: torch.dtype | None = None,
) -> None:
    """Write networks as the torch file that the reference implementation loads."""
    write_torch_file(Path(path), _state_dicts(components), dtype)


def _read_shards(folder: Path) -> StateDict:
    index = read_json(folder / SHARD_INDEX)
    if isinstance(index, dict) and isinstance(index.get("weight_map"), dict):
        files = sorted({folder / str(name) for name in index["weight_map"].values()})
        for file in files:
            if not file.exists():
                raise CheckpointError(
                    f"{file}: missing, but {SHARD_INDEX} lists it",
                    hint="download the folder again",
                )
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder}: the folder holds no .safetensors file")
    flat: StateDict = {}
    for file in files:
        shard = read_safetensors_file(file)
        twice = flat.keys() & shard.keys()
        if twice:
            raise CheckpointError(f"{file}: key {min(twice)} is also in another file")
        flat |= shard
    return flat


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
    return _modernised(result)


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
    return _modernised(result)


def _modernised(parts: dict[str, StateDict]) -> dict[str, StateDict]:
    if "conditioner" in parts:
        parts["conditioner"] = {_released_name(k): v for k, v in parts["conditioner"].items()}
    return _with_split_projection(parts)


def _released_name(key: str) -> str:
    for new, old in RENAMED:
        key = key.replace(new, old)
    return key


def _with_split_projection(parts: dict[str, StateDict]) -> dict[str, StateDict]:
    """Replace the one input projection of older autoencoders by the two of the released one.

    Points keep it whole; queries take its position columns, so they lose the normal and label
    features that such an encoder gave them.
    """
    vae = parts.get("vae", {})
    if "encoder.input_proj.weight" not in vae:
        return parts
    weight, bias = vae.pop("encoder.input_proj.weight"), vae.pop("encoder.input_proj.bias")
    query = vae.get("geo_decoder.query_proj.weight")
    width = weight.shape[1] - POINT_FEATURES if query is None else query.shape[1]
    vae["encoder.input_proj_kv.weight"], vae["encoder.input_proj_kv.bias"] = weight, bias
    vae["encoder.input_proj_q.weight"] = weight[:, :width].contiguous()
    vae["encoder.input_proj_q.bias"] = bias.clone()
    return parts


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


def _state_dicts(components: Components) -> dict[str, StateDict]:
    result: dict[str, StateDict] = {}
    for name, source in components.items():
        if name not in ROOTS:
            raise ValueError(f"unknown component {name!r}; known: {', '.join(ROOTS)}")
        tensors = source.state_dict() if isinstance(source, nn.Module) else source
        result[name] = {key: tensor.detach() for key, tensor in tensors.items()}
    return result


def _same_kind(found: Tensor, expected: Tensor) -> bool:
    """Say whether both are floating point, or integers of the same width."""
    if expected.is_floating_point():
        return found.is_floating_point()
    return found.dtype == expected.dtype


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
