import numpy as np
import pytest
import torch
from golden_data import PIXEL, golden_file, load_golden
from PIL import Image

from ultrashape_cli.data import images
from ultrashape_cli.data.images import (
    load_rgba,
    preprocess_inference,
    preprocess_training,
    recentre,
    resize_area,
    resize_cubic,
    resize_nearest,
)
from ultrashape_cli.errors import ImageError


def golden_rgba() -> np.ndarray:
    return load_rgba(golden_file(load_golden("image_preprocess").info["input"]))


def worst(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape
    return (actual - expected).abs().max().item()


def golden_cases(prefix: str) -> list[str]:
    golden = load_golden("image_preprocess")
    return sorted({k.rsplit(".", 1)[0] for k in golden.tensors if k.startswith(prefix)})


def case_size(case: str) -> int:
    return int(case.rsplit("size", 1)[1].split("_")[0])


def test_inference_images_match_the_recording():
    golden, rgba = load_golden("image_preprocess"), golden_rgba()
    for case in golden_cases("infer.size") + golden_cases("infer_from_path."):
        border = float(case.split("border")[1]) if "border" in case else 0.15
        image, mask = preprocess_inference(rgba, case_size(case), border)
        assert worst(image, golden[f"{case}.image"][0]) <= PIXEL, case
        if f"{case}.mask" in golden:
            expected = golden[f"{case}.mask"][0]
            assert worst(mask, expected) <= PIXEL, case
            assert torch.equal(mask == -1, expected == -1)


def test_images_without_alpha_match_the_recording():
    golden, rgba = load_golden("image_preprocess"), golden_rgba().copy()
    rgba[..., 3] = 255
    for case in golden_cases("infer_rgb_without_alpha."):
        image, mask = preprocess_inference(rgba, case_size(case))
        assert worst(image, golden[f"{case}.image"][0]) <= PIXEL
        assert worst(mask, golden[f"{case}.mask"][0]) <= PIXEL


def test_recentred_canvas_matches_the_recording():
    golden = load_golden("image_preprocess")
    image, mask = recentre(golden_rgba(), 0.15)
    for actual, name in ((image, "rgb"), (mask, "mask")):
        expected = golden[f"infer.recentered_{name}_u8"].numpy()
        assert np.abs(actual.astype(int) - expected).max() <= 2


def test_training_images_match_the_recording():
    golden, rgba = load_golden("image_preprocess"), golden_rgba()
    for case in golden_cases("train."):
        image, mask = preprocess_training(rgba, case_size(case))
        assert worst(image, golden[f"{case}.image"]) <= PIXEL, case
        assert worst(mask, golden[f"{case}.mask"]) <= PIXEL, case


def test_halving_an_area_averages_four_pixels():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 4), dtype=np.uint8)
    expected = image.reshape(4, 2, 3, 2, 4).mean(axis=(1, 3))
    assert np.abs(resize_area(image, 4, 3) - expected).max() <= 0.5


def test_doubling_an_area_repeats_pixels():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    assert np.array_equal(resize_area(image, 6, 8), image.repeat(2, 0).repeat(2, 1))


def test_resizing_keeps_a_constant_image():
    image = np.full((13, 9, 3), 77, np.uint8)
    for resize in (resize_area, resize_cubic, resize_nearest):
        for shape in ((5, 4), (31, 20), (5, 20)):
            assert (resize(image, *shape) == 77).all()


def object_image(mode: str = "RGBA") -> Image.Image:
    pixels = np.zeros((20, 30, 4), np.uint8)
    pixels[5:15, 8:26] = (200, 100, 50, 255)
    return Image.fromarray(pixels).convert(mode)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.png"), ("L", "a.png"), ("LA", "a.png"), ("P", "a.gif"), ("CMYK", "a.jpg"),
     ("RGBA", "a.webp"), ("1", "a.png")],
)  # fmt: skip
def test_every_colour_mode_becomes_rgba(tmp_path, mode, name):
    path = tmp_path / name
    object_image(mode).save(path)
    assert load_rgba(path).shape == (20, 30, 4)


def test_sixteen_bit_grey_is_scaled(tmp_path):
    path = tmp_path / "grey.png"
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(path)
    assert (load_rgba(path) == (128, 128, 128, 255)).all()


def test_the_first_frame_of_an_animation_is_used(tmp_path):
    path = tmp_path / "moving.gif"
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (load_rgba(path)[0, 0] == (255, 0, 0, 255)).all()


def test_the_rotation_tag_is_applied(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(path, exif=exif)
    assert load_rgba(path).shape == (30, 20, 4)


def test_large_images_are_reduced(tmp_path):
    path = tmp_path / "large.png"
    Image.new("RGB", (5000, 50), "red").save(path)
    assert load_rgba(path).shape == (41, 4096, 4)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_files_that_are_no_image_are_refused(tmp_path, content):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bad\.png"):
        load_rgba(path)


def test_a_truncated_image_is_refused(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ImageError, match="not a readable image"):
        load_rgba(path)


def test_missing_and_transparent_images_are_refused(tmp_path):
    with pytest.raises(ImageError, match="no such image"):
        load_rgba(tmp_path / "none.png")
    path = tmp_path / "clear.png"
    Image.new("RGBA", (8, 8)).save(path)
    with pytest.raises(ImageError, match="transparent"):
        load_rgba(path)


def test_objects_of_a_single_row_are_refused():
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[3, 2:6] = 255
    with pytest.raises(ImageError, match="shows nothing"):
        preprocess_inference(rgba, 16)


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("photo.heic", b"\0\0\0\x18ftypheic", "HEIC"),
        ("sky.exr", b"\x76\x2f\x31\x01", "OpenEXR"),
        ("sky.hdr", b"#?RADIANCE\n", "Radiance HDR"),
        ("logo.svg", b"<?xml version='1.0'?><svg/>", "SVG"),
    ],
)
def test_pictures_of_other_kinds_are_named(tmp_path, name, head, kind):
    (tmp_path / name).write_bytes(head + bytes(64))
    with pytest.raises(ImageError, match=f"is {kind}, which is not read") as error:
        load_rgba(tmp_path / name)
    assert "PNG or JPEG" in error.value.hint


def test_twelve_bits_in_sixteen_are_not_dark(tmp_path):
    Image.fromarray(np.full((4, 4), 4095, np.uint16)).save(tmp_path / "a.png")
    assert load_rgba(tmp_path / "a.png")[0, 0, 0] == 255


def test_our_limit_of_pixels_decides_and_not_that_of_the_library(tmp_path, monkeypatch):
    Image.new("L", (200, 200)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert load_rgba(tmp_path / "a.png").shape == (200, 200, 4)
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(images, "MAX_PIXELS", 39_999)
    with pytest.raises(ImageError, match="200 x 200 pixels are more than 39,999"):
        load_rgba(tmp_path / "a.png")
