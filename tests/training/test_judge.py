from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ultrashape_cli.data.layout import Dataset
from ultrashape_cli.rendering.output import save_png
from ultrashape_cli.training.judge import read_picture


@dataclass(frozen=True)
class Packed(Dataset):
    """A dataset whose files lie elsewhere until they are asked for."""

    elsewhere: Path = Path()

    def view_files(self, asset_id: str) -> list[Path]:
        return [self.views(asset_id) / f"view_{view:03d}.png" for view in range(2)]

    def has(self, path: Path) -> bool:
        return (self.elsewhere / path.relative_to(self.root)).is_file()

    def fetched(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.elsewhere / path.relative_to(self.root), path)
        return path


def test_cameras_of_a_packed_dataset_are_brought_with_the_view(tmp_path: Path) -> None:
    whole = Dataset(tmp_path / "whole")
    folder = whole.views("a")
    folder.mkdir(parents=True)
    for view in range(2):
        save_png(np.full((8, 8, 4), 255, np.uint8), folder / f"view_{view:03d}.png")
    packed = Packed(tmp_path / "packed", whole.root)
    # Without cameras every view counts as the front.
    assert read_picture(packed, "a", 1)[1:] == (0.0, 0.0)
    rows = [{"azimuth": 0}, {"azimuth": 90, "elevation": 20}]
    (folder / "cameras.json").write_text(json.dumps({"views": rows}))
    assert read_picture(packed, "a", 1)[1:] == (90.0, 20.0)
