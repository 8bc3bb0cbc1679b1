"""MTL: colours, pictures and alpha of an OBJ file's materials."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ultrashape_cli.meshfiles.beside import find_beside, why_not_beside
from ultrashape_cli.meshfiles.parts import UTF_16, Look, Picture, Wrap

# Option of a picture -> least and most arguments.
_OPTIONS = {
    "-blendu": (1, 1), "-blendv": (1, 1), "-boost": (1, 1), "-bm": (1, 1), "-cc": (1, 1),
    "-clamp": (1, 1), "-colorspace": (1, 1), "-imfchan": (1, 1), "-mm": (2, 2), "-o": (1, 3),
    "-s": (1, 3), "-t": (1, 3), "-texres": (1, 1), "-type": (1, 1),
}  # fmt: skip
_CUTOFF = 0.5
_KEPT = ("kd", "d", "tr", "map_kd", "map_d", "map_opacity", "ke", "map_ke")


@dataclass(frozen=True, slots=True)
class Material:
    """A material.

    Attributes:
        plain: For faces without texture coordinates; None leaves them clay.
        textured: For the others; None without a picture.
        move: Scale and offset of texture coordinates: u, v, u, v.
    """

    plain: Look | None
    textured: Look | None
    move: tuple[float, float, float, float] = (1.0, 1.0, 0.0, 0.0)


def read_materials(path: Path, lines: list[str], problems: list[str]) -> dict[str, Material]:
    """Returns the materials of an OBJ file by name; the first of a name counts.

    Args:
        path: The OBJ file.
        lines: What stands behind its `mtllib`: a name, with blanks or not, or several.
        problems: Gets a line for each file that is not there.
    """
    found: dict[str, Material] = {}
    for library in libraries(path, lines, problems):
        try:
            text = decoded(library.read_bytes())
        except OSError as error:
            problems.append(f"colours left out: {library.name}: {error.strerror or error}")
            continue
        for name, entries in _entries(text):
            if name not in found:
                found[name] = _material(path, entries, problems)
    return found


def decoded(data: bytes) -> str:
    """Returns names of an OBJ or MTL file as text, without blanks around."""
    if data[:2] in UTF_16:
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        return data.decode("latin-1").strip()


def libraries(path: Path, lines: list[str], problems: list[str]) -> Iterator[Path]:
    """Yields the material files beside an OBJ file; arguments as of `read_materials`."""
    for line in lines:
        whole = find_beside(path, line)
        for name in [line] if whole else line.split():
            found = find_beside(path, name)
            if found is None:
                problems.append(f"colours left out: {why_not_beside(path, name)}")
            else:
                yield found


def picture_names(library: Path) -> Iterator[str]:
    """Yields the pictures that a material file names, there or not."""
    for _, entries in _entries(decoded(library.read_bytes())):
        for keyword in ("map_kd", "map_d", "map_opacity", "map_ke"):
            entry = entries.get(keyword, "")
            while (found := _option(entry)) is not None:
                entry = found[2]
            if entry:
                yield entry


def _entries(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields each material's name and what it says, the last of a kind counting."""
    name, entries = None, dict[str, str]()
    for line in re.split(r"[\r\n]+", text):
        keyword, _, rest = line.strip().replace("\t", " ").partition(" ")
        keyword = keyword.lower()
        if keyword == "newmtl":
            if name is not None:
                yield name, entries
            name, entries = rest.strip(), {}
        elif keyword in _KEPT:
            entries[keyword] = rest.strip()
    if name is not None:
        yield name, entries


def _material(path: Path, entries: dict[str, str], problems: list[str]) -> Material:
    kd, shine = _rgb(entries.get("kd", "")), _rgb(entries.get("ke", ""))
    map_kd = entries.get("map_kd", "")
    if any(shine) and not any(kd) and "map_kd" not in entries:
        # Scans without shading are black and shine by themselves.
        kd, map_kd = shine, entries.get("map_ke", "")
    dissolve = _numbers(entries.get("d", "").replace("-halo", ""))
    transparency = _numbers(entries.get("tr", ""))
    alpha = dissolve[0] if dissolve else 1 - transparency[0] if transparency else 1.0
    plain = Look((kd[0], kd[1], kd[2], alpha)) if kd else None
    picture, move = _picture(path, map_kd, problems)
    if picture is None and "map_kd" in entries and not any(kd):
        # Whose only colour was in a picture that is lost is clay, not black.
        plain = None
        if not map_kd:
            problems.append("texture left out: a `map_Kd` names no file")
    mask, _ = _picture(path, entries.get("map_d", entries.get("map_opacity", "")), problems)
    if picture and mask and picture.data == mask.data:
        # The alpha of the picture itself is meant, not its brightness.
        mask = None
    if picture is None and (mask is None or plain is None):
        return Material(plain, None)
    # The picture replaces the colour. What is faint as a whole has holes where it always had.
    colour = (1.0, 1.0, 1.0, alpha) if picture or plain is None else plain.colour
    return Material(plain, Look(colour, picture, mask, _CUTOFF * alpha), move)


def _rgb(text: str) -> list[float]:
    """Returns a colour; one number stands for all three channels, none for none."""
    numbers = _numbers(text)
    return (numbers * 3)[:3] if len(numbers) < 3 else numbers[:3]


def _numbers(text: str) -> list[float]:
    """Returns the numbers that a text begins with, within 0 and 1."""
    found: list[float] = []
    for word in text.split():
        value = _number(word)
        if value is None:
            break
        found.append(min(max(value, 0.0), 1.0))
    return found


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _picture(
    path: Path, entry: str, problems: list[str]
) -> tuple[Picture | None, tuple[float, float, float, float]]:
    """Returns the picture of a `map_` line, and how it moves texture coordinates."""
    options: dict[str, list[str]] = {}
    while (found := _option(entry)) is not None:
        option, words, entry = found
        options[option] = words
    scale = [_number(word) or 1.0 for word in options.get("-s", [])]
    shift = [_number(word) or 0.0 for word in options.get("-o", [])]
    su, sv = (*scale, 1.0, 1.0)[:2]
    ou, ov = (*shift, 0.0, 0.0)[:2]
    move = (su, sv, ou, ov)
    if not entry:
        return None, move
    target = find_beside(path, entry)
    if target is None:
        problems.append(f"texture left out: {why_not_beside(path, entry)}")
        return None, move
    wrap: Wrap = "clamp" if options.get("-clamp", [""])[0].lower() == "on" else "repeat"
    return Picture(target, target.name, (wrap, wrap)), move


def _option(entry: str) -> tuple[str, list[str], str] | None:
    """Splits an option and its arguments from a line; None where the name of the file begins."""
    option, _, rest = entry.partition(" ")
    option = option.lower()
    if option not in _OPTIONS:
        return None
    least, most = _OPTIONS[option]
    words: list[str] = []
    while len(words) < most:
        word, _, behind = rest.strip().partition(" ")
        # A name is left in any case; beyond the least, only numbers are arguments.
        if not behind.strip() or (len(words) >= least and _number(word) is None):
            break
        words.append(word)
        rest = behind
    return option, words, rest.strip()
