"""Recorded tensors of the reference implementation; USHAPE_GOLDEN names another folder of them.

USHAPE_GOLDEN_LOG names a file that collects the errors measured.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ultrashape_cli.models.conditioner import ConditionerParams
from ultrashape_cli.models.dit import DiTParams
from ultrashape_cli.models.vae import VAEParams

FOLDER = Path(os.environ.get("USHAPE_GOLDEN", Path(__file__).parent / "golden"))

# The recordings were made in fp32 by another torch build; these bounds are relative to the
# largest magnitude of the recorded tensor.
MODULE = 1e-4
TRAJECTORY = 1e-3  # errors of a module pass through several integration steps
PIXEL = 2 / 255 * 2 + 1e-6  # two grey levels of an image in [-1, 1]


@dataclass
class Golden:
    name: str
    info: dict
    tensors: dict[str, Tensor]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def with_prefix(self, prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}

    @property
    def state_dict(self) -> dict[str, Tensor]:
        return self.with_prefix("sd.")


def load_golden(name: str) -> Golden:
    """Return a recording, or skip the test when the folder lacks it."""
    info, tensors = FOLDER / f"{name}.json", FOLDER / f"{name}.safetensors"
    if not info.exists():
        pytest.skip(f"{info} is missing")
    return Golden(
        name=name,
        info=json.loads(info.read_text()),
        tensors=load_file(tensors) if tensors.exists() else {},
    )


def golden_file(name: str) -> Path:
    """Return a file of the recording, or skip."""
    path = FOLDER / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    return path


def relative_error(actual: Tensor, expected: Tensor) -> float:
    assert actual.shape == expected.shape, (tuple(actual.shape), tuple(expected.shape))
    scale = expected.abs().max().item() or 1.0
    return (actual.float() - expected.float()).abs().max().item() / scale


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = MODULE) -> None:
    error = relative_error(actual, expected)
    log = os.environ.get("USHAPE_GOLDEN_LOG")
    if log:
        test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
        with open(log, "a") as file:
            file.write(f"{test} {error:.2e} {tolerance:.0e}\n")
    assert error <= tolerance, f"relative error {error:.2e} above {tolerance:.0e}"


def vae_params(config: dict) -> VAEParams:
    return VAEParams(
        num_latents=config["num_latents"],
        width=config["width"],
        num_heads=config["heads"],
        latent_channels=config["embed_dim"],
        num_encoder_layers=config["num_encoder_layers"],
        num_decoder_layers=config["num_decoder_layers"],
        field_mlp_ratio=config["geo_decoder_mlp_expand_ratio"],
        num_freqs=config["num_freqs"],
        include_pi=config["include_pi"],
        num_point_features=config["point_feats"],
        downsample_ratio=config["downsample_ratio"],
        voxel_resolution=config["voxel_query_res"],
        scale_factor=config["scale_factor"],
    )


def dit_params(config: dict) -> DiTParams:
    return DiTParams(
        in_channels=config["in_channels"],
        width=config["hidden_size"],
        context_channels=config["context_dim"],
        depth=config["depth"],
        num_heads=config["num_heads"],
        num_moe_layers=config["num_moe_layers"],
        num_experts=config["num_experts"],
        moe_top_k=config["moe_top_k"],
    )


def conditioner_params(info: dict) -> ConditionerParams:
    config = info["dino_config"]
    return ConditionerParams(
        width=config["hidden_size"],
        num_layers=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        mlp_ratio=config["mlp_ratio"],
        patch_size=config["patch_size"],
        position_grid=config["image_size"] // config["patch_size"],
        image_size=info["image_size"],
        norm_eps=config["layer_norm_eps"],
        use_class_token=info["use_cls_token"],
    )


def load_strictly(module: torch.nn.Module, golden: Golden) -> torch.nn.Module:
    module.load_state_dict(golden.state_dict, strict=True)
    return module
