"""Token counts and image sizes by step."""

import pytest

from ultrashape_cli.errors import ConfigError
from ultrashape_cli.training.curriculum import ImageSizes, Stage, parse_curriculum, stage_at


def test_stages_follow_the_step() -> None:
    stages = parse_curriculum(
        ["0:4096@518", "100:8192@1022"], num_latents=1, image_size=14
    )  # fmt: skip
    assert stages == [Stage(0, 4096, 518), Stage(100, 8192, 1022)]
    assert [stage_at(stages, step).num_latents for step in (0, 99, 100, 10**6)] == [
        *(4096, 4096, 8192, 8192)
    ]


def test_the_plain_sizes_come_before_the_first_stage() -> None:
    stages = parse_curriculum(["5:20@28"], num_latents=10, image_size=14)
    sizes = ImageSizes(stages, samples_per_step=4)
    assert [sizes(counter) for counter in (0, 19, 20)] == [14, 14, 28]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["4096@518"], "is not STEP:TOKENS@PIXELS"),
        (["9:5@14", "9:6@14"], "steps must rise"),
        (["0:5@15"], "multiples of 14"),
        (["0:0@14"], "tokens above 0"),
    ],
)
def test_bad_stages_are_refused(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_curriculum(texts, num_latents=1, image_size=14)
