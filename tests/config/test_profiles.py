from __future__ import annotations

from pathlib import Path

import pytest

from ultrashape_cli.config.profiles import PROFILES, detect_profile, get_profile
from ultrashape_cli.config.schema import Config, flatten
from ultrashape_cli.errors import ConfigError


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a program on PATH that answers for the first GPU, and returns its setter."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def answer(text: str, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(
            f"#!/bin/sh\necho '{text}'\necho \"$@\" > {tmp_path}/asked\nexit {code}\n"
        )
        program.chmod(0o755)

    return answer


def test_profiles_are_listed_by_their_own_name_and_set_known_keys() -> None:
    keys = flatten(Config()).keys()
    for name, profile in PROFILES.items():
        assert name == profile.name
        assert profile.settings().keys() <= keys
        assert (profile.memory_gib > 0) == (profile.peak_bf16_tflops > 0) == bool(profile.match)
        assert min(profile.microbatch, profile.accumulation, profile.num_workers) >= 1


def test_an_unknown_profile_offers_close_matches() -> None:
    with pytest.raises(ConfigError, match=r"no profile `a500` \(did you mean `a5000`") as caught:
        get_profile("a500")
    assert all(name in caught.value.hint for name in PROFILES)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("NVIDIA A40, 46068", "a40"),
        ("NVIDIA GeForce RTX 5070 Ti, 16303", "rtx5070ti-16"),
        ("NVIDIA GeForce RTX 4090, 24564", "rtx4090"),
        ("NVIDIA A100-SXM4-80GB, 81920", "a100"),
        ("NVIDIA H100 80GB HBM3, 81559", "h100"),
        ("NVIDIA H200, 143771", "h200"),
    ],
)
def test_a_known_gpu_selects_its_profile(nvidia_smi, line: str, name: str) -> None:
    nvidia_smi(line)
    assert get_profile("auto").name == name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("NVIDIA RTX A4000, 16376", "rtx5070ti-16"),  # not an A40
        ("NVIDIA A100-SXM4-40GB, 40960", "a5000"),  # half of the memory that `a100` assumes
        ("NVIDIA GeForce RTX 4090 Laptop GPU, 16376", "rtx5070ti-16"),
        ("NVIDIA Unheard Of, 48128", "a40"),
        ("NVIDIA Unheard Of, 4096", "rtx5070ti-16"),
        ("NVIDIA GB10, [N/A]", "rtx5070ti-16"),
    ],
)
def test_another_gpu_takes_the_largest_profile_that_fits(nvidia_smi, line: str, name: str) -> None:
    nvidia_smi(line)
    found = detect_profile()
    fitting = PROFILES[name].memory_gib
    assert found.memory_gib == fitting


def test_a_known_gpu_that_hides_its_memory_keeps_its_profile(nvidia_smi) -> None:
    nvidia_smi("NVIDIA A40, [Insufficient Permissions]")
    assert detect_profile().name == "a40"


@pytest.mark.parametrize(("text", "code"), [("NVIDIA A40, 46068", 9), ("", 0), ("failed", 0)])
def test_a_driver_that_does_not_answer_means_cpu(nvidia_smi, text: str, code: int) -> None:
    nvidia_smi(text, code)
    assert detect_profile().name == "cpu"


def test_no_driver_means_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert detect_profile().name == "cpu"


@pytest.mark.parametrize("value", ["", "-1"])
def test_a_hidden_gpu_means_cpu(nvidia_smi, monkeypatch, value: str) -> None:
    nvidia_smi("NVIDIA A40, 46068")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert detect_profile().name == "cpu"


def test_the_first_visible_gpu_is_asked(nvidia_smi, monkeypatch, tmp_path: Path) -> None:
    nvidia_smi("NVIDIA A40, 46068")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert detect_profile().name == "a40"
    assert (tmp_path / "asked").read_text().split()[-2:] == ["-i", "3"]


def test_the_models_with_settings_are_the_models_that_can_be_built() -> None:
    from ultrashape_cli.config.models import MODEL_SETTINGS
    from ultrashape_cli.models.registry import MODELS

    assert MODEL_SETTINGS.keys() == MODELS.keys()
