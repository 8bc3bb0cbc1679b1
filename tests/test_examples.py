"""The example scripts run as their first lines say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from ultrashape_cli.config.resolve import resolve

EXAMPLES = Path(__file__).parent.parent / "examples"


def _run(script: str, *arguments: object) -> None:
    command = [sys.executable, EXAMPLES / script, *arguments]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def test_figurines_are_made_coarsened_and_previewed(tmp_path: Path) -> None:
    _run("make_figurines.py", tmp_path, "--count", 1, "--resolution", 32)
    figurine = tmp_path / "figurine_000.ply"
    _run("coarsen.py", figurine, tmp_path / "coarse.glb")
    _run("preview.py", tmp_path / "preview.png", tmp_path / "coarse.glb", figurine, "--size", 64)
    with Image.open(tmp_path / "preview.png") as image:
        assert image.size == (128, 64)
        left, right = image.crop((0, 0, 64, 64)), image.crop((64, 0, 128, 64))
        assert left.getchannel("A").getbbox()
        assert right.getchannel("A").getbbox()
        assert left.tobytes() != right.tobytes()


def test_the_quickstarts_settings_are_valid() -> None:
    config = resolve(file=EXAMPLES / "tiny.toml", environ={}).config
    assert config.train.model == "tiny"
    assert config.sample.contents == "full"


def test_the_quickstart_script_is_well_formed() -> None:
    subprocess.run(["bash", "-n", EXAMPLES / "quickstart.sh"], check=True)
