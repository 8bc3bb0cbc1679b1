"""Image tokens that a run keeps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ball_networks import SMALL, ball_networks
from torch.utils.data import default_collate

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.data.dataset import ShapeDataset
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.devices import autocast
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.models.conditioner import ImageConditioner
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.training.objectives.flow import FlowObjective
from ultrashape_cli.training.objectives.tokens import TokenCache, View, check_token_cache

SETTINGS = TrainConfig(num_latents=16)
VIEW = View("a", 3, 1234, 56)
Loss = Callable[[TokenCache | None, list[int]], list[float]]


@pytest.fixture
def loss(ball_data: Path) -> Loss:
    """Losses of assets of the balls, in one microbatch: `loss(cache, [0, 2])`."""
    items = ShapeDataset(
        Dataset(ball_data),
        [f"ball-{index}" for index in range(4)],
        seed=0,
        surface_points=256,
        image_size=lambda counter: 56,
        checksums=True,
    )

    def compute(cache: TokenCache | None, assets: list[int]) -> list[float]:
        networks = ball_networks(replace(SMALL, name="small"))
        vae, dit, conditioner = (network and network.bfloat16() for network in networks)
        assert vae is not None
        assert dit is not None
        objective = FlowObjective(
            vae, conditioner, SETTINGS, params=SMALL.dit, seed=0, cache=None, tokens=cache
        )
        batch = default_collate([items[(asset, asset)] for asset in assets])
        # One image is cut off, so that the lengths differ.
        batch["mask"][0, :, 20:] = -1
        with torch.no_grad(), autocast(torch.device("cpu"), "bf16"):
            return objective(dit, batch).per_sample.tolist()

    return compute


def _refuse(*inputs: Any) -> None:
    raise AssertionError("the cache was not read")


def test_kept_tokens_give_the_loss_of_computing_them_again(
    loss: Loss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TokenCache(tmp_path)
    cold = loss(cache, [0, 1, 2])
    alone = loss(None, [0])
    monkeypatch.setattr(ImageConditioner, "encode", _refuse)
    assert loss(cache, [0, 1, 2]) == cold
    # With others in its microbatch, the sums of an image would be rounded differently.
    assert loss(cache, [0]) == alone


def test_a_view_that_was_rendered_anew_is_computed_anew(
    loss: Loss, tmp_path: Path, ball_data: Path
) -> None:
    cache = TokenCache(tmp_path)
    before = loss(cache, [1])
    file = Dataset(ball_data).views("ball-1") / "view_000.png"
    kept = file.read_bytes()
    red = torch.zeros(32, 32, 4, dtype=torch.uint8).numpy()
    red[4:28, 4:28] = (255, 0, 0, 255)
    try:
        save_png(red, file)
        after = loss(cache, [1])
        assert after == loss(None, [1]) != before
    finally:
        file.write_bytes(kept)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


@pytest.mark.parametrize(
    "other",
    [VIEW._replace(asset_id="b"), VIEW._replace(number=0), VIEW._replace(pixels=112),
     VIEW._replace(checksum=1)],
)  # fmt: skip
def test_another_view_is_another_entry(tmp_path: Path, other: View) -> None:
    cache, tokens = TokenCache(tmp_path), torch.rand(3, 4, dtype=torch.bfloat16)
    cache.write(VIEW, tokens)
    found = cache.read(VIEW)
    assert found is not None
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, tokens)
    assert cache.read(other) is None


def test_a_flipped_bit_is_not_trained_on(tmp_path: Path, caplog) -> None:
    cache = TokenCache(tmp_path)
    view = View("ball-1", 0, 7, 112)
    cache.write(view, torch.ones(5, 8))
    (path,) = tmp_path.rglob("*.safetensors")
    whole = path.read_bytes()
    for place in (len(whole) - 3, len(whole) - 60, len(whole) - 170):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 64]) + whole[place + 1 :])
        assert cache.read(view) is None
    assert "is damaged" in caplog.text
    path.write_bytes(whole)
    assert cache.read(view) is not None


def test_a_place_that_cannot_be_written_ends_no_run(tmp_path: Path, caplog) -> None:
    cache = TokenCache(tmp_path)
    view = View("ball-1", 0, 7, 112)
    cache.write(view, torch.ones(5, 8))
    (path,) = tmp_path.rglob("*.safetensors")
    path.unlink()
    path.mkdir()
    assert cache.read(view) is None
    cache.write(view, torch.ones(5, 8))
    assert "not kept" in caplog.text


def test_a_cut_file_is_not_read(tmp_path: Path) -> None:
    cache = TokenCache(tmp_path)
    cache.write(VIEW, torch.rand(3, 4))
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-5])
    assert cache.read(VIEW) is None


@pytest.mark.parametrize(
    ("settings", "reason", "fix"),
    [
        ({"colour_jitter": 0.1}, "colours change", "--set train.colour_jitter=0"),
        ({"crop_jitter": 0.1}, "crops change", "--set train.crop_jitter=0"),
        (
            {"crop_jitter": 0.1, "train_conditioner": True},
            "crops change every time, the conditioner changes",
            "--set train.crop_jitter=0 --set train.train_conditioner=false",
        ),
        ({"stage": "vae"}, "no images", "--set train.token_cache=false"),
    ],
)
def test_images_that_never_come_again_are_not_kept(settings, reason: str, fix: str) -> None:
    flags = {"profile": "cpu", **{f"train.{name}": value for name, value in settings.items()}}
    config = resolve(flags=flags, environ={}).config.train
    check_token_cache(config)
    with pytest.raises(ConfigError, match=re.escape(reason)) as caught:
        check_token_cache(replace(config, token_cache=True))
    assert caught.value.hint == fix


def test_a_frozen_conditioner_may_be_kept_whatever_is_set() -> None:
    flags = {"profile": "cpu", "train.train_conditioner": True, "train.strategy": "lora"}
    config = resolve(flags=flags, environ={}).config.train
    check_token_cache(replace(config, token_cache=True))
