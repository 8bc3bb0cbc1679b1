import math

import pytest
import torch
from golden_data import assert_near, load_golden

from ultrashape_cli.models.embeddings import (
    apply_rope,
    apply_rotation,
    check_rope_head_dim,
    fourier_features,
    resize_position_embedding,
    rope_3d,
    rotation,
    timestep_embedding,
)


def test_rope_matches_the_recording():
    golden = load_golden("embeddings")
    widths = [int(k.rsplit(".", 1)[1]) for k in golden.tensors if k.startswith("rope.cos.")]
    assert widths
    for width in widths:
        cos, sin = rope_3d(golden["rope.idx"], width)
        assert_near(cos, golden[f"rope.cos.{width}"])
        assert_near(sin, golden[f"rope.sin.{width}"])


def test_head_widths_without_rope_match_the_recording():
    for width in load_golden("embeddings").info["head_dims_without_valid_rope"]:
        with pytest.raises(ValueError, match="rotary"):
            check_rope_head_dim(width)


def test_rope_scores_depend_on_the_offset_only():
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 48, generator=generator)
    at = torch.tensor([[[3, 50, 7]]]), torch.tensor([[[9, 20, 7]]])
    scores = []
    for move in (0, 11):
        rotated = [apply_rope(x, *rope_3d(p + move, 48)) for x, p in zip((q, k), at, strict=True)]
        scores.append((rotated[0] * rotated[1]).sum())
    assert torch.allclose(scores[0], scores[1], atol=1e-4)


def test_time_embedding_matches_the_recording():
    golden = load_golden("embeddings")
    for name in [k for k in golden.tensors if k.startswith("time.emb")]:
        width = int(name.removeprefix("time.emb"))
        assert_near(timestep_embedding(golden["time.t"], width), golden[name])


def test_fourier_features_match_the_recording():
    golden = load_golden("embeddings")
    points = golden["fourier.p"]
    num_freqs = (golden["fourier.out"].shape[1] // 3 - 1) // 2
    assert_near(fourier_features(points, num_freqs), golden["fourier.out"])
    with_pi = fourier_features(points, num_freqs, include_pi=True)
    # sin and cos of angles near 400 differ by the rounding of pi * 2^7 in fp32.
    assert_near(with_pi, golden["fourier.out_pi"], 2e-4)


def test_position_embeddings_are_resized_as_the_weights_expect():
    golden = load_golden("embeddings")
    expected = golden["dino_pos.out73_pinned"]
    side = math.isqrt(expected.shape[1] - 1)
    resized = resize_position_embedding(golden["dino_pos.in"], (side, side))
    assert_near(resized, expected)
    other = golden["dino_pos.out73_size"]
    assert (resized - expected).abs().max() < 0.1 * (resized - other).abs().max()


def test_position_embeddings_of_the_same_grid_are_untouched():
    embedding = torch.randn(1, 17, 4)
    assert resize_position_embedding(embedding, (4, 4)) is embedding


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fast_rotation_equals_the_written_out_one(dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 48, generator=generator).to(dtype)
    factors = rope_3d(torch.randint(128, (2, 7, 3), generator=generator), 48)
    fast = apply_rotation(x, *rotation(*factors)).to(dtype)
    tolerance = 1e-6 if dtype == torch.float32 else 0.03  # a unit of bf16 at 4
    assert torch.allclose(fast, apply_rope(x, *factors), atol=tolerance)
