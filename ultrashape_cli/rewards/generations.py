"""Generations kept with their rewards: what `ushape evaluate --keep` writes and training reads.

OUT/
  generations.json       schema, model, weights and their hashes, settings, seed, rewards
  ID.json                per seed: rewards, or why there is no mesh; hash of the tensors' file
  ID.safetensors         image [H, W, 4] uint8, and per seed N: latents.N [M, C] fp32, scaled;
                         voxels.N [M, 3] int16; start.N [M, C] where the flow starts at the
                         coarse mesh
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ultrashape_cli.errors import AssetError, DatasetError, UsageError
from ultrashape_cli.files import file_hash, read_json, write_atomic, write_json
from ultrashape_cli.rewards.table import REWARDS, Values

SCHEMA = 1
INDEX = "generations.json"
_MOST = 1e6
"""Size of a reward without bound that is none any more."""


class Generation(NamedTuple):
    """What the network made of one seed."""

    latents: Tensor  # [M, C] fp32, scaled as the DiT sees them
    voxels: Tensor  # [M, 3] integers
    start: Tensor | None = None  # [M, C] fp32, where the flow starts at the coarse mesh


class Judged(NamedTuple):
    """A generation and what it is worth."""

    seed: int
    generation: Generation
    rewards: Values | None
    """None where there is no mesh."""
    problem: str = ""


class KeptGenerations:
    """A folder of generations.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self, about: Mapping[str, Any]) -> None:
        """Creates the folder, or checks that it goes on as it began.

        Args:
            about: What all generations depend on; plain JSON values.

        Raises:
            UsageError: The folder holds generations of other weights or settings, or others' files.
            DiskError: It cannot be written.
        """
        wanted = {"schema": SCHEMA, **about}
        found = read_json(self.root / INDEX)
        if found is None:
            if self.root.is_dir() and any(self.root.iterdir()):
                raise UsageError(
                    f"`{self.root}` exists and holds no generations",
                    hint=f"-o {self.root.with_name(f'{self.root.name}-kept')}, or any new folder",
                )
            write_json(self.root / INDEX, wanted)
            return
        known = _flat(found) if isinstance(found, dict) else {}
        wanted = _flat(wanted)
        differing = sorted(k for k in {*wanted, *known} if wanted.get(k) != known.get(k))
        if differing:
            raise UsageError(
                f"`{self.root}` holds generations made otherwise: {', '.join(differing)}",
                hint="choose another -o: generations of one folder are of one checkpoint",
            )

    def about(self) -> dict[str, Any]:
        """Returns what `begin` wrote.

        Raises:
            DatasetError: The folder holds no generations, or those of another version.
        """
        found = read_json(self.root / INDEX)
        known = found if isinstance(found, dict) else {}
        if known.get("schema") != SCHEMA or not isinstance(known.get("model"), str):
            raise DatasetError(
                f"`{self.root}` holds no generations that this version reads",
                hint="a folder that `ushape evaluate --keep 8 --split train -o FOLDER` has made",
            )
        return known

    def has(self, asset: str, inputs: Mapping[str, str]) -> bool:
        """Says whether the generations of an asset are whole, and of these inputs."""
        if not self._record(asset).exists():
            return False
        try:
            self.whole(asset)
            return bool(self._read_record(asset).get("inputs") == inputs)
        except AssetError:
            return False

    def whole(self, asset: str) -> list[Generation]:
        """Returns all of an asset's generations, whose file is the one that was written.

        Raises:
            AssetError: Record or file is damaged, or missing.
        """
        count, file = len(self.rewards(asset)), self._tensors(asset)
        if not file.is_file():
            raise self._damaged(asset, f"{file.name} is missing")
        if file_hash(file) != self.digest(asset):
            raise self._damaged(asset, f"{file.name} is not the file that was written")
        image = self.image(asset)
        if image.ndim != 3 or image.shape[2] != 4 or image.dtype != torch.uint8:
            raise self._damaged(asset, f"its image is {image.dtype} {list(image.shape)}")
        return [self.read(asset, number) for number in range(count)]

    def write(
        self,
        asset: str,
        image: Tensor,
        view: Sequence[float],
        made: list[Judged],
        inputs: Mapping[str, str],
    ) -> None:
        """Writes the generations of an asset.

        Args:
            asset: Its id.
            image: What the network saw, uint8 [H, W, 4].
            view: Azimuth and elevation of that, in degrees.
            made: One per seed.
            inputs: Hashes of the files they were made from, by what they are.
        """
        tensors = {"image": image.contiguous()}
        for number, one in enumerate(made):
            latents, voxels, start = one.generation
            tensors[f"latents.{number}"] = latents.detach().cpu().float().contiguous()
            tensors[f"voxels.{number}"] = voxels.detach().cpu().to(torch.int16).contiguous()
            if start is not None:
                tensors[f"start.{number}"] = start.detach().cpu().float().contiguous()
        data = save(tensors, {"asset": asset})
        write_atomic(self._tensors(asset), lambda file: file.write(data))
        # The record comes last: with it the generations are whole.
        write_json(
            self._record(asset),
            {
                "asset": asset,
                "sha256": file_hash(self._tensors(asset)),
                "view": list(view),
                "inputs": dict(inputs),
                "generations": [
                    {"seed": one.seed, "rewards": one.rewards, "problem": one.problem}
                    for one in made
                ],
            },
        )

    def assets(self) -> list[str]:
        """Returns the ids of the assets that have generations, in order; other files are left."""
        named = [path for path in self.root.glob("*.json") if not path.name.startswith(".")]
        return sorted(
            path.stem for path in named
            if path.name != INDEX and (self._tensors(path.stem).exists() or _is_record(path))
        )  # fmt: skip

    def digest(self, asset: str) -> str:
        """Returns what changes when the generations of an asset do: the hash of their file.

        Raises:
            AssetError: The record is damaged.
        """
        record = self._read_record(asset)
        if "sha256" not in record:
            raise self._damaged(asset, "no hash of the tensors")
        return str(record["sha256"])

    def record_digest(self, asset: str) -> str:
        """Returns what changes when the generations of an asset do, or what they are worth."""
        return file_hash(self._record(asset))

    def rewards(self, asset: str, wanted: Iterable[str] = ()) -> list[Values | None]:
        """Returns the rewards of an asset's generations, in the order of their seeds.

        Args:
            asset: Its id.
            wanted: Rewards that there must be.

        Raises:
            AssetError: The record is damaged, or lacks one of the rewards.
        """
        try:
            found = [one["rewards"] for one in self._read_record(asset)["generations"]]
        except (KeyError, TypeError) as error:
            raise self._damaged(asset, f"{error!r:.80}") from error
        if not found:
            raise self._damaged(asset, "there are none")
        for values in found:
            if values is None:
                continue
            if not isinstance(values, dict):
                raise self._damaged(asset, f"rewards are {values!r:.40}")
            for name, value in values.items():
                if not (value is None or _is_reward(name, value)):
                    raise self._damaged(asset, f"the reward `{name:.40}` is {value!r:.40}")
        lacking = [n for n in wanted if any(n not in v for v in found if v is not None)]
        if lacking:
            raise AssetError(
                f"generations of `{asset}` in `{self.root}` have no reward `{lacking[0]}`",
                hint="rewards that were recorded stand in generations.json",
            )
        return found

    def _read_record(self, asset: str) -> dict[str, Any]:
        record = read_json(self._record(asset))
        if not isinstance(record, dict):
            raise self._damaged(asset, "the record is none")
        return record

    def image(self, asset: str) -> Tensor:
        """Returns the image that the generations of an asset saw, uint8 [H, W, 4].

        Raises:
            AssetError: The file is damaged.
        """
        return self._read(asset, ["image"])["image"]

    def read(self, asset: str, number: int) -> Generation:
        """Returns one generation of an asset, by its place among the seeds.

        Raises:
            AssetError: The file is damaged, or has no such generation.
        """
        names = [f"{name}.{number}" for name in ("latents", "voxels")]
        found = self._read(asset, names, optional=f"start.{number}")
        latents, voxels = (found[name] for name in names)
        start = found.get(f"start.{number}", latents)
        if latents.ndim != 2 or voxels.shape != (len(latents), 3) or start.shape != latents.shape:
            shapes = ", ".join(str(list(tensor.shape)) for tensor in (latents, voxels, start))
            raise self._damaged(asset, f"shapes {shapes}")
        if not (latents.isfinite().all() and start.isfinite().all()):
            raise self._damaged(asset, "not all latents are numbers")
        return Generation(latents, voxels.long(), found.get(f"start.{number}"))

    def _read(self, asset: str, names: list[str], optional: str = "") -> dict[str, Tensor]:
        try:
            with safe_open(self._tensors(asset), "pt") as file:
                present = file.keys()
                more = [optional] if optional in present else []
                return {name: file.get_tensor(name) for name in [*names, *more]}
        except (OSError, SafetensorError) as error:
            raise self._damaged(asset, str(error)) from error

    def _damaged(self, asset: str, why: str) -> AssetError:
        return AssetError(
            f"generations of `{asset}` in `{self.root}` are damaged: {why}",
            hint=f"remove `{self._record(asset)}` and repeat the `ushape evaluate --keep` that "
            "made it",
        )

    def _record(self, asset: str) -> Path:
        return self.root / f"{asset}.json"

    def _tensors(self, asset: str) -> Path:
        return self.root / f"{asset}.safetensors"


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings by their whole names, and weights without the names of their files."""
    found = {}
    for key, value in about.items():
        if key == "weights" and isinstance(value, dict):
            found[key] = sorted(value.values())
        elif isinstance(value, dict):
            found |= {f"{key}.{name}": one for name, one in value.items()}
        else:
            found[key] = value
    return found


def _is_record(path: Path) -> bool:
    found = read_json(path)
    return isinstance(found, dict) and "generations" in found


def _is_reward(name: str, value: object) -> bool:
    """Says whether a value can be that of a reward; a little beyond its range is rounding."""
    if name not in REWARDS or type(value) not in (int, float):
        return False
    low, high = max(REWARDS[name].low, -_MOST), REWARDS[name].high + 1e-6
    return low - 1e-6 <= value <= high  # type: ignore[operator]
