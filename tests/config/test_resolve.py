from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
import tomli_w

from ultrashape_cli.config.bounds import POSITIVE, RANGES
from ultrashape_cli.config.models import MODEL_SETTINGS
from ultrashape_cli.config.profiles import PROFILES
from ultrashape_cli.config.resolve import Resolved, _leaf_types, resolve, restore
from ultrashape_cli.config.schema import Config, flatten
from ultrashape_cli.errors import ConfigError

KEY = "train.learning_rate"
"""Set by the model `tiny`, so that all origins but the profile can meet on it."""


def _resolve(**sources) -> Resolved:
    sources.setdefault("environ", {})
    sources["flags"] = {"profile": "cpu", **sources.get("flags", {})}
    return resolve(**sources)


def _problem(**sources) -> str:
    with pytest.raises(ConfigError) as caught:
        _resolve(**sources)
    return caught.value.message


def _toml(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def test_each_source_wins_over_the_one_before_it(tmp_path: Path) -> None:
    file = _toml(tmp_path, "[train]\nlearning_rate = 0.3\n")
    environ = {"USHAPE_TRAIN_LEARNING_RATE": "0.4"}
    layers = [
        ({}, 1e-5, "default"),
        ({"model": "tiny"}, 1e-3, "model tiny"),
        ({"file": file}, 0.3, f"`{file}`"),
        ({"environ": environ}, 0.4, "$USHAPE_TRAIN_LEARNING_RATE"),
        ({"flags": {KEY: 0.5}}, 0.5, "flag"),
        ({"overrides": [f"{KEY}=0.6"]}, 0.6, "--set"),
    ]
    sources: dict = {}
    for source, value, origin in layers:
        sources |= source
        found = _resolve(**sources)
        assert (found.config.train.learning_rate, found.origins[KEY]) == (value, origin)


def test_the_model_wins_over_the_profile() -> None:
    found = _resolve(flags={"profile": "a40"}, model="tiny")
    assert PROFILES["a40"].microbatch != found.config.train.microbatch == 4
    assert found.origins["train.microbatch"] == "model tiny"
    assert found.origins["train.strategy"] == "profile a40"
    assert found.config.train.strategy == "full-8bit"


def test_adapters_learn_faster_unless_the_model_or_the_user_says_otherwise() -> None:
    lora = {"train.strategy": "lora"}
    assert _resolve(flags=lora).config.train.learning_rate == 1e-4
    assert _resolve(flags=lora).origins["train.learning_rate"] == "strategy lora"
    assert _resolve(flags=lora, model="tiny").config.train.learning_rate == 1e-3
    assert _resolve(flags={**lora, "train.learning_rate": 2e-4}).config.train.learning_rate == 2e-4


def test_a_flag_that_is_not_given_changes_nothing() -> None:
    assert _resolve(flags={"seed": None}).origins["seed"] == "default"


def test_every_key_has_an_origin_and_a_row() -> None:
    found = _resolve()
    assert found.origins.keys() == flatten(Config()).keys()
    assert [key for key, _, _ in found.rows()] == list(flatten(Config()))


def test_rows_of_a_section_hold_it_and_the_shared_keys() -> None:
    keys = {key for key, _, _ in _resolve().rows(("split",))}
    assert keys == {
        *("profile", "device", "seed", "split.train", "split.val", "split.test"),
        *("split.group_by", "split.stratify"),
    }


def test_all_problems_are_in_one_message(tmp_path: Path) -> None:
    message = _problem(
        file=_toml(tmp_path, "[train]\nlearning_rte = 1.0\n[render]\nviews = 'many'\n"),
        environ={"USHAPE_TRAIN_STEPS": "-3"},
        flags={"profile": "a4O"},
        overrides=["split.val=2", "seed"],
    )
    for part in (
        "unknown key `train.learning_rte` in `",
        "(did you mean `train.learning_rate`?)",
        "`render.views` in `",
        "`many` is not a whole number",
        "`train.steps` must be above 0, got `-3`",
        "no profile `a4O` (did you mean `a40`",
        "`split.val` must be from 0 to 0.9, got `2.0`",
        "`--set seed` has no `=`",
    ):
        assert part in message
    assert "\n" not in message


def test_an_unknown_model_offers_a_close_one() -> None:
    assert _problem(flags={"train.model": "tinny"}) == "no model `tinny` (did you mean `tiny`?)"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.steps", "1.5"),
        ("train.steps", "true"),
        ("train.steps", ""),
        ("train.clip_norm", "nan"),
        ("train.clip_norm", "inf"),
        ("train.clip_norm", "1" + "0" * 400),
        ("train.clip_norm", "one"),
        ("watertight.keep_cavities", "maybe"),
        ("train.stage", "vit"),
        ("train.strategy", "FULL"),
        ("seed", "-1"),
        ("engine.memory_gib", "0.001"),
        ("engine.memory_gib", "1e300"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_key(key: str, text: str) -> None:
    assert f"`{key}`" in _problem(overrides=[f"{key}={text}"])


@pytest.mark.parametrize(
    "text",
    [
        "[train]\ntrackers = 5\n",
        "[train]\ndata = ['a']\n",
        "[train]\nclip_norm = true\n",
        "[train]\nclip_norm = inf\n",
        "[train]\nclip_norm = 1" + "0" * 400 + "\n",
        "[train.steps]\nx = 1\n",
        "train = 3\n",
        "[[train]]\nsteps = 3\n",
    ],
)
def test_a_toml_value_of_the_wrong_shape_is_refused(tmp_path: Path, text: str) -> None:
    assert "train" in _problem(file=_toml(tmp_path, text))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("train.steps", "1_000", 1000),
        ("train.clip_norm", "5e-1", 0.5),
        ("watertight.keep_cavities", "On", True),
        ("watertight.keep_cavities", "0", False),
        ("train.trackers", "wandb, x", ("wandb", "x")),
        ("train.trackers", "", ()),
        ("render.elevations", "10, -5.5", (10.0, -5.5)),
        ("train.data", "a=b", "a=b"),
    ],
)
def test_text_is_parsed_by_the_type_of_its_key(key: str, text: str, value: object) -> None:
    found = flatten(_resolve(overrides=[f"{key}={text}"]).config)[key]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("content", [b"train = \n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml` is not TOML"):
        _resolve(file=path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        _resolve(file=tmp_path / "absent.toml")


def test_variables_of_the_program_itself_are_no_settings() -> None:
    _resolve(environ={"USHAPE_DEBUG": "1", "USHAPE_NO_PROGRESS": "1", "PATH": "/bin"})
    assert "$USHAPE_STEPS" in _problem(environ={"USHAPE_STEPS": "1"})


def test_no_two_keys_share_a_variable() -> None:
    keys = list(flatten(Config()))
    assert len({key.replace(".", "_") for key in keys}) == len(keys)


def _other(key: str, value: object) -> object:
    """Returns a legal value that is not the default."""
    kind = _leaf_types(Config)[key]
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    names = {"profile": "cpu", "train.model": "tiny", "render.elevations": (10.0, -5.5),
             "render.maps": ("depth", "mask")}  # fmt: skip
    if key in names:
        return names[key]
    low, high = RANGES.get(key, (float("-inf"), float("inf")))
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value - 1 if max(low, 1) <= value - 1 else value + 1
    if isinstance(value, float):
        return value / 2 or min(1.0, (low + high) / 2)
    return value[1:] or ("wandb",) if isinstance(value, tuple) else 'täxt "quoted" \\ \x07'


def test_every_field_survives_toml(tmp_path: Path) -> None:
    values = {key: _other(key, value) for key, value in flatten(Config()).items()}
    assert not {key for key, value in flatten(Config()).items() if values[key] == value}
    tables: dict = {}
    for key, value in values.items():
        section, dot, name = key.rpartition(".")
        (tables.setdefault(section, {}) if dot else tables)[name] = value
    text = tomli_w.dumps(tables)
    tomllib.loads(text)
    found = _resolve(file=_toml(tmp_path, text))
    assert flatten(found.config) == values


def test_a_config_is_restored_from_its_flat_values() -> None:
    config = _resolve(overrides=["train.trackers=a,b", "split.val=0.25"]).config
    values = {key: list(v) if isinstance(v, tuple) else v for key, v in flatten(config).items()}
    assert restore(values) == config


def test_limits_name_existing_numeric_keys_that_their_defaults_keep() -> None:
    defaults = flatten(Config())
    assert defaults.keys() >= POSITIVE | RANGES.keys()
    assert all(defaults[key] > 0 for key in POSITIVE)
    for key, (low, high) in RANGES.items():
        value = defaults[key]
        items = value if isinstance(value, tuple) else (value,)
        assert all(low <= item <= high for item in items)


@pytest.mark.parametrize("model", MODEL_SETTINGS)
@pytest.mark.parametrize("profile", PROFILES)
def test_every_profile_and_model_gives_a_valid_config(profile: str, model: str) -> None:
    found = _resolve(flags={"profile": profile}, model=model).config
    again = _resolve(flags=flatten(found))
    assert again.config == found


def test_every_section_documents_every_field() -> None:
    import ast
    import inspect

    from ultrashape_cli.config import schema

    for item in fields(Config):
        if item.default_factory.__class__ is not type:  # a shared key, no section
            continue
        body = ast.parse(inspect.getsource(item.default_factory)).body[0].body[1:]
        kinds = [type(node).__name__ for node in body if not isinstance(node, ast.FunctionDef)]
        assert kinds == ["AnnAssign", "Expr"] * (len(kinds) // 2), item.name
    assert schema.__doc__
