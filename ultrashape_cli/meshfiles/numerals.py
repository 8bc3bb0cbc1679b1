"""Numbers of text files, read exactly and fast.

A kernel reads what fits double precision without rounding twice: up to 15 digits, in most files
all. Of others it notes the place, in the bits of a NaN, and `settle` has them read by NumPy.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from ultrashape_cli.geometry.jit import kernel
from ultrashape_cli.meshfiles.parts import Unreadable

EXACT, LONG, NOT_FINITE, NO_NUMBER = range(4)
"""What `read_number` says: read; a number with more digits; NaN or infinite; anything else."""
JOINT = b"\v"
"""A blank in place of a line end that continues a line."""
# A double holds these exactly, and so one product or quotient is rounded once.
_POWERS = np.array([10.0**k for k in range(23)])
_EXACT_MANTISSA = 1 << 53
_DIGITS = 18
NAN_BITS = 0x7FF8 << 48
_LARGEST_EXPONENT = 100_000


@kernel
def is_space(byte: int) -> bool:
    """Says whether a byte is a blank inside a line."""
    return byte == 32 or byte == 9 or byte == 11 or byte == 12


@kernel
def is_end(byte: int) -> bool:
    """Says whether a byte ends a line."""
    return byte == 10 or byte == 13


@kernel
def word_end(data: NDArray[np.uint8], at: int, end: int) -> int:
    """Returns where the word at `at` ends."""
    while at < end and not is_space(data[at]) and not is_end(data[at]):
        at += 1
    return at


@kernel
def read_number(data: NDArray[np.uint8], at: int, end: int) -> tuple[float, int, int]:
    """Returns the number of the word at `at`, what it is, and where the word ends."""
    i = at
    negative = i < end and data[i] == 45
    if i < end and (data[i] == 45 or data[i] == 43):
        i += 1
    first, mantissa, digits, exponent = i, 0, 0, 0
    seen = after_point = longer = False
    while i < end:
        byte = data[i]
        if 48 <= byte <= 57:
            seen = True
            if digits < _DIGITS:
                mantissa = mantissa * 10 + (int(byte) - 48)
                digits += mantissa > 0
                exponent -= after_point
            else:
                longer = True
                exponent += not after_point
        elif byte == 46 and not after_point:
            after_point = True
        else:
            break
        i += 1
    if seen and i < end and (data[i] == 101 or data[i] == 69):
        j = i + 1
        sign = -1 if j < end and data[j] == 45 else 1
        if j < end and (data[j] == 45 or data[j] == 43):
            j += 1
        power, begin = 0, j
        while j < end and 48 <= data[j] <= 57:
            power = min(power * 10 + (int(data[j]) - 48), _LARGEST_EXPONENT)
            j += 1
        if j > begin:
            exponent += sign * power
            i = j
    stop = word_end(data, i, end)
    if not seen or stop > i:
        # nan, inf, nan(ind), and what Microsoft wrote: 1.#IND, -1.#QNAN
        word = (data[first] | 32, data[first + 1] | 32, data[first + 2] | 32) if (
            first + 3 <= stop
        ) else (0, 0, 0)  # fmt: skip
        infinite = word == (110, 97, 110) or word == (105, 110, 102)
        if infinite or (seen and after_point and data[i] == 35):
            return np.nan, NOT_FINITE, stop
        return np.nan, NO_NUMBER, stop
    if mantissa == 0:
        value = 0.0
    elif longer or mantissa > _EXACT_MANTISSA or abs(exponent) > 22:
        return np.nan, LONG, stop
    elif exponent >= 0:
        value = mantissa * _POWERS[exponent]
    else:
        value = mantissa / _POWERS[-exponent]
    return -value if negative else value, EXACT, stop


@kernel
def put_number(
    bits: NDArray[np.int64],  # of the float64 array that is filled, flat
    slot: int,
    data: NDArray[np.uint8],
    at: int,
    end: int,
) -> int:
    """Reads the number at `at` into a slot; returns where it ends, -1 if it is none."""
    value, kind, stop = read_number(data, at, end)
    if kind == NO_NUMBER:
        return -1
    if kind == LONG:
        bits[slot] = NAN_BITS | at
    elif kind == NOT_FINITE:
        bits[slot] = NAN_BITS
    else:
        bits.view(np.float64)[slot] = value
    return stop


def settle(values: NDArray[np.float64], data: NDArray[np.uint8]) -> None:
    """Reads the numbers with many digits that `put_number` left."""
    bits = values.reshape(-1).view(np.int64)
    slots = np.flatnonzero(np.isnan(values.reshape(-1)))
    slots = slots[bits[slots] != NAN_BITS]
    if len(slots):
        text = _copied(data, bits[slots] ^ NAN_BITS)
        values.reshape(-1)[slots] = np.fromstring(text.tobytes(), sep=" ")


def read_numbers(
    data: NDArray[np.uint8], start: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """Reads the numbers of a file to its end, or to a word that is none.

    Returns:
        The numbers; which of them are the first of their lines, the very first among them; and
        where the word is that is none, -1 without.
    """
    values = np.empty(_count_numbers(data, start))
    firsts = np.empty(len(values), np.int64)
    count, lines, wrong_at = _read_all(data, start, values.view(np.int64), firsts)
    values = values[:count]
    settle(values, data)
    return values, firsts[:lines], wrong_at


@kernel
def _read_all(
    data: NDArray[np.uint8],
    at: int,
    values: NDArray[np.int64],  # to fill, as below
    firsts: NDArray[np.int64],
) -> tuple[int, int, int]:
    """Returns how many numbers and lines there are, and the place of a word that is no number."""
    count = lines = 0
    is_first = True
    while True:
        while at < len(data) and (is_space(data[at]) or is_end(data[at])):
            is_first = is_first or is_end(data[at])
            at += 1
        if at == len(data):
            return count, lines, -1
        stop = put_number(values, count, data, at, len(data))
        if stop < 0:
            return count, lines, at
        if is_first:
            firsts[lines] = count
            lines += 1
            is_first = False
        at, count = stop, count + 1


@kernel
def _copied(data: NDArray[np.uint8], starts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Returns the words at `starts`, separated by blanks."""
    size = 0
    for start in starts:
        size += word_end(data, start, len(data)) - start + 1
    text = np.empty(size, np.uint8)
    at = 0
    for start in starts:
        stop = word_end(data, start, len(data))
        text[at : at + stop - start] = data[start:stop]
        text[at + stop - start] = 32
        at += stop - start + 1
    return text


@kernel
def _count_numbers(data: NDArray[np.uint8], start: int) -> int:
    """Returns the number of words."""
    count = 0
    inside = False
    for at in range(start, len(data)):
        blank = is_space(data[at]) or is_end(data[at])
        count += inside and blank
        inside = not blank
    return count + inside


def line_of(data: NDArray[np.uint8], at: int) -> int:
    """Returns the number of the line that holds a byte, from 1."""
    before = data[:at].tobytes()
    # Old files of the Macintosh end lines by CR alone.
    return before.count(b"\n" if 10 in data else b"\r") + before.count(JOINT) + 1


def word_at(data: NDArray[np.uint8], at: int) -> str:
    """Returns the word at a byte, for messages."""
    words = data[at : at + 200].tobytes().split(maxsplit=1)
    word = words[0].decode("utf-8", "replace") if words else ""
    return word if len(word) <= 40 else f"{word[:37]}..."


def no_number(data: NDArray[np.uint8], at: int, what: str = "") -> Unreadable:
    """Returns the error of a word that should be a number."""
    word, line = word_at(data, at), line_of(data, at)
    message = f"line {line}: {what}`{word}` is no number"
    if re.fullmatch(r"[+-]?\d*,\d*([eE][+-]?\d+)?", word):
        return Unreadable(f"{message}: it has a decimal comma",
                          "export it with decimal points, in a program set to English")  # fmt: skip
    return Unreadable(message)
