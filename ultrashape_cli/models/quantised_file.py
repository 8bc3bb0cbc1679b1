"""Weights files whose DiT is kept as codes: which layers, what the file says, how it is loaded.

The file is a safetensors file as any other. Of a quantised layer it holds `NAME.codes`,
`NAME.scale`, for int4 `NAME.offset`, and its bias. Its metadata has, as JSON under the key
`quantisation`, the scheme, the group, the linear layers left in floating point and the hashes of
the files that the codes were made from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from ultrashape_cli import __version__
from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.models.grouped_codes import GROUP, GROUP_INT8
from ultrashape_cli.models.quantised import QuantisedLinear, empty_codes, encode_weight
from ultrashape_cli.models.weight_files import StateDict, halved
from ultrashape_cli.models.weights import read_metadata

Scheme = Literal["int8", "int8-dynamic", "fp8", "int6", "int4"]
SCHEMES: tuple[Scheme, ...] = ("int8", "int8-dynamic", "fp8", "int6", "int4")
GROUPS: dict[str, int] = {"int8": GROUP_INT8, "int8-dynamic": 0, "fp8": 0, "int6": GROUP,
                          "int4": GROUP}  # fmt: skip
"""Weights of a row with a scale of their own; 0 is the whole row."""
KINDS: dict[str, str] = {"int8": "int8-groups", "int8-dynamic": "int8-dynamic", "fp8": "fp8",
                         "int6": "int6", "int4": "int4"}  # fmt: skip
"""Of the layers: those that a refinement makes itself for `refine.memory=int8` have a scale for a
whole row, which is quicker to make and errs by half as much again."""
KEY = "quantisation"
"""Of the metadata."""
MERGE_FIRST = "merge or train with the weights it was made from first, then quantise the result"
_SKIP = ".skip_linear"
_FEED_FORWARD = (".mlp.", ".moe.experts.", ".moe.shared_experts.")
_DOWN = (".mlp.fc2", ".net.2")


@dataclass(frozen=True, slots=True)
class Quantisation:
    """What a quantised file says about itself."""

    scheme: str
    group: int
    skipped: tuple[str, ...]
    """Linear layers of the DiT in floating point, by name."""
    sources: tuple[str, ...] = ()
    """SHA-256 of the files that the codes were made from."""
    version: str = __version__
    """Of ushape, when it was written."""

    def text(self) -> str:
        """Returns the JSON of the metadata."""
        value = {
            "scheme": self.scheme,
            "group": self.group,
            "skipped": list(self.skipped),
            "source_sha256": list(self.sources),
            "ushape": self.version,
        }
        return json.dumps(value)


def quantisable_layers(dit: nn.Module, scheme: str, *, keep_down: bool = False) -> list[str]:
    """Returns the names of the linear layers that a scheme quantises, in the order of the network.

    Those of the blocks, never the routers' gates, which choose and do not compute, nor the skips,
    whose codes cost most for their size; of int4 those of the feed-forwards alone.

    Args:
        dit: The network, on any device.
        scheme: One of `SCHEMES`.
        keep_down: Leave the second layer of each feed-forward out.
    """
    return [
        name
        for name, layer in dit.named_modules()
        if isinstance(layer, nn.Linear)
        and name.startswith("blocks.")
        and not name.endswith((".gate", _SKIP))
        and (scheme != "int4" or any(part in name for part in _FEED_FORWARD))
        and not (keep_down and name.endswith(_DOWN))
    ]


def skipped_layers(dit: nn.Module, scheme: str, *, keep_down: bool = False) -> tuple[str, ...]:
    """Returns the names of the linear layers that a scheme leaves in floating point."""
    names = set(quantisable_layers(dit, scheme, keep_down=keep_down))
    linear = (name for name, layer in dit.named_modules() if isinstance(layer, nn.Linear))
    return tuple(name for name in linear if name not in names)


def quantise_state(
    dit: nn.Module, weights: StateDict, scheme: str, *, keep_down: bool = False
) -> tuple[StateDict, tuple[str, ...]]:
    """Returns the state of the DiT as codes, and the names of its linear layers left out.

    Weights of blocks that are left out come in 16 bit; all else is as it was.

    Args:
        dit: The network, on the meta device.
        weights: Its weights, which fit it.
        scheme: One of `SCHEMES`.
        keep_down: Leave the second layer of each feed-forward out.
    """
    names = set(quantisable_layers(dit, scheme, keep_down=keep_down))
    skipped = skipped_layers(dit, scheme, keep_down=keep_down)
    wide = {f"{n}.weight" for n in skipped if n.startswith("blocks.") and not n.endswith(".gate")}
    state: StateDict = {}
    for key, tensor in weights.items():
        name, _, kind = key.rpartition(".")
        if kind == "weight" and name in names:
            codes = encode_weight(tensor, KINDS[scheme])
            state |= {f"{name}.{part}": value for part, value in codes.items()}
        else:
            state[key] = halved(tensor) if key in wide else tensor
    return state, skipped


def prepare_layers(dit: nn.Module, found: Quantisation, path: Path | None = None) -> None:
    """Replaces layers of a network on the meta device by quantised ones without storage.

    Their codes are loaded next, as any other weights; those of floating point are never made.

    Args:
        dit: The network.
        found: What the file says.
        path: The file, for the error message.

    Raises:
        CheckpointError: The file leaves out layers that the network has not.
    """
    names = quantisable_layers(dit, found.scheme)
    linear = {name for name, layer in dit.named_modules() if isinstance(layer, nn.Linear)}
    unknown = [name for name in found.skipped if name not in linear]
    if unknown:
        raise _refused(path, f"`skipped` names `{unknown[0]}`, which the network has not")
    for name in names:
        if name in found.skipped:
            continue
        layer = dit.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        tensors = empty_codes(layer.in_features, layer.out_features, KINDS[found.scheme])
        dit.set_submodule(name, QuantisedLinear(layer, KINDS[found.scheme], tensors=tensors))


def read_quantisation(path: Path) -> Quantisation | None:
    """Returns what a weights file says of its codes; None where it has none.

    Args:
        path: A file, or a folder of safetensors files.

    Raises:
        CheckpointError: What it says is broken, or from another version.
    """
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found = [_of_file(file) for file in files if file.suffix == ".safetensors"]
    known = [each for each in found if each is not None]
    if known and len(files) > 1:
        raise CheckpointError(
            f"`{path}` holds a quantised file beside others", hint="name the file itself"
        )
    return known[0] if known else None


def require_plain(path: Path, what: str) -> None:
    """Raises CheckpointError where a file is quantised.

    Args:
        path: The file, or a folder of files.
        what: What cannot be done with it, to stand behind "cannot be".
    """
    if (found := read_quantisation(path)) is not None:
        raise CheckpointError(
            f"`{path}` is quantised ({found.scheme}), it cannot be {what}", hint=MERGE_FIRST
        )


def _of_file(path: Path) -> Quantisation | None:
    text = read_metadata(path).get(KEY)
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refused(path, "is no JSON") from error
    if not isinstance(value, dict):
        raise _refused(path, "is no JSON object")
    scheme = value.get("scheme")
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise _refused(path, f"`scheme` is {scheme!r}; known: {', '.join(SCHEMES)}")
    if value.get("group") != GROUPS[scheme]:
        raise _refused(
            path, f"`group` is {value.get('group')!r}, that of {scheme} is {GROUPS[scheme]}"
        )
    skipped, sources = (_names(path, value, key) for key in ("skipped", "source_sha256"))
    return Quantisation(scheme, GROUPS[scheme], skipped, sources, str(value.get("ushape", "")))


def _names(path: Path, value: dict[str, Any], key: str) -> tuple[str, ...]:
    names = value.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _refused(path, f"`{key}` is no list of texts")
    return tuple(names)


def _refused(path: Path | None, problem: str) -> CheckpointError:
    return CheckpointError(
        f"`{path}`: metadata `{KEY}` cannot be used: {problem}",
        hint="quantise the weights it was made from again, with this version",
    )
