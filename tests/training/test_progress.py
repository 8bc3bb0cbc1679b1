"""The plain line about a step."""

from __future__ import annotations

from ultrashape_cli.training.progress import Progress, describe

VALUES = {"loss_smooth": 0.25, "learning_rate": 1e-4, "grad_norm": 0.5, "seconds": 2.0}


def test_a_line_says_what_a_step_was_worth() -> None:
    plain = describe(Progress(3, 10, VALUES))
    assert plain == "step 3/10  loss 0.2500  lr 1.00e-04  grad 0.500  2.00 s/step"
    rewarded = describe(Progress(3, 10, {**VALUES, "reward_chamfer": 3.25, "val_loss": 0.5}))
    assert rewarded == f"{plain}  reward_chamfer 3.250  val 0.5000"
