"""`ushape refine` with weights that were trained with several views."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ball_networks import ball_networks

from ultrashape_cli.config.trained_views import TrainedViews
from ultrashape_cli.geometry.mesh import Mesh
from ultrashape_cli.geometry.normalize import fit_frame
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.models.registry import model_spec
from ultrashape_cli.models.weights import write_safetensors
from ultrashape_cli.rendering.cameras import bounding_radius, camera_at
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.rendering.renderer import render_views
from ultrashape_cli.rendering.scene import Scene


@pytest.fixture(scope="module")
def pictures(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """front.png, back.png and right.png of the mesh of `inputs`, and weights for three views."""
    folder = tmp_path_factory.mktemp("trained")
    mesh = load_mesh(inputs / "mesh.ply")
    placed = Mesh(fit_frame(mesh).to_normalised(mesh.vertices), mesh.faces)
    for name, azimuth in (("front", 0), ("right", 90), ("back", 180)):
        camera = camera_at(azimuth, 0, radius=bounding_radius(placed), size=128)
        save_png(next(iter(render_views(Scene(placed), [camera]))), folder / f"{name}.png")
    networks = ball_networks(model_spec("tiny"))
    assert networks.dit is not None
    networks.dit.add_view_embedder()
    weight = networks.dit.get_parameter("view_embedder.weight")
    weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    said = {"model": "tiny", **TrainedViews(3).metadata()}
    write_safetensors(folder / "weights.safetensors", networks._asdict(), said)
    return folder


@pytest.fixture
def shown(refine, pictures: Path, tmp_path: Path) -> Callable:
    """Refines with some sides: `shown("front", "back")` returns mesh and record."""

    def call(*sides: str, more: tuple[object, ...] = (), plain: bool = False):
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.ply"
        views = [part for side in sides[1:] for part in ("--view", f"{side}={pictures / side}.png")]
        weights = () if plain else ("--checkpoint", pictures / "weights.safetensors")
        arguments = (*views, *weights, "--set", "refine.guidance_scale=2", "-o", out, *more)
        result = refine(*arguments, image=pictures / f"{sides[0]}.png")
        assert result.code == 0, result.err
        return load_mesh(out), json.loads(out.with_name(f"{out.name}.json").read_text())

    return call


@pytest.mark.slow
def test_all_views_take_one_pass(shown) -> None:
    several, made = shown("front", "back", "right", more=("--set", "refine.max_views=2"))
    assert made["settings"]["view_mode"] == "trained"
    assert sorted(view["share"] for view in made["result"]["views"]) == [0, 1, 1]
    alone, before = shown("front")
    assert before["settings"]["max_views"] == 3
    # With and without the images, however many there are.
    assert made["result"]["passes"] == before["result"]["passes"]
    assert not np.array_equal(several.vertices, alone.vertices)
    # One image is what it was to weights without views.
    without, _ = shown("front", plain=True)
    assert np.array_equal(alone.vertices, without.vertices)
    assert np.array_equal(alone.faces, without.faces)


def test_a_sweep_goes_from_one_mode_to_the_other(refine, pictures: Path, tmp_path: Path) -> None:
    more = ("--view", f"back={pictures / 'back.png'}", "--checkpoint",
            pictures / "weights.safetensors")  # fmt: skip
    out = tmp_path / "swept"
    swept = refine(*more, "--sweep", "view_mode=spatial,trained", "-o", out,
                   "--set", "refine.guidance_scale=2",
                   image=pictures / "front.png")  # fmt: skip
    assert swept.code == 0, swept.err
    found = [json.loads(path.read_text()) for path in out.glob("*.glb.json")]
    modes = {made["settings"]["view_mode"]: made["result"] for made in found}
    shares = {mode: [view["share"] for view in made["views"]] for mode, made in modes.items()}
    assert shares["trained"] == [1, 1]
    assert sum(shares["spatial"]) == pytest.approx(1, abs=1e-3)
    # Three passes where one view more than the first is blended, two where both are shown.
    assert modes["spatial"]["passes"] * 2 == modes["trained"]["passes"] * 3


@pytest.mark.parametrize(
    ("own", "setting", "told"),
    [
        (False, "refine.view_mode=trained", "needs weights that were trained with several views"),
        (True, "refine.max_views=5", "more than the 3 views that the weights were trained with"),
        (True, "refine.backend=aoti", "graphs of one image"),
    ],
)
def test_what_the_weights_cannot_is_told_before_the_work(
    refine, pictures: Path, tmp_path: Path, own: bool, setting: str, told: str
) -> None:
    weights = ("--checkpoint", pictures / "weights.safetensors") if own else ()
    out = tmp_path / "out.glb"
    more = (*weights, "--view", f"back={pictures / 'back.png'}", "--set", setting, "-o", out)
    result = refine(*more, "--profile", "cpu", image=pictures / "front.png")
    assert result.code == 2
    assert told in result.err
    assert "--view-mode spatial" in " ".join(result.err.split())
    assert not out.exists()
