from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from ultrashape_cli.errors import CheckpointError, DependencyError
from ultrashape_cli.models.convert import choose_model, gather_weights
from ultrashape_cli.models.sources import load_networks, packaged_weights, resolve_weights
from ultrashape_cli.models.weights import read_state_dict

Q8, Q4 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0


def write(path: Path, tensors: dict[str, np.ndarray], kind=Q8) -> Path:
    """Writes matrices whose rows divide into blocks of 32 as codes, all else as it is."""
    writer = gguf.GGUFWriter(path, "ultrashape")
    for name, values in tensors.items():
        if values.ndim > 1 and values.shape[-1] % 32 == 0:
            codes = gguf.quants.quantize(values.astype(np.float32), kind)
            writer.add_tensor(name, codes, raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = packaged_weights("tiny")
    assert path is not None
    parts = read_state_dict(path)
    flat = {f"{part}.{key}": t.numpy() for part, own in parts.items() for key, t in own.items()}
    # The format names scalars' shape as one.
    return write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", flat)


def test_codes_are_read_as_what_they_stand_for(packaged: Path) -> None:
    source = packaged_weights("tiny")
    assert source is not None
    whole, found = read_state_dict(source), read_state_dict(packaged)
    assert {name: list(part) for name, part in found.items()}.keys() == whole.keys()
    for name, part in whole.items():
        assert part.keys() == found[name].keys()
        for key, tensor in part.items():
            assert found[name][key].shape == tensor.shape, key
            coarse = tensor.ndim > 1 and tensor.shape[-1] % 32 == 0
            largest = tensor.float().abs().amax() if tensor.numel() else 0
            off = (found[name][key].float() - tensor.float()).abs().max()
            assert off <= (largest / 127 if coarse else 0), key
    assert choose_model(gather_weights(packaged)).name == "tiny"


def test_networks_load_from_it(packaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultrashape_cli.models.sources.REFERENCE_MODEL", "tiny")
    networks = load_networks(resolve_weights(packaged), dtype=torch.float32)
    assert networks.dit is not None


def test_coarser_codes_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", {"dit.blocks.0.a": np.ones((4, 64), np.float32)}, Q4)
    with pytest.raises(CheckpointError, match="Q4_0 codes; F32, F16, BF16, Q8_0 are read"):
        read_state_dict(path)


@pytest.mark.parametrize("cut", [0, 3, 20, 500])
def test_a_damaged_file_is_named(packaged: Path, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(packaged.read_bytes()[:cut])
    with pytest.raises(CheckpointError, match=r"cut\.gguf"):
        read_state_dict(path)


def test_without_the_package_the_command_is_told(packaged: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(DependencyError, match="the package gguf does not load") as caught:
        read_state_dict(packaged)
    assert "[gguf]" in str(caught.value.hint)
