from __future__ import annotations

import pytest

from ultrashape_cli.monitoring.plot import bars, number, plot, progress

DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))


def _heights(rows: list[str]) -> list[int]:
    """The highest dot of each column of dots, from the bottom."""
    cells = [row[11:] for row in rows[:-1]]
    width = max(map(len, cells))
    heights = []
    for column in range(2 * width):
        best = 0
        for row, text in enumerate(cells):
            bits = ord(text[column // 2]) - 0x2800 if column // 2 < len(text) else 0
            for part in range(4):
                if bits > 0 and bits & DOTS[part][column % 2]:
                    best = max(best, 4 * len(cells) - 4 * row - part)
        heights.append(best)
    return heights


def test_a_plot_rises_with_its_values_from_edge_to_edge() -> None:
    rows = plot([(n, float(n)) for n in range(200)], 31, 6)
    heights = _heights(rows)
    assert len(rows) == 6
    assert heights == sorted(heights)
    assert (heights[0], heights[-1]) == (1, 20)
    assert rows[0].split()[0] == "197"  # the mean of the points of a column
    assert rows[-1].split() == ["0", "100", "199"]
    assert all(len(row) <= 31 for row in rows)


def test_values_that_span_much_are_drawn_by_logarithm() -> None:
    rows = plot([(n, 10.0**-n) for n in range(9)], 40, 10)
    assert rows[4].split()[0] == "0.0001"


def test_a_constant_series_is_a_line() -> None:
    assert len(set(_heights(plot([(n, 2.0) for n in range(30)], 21, 5)))) == 1


@pytest.mark.parametrize("points", [[], [(0, 1.0)], [(0, 1.0), (1, float("nan"))]])
def test_too_few_values_say_so(points) -> None:
    assert plot(points, 10, 4) == ["waiting for values"]


def test_extreme_values_are_plotted() -> None:
    assert len(plot([(0, 1e308), (1, -1e308), (2, 0.0), (3, 1e-308)], 14, 4)) == 4
    assert len(plot([(0, 1e-300), (1, 1e300)], 14, 4)) == 4


def test_points_far_apart_are_joined() -> None:
    assert 0 not in _heights(plot([(0, 0.0), (1000, 1.0)], 31, 6))


def test_a_terminal_without_braille_gets_ascii() -> None:
    text = "".join(plot([(n, n) for n in range(30)], 40, 6, ascii_only=True))
    text += bars([0.1, None, 0.5], ascii_only=True) + progress(0.5, 10, ascii_only=True)
    assert text.isascii()
    assert "*" in text


def test_bars_are_as_high_as_their_values() -> None:
    assert bars([1.0, 0.5, None, 0.0]) == "█▄ ▁"
    assert bars([None, None]) == "  "
    assert bars([0.0]) == "▁"


@pytest.mark.parametrize(("share", "full"), [(-1, 0), (0, 0), (0.5, 5), (1, 10), (7, 10)])
def test_a_progress_bar_has_its_width(share: float, full: int) -> None:
    assert progress(share, 10, ascii_only=True) == "#" * full + "-" * (10 - full)


def test_numbers_are_short() -> None:
    assert [number(v) for v in (None, float("nan"), 1e-5, 0.123456)] == [
        "-",
        "-",
        "1e-05",
        "0.1235",
    ]
