"""Keys of categorical values: short texts themselves, and hashes of longer ones."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_lines import parser  # noqa: F401 - a fixture, so that both parsers are tested

from src.data.lines import Columns, key_of, parse, text_of


@given(st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), max_size=8))
def test_text_of_up_to_8_bytes_is_its_own_key(text):
    if len(text.encode()) <= 8:
        assert text_of(key_of(text)) == text
        assert key_of(text) == int.from_bytes(text.encode(), "little")


@given(st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), min_size=9, max_size=40))
def test_longer_text_is_hashed_to_a_key_that_no_text_begins_with(text):
    assert text_of(key_of(text)) is None
    assert key_of(text) & 0xC0 == 0x80


def test_bytes_that_look_like_a_hash_are_no_text():
    """So no cell of 8 bytes meets the long text whose key they are."""
    texts = (f"a long text, number {i}" for i in range(1000))
    text, key = next((text, key) for text in texts if min(key := key_of(text).to_bytes(8, "little")) >= 0x20)
    block = parse(b"0\t\t" + text.encode() + b"\n0\t\t" + key + b"\n", Columns.numbered(1, 1))
    assert block.keys.tolist() == [[key_of(text)]]
    assert [row.line for row in block.bad] == [2]


@given(st.lists(st.text(st.characters(min_codepoint=1, exclude_categories=("Cs",)), max_size=40), unique=True))
@example(["", "a", "aa", "aaaaaaaa", "aaaaaaaaa", "a" * 16, "a" * 17, "a" * 24])
def test_distinct_texts_have_distinct_keys(texts):
    assert len({key_of(text) for text in texts}) == len(texts)


SYSTEMATIC = {
    "numbers": [f"user-{i:011d}" for i in range(200_000)],
    "numbers_before_a_common_end": [f"{i:08d}-and-more" for i in range(200_000)],
    "three_places": [
        f"aaaaaaa{chr(a)}bbb{chr(b)}ccc{chr(c)}" for a in range(33, 91) for b in range(33, 91) for c in range(33, 91)
    ],
    "two_numbers": [f"site{a:04d}/item/{b:06d}" for a in range(450) for b in range(450)],
}


@pytest.mark.parametrize("texts", SYSTEMATIC.values(), ids=SYSTEMATIC)
def test_long_systematic_texts_have_distinct_keys(texts):
    """With 62 even bits, 200,000 texts collide with a probability of 5e-9."""
    text = "".join(f"0\t\t{value}\n" for value in texts).encode()
    assert len(np.unique(parse(text, Columns.numbered(1, 1)).keys)) == len(texts)
