"""The loop: resume, accumulation, freezing, guards."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import load_file
from train_and_read import checkpoints, losses, make_trainer, same, train_run, weights

from ultrashape_cli.errors import AssetError, TrainingError
from ultrashape_cli.runs import complete_checkpoints
from ultrashape_cli.training import worker
from ultrashape_cli.training.objectives.losses import Objective


@pytest.mark.parametrize("stage", ["dit", "vae"])
def test_a_stopped_run_resumes_bitwise(make_run, stage: str, stop_after) -> None:
    straight, _ = make_run("straight", steps=6, stage=stage)
    assert train_run(straight) == 0
    broken, _ = make_run("broken", steps=6, stage=stage)
    assert train_run(broken, on_step=stop_after(3)) == 143
    assert broken.read_status()["state"] == "stopped"
    assert train_run(broken) == 0
    assert same(weights(straight), weights(broken))
    assert losses(straight) == losses(broken)


def test_loader_workers_do_not_change_the_stream(make_run) -> None:
    here, _ = make_run("here", steps=2)
    train_run(here)
    workers, _ = make_run("workers", steps=2, num_workers=1)
    train_run(workers)
    assert losses(here) == losses(workers)


def test_accumulation_takes_the_mean_over_all_samples_of_a_step(make_run) -> None:
    # Tokens are cut to the smallest count of a microbatch, so every ball must fill 16 voxels.
    together, _ = make_run("together", steps=2, microbatch=4, accumulation=1, stage="vae")
    train_run(together)
    apart, _ = make_run("apart", steps=2, microbatch=1, accumulation=4, stage="vae")
    train_run(apart)
    assert losses(apart) == pytest.approx(losses(together), rel=1e-5)
    a, b = weights(together), weights(apart)
    for key in a:
        # Adam divides by the gradient's own size, so rounding moves weights by parts of a step.
        torch.testing.assert_close(a[key], b[key], rtol=0, atol=1e-4)


def test_another_seed_gives_another_stream(make_run) -> None:
    first, _ = make_run("first", steps=1)
    second, _ = make_run("second", steps=1, seed=1)
    train_run(first)
    train_run(second)
    assert losses(first) != losses(second)


def test_the_loss_of_the_vae_falls(make_run) -> None:
    run, _ = make_run(steps=60, stage="vae", learning_rate=3e-3)
    train_run(run)
    found = losses(run)
    assert sum(found[-5:]) < 0.8 * sum(found[:5])


def test_activation_checkpointing_changes_no_loss(make_run) -> None:
    plain, _ = make_run("plain", steps=2)
    train_run(plain)
    checkpointed, _ = make_run("checkpointed", steps=2, activation_checkpointing="all")
    train_run(checkpointed)
    assert losses(plain) == pytest.approx(losses(checkpointed), rel=1e-6)


def test_grouped_experts_change_no_loss(make_run) -> None:
    loop, _ = make_run("loop", steps=2)
    train_run(loop)
    grouped, _ = make_run("grouped", steps=2, expert_dispatch="grouped")
    train_run(grouped)
    assert losses(loop) == pytest.approx(losses(grouped), rel=1e-5)


def _poison(trainer, steps: set[int]) -> None:
    """Makes the loss of some steps (from 0) not a number."""
    original = trainer.objective

    class Poisoned(Objective):
        def __call__(self, net, batch):
            losses = original(net, batch)
            factor = math.nan if trainer.step in steps else 1.0
            return losses._replace(total=losses.total * factor)

    trainer.objective = Poisoned()


def test_a_non_finite_gradient_skips_the_step_and_is_counted(make_run) -> None:
    run, config = make_run(steps=3, save_every_steps=1)
    trainer = make_trainer(config, run)
    _poison(trainer, {1})
    assert trainer.train(lambda: False)
    weights = [load_file(path / "model.safetensors") for path in checkpoints(run)]
    assert same(weights[0], weights[1])
    assert not same(weights[1], weights[2])
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert [line["skipped_steps"] for line in lines] == [0, 1, 1]


def test_many_bad_steps_in_a_row_stop_the_run_and_keep_the_batch(make_run) -> None:
    run, config = make_run(steps=9, max_bad_steps=3)
    trainer = make_trainer(config, run)
    before = {k: v.clone() for k, v in trainer.component.state_dict().items()}
    _poison(trainer, set(range(9)))
    with pytest.raises(TrainingError, match="at step 3: 3 steps in a row were skipped"):
        trainer.train(lambda: False)
    assert same(before, trainer.component.state_dict())
    saved = load_file(run.root / "bad-batch-rank0.safetensors")
    assert saved["0.surface"].shape == (2, 256, 7)


def test_a_broken_asset_stops_with_its_id(make_run, ball_data: Path) -> None:
    run, _ = make_run(steps=4)
    sample = ball_data / "samples" / "ball-0.npz"
    whole = sample.read_bytes()
    sample.write_bytes(whole[:500])
    try:
        with pytest.raises(AssetError, match="asset `ball-0`"):
            train_run(run)
    finally:
        sample.write_bytes(whole)
    assert run.read_status()["state"] == "failed"
    assert "ball-0" in run.log().read_text()


def test_a_run_of_bad_steps_only_has_failed(make_run) -> None:
    run, config = make_run(steps=3, max_bad_steps=10)
    trainer = make_trainer(config, run)
    _poison(trainer, {0, 1, 2})
    with pytest.raises(TrainingError, match="none of the 3 steps"):
        trainer.train(lambda: False)
    assert checkpoints(run) == []


def test_a_step_says_where_its_time_went_and_what_each_timestep_lost(make_run) -> None:
    run, _ = make_run(steps=3, microbatch=4)
    train_run(run)
    line = json.loads(run.metrics.read_text().splitlines()[-1])
    parts = ("data_wait", "encode", "forward", "backward", "offload", "update")
    assert all(line[name] >= 0 for name in parts)
    assert 0.5 * line["seconds"] < sum(line[name] for name in parts) <= line["seconds"]
    assert line["samples_per_second"] == pytest.approx(4 / line["seconds"])
    assert line["host_memory_gib"] > 0.05
    bins = [line[f"loss_t{index}"] for index in range(10)]
    assert any(value is None for value in bins)
    assert any(value is not None for value in bins)
    assert line["grad_norm_clipped"] == min(line["grad_norm"], 1.0)
    # Nobody knows the peak of this CPU.
    assert "mfu" not in line


def test_old_checkpoints_are_pruned(make_run) -> None:
    run, _ = make_run(steps=5, save_every_steps=1, keep_checkpoints=2)
    train_run(run)
    names = [path.name for path in complete_checkpoints(run.checkpoints)]
    assert names == ["step-00000004", "step-00000005"]


def test_a_smaller_world_than_asked_for_is_refused(make_run, monkeypatch) -> None:
    _, config = make_run(processes=2)
    monkeypatch.setattr(worker, "Accelerator", lambda **options: _single())
    with pytest.raises(TrainingError, match="asked for 2 processes, got 1"):
        worker.start_accelerator(config)


def _single() -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    return Accelerator(cpu=True)


def test_bad_samples_are_left_out_and_counted_when_asked(make_run, ball_data: Path) -> None:
    run, _ = make_run(steps=4, microbatch=1, accumulation=2, skip_bad=True)
    sample = ball_data / "samples" / "ball-0.npz"
    whole = sample.read_bytes()
    sample.write_bytes(whole[:500])
    try:
        assert train_run(run) == 0
    finally:
        sample.write_bytes(whole)
    last = json.loads(run.metrics.read_text().splitlines()[-1])
    # Eight samples of four assets in two epochs: one asset is left out twice.
    assert (last["samples"], last["bad_samples"]) == (8, 2)
    assert "left out: asset `ball-0`" in run.log().read_text()


def test_cached_latents_give_the_loss_of_encoding_again(make_run, monkeypatch) -> None:
    from ultrashape_cli.models.vae import ShapeVAE

    cold, _ = make_run("cold", steps=4, latent_variants=1)
    train_run(cold)
    warm, _ = make_run("warm", steps=4, latent_variants=1)
    shutil.copytree(cold.root / "latents", warm.root / "latents")

    def refuse(*arguments, **options):
        raise AssertionError("the cache was not read")

    monkeypatch.setattr(ShapeVAE, "encode", refuse)
    train_run(warm)
    assert losses(cold) == losses(warm)


def test_kept_image_tokens_give_the_loss_of_computing_them_again(make_run, monkeypatch) -> None:
    from ultrashape_cli.models.conditioner import ImageConditioner

    settings = {"token_cache": True, "train_conditioner": False}
    cold, _ = make_run("cold", steps=4, **settings)
    train_run(cold)
    warm, _ = make_run("warm", steps=4, **settings)
    shutil.copytree(cold.root / "tokens", warm.root / "tokens")

    def refuse(*arguments, **options):
        raise AssertionError("the cache was not read")

    monkeypatch.setattr(ImageConditioner, "encode", refuse)
    train_run(warm)
    assert losses(cold) == losses(warm)


def test_running_out_of_memory_names_plan_and_way_out(make_run, monkeypatch) -> None:
    run, _ = make_run(steps=2)

    def exhaust(self):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")

    monkeypatch.setattr("ultrashape_cli.training.trainer.Trainer.train_step", exhaust)
    with pytest.raises(TrainingError, match=r"planned .* GiB \(weights .*Tried to alloc") as error:
        train_run(run)
    assert "train.activation_checkpointing=all" in str(error.value.hint)
    assert run.read_status()["state"] == "failed"


def test_the_rate_follows_the_global_batch_by_its_root(make_run) -> None:
    run, config = make_run(steps=100, microbatch=4, accumulation=4, lr_reference_batch=4)
    trainer = make_trainer(config, run)
    trainer.step = 50
    plain = dataclasses.replace(trainer.config, lr_reference_batch=0)
    scaled = trainer.learning_rate()
    trainer.config = plain
    assert scaled == pytest.approx(2 * trainer.learning_rate())


def test_a_spike_is_skipped_when_asked(make_run) -> None:
    from ultrashape_cli.training.guards import StepGuard

    guard = StepGuard(max_bad_steps=10, spike_factor=3.0)
    assert all(guard.allows(1.0, 1.0) for _ in range(30))
    assert not guard.allows(1.0, 3.5)
    assert guard.allows(1.0, 2.5)
    assert guard.skipped == 1


def test_tokens_follow_the_curriculum(make_run) -> None:
    run, config = make_run(steps=3, curriculum="0:8@28,2:16@42")
    trainer = make_trainer(config, run)
    seen = []
    original = trainer.objective.__class__.__call__

    class Recorder(trainer.objective.__class__):
        def __call__(self, net, batch, t=None):
            seen.append((self.num_latents, batch["image"].shape[-1]))
            return original(self, net, batch, t)

    trainer.objective.__class__ = Recorder
    trainer.train(lambda: False)
    assert seen == [(8, 28), (8, 28), (16, 42)]


def test_samples_of_unequal_token_counts_share_a_microbatch(make_run) -> None:
    # The smallest ball fills fewer than 400 voxels of its points, the largest more.
    together, _ = make_run("together", steps=1, microbatch=4, num_latents=250)
    apart, _ = make_run("apart", steps=1, microbatch=1, accumulation=4, num_latents=250)
    train_run(together)
    train_run(apart)
    assert losses(apart) == pytest.approx(losses(together), rel=1e-5)


def test_voxels_of_the_coarse_mesh_are_used_when_asked(make_run) -> None:
    plain, config = make_run("plain", steps=1)
    trainer = make_trainer(config, plain)
    batch = trainer.feed.draw().microbatches[0]
    trainer.objective.settings = dataclasses.replace(config.train, voxel_coarse=1.0)
    # Seven points: as many tokens, whatever the clean surface has.
    batch["coarse"] = torch.linspace(-0.9, 0.9, 7)[:, None].expand(2, 7, 3)
    draw = torch.Generator().manual_seed(0)
    moments = trainer.objective._moments(batch, 0, draw, noisy=True)
    assert len(moments.voxels) == 7
    assert len(trainer.objective._moments(batch, 0, draw, noisy=False).voxels) == 16


def test_variables_meant_for_accelerate_change_no_loss(make_run, monkeypatch) -> None:
    plain, _ = make_run("plain", steps=1)
    train_run(plain)
    for name, value in {"MIXED_PRECISION": "bf16", "USE_DEEPSPEED": "true"}.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()
    other, _ = make_run("other", steps=1)
    train_run(other)
    assert losses(plain) == losses(other)
