"""Files whose DiT is kept as codes: what is in them, how they load, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ultrashape_cli.errors import CheckpointError
from ultrashape_cli.models.convert import (
    check_weights,
    choose_model,
    files_of,
    gather_weights,
    quantise_weights,
)
from ultrashape_cli.models.quantised import QuantisedLinear, quantise_linears
from ultrashape_cli.models.quantised_file import (
    KINDS,
    SCHEMES,
    quantisable_layers,
    read_quantisation,
)
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.sources import (
    WeightSource,
    load_networks,
    resolve_named,
    resolve_weights,
)
from ultrashape_cli.models.weights import write_safetensors

Tensors = dict[str, torch.Tensor]
SPEC = model_spec("tiny")
KEY = "dit.blocks.0.mlp.fc1"
INPUTS = (
    torch.randn(1, 20, SPEC.dit.in_channels, generator=torch.Generator().manual_seed(0)),
    torch.tensor([0.4]),
    torch.randn(1, 5, SPEC.dit.context_channels, generator=torch.Generator().manual_seed(1)),
    torch.arange(60).view(1, 20, 3) % 32,
)


def _quantise(target: Path, scheme: str, source: Path | None = None, keep_down=False) -> Path:
    path = source or resolve_named(Path("tiny")).files["dit"]
    gathered = gather_weights(path)
    spec = choose_model(gathered)
    quantise_weights(gathered, spec, target, scheme, keep_down=keep_down, inputs=files_of(path))
    return target


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("codes")
    return {scheme: _quantise(folder / f"{scheme}.safetensors", scheme) for scheme in SCHEMES}


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("scheme", SCHEMES)
@torch.no_grad()
def test_loaded_layers_are_those_of_the_weights_quantised_in_memory(files, scheme: str) -> None:
    plain = load_networks(resolve_named(Path("tiny"))).dit
    assert plain is not None
    quantise_linears(plain, quantisable_layers(plain, scheme), KINDS[scheme])
    loaded = load_networks(resolve_weights(files[scheme])).dit
    assert loaded is not None
    assert torch.equal(loaded(*INPUTS).velocity, plain(*INPUTS).velocity)


def test_loading_makes_no_weight_in_floating_point(files, monkeypatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a weight was made")

    monkeypatch.setattr(QuantisedLinear, "dequantise", refuse)
    monkeypatch.setattr(torch.nn.Linear, "reset_parameters", lambda layer: refuse(layer)
                        if layer.weight.device.type != "meta" else None)  # fmt: skip
    dit = load_networks(resolve_weights(files["int6"]), dtype=torch.bfloat16).dit
    assert dit is not None
    large = [name for name, value in dit.named_parameters() if value.ndim > 1]
    assert {name.removesuffix(".weight") for name in large} == {
        *("x_embedder", "t_embedder.mlp.0", "t_embedder.mlp.2", "final_layer.linear"),
        *("blocks.5.moe.gate", "blocks.6.moe.gate"),
        *(f"blocks.{block}.skip_linear" for block in (4, 5, 6)),
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_must_not_be_quantised_is_as_it_was(files, scheme: str) -> None:
    before = load_file(resolve_named(Path("tiny")).files["dit"])
    after = load_file(files[scheme])
    said = json.loads(_metadata(files[scheme])["quantisation"])
    assert said["scheme"] == scheme
    assert len(said["source_sha256"]) == 1
    named = {key.removesuffix(".codes") for key in after if key.endswith(".codes")}
    same = {key for key in before if key in after and torch.equal(before[key], after[key])}
    assert before.keys() - same == {f"{name}.weight" for name in named}
    for kept in said["skipped"]:
        assert f"dit.{kept}.weight" in same
    if scheme == "int4":
        assert all(".mlp." in name or ".moe." in name for name in named)
    assert not any("gate" in name or "embedder" in name or "final" in name for name in named)


def test_down_projections_are_kept_where_asked(tmp_path: Path) -> None:
    path = _quantise(tmp_path / "a.safetensors", "int8", keep_down=True)
    found = read_quantisation(path)
    assert found is not None
    kept = [name for name in found.skipped if name.startswith("blocks.")]
    down = [name for name in kept if not name.endswith(("gate", "skip_linear"))]
    assert len(down) == 5 + 2 * 5  # five plain blocks; two routed ones of four experts and one
    assert all(name.endswith((".mlp.fc2", ".net.2")) for name in down)
    assert not check_weights(gather_weights(path), SPEC)


def test_the_same_weights_give_the_same_bytes_wherever_they_lie(files, tmp_path: Path) -> None:
    copy = tmp_path / "other.safetensors"
    shutil.copy(resolve_named(Path("tiny")).files["dit"], copy)
    for scheme in SCHEMES:
        again = _quantise(tmp_path / "again.safetensors", scheme, copy)
        assert again.read_bytes() == files[scheme].read_bytes()


def test_wide_weights_that_stay_come_in_half_precision(tmp_path: Path) -> None:
    networks = build(SPEC, device="cpu")
    assert networks.dit is not None
    with torch.no_grad():
        networks.dit.blocks[1].attn1.to_q.weight[0, 0] = 1e6  # type: ignore[union-attr, index]
    write_safetensors(tmp_path / "wide.safetensors", networks._asdict(), {"model": "tiny"})
    path = _quantise(tmp_path / "a.safetensors", "int4", tmp_path / "wide.safetensors")
    found = load_file(path)
    assert found["dit.blocks.0.attn1.to_q.weight"].dtype == torch.float16
    # Beyond the range of fp16.
    assert found["dit.blocks.1.attn1.to_q.weight"].dtype == torch.bfloat16
    assert found["dit.blocks.5.moe.gate.weight"].dtype == torch.float32
    assert found["dit.final_layer.linear.weight"].dtype == torch.float32
    assert all(t.dtype == torch.float32 for k, t in found.items() if k.startswith("vae."))


def _said(**changes: object) -> Callable[[Tensors, dict[str, str]], None]:
    def edit(tensors: Tensors, metadata: dict[str, str]) -> None:
        metadata["quantisation"] = json.dumps(json.loads(metadata["quantisation"]) | changes)

    return edit


def _with(key: str, value: torch.Tensor | None) -> Callable[[Tensors, dict[str, str]], None]:
    def edit(tensors: Tensors, metadata: dict[str, str]) -> None:
        del tensors[key]
        if value is not None:
            tensors[key] = value

    return edit


def _text(text: str) -> Callable[[Tensors, dict[str, str]], None]:
    return lambda tensors, metadata: metadata.update(quantisation=text)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_with(f"{KEY}.codes", torch.zeros(384, 70, dtype=torch.uint8)), f"{KEY[4:]}.codes has"),
        (_with(f"{KEY}.codes", torch.zeros(384, 72, dtype=torch.int32)), "codes holds int32"),
        (_with(f"{KEY}.codes", None), f"{KEY[4:]}.codes is missing"),
        (_with(f"{KEY}.scale", None), f"{KEY[4:]}.scale is missing"),
        (_with(f"{KEY}.scale", torch.zeros(384, 3, dtype=torch.uint8)), "scale holds uint8"),
        (_with("dit.blocks.5.moe.gate.weight", torch.zeros(5, 96)), "gate.weight has shape"),
        (_said(scheme="int5"), "`scheme` is 'int5'; known: int8, int8-dynamic, fp8, int6, int4"),
        (_said(scheme=["int6"]), "`scheme` is ['int6']"),
        (_said(scheme="int4"), "is missing"),
        (_said(group=64), "`group` is 64, that of int6 is 32"),
        (_said(group=10**12), "`group` is 1000000000000"),
        (_said(skipped="all"), "`skipped` is no list of texts"),
        (_said(skipped=["blocks.99.attn1.to_q"]), "`skipped` names `blocks.99.attn1.to_q`"),
        (_said(source_sha256=None), "`source_sha256` is no list"),
        (_text("{"), "is no JSON"),
        (_text("[" * 100_000), "is no JSON"),
        (_text("3"), "is no JSON object"),
        (lambda tensors, metadata: metadata.pop("quantisation"), "is missing"),
        (lambda tensors, metadata: metadata.update(model="ultrashape-1.0"), "has not"),
    ],
)
def test_a_bad_file_is_named_with_its_key(files, tmp_path: Path, edit, message: str) -> None:
    tensors, metadata = load_file(files["int6"]), _metadata(files["int6"])
    edit(tensors, metadata)
    path = tmp_path / "bad.safetensors"
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError) as caught:
        load_networks(resolve_weights(path), components=("dit",))
    assert str(path) in caught.value.message
    assert message in caught.value.message


def test_a_truncated_file_is_refused(files, tmp_path: Path) -> None:
    path = tmp_path / "short.safetensors"
    path.write_bytes(files["int8"].read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="100 bytes are missing"):
        resolve_weights(path)


def test_codes_take_no_adapters(files, tmp_path: Path) -> None:
    source = WeightSource("tiny", dict.fromkeys(("vae", "dit"), files["int8"]), {"dit": tmp_path})
    with pytest.raises(CheckpointError, match="takes no adapters") as caught:
        load_networks(source, components=("dit",))
    assert "merge" in (caught.value.hint or "")


def test_a_quantised_file_stands_alone(files, tmp_path: Path) -> None:
    shutil.copy(files["int8"], tmp_path / "a.safetensors")
    assert read_quantisation(tmp_path) == read_quantisation(files["int8"])
    shutil.copy(files["int8"], tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="beside others"):
        read_quantisation(tmp_path)
