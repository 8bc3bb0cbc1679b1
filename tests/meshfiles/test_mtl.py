"""Materials and pictures by the names that programs write."""

import os
from pathlib import Path

import pytest
from PIL import Image

from ultrashape_cli.meshfiles.beside import find_beside
from ultrashape_cli.meshfiles.mtl import Material, read_materials


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "textures").mkdir(parents=True)
    for name in ("Wood.png", "textures/Wood.png", "my wood.png", "mask.png"):
        Image.new("RGB", (2, 2)).save(folder / name)
    Image.new("RGB", (2, 2)).save(tmp_path / "secret.png")
    return folder


def read(folder: Path, text: str, problems: list[str] | None = None) -> Material:
    (folder / "a.mtl").write_text(text)
    return read_materials(folder / "a.obj", ["a.mtl"], [] if problems is None else problems)["m"]


@pytest.mark.parametrize(("line", "name"), [
    ("map_Kd Wood.png", "Wood.png"),
    ("map_Kd textures\\Wood.png", "textures/Wood.png"),
    ("map_Kd C:\\Users\\me\\Desktop\\Wood.png", "Wood.png"),
    ("map_Kd C:\\Users\\me\\textures\\wood.png", "textures/Wood.png"),
    ("map_Kd /textures/Wood.png", "textures/Wood.png"),
    ("map_Kd ../elsewhere/Wood.png", "Wood.png"),
    ("map_Kd ./textures//wood.PNG", "textures/Wood.png"),
    ('map_Kd "Wood.png"', "Wood.png"),
    ("\tmap_Kd\tWood.png  ", "Wood.png"),
    ("MAP_KD my wood.png", "my wood.png"),
    ("map_Kd -s 1.0 1.0 1.0 -o 0 0 0 Wood.png", "Wood.png"),
    ("map_Kd -s 2 -bm 1 -clamp off -mm 0 1 -imfchan l -texres 64 my wood.png", "my wood.png"),
    ("map_Kd -blendu on -blendv on -cc off -boost 0 -t 0 0 -type sphere Wood.png", "Wood.png"),
])  # fmt: skip
def test_pictures_are_found(folder: Path, line: str, name: str) -> None:
    problems: list[str] = []
    look = read(folder, f"newmtl m\r\nKd 0.8 0.8 0.8\r\n{line}\r\n", problems).textured
    assert look.picture.data == folder / name
    assert look.colour == (1, 1, 1, 1)
    assert look.cutoff == 0.5
    assert not problems


@pytest.mark.parametrize("name", ["../secret.png", "link.png", "gone.png", "textures", "pipe.png",
                                  "/etc/passwd", "a\0b", "x" * 5000, ".."])  # fmt: skip
def test_nothing_is_read_outside_the_folder_or_that_is_no_file(folder: Path, name: str) -> None:
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    os.mkfifo(folder / "pipe.png")
    assert find_beside(folder / "a.obj", name) is None
    problems: list[str] = []
    found = read(folder, f"newmtl m\nKd 1 0 0\nmap_Kd {name}\n", problems)
    assert (found.plain.colour, found.textured) == ((1, 0, 0, 1), None)
    assert len(problems) == 1
    assert "texture left out" in problems[0]


def test_options_move_and_clamp_a_picture(folder: Path) -> None:
    found = read(folder, "newmtl m\nmap_Kd -s 2 3 -o 0.5 -clamp on Wood.png\n")
    assert found.move == (2, 3, 0.5, 0)
    assert found.textured.picture.wrap == ("clamp", "clamp")
    assert found.plain is None


def test_alpha(folder: Path) -> None:
    head = "newmtl m\nKd 0.2 0.4 0.6\n"
    assert read(folder, head).plain.colour == (0.2, 0.4, 0.6, 1)
    assert read(folder, head + "d -halo 0.25\nTr 0\n").plain.colour[3] == 0.25
    assert read(folder, head + "Tr 0.25\n").plain.colour[3] == 0.75
    masked = read(folder, head + "map_Kd Wood.png\nmap_d mask.png\n").textured
    assert masked.alpha.data == folder / "mask.png"
    assert masked.cutoff == 0.5
    own = read(folder, head + "map_Kd Wood.png\nmap_d wood.png\n").textured
    assert (own.alpha, own.cutoff) == (None, 0.5)
    plain = read(folder, head + "map_d mask.png\n").textured
    assert (plain.colour, plain.picture, plain.cutoff) == ((0.2, 0.4, 0.6, 1), None, 0.5)
    faint = read(folder, head + "d 0.2\nmap_Kd Wood.png\n").textured
    assert faint.cutoff < faint.colour[3] == 0.2


@pytest.mark.parametrize("text", ["Kd spectral a.rfl", "Kd nan 0 0", "Kd", "Kd 0,5 1 1", "illum 2"])
def test_without_a_colour_a_material_is_clay(folder: Path, text: str) -> None:
    assert read(folder, f"newmtl m\n{text}\n") == Material(None, None)


def test_several_libraries(folder: Path) -> None:
    (folder / "first.mtl").write_text("newmtl a\nKd 1 0 0\nnewmtl m\nKd 0 1 0\n")
    (folder / "second file.mtl").write_text("newmtl m\nKd 1 1 1\nnewmtl b\nKd 0\n")
    problems: list[str] = []
    mesh = folder / "a.obj"
    for lines in (["first.mtl", "second file.mtl"], ["FIRST.MTL", '"second file.mtl"']):
        found = read_materials(mesh, lines, problems)
        assert {k: m.plain.colour[:3] for k, m in found.items()} == {
            "a": (1, 0, 0), "m": (0, 1, 0), "b": (0, 0, 0)
        }  # fmt: skip
    (folder / "b.mtl").write_bytes(b"newmtl stra\xdfe\nKd 1 1 1\n")
    assert list(read_materials(mesh, ["b.mtl first.mtl"], problems)) == ["stra\xdfe", "a", "m"]
    assert not problems
    read_materials(mesh, ["gone.mtl first.mtl"], problems)
    assert problems == ["colours left out: `gone.mtl` is not beside the mesh"]


@pytest.mark.parametrize("name", ["../Wood.png", "{root}/Wood.png", "..\\Wood.png"])
def test_a_file_outside_is_not_taken_for_one_inside_of_the_same_name(
    folder: Path, name: str
) -> None:
    Image.new("RGB", (2, 2)).save(folder.parent / "Wood.png")
    problems: list[str] = []
    line = name.format(root=folder.parent)
    found = read(folder, f"newmtl m\nKd 0 0 0\nmap_Kd {line}\n", problems)
    assert problems == [f"texture left out: `{line[-80:]}` lies outside the folder of the mesh"]
    # Its only colour was in the picture: clay, not black.
    assert (found.plain, found.textured) == (None, None)


def test_what_shines_by_itself_has_that_colour(folder: Path) -> None:
    found = read(folder, "newmtl m\nKd 0 0 0\nKe 1 1 1\nmap_Ke Wood.png\n")
    assert found.textured.picture.data == folder / "Wood.png"
    assert read(folder, "newmtl m\nKd 0 0 0\nKe 0 1 0\n").plain.colour == (0, 1, 0, 1)
    assert read(folder, "newmtl m\nKd 1 0 0\nKe 0 1 0\n").plain.colour == (1, 0, 0, 1)


def test_a_map_without_a_name_is_told(folder: Path) -> None:
    problems: list[str] = []
    read(folder, "newmtl m\nKd 0 0 0\nmap_Kd\n", problems)
    assert problems == ["texture left out: a `map_Kd` names no file"]
