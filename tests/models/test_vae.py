from dataclasses import replace

import pytest
import torch
from golden_data import (
    Golden,
    assert_near,
    load_golden,
    load_strictly,
    vae_params,
)

from ultrashape_cli.models.registry import build, model_spec
from ultrashape_cli.models.vae import ShapeVAE
from ultrashape_cli.models.voxels import jitter_queries, voxel_centres, voxel_queries
from ultrashape_cli.models.weights import load_into, read_state_dict


def golden_vae(name: str) -> tuple[Golden, ShapeVAE]:
    golden = load_golden(name)
    vae = ShapeVAE(vae_params(golden.info["config"]))
    load_strictly(vae, golden)
    return golden, vae


def test_encoder_matches_the_recording():
    golden, vae = golden_vae("vae_tiny")
    centres = voxel_centres(golden["voxel_idx"], vae.params.voxel_resolution)
    assert_near(centres, golden["query_centers"], 1e-6)
    assert_near(vae.encoder(golden["surface"], centres), golden["encoder_out"])
    posterior = vae.encode(golden["surface"], centres)
    assert_near(posterior.mean, golden["mean"])
    assert_near(posterior.logvar, golden["logvar"])
    assert_near(posterior.kl(), golden["kl"])


def test_decoder_matches_the_recording():
    golden, vae = golden_vae("vae_tiny")
    features = vae.decode(golden["mean"])
    assert_near(features, golden["decoded"])
    assert_near(vae.query_field(features, golden["query_points"]), golden["logits"])


def test_field_of_one_shape_equals_the_batched_query():
    golden, vae = golden_vae("vae_tiny")
    features = vae.decode(golden["mean"])
    field = vae.field(features[:1])
    assert_near(field(golden["query_points"][0]), golden["logits"][0])


def test_training_loss_and_gradients_match_the_recording():
    golden, vae = golden_vae("vae_jitter_tiny")
    posterior = vae.encode(golden["surface"], golden["query_points_after_jitter"])
    assert_near(posterior.mean, golden["mean"])
    samples = torch.cat([golden[f"in.sup_{n}"] for n in ("near_uniform", "near_sharp", "space")], 1)
    features = vae.decode(posterior.sample(golden["posterior_eps"]))
    field = vae.query_field(features, samples[..., :3])
    error = field + samples[..., 3]  # the field is minus the signed distance
    data_loss = error.square().mean() + error.abs().mean()
    kl = posterior.kl().mean()
    weights = golden.info["loss"]
    loss = weights["lambda_logits"] * data_loss + weights["lambda_kl"] * kl
    assert_near(loss.detach(), golden["loss"])
    loss.backward()
    gradients = golden.with_prefix("grad.")
    assert gradients
    for name, expected in gradients.items():
        assert_near(vae.get_parameter(name).grad, expected)


def test_more_points_than_the_limit_are_thinned_by_the_generator():
    vae = build(model_spec("tiny"), device="cpu", components=("vae",)).vae
    limit = vae.params.num_latents * vae.params.downsample_ratio
    surface = torch.rand(1, limit + 100, 7) - 0.5
    queries = torch.zeros(1, 4, 3)
    means = [vae.encode(surface, queries, torch.Generator().manual_seed(s)).mean for s in (0, 0, 1)]
    assert torch.equal(means[0], means[1])
    assert not torch.equal(means[0], means[2])


def test_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    vae = build(model_spec("tiny"), device="cpu", components=("vae",)).vae
    surface = torch.rand(2, 200, 7) * 2 - 1
    generator = torch.Generator().manual_seed(0)
    queries, _ = voxel_queries(surface, vae.params.voxel_resolution, 20, generator)
    posterior = vae.encode(surface, queries)
    features = vae.decode(posterior.sample(torch.randn(posterior.mean.shape)))
    loss = vae.query_field(features, torch.rand(2, 50, 3)).square().mean() + posterior.kl().sum()
    loss.backward()
    without = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.any()]
    # Keys read one token's norm bias alike, which a softmax cannot see.
    assert [n for n in without if not n.endswith("k_norm.bias")] == []


def test_left_out_parts_have_no_weights():
    spec = model_spec("tiny")
    whole = set(build(spec).vae.state_dict())
    for part, other in (("encoder", "decoder"), ("decoder", "encoder")):
        vae = build(spec, vae_parts=(part,)).vae
        rest = {k for k in whole if k.startswith(vae.absent_prefixes)}
        assert set(vae.state_dict()) == whole - rest
        assert rest == set(build(spec, vae_parts=(other,)).vae.state_dict())


def test_jitter_queries_stay_within_half_a_voxel_of_a_surface_point():
    surface = torch.rand(2, 300, 7) * 2 - 1
    queries = jitter_queries(surface, 32, 40, torch.Generator().manual_seed(3))
    offset = (queries[:, :, None] - surface[:, None, :, :3]).abs().amax(-1).amin(-1)
    assert offset.max() <= 1 / 32
    again = jitter_queries(surface, 32, 40, torch.Generator().manual_seed(3))
    assert torch.equal(queries, again)


def test_a_field_decoder_without_norms_and_of_less_width_works():
    spec = model_spec("tiny").vae
    vae = ShapeVAE(replace(spec, field_norms=False, field_downsample=2))
    keys = {k.removeprefix("geo_decoder.") for k in vae.state_dict() if k.startswith("geo_decoder")}
    assert not any("norm" in key or "ln_post" in key for key in keys)
    assert vae.geo_decoder.latents_proj.weight.shape == (spec.width // 2, spec.width)
    assert vae.geo_decoder.output_proj.weight.shape == (1, spec.width // 2)
    points = torch.rand(1, 50, 3)
    features = vae.decode(torch.randn(1, 9, spec.latent_channels))
    values = vae.query_field(features, points)
    values.square().sum().backward()
    assert all(p.grad is not None for p in vae.geo_decoder.parameters())
    assert torch.allclose(vae.field(features)(points[0]), values[0], atol=1e-6)
    with pytest.raises(ValueError, match="heads"):
        replace(spec, field_downsample=4)


def test_an_input_projection_shared_by_points_and_queries_is_split(tmp_path):
    torch.manual_seed(0)
    vae = build(model_spec("tiny"), device="cpu", components=("vae",)).vae
    surface, queries = torch.rand(1, 80, 7), torch.rand(1, 10, 3)
    state = vae.state_dict()
    shared = state.pop("encoder.input_proj_kv.weight"), state.pop("encoder.input_proj_kv.bias")
    for name in ("weight", "bias"):
        del state[f"encoder.input_proj_q.{name}"]
    state["encoder.input_proj.weight"], state["encoder.input_proj.bias"] = shared
    torch.save({"vae": state}, tmp_path / "old.pt")
    converted = build(model_spec("tiny"), components=("vae",)).vae
    load_into(converted, read_state_dict(tmp_path / "old.pt")["vae"], "old.pt")
    width = vae.encoder.input_proj_q.weight.shape[1]
    # Queries whose normal and label are zero see the shared projection of their position.
    with torch.no_grad():
        vae.encoder.input_proj_q.weight.copy_(shared[0][:, :width])
        vae.encoder.input_proj_q.bias.copy_(shared[1])
        expected = vae.encode(surface, queries).mean
        assert torch.equal(converted.encode(surface, queries).mean, expected)
