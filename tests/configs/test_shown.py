"""What files say reaches a terminal without control characters, and bounded."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmworks.configs.shown import LIMIT, shown


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Grüße, 日本語 👩‍💻 10\u00a0%", "Grüße, 日本語 👩‍💻 10\u00a0%"),
        ("\x1b]0;title\x07\x1b[2J", r"\x1b]0;title\x07\x1b[2J"),
        ("\x9b31m\x7f\x85", r"\x9b31m\x7f\x85"),
        ("a\nb\rc\td", r"a\nb\rc\td"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\u202etxt.exe\u2066", r"\u202etxt.exe\u2066"),
        ("\udcff\ud800", r"\udcff\ud800"),
        (ValueError("a\x00b"), r"a\x00b"),
    ],
)
def test_unsafe_characters_are_seen_and_all_others_stay(text, safe):
    assert shown(text) == safe


def test_lines_stay_where_they_are_allowed():
    assert shown("a\n\tb\r\x1b[A", lines=True) == "a\n\tb\\r\\x1b[A"


def test_a_long_text_keeps_its_beginning_and_its_end():
    text = "run.json: " + "x" * 700_000 + "; run it again"
    told = shown(text)
    assert len(told) == LIMIT
    assert told.startswith("run.json: xxx")
    assert told.endswith("xxx; run it again")
    assert "… (692,024 characters more) …" in told


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters()), st.integers(0, 60), st.booleans())
def test_any_text_is_safe_bounded_and_writable(text, limit, lines):
    told = shown(text, limit, lines=lines)
    assert len(told) <= limit
    told.encode()
    left = set(told) - ({"\n", "\t"} if lines else set())
    assert not [character for character in left if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")]
