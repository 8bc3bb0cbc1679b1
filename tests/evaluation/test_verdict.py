"""What a comparison is called, and that its table fits a terminal."""

from __future__ import annotations

import pytest

from ultrashape_cli.evaluation.evaluate import Evaluation, summary
from ultrashape_cli.evaluation.verdict import judge, show_mean

BETTER = {"f_score@0.01": (0.9, 0.8), "normal_consistency": (0.99, 0.9), "volume_iou": (0.9, 0.8)}


@pytest.mark.parametrize(
    ("means", "good", "text"),
    [
        (BETTER, True, "better than the input on all 3 measures"),
        (
            {**BETTER, "chamfer_l1": (0.33, 0.01)},
            False,
            "better than the input on 3 of 4 measures; Chamfer-L1 worse by 33x",
        ),
        (
            {"f_score@0.01": (0.2, 0.8), "chamfer_l1": (0.025, 0.01), "volume_iou": (0.98, 1.0)},
            False,
            "better than the input on none of 3 measures; Chamfer-L1 worse by 2.5x; "
            "F-score@0.01 worse by 75 %; volume IoU worse by 2 %",
        ),
        (
            {"volume_iou": (1.0, 1.0), "chamfer_l1": (0.1, 0.0)},
            False,
            "better than the input on none of 2 measures; Chamfer-L1 worse (from 0 to 0.1); "
            "no clear difference in volume IoU",
        ),
    ],
)
def test_a_verdict_says_where_it_is_better_and_by_how_much_worse(means, good, text) -> None:
    verdict = judge(means, "the input")
    assert (verdict.good, verdict.text) == (good, text)


def test_a_verdict_is_not_good_where_meshes_are_lost_or_all_may_be_chance() -> None:
    lost = judge(BETTER, "x", lost="no surface on 2 of 3 assets")
    assert (lost.good, lost.text.endswith("; no surface on 2 of 3 assets")) == (False, True)
    chance = judge(BETTER, "x", unclear=BETTER)
    assert (chance.good, chance.worse, len(chance.unclear)) == (False, (), 3)
    assert judge({"seconds": (1.0, 2.0)}, "x") is None
    few = judge(BETTER, "x", pairs=5)
    assert (few.good, few.text.endswith("; 5 assets are too few to say, it takes 6")) == (
        False,
        True,
    )
    assert judge(BETTER, "x", pairs=6).good


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"mean": 0.01234, "low": 0.0112, "high": 0.0136}, "0.0123±0.0012"),
        ({"mean": 0.5, "low": None, "high": None}, "0.500"),
        ({"mean": 123.4}, "123"),
        ({"mean": 0.0, "low": 0.0, "high": 0.0}, "0.000±0.000"),
        ({"mean": 2e-9}, "0.00000"),
    ],
)
def test_a_mean_is_shown_with_half_its_interval(value, text: str) -> None:
    assert show_mean(value) == text


def _evaluation(mine: float) -> Evaluation:
    rows = {"coarse": 0.04, "vae mine": 0.02, "mine": mine}
    scores = {
        row: {asset: {"surface": 1.0, "chamfer_l1": value + place / 1000}
              for place, asset in enumerate("abc")}
        for row, value in rows.items()
    }  # fmt: skip
    return Evaluation(list(rows), dict.fromkeys(rows, "note"), list("abc"), scores, [])


def test_the_round_trip_is_a_ceiling_only_where_nothing_is_better() -> None:
    notes = [
        {row["name"]: row["note"] for row in summary(_evaluation(mine), {})["rows"]}["vae mine"]
        for mine in (0.03, 0.01)
    ]
    assert notes == ["note, the ceiling", "note, no ceiling here: mine is better in Chamfer-L1"]


def test_a_comparison_carries_its_verdict() -> None:
    result = _evaluation(0.03)
    result.scores["mine"]["a"] = {"surface": 0.0}
    (found,) = summary(result, {"mine": ["coarse"]})["comparisons"]
    assert found["verdict"]["better"] == ("chamfer_l1",)
    assert found["verdict"]["text"] == (
        "better than the input on all 1 measures; no surface on 1 of 3 assets; "
        "2 assets are too few to say, it takes 6"
    )
