import pytest
import torch
from golden_data import (
    TRAJECTORY,
    Golden,
    assert_near,
    dit_params,
    load_golden,
    load_strictly,
)

from ultrashape_cli.diffusion.flow import flow_loss, interpolate, velocity_target
from ultrashape_cli.models.conditioner import packed_lengths
from ultrashape_cli.models.dit import DiTParams, RefineDiT
from ultrashape_cli.models.moe import MoEFeedForward
from ultrashape_cli.models.registry import build, model_spec


def golden_dit() -> tuple[Golden, RefineDiT]:
    golden = load_golden("dit_tiny")
    dit = RefineDiT(dit_params(golden.info["config"]))
    load_strictly(dit, golden)
    return golden, dit


def run(golden: Golden, dit: RefineDiT, context: str):
    tokens = golden[f"ctx_{context}"]
    return dit(golden["x"], golden["t"], tokens, golden["voxel_idx"], packed_lengths(tokens))


def tiny_inputs(batch: int = 2, tokens: int = 12, context: int = 6) -> tuple:
    params = model_spec("tiny").dit
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(batch, tokens, params.in_channels, generator=generator),
        torch.rand(batch, generator=generator),
        torch.randn(batch, context, params.context_channels, generator=generator),
        torch.randint(params.voxel_resolution, (batch, tokens, 3), generator=generator),
    )


def tiny_dit() -> RefineDiT:
    torch.manual_seed(0)
    return build(model_spec("tiny"), device="cpu", components=("dit",)).dit


@pytest.mark.parametrize("context", ["full", "padded", "zero"])
def test_evaluation_matches_the_recording(context):
    golden, dit = golden_dit()
    with torch.no_grad():
        assert_near(run(golden, dit.eval(), context).velocity, golden[f"out_eval_{context}"])


def test_blocks_match_the_recording():
    golden, dit = golden_dit()
    outputs = {}
    for index, block in enumerate(dit.blocks):
        block.register_forward_hook(lambda _m, _i, out, i=index: outputs.update({i: out[0]}))
    run(golden, dit.eval(), "full")
    assert_near(dit.t_embedder(golden["t"]), golden["t_emb"])
    for index, output in outputs.items():
        assert_near(output, golden[f"block_out_eval_full.{index}"])


@pytest.mark.parametrize("context", ["full", "padded"])
def test_training_loss_and_gradients_match_the_recording(context):
    golden, dit = golden_dit()
    out = run(golden, dit.train(), context)
    assert_near(out.velocity, golden[f"out_train_{context}"])
    assert_near(out.aux_losses, golden[f"aux_losses_{context}"])
    loss = flow_loss(out.velocity, golden["target"]).mean()
    assert_near(loss.detach(), golden[f"loss_train_{context}"])
    (loss + out.aux_losses.sum()).backward()
    for name, expected in golden.with_prefix(f"grad_{context}.").items():
        assert_near(dit.get_parameter(name).grad, expected)
    norms = golden.info["param_grad_norms"][context]
    assert norms.keys() == dict(dit.named_parameters()).keys()
    largest = max(norm for norm in norms.values() if norm is not None)
    for name, norm in norms.items():
        gradient = dit.get_parameter(name).grad
        actual = 0.0 if gradient is None else gradient.norm().item()
        # Experts that no token chose have no gradient in the reference and zeros here.
        assert actual == pytest.approx(norm or 0.0, rel=1e-3, abs=1e-6 * largest), name


def test_flow_matching_loss_matches_the_recording():
    golden, dit = golden_dit()
    data, noise = golden["fm.x1_data"], golden["fm.x0_noise"]
    x = interpolate(data, noise, golden["t"])
    assert_near(x, golden["fm.xt"], 1e-6)
    tokens = golden["ctx_padded"]  # recorded with the padded context
    lengths = packed_lengths(tokens)
    velocity = dit(x, golden["t"], tokens, golden["voxel_idx"], lengths).velocity.detach()
    assert_near(velocity, golden["fm.pred"])
    losses = flow_loss(velocity, velocity_target(data, noise))
    assert_near(losses, golden["fm.loss_per_sample"])
    assert_near(losses.mean(), golden["fm.loss"])


def test_fixed_step_trajectory_matches_the_recording():
    golden, dit = golden_dit()
    expected = golden["fm.ode_euler6_trajectory"]
    times = torch.linspace(0, 1, len(expected))
    x = golden["fm.x0_noise"]
    for index, state in enumerate(expected):
        assert_near(x, state, TRAJECTORY)
        if index + 1 < len(expected):
            t = times[index].expand(len(x))
            with torch.no_grad():
                v = dit(x, t, golden["ctx_full"], golden["voxel_idx"]).velocity
            x = x + (times[index + 1] - times[index]) * v


def test_no_context_equals_a_zero_context():
    dit, (x, t, context, voxels) = tiny_dit(), tiny_inputs()
    with torch.no_grad():
        fast = dit(x, t, None, voxels).velocity
        twin = dit(x, t, torch.zeros_like(context), voxels).velocity
    assert torch.allclose(fast, twin, atol=1e-6)


def test_padding_does_not_change_the_result():
    dit, (x, t, context, voxels) = tiny_dit(), tiny_inputs()
    padded = torch.cat([context, torch.full_like(context, -1.0)], dim=1)
    padded[0, 4:] = -1.0
    with torch.no_grad():
        batched = dit(x, t, padded, voxels, [4, 6]).velocity
        alone = [
            dit(x[b : b + 1], t[b : b + 1], context[b : b + 1, :n], voxels[b : b + 1]).velocity
            for b, n in enumerate((4, 6))
        ]
    assert torch.allclose(batched, torch.cat(alone), atol=1e-5)


def test_token_order_carries_no_information():
    dit, (x, t, context, voxels) = tiny_dit(), tiny_inputs()
    order = torch.randperm(x.shape[1])
    with torch.no_grad():
        straight = dit(x, t, context, voxels).velocity[:, order]
        shuffled = dit(x[:, order], t, context, voxels[:, order]).velocity
    assert torch.allclose(straight, shuffled, atol=1e-5)


@pytest.mark.parametrize("blocks", [True, 2])
def test_checkpointing_changes_no_gradient(blocks):
    dit, inputs = tiny_dit(), tiny_inputs()
    gradients = []
    for dit.checkpoint_blocks in (0, blocks):
        dit.zero_grad()
        out = dit(*inputs)
        (out.velocity.square().mean() + out.aux_losses.sum()).backward()
        gradients.append([p.grad.clone() for p in dit.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_recomputed_block_routes_as_its_forward_pass_did(monkeypatch):
    dit, inputs = tiny_dit(), tiny_inputs()
    plain, calls, gradients = MoEFeedForward.route, [], []

    def wavering(layer, tokens):
        # Kernels round differently, so that a token between two experts may change its mind.
        scores, weights, chosen = plain(layer, tokens)
        calls.append(layer)
        return scores, weights, (chosen + 1) % scores.shape[1]

    for blocks in (0, len(dit.blocks)):
        dit.checkpoint_blocks = blocks
        dit.zero_grad()
        out = dit(*inputs)
        with monkeypatch.context() as patch:
            patch.setattr(MoEFeedForward, "route", wavering)
            (out.velocity.square().mean() + out.aux_losses.sum()).backward()
        gradients.append([p.grad.clone() for p in dit.parameters()])
    assert len(calls) == dit.params.num_moe_layers
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert all(block.moe._routes is None for block in dit.blocks if block.routed)


def test_gradient_reaches_every_parameter():
    dit = tiny_dit()
    out = dit(*tiny_inputs(tokens=200))
    (out.velocity.square().mean() + out.aux_losses.sum()).backward()
    assert [n for n, p in dit.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_overfits_one_batch():
    dit, (data, t, context, voxels) = tiny_dit(), tiny_inputs()
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    x, target = interpolate(data, noise, t), velocity_target(data, noise)
    optimizer = torch.optim.AdamW(dit.parameters(), lr=2e-3)
    losses = []
    for _ in range(80):
        out = dit(x, t, context, voxels)
        loss = flow_loss(out.velocity, target).mean()
        optimizer.zero_grad()
        (loss + out.aux_losses.sum()).backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


@pytest.mark.parametrize("head_dim", [16, 40, 64, 88, 112, 136])
def test_head_widths_without_valid_positions_are_refused(head_dim):
    with pytest.raises(ValueError, match="rotary"):
        DiTParams(width=2 * head_dim, num_heads=2)


def test_misshapen_inputs_are_named():
    dit, (x, t, context, voxels) = tiny_dit(), tiny_inputs()
    with pytest.raises(ValueError, match="voxel indices must be"):
        dit(x, t, context, voxels[:, :-1])
    with pytest.raises(ValueError, match=r"lie in 0\.\.31"):
        dit(x, t, context, voxels + 32)
    with pytest.raises(ValueError, match="context must be"):
        dit(x, t, context[..., 1:], voxels)
    with pytest.raises(ValueError, match="lengths"):
        dit(x, t, context, voxels, [0, 3])


def test_bfloat16_autocast_stays_close_to_fp32():
    dit, inputs = tiny_dit(), tiny_inputs()
    with torch.no_grad():
        exact = dit(*inputs).velocity
        with torch.autocast("cpu", torch.bfloat16):
            rounded = dit(*inputs).velocity
    # bf16 keeps 8 bits; routing may flip for single tokens, so compare the mean.
    assert (exact - rounded).abs().mean() < 0.05 * exact.abs().mean()
