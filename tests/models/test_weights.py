import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ultrashape_cli.errors import CheckpointError, DiskError
from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.sources import find_weights
from ultrashape_cli.models.weights import (
    load_into,
    read_metadata,
    read_state_dict,
    write_reference_bundle,
    write_safetensors,
)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(0)
    return build(model_spec("tiny"), device="cpu")._asdict()


def assert_same(found, networks):
    assert found.keys() == networks.keys()
    for name, module in networks.items():
        expected = module.state_dict()
        assert found[name].keys() == expected.keys()
        assert all(torch.equal(found[name][k], v) for k, v in expected.items())


def test_safetensors_round_trip(tmp_path, networks):
    path = tmp_path / "new" / "model.safetensors"
    write_safetensors(path, networks, {"model": "tiny"})
    assert_same(read_state_dict(path), networks)
    assert_same(read_state_dict(path.parent), networks)
    assert read_metadata(path)["model"] == "tiny"
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


def test_reference_bundle_round_trip(tmp_path, networks):
    path = tmp_path / "model.pt"
    write_reference_bundle(path, networks)
    assert_same(read_state_dict(path), networks)
    assert set(torch.load(path, weights_only=True)) == {"vae", "dit", "conditioner"}


def test_files_written_before_the_zip_format_are_read(tmp_path, networks):
    path = tmp_path / "old.pt"
    bundle = {"vae": networks["vae"].state_dict()}
    torch.save(bundle, path, _use_new_zipfile_serialization=False)
    assert_same(read_state_dict(path), {"vae": networks["vae"]})


@pytest.mark.parametrize("wrap", ["bundle", "state_dict", "flat"])
def test_trainer_prefixes_are_stripped(tmp_path, networks, wrap):
    prefix = {"vae": "_forward_module.vae_model.", "dit": "_forward_module.model."}
    parts = {
        name: {prefix[name] + k: v for k, v in networks[name].state_dict().items()}
        for name in prefix
    }
    flat = parts["vae"] | parts["dit"]
    path = tmp_path / "trainer.ckpt"
    torch.save({"bundle": parts, "state_dict": {"state_dict": flat}, "flat": flat}[wrap], path)
    assert_same(read_state_dict(path), {name: networks[name] for name in prefix})


def test_a_meta_module_takes_over_the_tensors(tmp_path, networks):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, networks)
    state = read_state_dict(path)["dit"]
    fresh = build(model_spec("tiny"), components=("dit",)).dit
    load_into(fresh, state, path, dtype=torch.bfloat16)
    assert {p.dtype for p in fresh.parameters()} == {torch.bfloat16}
    assert all(p.requires_grad and p.device.type == "cpu" for p in fresh.parameters())
    frozen = build(model_spec("tiny"), components=("conditioner",)).conditioner
    load_into(frozen, read_state_dict(path)["conditioner"], path)
    assert not any(p.requires_grad for p in frozen.parameters())


def test_conditioner_keys_of_newer_transformers_releases_are_mapped(tmp_path, networks):
    state = {}
    for key, value in networks["conditioner"].state_dict().items():
        for part in ("query", "key", "value"):
            key = key.replace(f"attention.attention.{part}.", f"attention.{part[0]}_proj.")
        state[key.replace("attention.output.dense.", "attention.o_proj.")] = value
    assert any("o_proj" in key for key in state)
    torch.save({"conditioner": state}, tmp_path / "new.pt")
    assert_same(read_state_dict(tmp_path / "new.pt"), {"conditioner": networks["conditioner"]})


def test_a_half_autoencoder_skips_the_other_half(networks):
    half = build(model_spec("tiny"), components=("vae",), vae_parts=("decoder",)).vae
    state = networks["vae"].state_dict()
    load_into(half, state, "file", ignore=half.absent_prefixes)
    assert torch.equal(half.post_kl.weight, networks["vae"].post_kl.weight)


def test_misfits_name_file_key_and_shapes(networks):
    state = dict(networks["vae"].state_dict())
    vae = networks["vae"]
    weight = state.pop("pre_kl.weight")
    with pytest.raises(CheckpointError, match=r"some/file: .*pre_kl\.weight is missing"):
        load_into(vae, state, "some/file")
    with pytest.raises(CheckpointError, match=r"pre_kl\.weight has shape \[64, 63\].*\[64, 64\]"):
        load_into(vae, state | {"pre_kl.weight": weight[:, 1:]}, "some/file")
    with pytest.raises(CheckpointError, match=r"extra is unexpected"):
        load_into(vae, state | {"pre_kl.weight": weight, "extra": weight}, "some/file")


class Malicious:
    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return (os.mkdir, (self.target,))


@pytest.mark.parametrize("container", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, container):
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    content = {"dit": {"x_embedder.weight": Malicious(str(target))}}
    if container == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=container == "zip")
    with pytest.raises(CheckpointError, match=r"evil\.pt"):
        read_state_dict(path)
    assert not target.exists()


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a checkpoint", bytes(range(256)) * 8])
def test_other_files_are_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_state_dict(path)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_truncated_files_are_refused(tmp_path, networks, name):
    path = tmp_path / name
    (write_reference_bundle if name == "a.pt" else write_safetensors)(path, networks)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match=name):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.pt", b"", "is empty (0 bytes)"),
        ("a.safetensors", b"", "is empty (0 bytes)"),
        ("a.pt", b"iabc", "is no torch file"),
        ("a.pt", b"\x80\x02abc", "is damaged: its tensors cannot be read"),
        ("a.safetensors", b"{}", "is truncated, or no safetensors file"),
        ("a.safetensors", bytes([2, *[0] * 7]) + b"{}?", "1 bytes too many are at its end"),
        ("a.safetensors", bytes([2, *[0] * 7]) + b"[]", "its table of tensors cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_in_our_words(tmp_path, name, content, problem):
    path = tmp_path / name
    path.write_bytes(content)
    # What the table does not tell, only reading the tensors does.
    for read in (
        (read_state_dict,) if "tensors cannot" in problem else (read_state_dict, find_weights)
    ):
        with pytest.raises(CheckpointError) as caught:
            read(path)
        assert caught.value.message.startswith(f"`{path}` ")
        assert caught.value.message.endswith(problem)


def test_missing_files_and_foreign_contents_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_state_dict(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="holds no"):
        read_state_dict(tmp_path)
    for content in ({}, [1, 2], {"dit": {"a": 1}}, {"layer.weight": torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=r"other\.pt"):
            read_state_dict(tmp_path / "other.pt")


def test_a_failed_write_keeps_the_old_file(tmp_path, networks, monkeypatch):
    for write, name in ((write_safetensors, "model.safetensors"), (write_reference_bundle, "a.pt")):
        path = tmp_path / name
        write(path, {"dit": networks["dit"]})
        before = path.read_bytes()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            with pytest.raises(DiskError, match=name):
                write(path, {"dit": networks["dit"]})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def mapped_ranges(path) -> list[tuple[int, int]]:
    ranges = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            low, high = line.split()[0].split("-")
            ranges.append((int(low, 16), int(high, 16)))
    return ranges


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_loaded_networks_are_the_mapped_file(tmp_path, networks, name):
    path = tmp_path / name
    (write_reference_bundle if name == "a.pt" else write_safetensors)(path, networks)
    found = read_state_dict(path)
    fresh = build(model_spec("tiny"))._asdict()
    for component, module in fresh.items():
        load_into(module, found[component], path)
    ranges = mapped_ranges(path)
    assert ranges
    for module in fresh.values():
        for parameter in module.parameters():
            address = parameter.data_ptr()
            assert any(low <= address < high for low, high in ranges)


def test_writing_and_loading_make_no_second_copy(tmp_path):
    # 256 MiB as views of one number; a process of its own because the peak never falls.
    code = f"""
import resource, torch
from ultrashape_cli.models.weights import *
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
one = torch.ones(1)
parts = {{"dit": {{f"blocks.{{i}}.weight": one.expand(1024, 2048) for i in range(32)}}}}
before = peak()
write_safetensors({str(tmp_path / "a.safetensors")!r}, parts, dtype=torch.float16)
written = peak()
found = read_state_dict({str(tmp_path / "a.safetensors")!r})
print(written - before, peak() - written, min(float(t.amin()) for t in found["dit"].values()))
write_safetensors({str(tmp_path / "b.safetensors")!r}, found)
print(peak() - written)
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    writing, mapping, smallest, reading = map(float, result.stdout.split())
    assert smallest == 1
    assert writing < 40  # one tensor of 8 MiB and its cast
    assert mapping < 10
    assert reading < 1.1 * 128 + 10  # the pages of the mapped file themselves


def test_metadata_counts_parameters_and_dtypes(tmp_path):
    path = tmp_path / "a.safetensors"
    bias = torch.zeros(()).half().expand(1, 4)[:, :1].expand(4, 1)[0]  # one number, stride 0
    parts = {"blocks.0.weight": torch.zeros(3, 5), "blocks.0.bias": bias}
    write_safetensors(path, {"dit": parts}, {"model": "tiny"})
    metadata = read_metadata(path)
    assert metadata["num_parameters"] == "16"
    assert metadata["dtype"] == "float16,float32"
    assert metadata["model"] == "tiny"


def test_other_readers_understand_the_written_file(tmp_path, networks):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, networks, dtype=torch.bfloat16)
    found = load_file(path)
    expected = {f"{n}.{k}": v for n, m in networks.items() for k, v in m.state_dict().items()}
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], v.bfloat16()) for k, v in expected.items())
