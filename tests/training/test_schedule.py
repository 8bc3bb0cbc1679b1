import pytest
from golden_data import load_golden

from ultrashape_cli.training.schedule import warmup_cosine


def test_multipliers_match_the_recording():
    info = load_golden("lr_schedule").info
    params = info["params"]
    for max_steps, values in info["by_max_decay_steps"].items():
        for step, expected in values.items():
            actual = warmup_cosine(
                int(step),
                warmup_steps=params["warm_up_steps"],
                max_steps=int(max_steps),
                start=params["f_start"],
                minimum=params["f_min"],
                maximum=params["f_max"],
            )
            assert actual == pytest.approx(expected, rel=1e-9)


def test_a_run_shorter_than_its_warmup_stays_in_it():
    assert warmup_cosine(5, warmup_steps=10, max_steps=8) == pytest.approx(0.5, rel=1e-3)
    assert warmup_cosine(10, warmup_steps=10, max_steps=10) == pytest.approx(1e-3)
