from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from ultrashape_cli.data.background import image_warnings, load_reference
from ultrashape_cli.errors import ImageError, UsageError


def picture(folder: Path, pixels: np.ndarray) -> Path:
    path = folder / "image.png"
    Image.fromarray(pixels).save(path)
    return path


def on_white() -> np.ndarray:
    """A dark square on white, with a white spot inside."""
    pixels = np.full((40, 40, 3), 252, np.uint8)
    pixels[10:30, 10:30] = (120, 40, 40)
    pixels[18:22, 18:22] = 255
    return pixels


def test_transparency_of_the_file_is_used_whatever_the_setting(tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[5:15, 5:15] = 255
    path = picture(tmp_path, pixels)
    for background in ("auto", "keep", "white", "remove"):
        assert np.array_equal(load_reference(path, background), pixels)  # type: ignore[arg-type]


def test_white_is_cut_where_it_touches_the_border(tmp_path: Path) -> None:
    rgba = load_reference(picture(tmp_path, on_white()), "white")
    inside = np.zeros((40, 40), bool)
    inside[10:30, 10:30] = True
    assert np.array_equal(rgba[..., 3] > 0, inside)


def test_keep_takes_every_pixel(tmp_path: Path) -> None:
    assert (load_reference(picture(tmp_path, on_white()), "keep")[..., 3] == 255).all()


@pytest.mark.parametrize(("grey", "reason"), [(255, "white all over"), (10, "no white border")])
def test_an_image_without_white_border_or_object_is_named(
    tmp_path: Path, grey: int, reason: str
) -> None:
    path = picture(tmp_path, np.full((20, 20, 3), grey, np.uint8))
    with pytest.raises(ImageError, match=reason) as caught:
        load_reference(path, "white")
    assert str(path) in caught.value.message


def test_rembg_is_used_where_it_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def remove(image: Image.Image) -> Image.Image:
        cut = image.convert("RGBA")
        cut.putalpha(Image.fromarray(np.uint8(np.asarray(image)[..., 1] < 100) * 255))
        return cut

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(remove=remove))
    rgba = load_reference(picture(tmp_path, on_white()), "auto")
    assert 0 < (rgba[..., 3] > 0).sum() < 40 * 40

    def fail(image: Image.Image) -> None:
        raise OSError("no network")

    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(remove=fail))
    with pytest.raises(ImageError, match="no network"):
        load_reference(picture(tmp_path, on_white()), "remove")


def test_without_rembg_the_user_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rembg", None)
    with pytest.raises(UsageError, match="what is its background"):
        load_reference(picture(tmp_path, on_white()), "auto")


def _disc(size: int = 64, alpha: int = 255) -> np.ndarray:
    """A red disc on nothing."""
    rows, cols = np.mgrid[:size, :size] - (size - 1) / 2
    inside = np.hypot(rows, cols) < size / 4
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[inside] = (200, 60, 40, alpha)
    return rgba


def _saved(rgba: np.ndarray, path: Path) -> Path:
    Image.fromarray(rgba).save(path)
    return path


def test_dust_of_a_cutting_tool_is_background(tmp_path: Path) -> None:
    dusty = _disc()
    dusty[::7, ::5, 3] = np.maximum(dusty[::7, ::5, 3], 2)
    clean = load_reference(_saved(_disc(), tmp_path / "clean.png"), "auto")
    found = load_reference(_saved(dusty, tmp_path / "dusty.png"), "auto")
    assert np.array_equal(found[..., 3], clean[..., 3])


def test_a_nearly_opaque_picture_is_asked_about_like_an_opaque_one(tmp_path: Path) -> None:
    rgba = _disc()
    rgba[rgba[..., 3] == 0] = (255, 255, 255, 255)
    rgba[3, :, 3] = 254
    path = _saved(rgba, tmp_path / "a.png")
    found = load_reference(path, "white")
    assert (found[..., 3] > 0).sum() == (_disc()[..., 3] > 0).sum()
    assert (load_reference(path, "keep")[..., 3] == 255).all()


def test_what_looks_wrong_with_a_picture_is_told(tmp_path: Path) -> None:
    disc = load_reference(_saved(_disc(), tmp_path / "disc.png"), "auto")
    assert image_warnings(Path("a.png"), disc) == []
    inverted = disc.copy()
    inverted[..., 3] = 255 - inverted[..., 3]
    white = disc.copy()
    white[..., :3] = 254
    little = np.pad(disc, ((200, 200), (200, 200), (0, 0)))
    faint = disc.copy()
    faint[..., 3] //= 3
    cases = ((inverted, "inverted"), (white, "is white"), (little, "cut away"), (faint, "faintly"))
    for rgba, words in cases:
        (text,) = image_warnings(Path("a.png"), rgba)
        assert words in text
