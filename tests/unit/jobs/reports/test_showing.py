"""Numbers and texts as a report writes them."""

from typing import Any

import pytest

from jobs.reports.showing import (
    brief,
    clean,
    count,
    excerpt,
    interval,
    name,
    number,
    p_value,
    percent,
    plain,
    points,
    written,
)

NO_NUMBERS: list[Any] = [None, float("nan"), float("inf"), True, "0.5", []]


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize("show", [plain, percent, points, count, p_value])
def test_what_is_no_number_is_a_dash(show: Any, value: Any) -> None:
    assert show(value) == "–"
    assert number(value) is None


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (plain(0.98765), "0.9877"),
        (plain(0), "0.0000"),
        (percent(0.931249), "93.12%"),
        (percent(1), "100.00%"),
        (points(0.0123), "+1.23"),
        (points(-0.2), "-20.00"),
        (points(0), "+0.00"),
        (count(1234567), "1,234,567"),
        (written(12.3456, ",.2f"), "12.35"),
        (brief(300), "300"),
        (brief(300.0), "300"),
        (brief(0.95), "0.95"),
        (brief(1 / 3), "0.333333"),
        (brief(">= 0.95"), ">= 0.95"),
        (brief(None), "–"),
        (brief(float("nan")), "nan"),
        (p_value(0.0001), "0.0001"),
        (p_value(0.00009), "< 0.0001"),
        (p_value(0), "< 0.0001"),
        (interval([0.9, 0.95]), "[90.00%, 95.00%]"),
        (interval((-0.01, 0.02), points), "[-1.00, +2.00]"),
        (interval([0.9, None]), "–"),
        (interval([]), "–"),
        (interval(None), "–"),
    ],
)
def test_numbers_have_their_form(shown: str, expected: str) -> None:
    assert shown == expected


def test_a_long_name_keeps_both_ends() -> None:
    assert name("a" * 60) == "a" * 60
    assert name("a" * 31 + "b" * 30, 11) == "aaaaa…bbbbb"
    assert name("first" + "x" * 100_000 + "last", 12) == "firstx…xlast"
    assert len(name("y" * 100_000)) == 60


def test_a_long_text_keeps_its_beginning() -> None:
    assert excerpt("  two \n\t words ") == "two words"
    assert excerpt("word " * 30_000, 12) == "word word w…"
    assert excerpt("short" + " " * 100_000, 20) == "short…"
    assert len(excerpt("z" * 100_000)) == 240


def test_characters_that_steer_or_cannot_be_stored_are_replaced() -> None:
    assert clean("a\x00b\x1b[31m\u202ec\ud800") == "a\ufffdb\ufffd[31m\ufffdc\ufffd"
    assert clean("Ümläut 医療 😀 می\u200cخواهم") == "Ümläut 医療 😀 می\u200cخواهم"


def test_names_need_not_be_texts() -> None:
    assert (name(None), name(7), excerpt(None)) == ("–", "7", "–")
