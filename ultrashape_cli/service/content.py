"""What an uploaded file is, by its content: names and declared types are not believed.

These checks read beginnings, tables and counts, in pieces, and refuse what could not be read in
the limits or would make a reader look elsewhere. What they let pass is parsed in a guarded
process (`guard`) and nowhere else.
"""

from __future__ import annotations

import json
import re
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrashape_cli.errors import UShapeError
from ultrashape_cli.service.store import Store

PIECE = 1 << 17
"""Bytes looked through at once: meanwhile no other request of the web process is answered."""
MESH_TYPES = ("glb", "obj", "ply", "stl", "off", "3mf")
IMAGE_TYPES = {
    "PNG": "png", "JPEG": "jpg", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp", "GIF": "gif",
}  # fmt: skip
GLTF_JSON_BYTES = 16 << 20
"""Largest table of a GLB; real ones have kilobytes."""
ZIP_ENTRIES, ZIP_TABLE_BYTES, ZIP_RATIO = 2000, 1 << 20, 100
"""Of a 3MF; text of meshes packs to a tenth."""
_ZIP_FREE_BYTES = 32 << 20
"""Unpacked size up to which any ratio is harmless."""
_HEADER_BYTES = 1 << 16

_OTHERS = (
    (b"kaydara fbx", "FBX"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "XML"),
    (b"\x89png", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"%pdf", "PDF"),
    (b"\x1f\x8b", "packed by gzip"),
    (b"rar!", "a RAR archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"blender", "a Blender file"),
    (b"\x7felf", "a program"),
    (b"mz", "a program"),
    (b"{", "JSON"),
)
_OBJ_LINE = re.compile(rb"(?:^|[\r\n])[ \t]*v[ \t]+[-+.\d]")
_MTLLIB = re.compile(rb"(?:^|[\r\n])[ \t]*mtllib[ \t]+([^\r\n]{1,1000})")


class BadFile(UShapeError):
    """An upload that is not taken.

    Args:
        status: Of HTTP: 413 too large, 415 of no known type, 422 not to be used.
        code: One word for programs.
    """

    def __init__(self, status: int, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status, self.code = status, code


@dataclass(frozen=True, slots=True)
class Limits:
    """What an upload may be."""

    mesh_bytes: int
    image_bytes: int
    pixels: int
    faces: int


def mesh_type(path: Path) -> str:
    """Returns the type of a mesh file, one of `MESH_TYPES`.

    Raises:
        BadFile: It is of none of them.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if not head.strip(b"\0 \t\r\n"):
        raise BadFile(422, "empty", "the mesh file is empty", hint="upload it again")
    if head[:8] == b"glTF\2\0\0\0":
        return "glb"
    if head[:4] in (b"ply\n", b"ply\r"):
        return "ply"
    if head[:4] == b"PK\3\4":
        return "3mf"
    if len(head) >= 84 and size == 84 + 50 * struct.unpack_from("<I", head, 80)[0]:
        return "stl"
    if head.lstrip()[:5].lower() == b"solid" and b"facet" in head:
        return "stl"
    words = head[:200].split()
    if words and re.fullmatch(rb"(ST)?C?N?4?n?OFF", words[0]):
        return "off"
    for start, kind in _OTHERS:
        if head.lstrip()[: len(start)].lower() == start:
            raise _no_mesh(f"is {kind}")
    if b"\0" not in head and _has(path, _OBJ_LINE):
        return "obj"
    if head[:5].lower() == b"solid" or (len(head) >= 84 and (size - 84) % 50 == 0):
        raise BadFile(422, "damaged", "the STL file is cut off or its count is wrong",
                      hint="export and upload it again")  # fmt: skip
    raise _no_mesh("is of no known type")


def _no_mesh(what: str) -> BadFile:
    known = ", ".join(kind.upper() for kind in MESH_TYPES)
    return BadFile(415, "bad-type", f"the mesh file {what}", hint=f"one file of {known}")


def check_mesh(path: Path, kind: str, limits: Limits) -> None:
    """Refuses a mesh file that is too large or names other files.

    Raises:
        BadFile: It is not to be used; status and code say how.
    """
    checks: dict[str, Callable[[Path, Limits], None]] = {
        "glb": _check_glb,
        "obj": _check_obj,
        "ply": _check_ply,
        "stl": _check_stl,
        "off": _check_off,
        "3mf": _check_3mf,
    }
    if path.stat().st_size > limits.mesh_bytes:
        raise too_large("mesh", limits.mesh_bytes)
    checks[kind](path, limits)


def too_large(what: str, limit: int) -> BadFile:
    """Returns the error of a file beyond its limit."""
    return BadFile(413, "too-large", f"the {what} file is larger than {limit / 1e6:g} MB",
                   hint=f"reduce the {what}")  # fmt: skip


def _too_many(count: int, limits: Limits) -> BadFile:
    return BadFile(422, "too-many-faces", f"the mesh says it has {count:,} faces or vertices; "
                   f"{limits.faces:,} faces are taken", hint="reduce the mesh")  # fmt: skip


def _damaged(kind: str, what: str) -> BadFile:
    return BadFile(422, "damaged", f"the {kind} file {what}", hint="export and upload it again")


def _check_counts(limits: Limits, faces: int, vertices: int) -> None:
    # A soup has three vertices for each face.
    if faces > limits.faces or vertices > 3 * limits.faces:
        raise _too_many(max(faces, vertices), limits)


def _check_glb(path: Path, limits: Limits) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20:
            raise _damaged("GLB", "is cut off")
        total, length, kind = struct.unpack_from("<II4s", head, 8)
        if kind != b"JSON":
            raise _damaged("GLB", "does not begin with its table")
        if total != size:
            raise _damaged("GLB", f"has {size:,} bytes and says {total:,}")
        if length > min(GLTF_JSON_BYTES, size):
            raise _damaged("GLB", f"has a table of {length:,} bytes")
        text = file.read(length)
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged("GLB", f"has a table that is no JSON ({error})"[:200]) from error
    if not isinstance(table, dict):
        raise _damaged("GLB", "has a table that is none")
    for name in ("buffers", "images"):
        for each in _dicts(table.get(name)):
            uri = each.get("uri")
            if uri is not None and not str(uri).lower().startswith("data:"):
                raise external(
                    f"the {name[:-1]} `{str(uri)[:80]}`", "export one GLB with all in it"
                )
    indices = [each.get("count") for each in _dicts(table.get("accessors"))]
    largest = max((count for count in indices if isinstance(count, int)), default=0)
    if largest > 3 * limits.faces:
        raise _too_many(largest // 3, limits)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def external(what: str, hint: str) -> BadFile:
    """Returns the error of a file that names another one."""
    return BadFile(422, "external-file", f"the mesh file needs {what}, outside of it", hint=hint)


def _check_obj(path: Path, limits: Limits) -> None:
    faces = vertices = 0
    for piece in _pieces(path):
        faces += piece.count(b"\nf ")
        vertices += piece.count(b"\nv ")
        # The pattern alone takes fifty times as long.
        for match in _MTLLIB.finditer(piece) if b"mtllib" in piece else ():
            name = match[1].strip().decode(errors="replace")
            if re.search(r"[/\\:]|\.\.", name):
                raise external(f"`mtllib {name[:80]}`", "remove the line, or export GLB")
    _check_counts(limits, faces, vertices)


def _check_ply(path: Path, limits: Limits) -> None:
    with path.open("rb") as file:
        head, end, _ = file.read(_HEADER_BYTES).partition(b"end_header")
    if not end:
        raise _damaged("PLY", "has no end of its header")
    counts = {"vertex": 0, "face": 0}
    for name, count in re.findall(rb"element[ \t]+(\w+)[ \t]+(\d{1,30})", head):
        counts[name.decode(errors="replace")] = int(count)
    _check_counts(limits, max(v for k, v in counts.items() if k != "vertex"), counts["vertex"])


def _check_stl(path: Path, limits: Limits) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(84)
    binary = len(head) == 84 and size == 84 + 50 * struct.unpack_from("<I", head, 80)[0]
    if binary:
        _check_counts(limits, (size - 84) // 50, 0)
    else:
        _check_counts(limits, sum(piece.count(b"endfacet") for piece in _pieces(path)), 0)


def _check_off(path: Path, limits: Limits) -> None:
    with path.open("rb") as file:
        head = re.sub(rb"#[^\r\n]*", b"", file.read(_HEADER_BYTES))
    numbers = re.findall(rb"(?<!\S)\d{1,30}(?!\S)", head)[:2]
    if b"BINARY" not in head[:64] and len(numbers) == 2:
        _check_counts(limits, int(numbers[1]), int(numbers[0]))


def _check_3mf(path: Path, limits: Limits) -> None:
    entries, table = _zip_table(path)
    if entries > ZIP_ENTRIES or table > ZIP_TABLE_BYTES:
        raise _damaged("3MF", f"holds {entries:,} files")
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise _damaged("3MF", f"is no whole ZIP archive ({error})"[:200]) from error
    if not any(each.filename.lower().endswith(".model") for each in found):
        raise _no_mesh("is a ZIP archive and no 3MF")
    for each in found:
        name = each.filename.replace("\\", "/")
        if name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:", name):
            raise _damaged("3MF", f"holds a file `{name[:80]}`")
        if each.flag_bits & 1:
            raise _damaged("3MF", "is encrypted")
    unpacked = sum(each.file_size for each in found)
    packed = max(1, sum(each.compress_size for each in found))
    if unpacked > _ZIP_FREE_BYTES and unpacked > ZIP_RATIO * packed:
        raise BadFile(422, "zip-bomb", f"the 3MF file unpacks to {unpacked / packed:.0f} times "
                      "its size", hint="export GLB instead")  # fmt: skip
    if unpacked > 8 * limits.mesh_bytes:
        raise too_large("unpacked mesh", 8 * limits.mesh_bytes)


def _zip_table(path: Path) -> tuple[int, int]:
    """Returns number and bytes of the entries, from the end of an archive, before it is read."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(b"PK\5\6")
    if at < 0 or len(tail) < at + 20:
        raise _damaged("3MF", "is cut off")
    entries, table = struct.unpack_from("<HI", tail, at + 10)
    return entries, table


def check_image(path: Path, limits: Limits) -> str:
    """Returns the type of an image file; its pixels are not decoded yet.

    Raises:
        BadFile: It is of no known type, or too large.
    """
    from PIL import Image

    if path.stat().st_size > limits.image_bytes:
        raise too_large("image", limits.image_bytes)
    try:
        with warnings.catch_warnings():
            # Its own limit is lower than ours may be, and ours is next.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=list(IMAGE_TYPES)) as image:
                (width, height), kind = image.size, IMAGE_TYPES[str(image.format)]
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(limits) from error
    except Exception as error:  # whatever a crafted header makes of the parser
        known = ", ".join(IMAGE_TYPES)
        raise BadFile(415, "bad-type", "the image file is no picture that can be read",
                      hint=f"one of {known}") from error  # fmt: skip
    if width * height > limits.pixels:
        raise _too_many_pixels(limits)
    if min(width, height) < 8:
        raise BadFile(422, "too-small", f"the image has {width} x {height} pixels",
                      hint="a larger picture")  # fmt: skip
    return kind


def is_opaque(path: Path) -> bool:
    """Says whether a picture has no transparency at all, by its head."""
    from PIL import Image

    with Image.open(path) as image:
        return "A" not in image.getbands() and "transparency" not in image.info


def opaque() -> BadFile:
    """Returns the error of a picture that does not say what its background is."""
    return BadFile(422, "opaque-image", "the picture has no transparency: what is its background?",
                   hint='the option "background": "white" cuts the white around the object, "keep" '
                   "takes the whole picture as object")  # fmt: skip


def _too_many_pixels(limits: Limits) -> BadFile:
    return BadFile(413, "too-many-pixels", f"the image has more than {limits.pixels / 1e6:g} "
                   "million pixels", hint="reduce the image")  # fmt: skip


def _pieces(path: Path) -> Any:
    """Yields a file in pieces that overlap by a line's beginning, so that others get a turn."""
    with path.open("rb") as file:
        rest = b"\n"
        while piece := file.read(PIECE):
            whole = rest + piece
            cut = whole.rfind(b"\n")
            cut = cut if cut > 0 else len(whole)
            yield whole[:cut]
            rest = whole[cut:][-PIECE:]
        yield rest


def _has(path: Path, pattern: re.Pattern[bytes]) -> bool:
    return any(pattern.search(piece) for piece in _pieces(path))


def safe_name(name: str | None, kind: str) -> str:
    """Returns a file name of a client as it may be shown: without folders or odd characters."""
    plain = re.split(r"[/\\]", name or "")[-1]
    plain = re.sub(r"[^\w .()+-]", "_", plain).strip(" .")[:80]
    return plain or f"upload.{kind}"


def limits_of(config: Any) -> Limits:
    """Returns the limits that the settings of the service set."""
    return Limits(
        int(config.max_mesh_mb * 1e6),
        int(config.max_image_mb * 1e6),
        int(config.max_megapixels * 1e6),
        config.max_faces,
    )


def has_room(store: Store, min_free_gb: float, more: int = 0) -> bool:
    """Says whether the disk has room for so many more bytes and what results will need."""
    return store.free_bytes() - more > min_free_gb * 1e9
