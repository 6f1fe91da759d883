"""Nothing that reaches a terminal moves its cursor, turns its text or hides."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qig_core.rundir.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 100 %", "plain text, 100 %"),
        ("Φ = 0.7 ± 0.1 · 漢字", "Φ = 0.7 ± 0.1 · 漢字"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("a\tb\r\nc\x00\x7f\x9b", "a\\x09b\\x0d\\x0ac\\x00\\x7f\\x9b"),
        ("abc\u202edef\u2066", "abc\\u202edef\\u2066"),
        ("zero\u200bwidth\u00ad\ufeff", "zero\\u200bwidth\\xad\\ufeff"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\ud800\udfff", "\\ud800\\udfff"),
        ("\ue000\U000f0000", "\\ue000\\U000f0000"),
        ("\u3164\u115f\ufe0f\u034f\U000e0100", "\\u3164\\u115f\\ufe0f\\u034f\\U000e0100"),
        ("\U000e0041", "\\U000e0041"),
        (12.5, "12.5"),
    ],
)
def test_dangerous_characters_become_visible_escapes(text: object, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_the_result_is_harmless_and_stays_as_it_is(text: str) -> None:
    shown = printable(text)
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in shown)
    shown.encode("utf-8")
    assert printable(shown) == shown


@given(st.text(alphabet=st.characters(exclude_categories=[])), st.integers(0, 20))
def test_the_limit_holds_for_what_is_shown(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert len(shown) <= limit
    full = printable(text)
    assert shown == full if len(full) <= limit else limit == 0 or shown == full[: limit - 1] + "…"
