"""Pieces of self-contained pages: HTML and SVG with pictures inside, no other file, no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ultrashape_cli import __version__

_TAIL_BYTES = 1 << 18
"""Of a page, behind which no script begins before its footer."""
Tile = tuple[str, str, str]
"""Label, value, and how it looks: `good`, `bad`, `warn` or nothing."""


class Html(str):
    """A text that is HTML already; every other text is escaped."""

    __slots__ = ()


def page(title: str, header: str, body: str, *, style: str = "", script: str = "") -> str:
    """Returns the whole page.

    Args:
        title: Text of the window.
        header: HTML above everything.
        body: HTML.
        style: Rules beside the shared ones.
        script: JavaScript, run at the end.
    """
    code = f"<script>{script}</script>" if script else ""
    return (
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}{style}</style>"
        f"<header>{header}</header>{body}<footer>ushape {__version__}</footer>{code}</html>\n"
    )


def is_page(path: Path) -> bool:
    """Says whether a file is a page of ours, by what stands at its end."""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - _TAIL_BYTES, 0))
        return b"<footer>ushape " in file.read()


def section(title: str, body: str, note: str = "") -> str:
    """Returns a section, or nothing where it has no body."""
    if not body:
        return ""
    small = f" <small>{html.escape(note)}</small>" if note else ""
    return f"<section><h2>{html.escape(title)}{small}</h2>{body}</section>"


def tiles(items: Iterable[Tile]) -> str:
    """Returns a row of large numbers."""
    body = "".join(
        f"<div class='tile {kind}'><b>{html.escape(value)}</b>"
        f"<span>{html.escape(label)}</span></div>"
        for label, value, kind in items
    )
    return f"<div class=tiles>{body}</div>"


def bars(counts: Mapping[str, int], notes: Mapping[str, str], kind: str) -> str:
    """Returns counts as bars, largest first, each with a note."""
    most = max(counts.values(), default=1)
    return "".join(
        f"<div class=bar><span>{html.escape(name)}</span>"
        f"<i class={kind} style='width:{40 * count / most:.1f}%'></i><b>{count:,}</b>"
        f"<small>{html.escape(notes.get(name, ''))}</small></div>"
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Returns a table of texts."""
    cells = "".join(f"<th>{html.escape(name)}" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}' for cell in row)}" for row in rows)
    return f"<div class=wide><table class='{kind}'><tr>{cells}{body}</table></div>"


def picture(path: Path, size: int, *, alt: str = "") -> str:
    """Returns a square picture of `size` pixels inside the page; nothing for a damaged file."""
    data = picture_data(path, size)
    return f"<img alt='{html.escape(alt)}' src='{data}'>" if data else ""


def picture_data(path: Path, size: int) -> str:
    """Returns a picture as a data address, or nothing where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            small = image.resize((size, size), Image.Resampling.BOX, reducing_gap=2.0)
    except (OSError, SyntaxError, ValueError):  # Pillow raises all three for damaged files
        return ""
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _cell(text: str) -> str:
    return text if isinstance(text, Html) else html.escape(text)


STYLE = """
:root{color-scheme:light dark;--bg:#f6f6f3;--card:#fff;--ink:#22242a;--soft:#6b7079;--line:#0001;
--good:#26734d;--bad:#b3261e;--warn:#8a5a00;--shade:#e9e9e4}
@media(prefers-color-scheme:dark){:root{--bg:#17181b;--card:#212327;--ink:#e8e8e6;--soft:#9aa0aa;
--line:#fff2;--good:#6cc598;--bad:#ff8a80;--warn:#f0b95a;--shade:#2c2f35}}
body{font:14px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1240px;padding:2rem 1.5rem;
background:var(--bg);color:var(--ink)}
h1{font-size:1.9rem;font-weight:650;margin:0}header p{margin:.1rem 0 1.2rem;color:var(--soft)}
h2{font-size:1.15rem;font-weight:650;margin:2.4rem 0 .8rem}
small,h2 small{color:var(--soft);font-weight:400;font-size:12px}
.tiles{display:flex;flex-wrap:wrap;gap:.6rem}
.tile{background:var(--card);border-radius:12px;padding:.7rem 1.1rem;min-width:6.2rem;
box-shadow:0 1px 2px var(--line)}
.tile b{display:block;font-size:1.55rem;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft)}.tile.good b{color:var(--good)}.tile.bad b{color:var(--bad)}
.tile.warn b{color:var(--warn)}
.bar{display:flex;align-items:center;gap:.6rem;padding:.15rem 0}.bar span{flex:0 0 9rem}
.bar i{height:.8rem;border-radius:4px;min-width:3px;flex-shrink:0}.bar i.bad{background:var(--bad)}
.bar i.warn{background:var(--warn)}.bar small{overflow:hidden;white-space:nowrap;
text-overflow:ellipsis}
.cards{display:grid;gap:.7rem;grid-template-columns:repeat(auto-fill,minmax(165px,1fr))}
.pairs{grid-template-columns:repeat(auto-fill,minmax(320px,1fr))}
figure{margin:0;background:var(--card);border-radius:12px;overflow:hidden;position:relative;
box-shadow:0 1px 2px var(--line);font-size:12px;overflow-wrap:anywhere}
figure img{width:100%;display:block;background:linear-gradient(var(--shade),var(--card))}
.pair{display:flex;flex-wrap:wrap}.pair img{width:50%}
figcaption{padding:.5rem .7rem .7rem}figcaption p{margin:.2rem 0;color:var(--soft)}
em{font-style:normal;font-size:11px;font-weight:600;padding:.08rem .5rem;border-radius:99px;
background:var(--shade);color:var(--soft)}figure em{position:absolute;top:.5rem;left:.5rem}
em.failed{color:var(--bad)}em.rejected{color:var(--warn)}
.charts{display:grid;gap:.7rem;grid-template-columns:repeat(auto-fill,minmax(200px,1fr))}
.chart{padding:.3rem .2rem .6rem}.chart svg{width:calc(100% - 1.4rem);height:64px;margin:0 .7rem}
.chart rect{fill:var(--soft)}.chart small{display:block;padding:0 .7rem}
.chart figcaption{padding-bottom:.2rem}
table{border-collapse:collapse;width:100%;background:var(--card);border-radius:12px}
td,th{border-top:1px solid var(--line);padding:.4rem .7rem;text-align:left;vertical-align:top;
overflow-wrap:anywhere}tr{content-visibility:auto}
th,td.ok,td.bad,td.none{white-space:nowrap}.ok{color:var(--good)}
td.bad{color:var(--bad);font-weight:600}.none{color:var(--soft)}
footer{margin:2rem 0;color:var(--soft)}
.wide{overflow-x:auto;margin:.6rem 0}
details{background:var(--card);border-radius:12px;margin:.5rem 0;box-shadow:0 1px 2px var(--line)}
summary{padding:.55rem .9rem;cursor:pointer;font-weight:600}
details ul{margin:0;padding:0 .9rem .7rem 2rem}
.extreme{display:grid;grid-template-columns:9.5rem 1fr;gap:.8rem;margin-bottom:.9rem}
.extreme p{margin:.3rem 0}.extreme .cards{grid-template-columns:repeat(6,minmax(0,1fr))}
.extreme figcaption{padding:.35rem .5rem .5rem}
@media(max-width:700px){.extreme{grid-template-columns:1fr}
.extreme .cards{grid-template-columns:repeat(3,minmax(0,1fr))}}
"""
