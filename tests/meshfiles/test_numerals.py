"""Numbers of text files: as Python reads them, to the last bit."""

import numpy as np
import pytest

from ultrashape_cli.meshfiles.numerals import (
    no_number,
    put_number,
    read_number,
    read_numbers,
    settle,
)


def read(words: list[str]) -> np.ndarray:
    data = np.frombuffer(" ".join(words).encode(), np.uint8)
    values = np.empty(len(words))
    at = 0
    for slot in range(len(words)):
        at = put_number(values.view(np.int64), slot, data, at, len(data)) + 1
        assert at > 0, words[slot]
    settle(values, data)
    return values


def test_numbers_are_rounded_once() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=500) * 10.0 ** rng.integers(-40, 40, 500)
    forms = ["{!r}", "{:.6f}", "{:.9g}", "{:.17e}", "{:.25f}", "{:+.3E}"]
    words = [form.format(float(v)) for v in values for form in forms]
    words += ["0", "-0.0", ".5", "5.", "-.5e-1", "007", "1e400", "5e-324", "9007199254740993",
              "0.000000000000000000000000000001", "123456789012345678901234567890", "1e22", "1e23",
              "1" + "0" * 400, "+0.12345678901234567890", "+.123456789012345678e+2",
              "12345678901234567890.", "1e-999999999999999999999"]  # fmt: skip
    found = read(words)
    assert found.tobytes() == np.array([float(word) for word in words]).tobytes()


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\n \t\n"])
def test_numbers_up_to_a_word_that_is_none_and_where_lines_begin(end: str) -> None:
    text = end.join(["OFF 1 2", " 0.12345678901234567890", "4\t5 six 7", "8"]).encode()
    values, firsts, wrong_at = read_numbers(np.frombuffer(text, np.uint8), 3)
    assert values.tolist() == [1, 2, 0.12345678901234567890, 4, 5]
    assert firsts.tolist() == [0, 2, 3]
    assert wrong_at == text.index(b"six")
    values, firsts, wrong_at = read_numbers(np.frombuffer(text[:7], np.uint8), 3)
    assert (values.tolist(), firsts.tolist(), wrong_at) == ([1, 2], [0], -1)
    assert [len(found) for found in read_numbers(np.frombuffer(b" ", np.uint8), 0)[:2]] == [0, 0]


@pytest.mark.parametrize("word", ["nan", "-NaN", "inf", "-Infinity", "nan(ind)", "-nan(snan)",
                                  "1.#IND", "-1.#IND00", "1.#QNAN", "1.#INF"])  # fmt: skip
def test_what_is_not_finite_is_nan(word: str) -> None:
    assert np.isnan(read([word, "1.5"])).tolist() == [True, False]


@pytest.mark.parametrize("word", ["", "a", "1a", "1.2.3", "--1", "1e", "e5", ".", "-", "1,5", "0x1",
                                  "1/2", "1_0", "na"])  # fmt: skip
def test_other_words_are_no_numbers(word: str) -> None:
    data = np.frombuffer(f"{word} 1".encode(), np.uint8)
    assert read_number(data, 0, len(data))[1] == 3


def test_a_word_that_is_no_number_is_shown_with_its_line() -> None:
    data = np.frombuffer(b"v 1 2 3\r\nv 1 -2,5e+00 3\r\n", np.uint8)
    error = no_number(data, 13)
    assert str(error) == "line 2: `-2,5e+00` is no number: it has a decimal comma"
    assert "decimal points" in error.hint
    assert str(no_number(data, 0)) == "line 1: `v` is no number"
    assert "line 2" in str(no_number(np.frombuffer(b"v\rx", np.uint8), 2))
