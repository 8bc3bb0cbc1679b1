import os
import pickle

import pytest
import torch

from ultrashape_cli.errors import CheckpointError, DiskError
from ultrashape_cli.models.registry import build, model_spec
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
    with pytest.raises(CheckpointError, match=r"pre_kl\.weight has shape \[16, 63\].*\[16, 64\]"):
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


def test_missing_files_and_foreign_contents_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_state_dict(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="holds no"):
        read_state_dict(tmp_path)
    for content in ({}, [1, 2], {"dit": {"a": 1}}, {"layer.weight": torch.zeros(1)}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match=r"other\.pt"):
            read_state_dict(tmp_path / "other.pt")


def test_a_failed_write_keeps_the_old_file(tmp_path, networks):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"dit": networks["dit"]})
    before = path.read_bytes()
    shared = torch.zeros(4)
    with pytest.raises(DiskError):
        write_safetensors(path, {"dit": {"a": shared, "b": shared}})
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
