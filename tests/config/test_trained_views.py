"""How weights that were trained with several views are shown them."""

from __future__ import annotations

import pytest

from ultrashape_cli.config.resolve import Resolved, resolve
from ultrashape_cli.config.trained_views import TrainedViews, for_views
from ultrashape_cli.errors import ConfigError


def settings(*overrides: str) -> Resolved:
    return resolve(flags={"profile": "cpu"}, overrides=overrides, environ={})


@pytest.mark.parametrize(
    "said",
    [
        *(None, 3, "no", "[]", '{"most": 1}', {"most": 4}),
        {"most": "4", "embedding": "azimuth-elevation"},
        {"most": 4, "embedding": "other"},
    ],
)
def test_what_says_nothing_of_use_is_nothing(said: object) -> None:
    assert TrainedViews.parse(said) is None


def test_a_record_says_what_it_was_made_of() -> None:
    views = TrainedViews(4)
    assert TrainedViews.parse(views.as_dict()) == views
    assert TrainedViews.parse(views.metadata()["views"]) == views


def test_weights_with_views_are_shown_them_at_once() -> None:
    found = for_views(settings(), TrainedViews(4))
    assert (found.config.refine.view_mode, found.config.refine.max_views) == ("trained", 4)
    assert found.origins["refine.view_mode"] == "weights trained with views"
    fewer = for_views(settings("refine.max_views=2"), TrainedViews(4))
    assert fewer.config.refine.max_views == 2
    other = for_views(settings("refine.view_mode=mean"), TrainedViews(4))
    assert (other.config.refine.view_mode, other.config.refine.max_views) == ("mean", 6)
    plain = settings()
    assert for_views(plain, None) is plain


@pytest.mark.parametrize(
    ("views", "override", "message"),
    [
        (None, "refine.view_mode=trained", "needs weights that were trained with several views"),
        (TrainedViews(4), "refine.max_views=5", "more than the 4 views"),
    ],
)
def test_what_the_weights_do_not_know_is_refused(
    views: TrainedViews | None, override: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        for_views(settings(override), views)
    assert caught.value.hint is not None
    assert "--view-mode spatial" in caught.value.hint
