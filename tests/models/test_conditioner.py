import subprocess
import sys

import torch
from golden_data import Golden, assert_near, conditioner_params, load_golden, load_strictly

from ultrashape_cli.models.conditioner import (
    ImageConditioner,
    draw_drops,
    drop_condition,
    pack_tokens,
    packed_lengths,
)
from ultrashape_cli.models.registry import build, model_spec


def golden_conditioner() -> tuple[Golden, ImageConditioner]:
    golden = load_golden("conditioner_tiny")
    conditioner = ImageConditioner(conditioner_params(golden.info))
    load_strictly(conditioner, golden)
    return golden, conditioner


def test_tokens_without_mask_match_the_recording():
    golden, conditioner = golden_conditioner()
    tokens, lengths = conditioner.encode(golden["image"])
    assert_near(tokens, golden["tokens_nomask"])
    assert lengths == [tokens.shape[1]] * len(tokens)


def test_masked_tokens_match_the_recording():
    golden, conditioner = golden_conditioner()
    tokens, lengths = conditioner.encode(golden["image"], golden["mask"])
    assert_near(tokens, golden["tokens_masked"])
    assert lengths == golden.info["valid_tokens"] == packed_lengths(tokens)


def test_dropped_and_unconditional_tokens_match_the_recording():
    golden, conditioner = golden_conditioner()
    tokens, _ = conditioner.encode(golden["image"], golden["mask"])
    assert_near(drop_condition(tokens, golden.info["dropped_rows"]), golden["tokens_dropped"])
    empty = conditioner.unconditional(len(tokens), tokens.shape[1])
    assert torch.equal(empty, golden["uncond"])
    default = conditioner.unconditional(len(tokens))
    assert list(default.shape) == golden.info["uncond_shape_default"]


def test_images_of_other_shapes_are_fitted():
    conditioner = build(model_spec("tiny"), device="cpu", components=("conditioner",)).conditioner
    side = conditioner.params.image_size
    image, mask = torch.zeros(1, 3, 150, 200), torch.full((1, 1, 150, 200), -1.0)
    mask[..., 60:80, 90:110] = 1.0
    tokens, lengths = conditioner.encode(image, mask)
    assert tokens.shape == (1, lengths[0], conditioner.params.width)
    assert 2 <= lengths[0] < (side // conditioner.params.patch_size) ** 2


def test_a_mask_without_object_keeps_the_class_token():
    conditioner = build(model_spec("tiny"), device="cpu", components=("conditioner",)).conditioner
    tokens, lengths = conditioner.encode(torch.zeros(2, 3, 112, 112), -torch.ones(2, 1, 112, 112))
    assert lengths == [1, 1]
    assert tokens.shape[1] == 1


def test_packing_keeps_the_order():
    tokens = torch.arange(10.0).view(2, 5, 1).expand(2, 5, 3)
    keep = torch.tensor([[1, 0, 1, 0, 1], [1, 0, 0, 0, 1]], dtype=torch.bool)
    packed, lengths = pack_tokens(tokens, keep)
    assert packed[..., 0].tolist() == [[0, 2, 4], [5, 9, -1]]
    assert lengths == [3, 2]


def test_drops_follow_the_generator_and_the_probability():
    drops = draw_drops(4000, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(drops, draw_drops(4000, 0.1, torch.Generator().manual_seed(0)))
    assert 0.08 < drops.float().mean() < 0.12


def test_the_conditioner_is_frozen():
    conditioner = build(model_spec("tiny"), device="cpu", components=("conditioner",)).conditioner
    assert not any(p.requires_grad for p in conditioner.parameters())
    assert not conditioner.encode(torch.zeros(1, 3, 112, 112))[0].requires_grad


def test_building_needs_neither_a_download_nor_the_library_of_the_reference():
    code = (
        "import sys\n"
        "from ultrashape_cli.models.registry import build, model_spec\n"
        "build(model_spec('ultrashape-1.0'))\n"
        "sys.exit(len({'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
