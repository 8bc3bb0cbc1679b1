"""Colours of files: what is there, what is damaged, what is too large."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from ultrashape_cli.errors import MeshError
from ultrashape_cli.meshfiles.appearance import Appearance, load_appearance
from ultrashape_cli.meshfiles.load import load_mesh

SQUARE = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]]
UV = [[0, 0], [1, 0], [1, 1], [0, 1.0]]


def picture(size: int = 8, mode: str = "RGB") -> Image.Image:
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[: size // 2] = (255, 0, 0)
    pixels[size // 2 :] = (0, 0, 255)
    return Image.fromarray(pixels).convert(mode)


def write_obj(folder: Path, mtl: str | None = "map_Kd t.png", uv=UV) -> Path:
    lines = ["mtllib a.mtl", *(f"v {x} {y} {z}" for x, y, z in SQUARE)]
    lines += [f"vt {u} {v}" for u, v in uv] + ["usemtl m", "f 1/1 2/2 3/3", "f 1/1 3/3 4/4"]
    (folder / "a.obj").write_text("\n".join(lines) + "\n")
    if mtl is not None:
        (folder / "a.mtl").write_text(f"newmtl m\n{mtl}\n")
    return folder / "a.obj"


def write_glb(path: Path, **material) -> Path:
    pbr = trimesh.visual.material.PBRMaterial(**material)
    visual = trimesh.visual.TextureVisuals(uv=np.array(UV), material=pbr)
    faces = [[0, 1, 2], [0, 2, 3]]
    trimesh.Trimesh(SQUARE, faces, visual=visual, process=False).export(path)
    return path


def only(appearance: Appearance | None):
    assert appearance is not None
    used = {int(k) for k in appearance.material}
    assert len(used) == 1
    return appearance.materials[used.pop()]


def test_a_texture_of_an_obj_keeps_its_corners(tmp_path: Path) -> None:
    picture().save(tmp_path / "t.png")
    appearance = load_appearance(write_obj(tmp_path))
    material = only(appearance)
    assert material.texels.shape == (8, 8, 4)
    assert material.colour == (1, 1, 1, 1)
    assert appearance.problems == []
    corner = appearance.uv.reshape(-1, 2), appearance.mesh.triangles.reshape(-1, 3)[:, :2]
    assert corner[0] == pytest.approx(corner[1])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_pictures_of_any_mode_are_read(tmp_path: Path, mode: str) -> None:
    image = picture(8, "L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 30000, np.uint16))
    name = "t.tif" if mode in ("CMYK",) else "t.png"
    image.save(tmp_path / name)
    assert only(load_appearance(write_obj(tmp_path, f"map_Kd {name}"))).texels.shape == (8, 8, 4)


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "outside"])
def test_a_damaged_texture_is_named_and_the_surface_stays_clay(tmp_path: Path, damage) -> None:
    name = "../../t.png" if damage == "outside" else "t.png"
    if damage == "text":
        (tmp_path / "t.png").write_text("no picture")
    if damage == "truncated":
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "t.png")
        (tmp_path / "t.png").write_bytes((tmp_path / "t.png").read_bytes()[:3000])
    appearance = load_appearance(write_obj(tmp_path, f"map_Kd {name}"))
    assert only(appearance).colour is None
    assert len(appearance.problems) == 1
    assert "texture left out" in appearance.problems[0]


def test_a_corrupt_picture_inside_a_glb_is_named(tmp_path: Path) -> None:
    path = write_glb(tmp_path / "a.glb", baseColorTexture=picture(64))
    data = path.read_bytes()
    at = data.index(b"\x89PNG")
    path.write_bytes(data[:at] + b"XXXX" + data[at + 4 :])
    appearance = load_appearance(path)
    assert appearance.problems == ["texture left out: `image 0` is no picture that can be read"]


def test_an_enormous_texture_is_refused_and_a_large_one_reduced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (5000, 300), (9, 9, 9)).save(tmp_path / "t.png")
    texels = only(load_appearance(write_obj(tmp_path))).texels
    assert max(texels.shape) <= 2048
    assert (texels[..., :3] == 9).all()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    appearance = load_appearance(write_obj(tmp_path))
    assert only(appearance).texels is None
    assert "more than 89 million pixels" in appearance.problems[0]


def test_many_textures_share_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ultrashape_cli.meshfiles.textures._MAX_TEXELS", 2 * 16 * 16)
    scene = trimesh.Scene()
    for number in range(2):
        pbr = trimesh.visual.material.PBRMaterial(baseColorTexture=picture(64 + number))
        visual = trimesh.visual.TextureVisuals(uv=np.array(UV), material=pbr)
        scene.add_geometry(trimesh.Trimesh(SQUARE, [[0, 1, 2], [0, 2, 3]], visual=visual))
    scene.export(tmp_path / "a.glb")
    sizes = [m.texels.shape for m in load_appearance(tmp_path / "a.glb").materials if m.colour]
    assert len(sizes) == 2
    assert all(max(size) <= 16 for size in sizes)


def test_colours_without_a_texture(tmp_path: Path) -> None:
    assert only(load_appearance(write_obj(tmp_path, "Kd 1 0 0"))).colour == (1, 0, 0, 1)
    assert load_appearance(write_obj(tmp_path, "illum 2")) is None
    missing = load_appearance(write_obj(tmp_path, "illum 2").with_name("a.obj"))
    assert missing is None
    material = only(load_appearance(write_glb(tmp_path / "a.glb", baseColorFactor=[0, 1, 0, 1.0])))
    assert material.colour == pytest.approx((0, 1, 0, 1))
    # A material without a base colour is white, by the specification.
    assert only(load_appearance(write_glb(tmp_path / "b.glb", name="plain"))).colour == (1,) * 4


def test_alpha_modes_become_cutoffs(tmp_path: Path) -> None:
    cut = picture(mode="RGBA")
    cut.putalpha(100)
    mask = write_glb(tmp_path / "a.glb", baseColorTexture=cut, alphaMode="MASK", alphaCutoff=0.3)
    assert only(load_appearance(mask)).cutoff == pytest.approx(0.3)
    blend = write_glb(tmp_path / "b.glb", baseColorTexture=cut, alphaMode="BLEND")
    assert 0 < only(load_appearance(blend)).cutoff < 0.1
    # Nothing is cut out of a picture without alpha.
    whole = write_glb(tmp_path / "d.glb", baseColorTexture=picture(), alphaMode="BLEND")
    assert only(load_appearance(whole)).cutoff == 0
    opaque = write_glb(tmp_path / "c.glb", baseColorTexture=picture())
    assert only(load_appearance(opaque)).cutoff == 0


def test_vertex_colours_of_ply_and_obj(tmp_path: Path) -> None:
    colours = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [9, 9, 9, 255]])
    mesh = trimesh.Trimesh(SQUARE, [[0, 1, 2], [0, 2, 3]], vertex_colors=colours, process=False)
    mesh.export(tmp_path / "a.ply")
    appearance = load_appearance(tmp_path / "a.ply")
    assert appearance.tint[0].tolist() == colours[:3].tolist()
    assert not appearance.tint_is_linear
    lines = [f"v {x} {y} {z} 1 0 0.5" for x, y, z in SQUARE]
    (tmp_path / "b.obj").write_text("\n".join([*lines, "f 1 2 3"]))
    assert load_appearance(tmp_path / "b.obj").tint[0, 0].tolist() == [255, 0, 128, 255]


def test_plain_files_have_no_appearance(tmp_path: Path) -> None:
    box = trimesh.creation.box()
    for name in ("a.stl", "a.off", "a.obj", "a.ply", "a.glb"):
        box.export(tmp_path / name)
        assert load_appearance(tmp_path / name) is None, name


def test_transforms_are_those_of_load_mesh(tmp_path: Path) -> None:
    scene = trimesh.load_scene(write_glb(tmp_path / "a.glb", baseColorTexture=picture()))
    scene.apply_transform(trimesh.transformations.translation_matrix([3, 4, 5]))
    scene.export(tmp_path / "b.glb")
    appearance = load_appearance(tmp_path / "b.glb")
    assert appearance.mesh.bounds == pytest.approx(load_mesh(tmp_path / "b.glb").bounds)


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"glTF nonsense")
    with pytest.raises(MeshError, match="is binary glTF"):
        load_appearance(tmp_path / "a.glb")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_sixteen_bits_is_not_clipped(tmp_path: Path, suffix: str) -> None:
    grey = np.repeat(np.array([[16384], [49152]], np.uint16), 4, axis=1)
    Image.fromarray(grey).save(tmp_path / f"t.{suffix}")
    texels = only(load_appearance(write_obj(tmp_path, f"map_Kd t.{suffix}"))).texels
    assert sorted(np.unique(texels[..., :3]).tolist()) == [63, 191]
