from __future__ import annotations

from pathlib import Path

import pytest

from ultrashape_cli.config.coarse import SUFFIXES, filled, read_coarse
from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.errors import ConfigError
from ultrashape_cli.meshfiles.load import MESH_SUFFIXES

EXAMPLES = Path(__file__).parents[2] / "examples" / "coarse" / "generators.toml"
GOOD = '[coarse.mine]\ncommand = "make --image {image} --out {out}"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "name", ["hunyuan3d", "trellis2", "triposg", "step1x", "hosted", "from-text"]
)
def test_the_examples_are_understood(name: str) -> None:
    command = read_coarse(EXAMPLES, name)
    assert any("{out}" in part for part in command.command)
    assert command.reads_image
    assert not command.reads_text
    resolve(file=EXAMPLES, environ={})


def test_a_command_may_write_what_is_read_from_one_file() -> None:
    assert set(SUFFIXES) == set(MESH_SUFFIXES) - {".gltf"}


def test_values_stay_within_their_arguments(tmp_path: Path) -> None:
    command = read_coarse(written(tmp_path, GOOD), "mine")
    values = {"image": "a b;rm -rf {out}.png", "out": "/tmp/x y.glb"}
    assert filled(command.command, values) == [
        "make", "--image", "a b;rm -rf {out}.png", "--out", "/tmp/x y.glb"
    ]  # fmt: skip


def test_commands_do_not_disturb_the_settings(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "[refine]\nsteps = 7\n")
    assert resolve(file=path, environ={}).config.refine.steps == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[coarse.mine]\ncomand = 'x {out}'", r"unknown key `coarse.mine.comand` .*`command`\?"),
        ("[coarse.mine]\ntimeout_seconds = 3", "has no `command`"),
        ("[coarse.mine]\ncommand = 'make {image}'", "`{out}` is missing"),
        ("[coarse.mine]\ncommand = 'make {img} {out}'", "unknown placeholder `{img}`"),
        ("[coarse.mine]\ncommand = 'make \"{out}'", "cannot be read: No closing quotation"),
        ("[coarse.mine]\ncommand = 3", "neither a text nor a list"),
        (GOOD + "timeout_seconds = 0", "must be above 0"),
        (GOOD + "image_command = 'draw {out}'", "has no `{text}`"),
        (GOOD + "image_command = 'draw {image} {text} {out}'", "`{image}` is none yet"),
        (GOOD + "env = { A = 3 }", "holds texts"),
        (GOOD + "env = { 'A=B' = 'c' }", "cannot be a variable"),
        (GOOD + "suffix = 'glb'", "is one of .glb .obj .*, got `glb`"),
        (GOOD + "suffix = '/../x.glb'", "is one of .glb .obj"),
        (GOOD + "cwd = 3", "is no folder"),
        ("[coarse.mine]\ncommand = 'copy old.glb {out}'", "neither `{image}` nor `{text}`"),
        ("[coarse.mine]\ncommand = ''", "it is empty"),
        ("[coarse.mine]\ncommand = 'a {image}'\nimage_command = 3", "missing.*neither a text"),
        ('[coarse.mine]\ncommand = "a\\u0000 {image} {out}"', "a zero byte"),
        (GOOD + "up = 'x'", "is not one of y, z, auto"),
        ("[coarse.hull]\ncommand = 'x {out}'", "this name is taken"),
        ("[coarse]\ncommand = 'x {out}'", "holds tables"),
    ],
)
def test_what_is_wrong_is_told_with_its_key(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=told):
        read_coarse(path, "mine")
    with pytest.raises(ConfigError, match=told):
        resolve(file=path, environ={})


def test_an_unknown_name_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no `\[coarse.mime\]`; there are hull, mine") as caught:
        read_coarse(written(tmp_path, GOOD), "mime")
    assert "`mine`" in str(caught.value.hint)
