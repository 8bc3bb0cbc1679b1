"""Training with several views of each asset, and what becomes of the weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ball_networks import SMALL, ball_networks
from safetensors.torch import load_file
from train_and_read import checkpoints, losses, same, train_run, weights

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.config.schema import TrainConfig
from ultrashape_cli.config.trained_views import TrainedViews
from ultrashape_cli.data.dataset import ShapeDataset, collate
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import CheckpointError, ConfigError
from ultrashape_cli.evaluation.export import refuse_codes
from ultrashape_cli.files import write_json
from ultrashape_cli.models.convert import gather_weights
from ultrashape_cli.models.dit import RefineDiT
from ultrashape_cli.models.sources import load_networks, resolve_weights
from ultrashape_cli.models.weights import read_metadata
from ultrashape_cli.rendering.cameras import view_set
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.training.build import VALIDATION_COUNTER
from ultrashape_cli.training.build import _items as items_of
from ultrashape_cli.training.curriculum import ImageSizes, Stage
from ultrashape_cli.training.memory.footprint import measure_footprint
from ultrashape_cli.training.memory.strategies import resolve_strategy
from ultrashape_cli.training.objectives.flow import ConditionedDiT, FlowObjective
from ultrashape_cli.training.objectives.tokens import TokenCache
from ultrashape_cli.training.objectives.views import check_views

KEY = "dit.view_embedder.weight"
ADAPTER_KEY = "base_model.model.view_embedder.weight"
SETTINGS = TrainConfig(num_latents=16)
LORA = {"strategy": "lora", "lora_rank": 4, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def posed(ball_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The balls with four views each, and their cameras."""
    root = tmp_path_factory.mktemp("posed") / "balls"
    shutil.copytree(ball_data, root)
    dataset = Dataset(root)
    rows = [camera.to_dict() for camera in view_set(4, size=32)]
    for asset in (*dataset.read_split("train"), *dataset.read_split("val")):
        for view in range(4):
            image = np.zeros((32, 32, 4), np.uint8)
            image[8:24, 8 - view : 24] = (100, 60 * view, 80, 255)
            save_png(image, dataset.views(asset) / f"view_{view:03d}.png")
        write_json(dataset.views(asset) / "cameras.json", {"views": rows})
    return root


def microbatch(data: Path, **options: Any) -> dict[str, Any]:
    items = ShapeDataset(
        Dataset(data),
        [f"ball-{index}" for index in range(4)],
        seed=0,
        surface_points=256,
        image_size=lambda counter: 56,
        **options,
    )
    return collate([items[index, index] for index in range(4)])


def objective(*, frozen: bool, cache: TokenCache | None = None) -> tuple[FlowObjective, Any]:
    """An objective, and the network that it is called with."""
    networks = ball_networks()
    vae, dit, conditioner = networks
    assert vae is not None
    assert dit is not None
    dit.add_view_embedder()
    net: Any = dit if frozen or conditioner is None else ConditionedDiT(dit, conditioner)
    own = conditioner if frozen else None
    made = FlowObjective(vae, own, SETTINGS, params=SMALL.dit, seed=0, tokens=cache)
    return made, net


@pytest.mark.parametrize("frozen", [True, False])
def test_the_front_alone_costs_what_it_did(posed: Path, frozen: bool) -> None:
    loss, net = objective(frozen=frozen)
    dit = net if isinstance(net, RefineDiT) else net.dit
    torch.nn.init.normal_(dit.view_embedder.weight)
    before = loss(net, microbatch(posed, fixed_view=True))
    batch = microbatch(posed, fixed_view=True)
    batch |= {"num_views": torch.ones(4, dtype=torch.long), "camera": torch.zeros(4, 2)}
    assert torch.equal(loss(net, batch).per_sample, before.per_sample)
    several = loss(net, microbatch(posed, views=4, fixed_view=True))
    assert not torch.allclose(several.per_sample, before.per_sample, atol=1e-5)
    assert several.flops > before.flops


@pytest.mark.parametrize("frozen", [True, False])
def test_samples_of_several_views_are_their_own_in_any_company(posed: Path, frozen: bool) -> None:
    loss, net = objective(frozen=frozen)
    dit = net if isinstance(net, RefineDiT) else net.dit
    torch.nn.init.normal_(dit.view_embedder.weight)
    batch = microbatch(posed, views=4)
    counts = batch["num_views"].tolist()
    assert len(set(counts)) > 1
    together = loss(net, batch).per_sample
    first = 0
    for row, count in enumerate(counts):
        own = {
            name: value[first : first + count] if name in ("image", "mask", "camera", "view")
            else value[row : row + 1] if isinstance(value, torch.Tensor) else [value[row]]
            for name, value in batch.items()
        }  # fmt: skip
        assert torch.allclose(loss(net, own).per_sample[0], together[row], atol=1e-5)
        first += count


def test_kept_tokens_serve_every_view(posed: Path, tmp_path: Path) -> None:
    batch = microbatch(posed, views=4, checksums=True)
    cache = TokenCache(tmp_path)
    cold = objective(frozen=True, cache=cache)
    first = cold[0](cold[1], batch).per_sample
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert len(kept) >= len(set(batch["view"].tolist()))
    warm = objective(frozen=True, cache=cache)
    assert torch.equal(warm[0](warm[1], batch).per_sample, first)
    plain = objective(frozen=True)
    assert torch.allclose(plain[0](plain[1], batch).per_sample, first, atol=1e-5)


def test_adapters_keep_the_embedding_and_others_load_it(
    make_run, posed: Path, ushape, tmp_path: Path
) -> None:
    run, _ = make_run(steps=6, views=3, data=str(posed), ema_decay=0.5, **LORA)
    assert train_run(run) == 0
    newest = checkpoints(run)[-1]
    saved = load_file(newest / "adapter_model.safetensors")
    assert saved[ADAPTER_KEY].abs().max() > 0
    config = json.loads((newest / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["view_embedder"]
    assert not any("view_embedder" in name for name in config["target_modules"])
    assert TrainedViews.parse(read_metadata(newest / "adapter_model.safetensors")["views"])
    source = resolve_weights(run.root)
    assert source.views == TrainedViews(3)
    loaded = load_networks(source, components=("dit",)).dit
    assert loaded is not None
    assert loaded.view_embedder is not None
    assert torch.equal(loaded.view_embedder.weight, saved[ADAPTER_KEY])
    target = tmp_path / "out.safetensors"
    result = ushape("weights", "export", run.root, "-o", target)
    assert result.code == 0, result.err
    assert resolve_weights(target).views == TrainedViews(3)
    assert torch.equal(load_file(target)[KEY], saved[ADAPTER_KEY])
    assert gather_weights(target).views == TrainedViews(3)
    assert ushape("weights", "verify", target, "--model", "small").code == 0
    averaged = tmp_path / "averaged.safetensors"
    assert ushape("weights", "export", run.root, "-o", averaged, "--ema").code == 0
    assert not torch.equal(load_file(averaged)[KEY], saved[ADAPTER_KEY])
    codes = tmp_path / "codes.safetensors"
    assert ushape("weights", "quantise", target, codes, "--scheme", "int8").code == 0
    quantised = resolve_weights(codes)
    assert quantised.views == TrainedViews(3)
    small = load_networks(quantised, components=("dit",)).dit
    assert small is not None
    assert torch.equal(small.get_parameter("view_embedder.weight"), saved[ADAPTER_KEY])


def test_forms_without_room_for_views_refuse_them(
    make_run, posed: Path, ushape, tmp_path: Path
) -> None:
    run, _ = make_run(steps=2, views=2, data=str(posed), learning_rate=1e-3)
    train_run(run)
    bundle = tmp_path / "out.pt"
    result = ushape("weights", "export", run.root, "--format", "reference", "-o", bundle)
    assert result.code == 1
    assert "were trained with several views" in result.err
    assert not bundle.exists()
    with pytest.raises(CheckpointError, match="graphs take one image"):
        refuse_codes(resolve_weights(run.root))


def test_a_run_with_views_goes_on_as_if_undisturbed(make_run, posed: Path, stop_after) -> None:
    options = {"steps": 6, "views": 3, "data": str(posed), "learning_rate": 1e-3}
    whole, _ = make_run("whole", **options)
    train_run(whole)
    cut, _ = make_run("cut", **options)
    assert train_run(cut, on_step=stop_after(3)) == 143
    assert train_run(cut) == 0
    assert same(weights(cut), weights(whole))
    assert losses(cut) == losses(whole)
    assert weights(whole)[KEY].abs().max() > 0
    # One view more or less is another run.
    other, _ = make_run("other", **{**options, "views": 2})
    train_run(other)
    assert not same(weights(other), weights(whole))


def test_a_run_with_one_view_leaves_the_embedding_as_it_was(make_run, posed: Path) -> None:
    first, _ = make_run("first", steps=3, views=4, data=str(posed), learning_rate=1e-3)
    train_run(first)
    options = {"steps": 3, "data": str(posed), "learning_rate": 1e-3, "weight_decay": 0.5}
    after, _ = make_run("after", init=str(first.root), **options)
    train_run(after)
    assert torch.equal(weights(after)[KEY], weights(first)[KEY])
    assert not same(weights(after), weights(first))
    assert resolve_weights(after.root).views == TrainedViews(4)


def test_a_dataset_with_one_view_is_refused_by_the_command(
    ushape, ball_data: Path, posed: Path
) -> None:
    def train(data: Path):
        more = ("--set", "train.views=2", "--set", "train.num_latents=16", "--dry-run")
        return ushape("train", "--data", data, "--model", "small", "--profile", "cpu", *more)

    refused = train(ball_data)
    assert refused.code in (1, 2)
    assert "has 1 views, and train.views shows several" in refused.err
    assert "ushape render" in refused.err
    found = train(posed)
    assert found.code == 0, found.err


def test_validation_shows_the_front_alone(make_run, posed: Path) -> None:
    run, config = make_run(steps=1, views=4, data=str(posed), validate_every_steps=1)
    train_run(run)
    assert json.loads(run.metrics.read_text())["val_loss"] > 0
    one = ImageSizes([Stage(0, 16, 56)], 1)
    data = Dataset(posed)
    shown = items_of(config, data, data.read_split("train"), one)
    drawn = items_of(config, data, data.read_split("train"), one, augment=True)
    counters = range(VALIDATION_COUNTER, VALIDATION_COUNTER + 8)
    assert {shown[counter, counter % 4]["view"] for counter in counters} == {0}
    assert max(drawn[counter, counter % 4]["num_views"] for counter in counters) > 1


def test_a_run_counts_the_tokens_of_all_views() -> None:
    def peak(views: int) -> int:
        flags = {
            "profile": "cpu",
            "train.model": "small",
            "train.strategy": "lora",
            "train.num_latents": 16,
            "train.surface_points": 256,
            "train.views": views,
        }
        config = resolve(flags=flags, environ={}).config
        found = measure_footprint(
            config, resolve_strategy(config), checkpoint_blocks=0, accelerator=True
        )
        return found.activation_peak

    assert peak(4) > 1.1 * peak(1)


@pytest.mark.parametrize(
    "settings", [{"stage": "vae"}, {"objective": "distill"}, {"objective": "grpo"}]
)
def test_what_sees_no_views_refuses_them(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"train\.views is for the"):
        check_views(TrainConfig(views=2, **settings))
    check_views(TrainConfig(views=1, **settings))
