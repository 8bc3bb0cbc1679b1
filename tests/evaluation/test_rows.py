"""What a row of an evaluation shows its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from shapes import as_mesh

from ultrashape_cli.config.resolve import resolve
from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.errors import AssetError
from ultrashape_cli.evaluation.rows import Asset, held_out_assets, refine_row
from ultrashape_cli.files import write_json
from ultrashape_cli.inference.refiner import Refiner
from ultrashape_cli.meshfiles.load import load_mesh
from ultrashape_cli.meshfiles.save import save_mesh
from ultrashape_cli.models.sources import find_weights
from ultrashape_cli.rendering.cameras import camera_at
from ultrashape_cli.rendering.output import write_views

AROUND = (0, 90, 180, 270)


@pytest.fixture
def asset(tmp_path: Path) -> Asset:
    """A ball seen from four sides, each in a grey of its own."""
    data = Dataset(tmp_path / "data")
    save_mesh(as_mesh(trimesh.creation.icosphere(3, 0.8)), data.mesh("ball"))
    cameras = [camera_at(azimuth, 0, radius=0.8, size=32) for azimuth in AROUND]
    images = [np.full((32, 32, 4), 255, np.uint8) for _ in AROUND]
    for number, image in enumerate(images):
        image[..., :3] = 60 * number
    write_views(data.views("ball"), cameras, images)
    write_json(data.list_path("val"), ["ball"])
    (data.root / "records").mkdir()
    (found,) = held_out_assets(data.root, "val", None, None)
    return found


@pytest.fixture
def shown(ball_weights: Path, monkeypatch: pytest.MonkeyPatch):
    """Refines an asset in a row; returns directions and greys of what the network was shown."""

    def shown(asset: Asset, count: int, **given: object) -> list[tuple[float, int]]:
        resolved = resolve(model="small", environ={}).config
        refine = replace(resolved.refine, tokens=16, surface_points=2000, steps=2,
                         grid_resolution=24)  # fmt: skip
        settings = replace(resolved.evaluate, reference_views=count)
        seen = []
        evaluate = Refiner.evaluate

        def watched(self, prepared, rgba, *more):
            seen.extend((view.azimuth, int(view.rgba[0, 0, 0])) for view in prepared.views)
            assert (rgba is None) == (not prepared.views)
            return evaluate(self, prepared, rgba, *more)

        monkeypatch.setattr(Refiner, "evaluate", watched)
        source = find_weights(ball_weights, None)
        row = refine_row("small", source, refine, settings, torch.device("cpu"), 0, **given)
        made = row.load()(asset, load_mesh(asset.truth))
        assert made.mesh is not None
        return seen

    return shown


def test_several_images_are_shown_evenly_around(asset: Asset, shown) -> None:
    assert shown(asset, 1) == [(0, 0)]
    assert shown(asset, 2) == [(0, 0), (180, 120)]
    assert shown(asset, 4) == [(0, 0), (90, 60), (180, 120), (270, 180)]
    assert shown(asset, 4, blind=True) == []
    other = replace(asset, views=asset.views[1:])
    assert shown(asset, 1, others={"ball": other}) == [(90, 60)]


def test_an_asset_of_too_few_images_is_told(asset: Asset, shown) -> None:
    with pytest.raises(AssetError, match=r"has 4 images, and evaluate\.reference_views asks for 6"):
        shown(asset, 6)
    with pytest.raises(AssetError, match="has no image"):
        shown(replace(asset, views=(), image=None), 1)
