"""Keys of categorical values: short texts themselves, and hashes of longer ones, seeded or as they were at first."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_lines import parser  # noqa: F401 - a fixture, so that both parsers are tested

from src.rows.columns import Columns
from src.rows.keys import PAD, checks_at, is_seed, key_of, keys_of, learn_seed, siphash, text_of, words_of
from src.rows.lines import parse

SEEDS = ["", "00" * 16, "00112233445566778899aabbccddeeff", "ff" * 16]
texts = st.text(st.characters(min_codepoint=32, exclude_categories=("Cs",)), max_size=40)


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
    "numbers": lambda: [f"user-{i:011d}" for i in range(200_000)],
    "numbers_before_a_common_end": lambda: [f"{i:08d}-and-more" for i in range(200_000)],
    "three_places": lambda: [
        f"aaaaaaa{chr(a)}bbb{chr(b)}ccc{chr(c)}" for a in range(33, 91) for b in range(33, 91) for c in range(33, 91)
    ],
    "two_numbers": lambda: [f"site{a:04d}/item/{b:06d}" for a in range(450) for b in range(450)],
}


@pytest.mark.parametrize("seed", ["", SEEDS[2]])
@pytest.mark.parametrize("make", SYSTEMATIC.values(), ids=SYSTEMATIC)
def test_long_systematic_texts_have_distinct_keys(make, seed):
    """With 62 even bits, 200,000 texts collide with a probability of 5e-9."""
    texts = make()
    text = "".join(f"0\t\t{value}\n" for value in texts).encode()
    assert len(np.unique(parse(text, columns(seed)).keys)) == len(texts)


def columns(seed: str) -> Columns:
    return replace(Columns.numbered(1, 1), key_seed=seed)


@given(st.lists(texts, min_size=1, max_size=8), st.sampled_from(SEEDS))
@example([letter * size for letter in "a\u00e4\u20ac" for size in range(1, 34)], SEEDS[2])
def test_lines_give_the_keys_of_their_texts_with_any_seed(cells, seed):
    """The module's parser, compiled or not, against `keys_of`, which is NumPy's."""
    text = "".join(f"0\t\t{cell}\n" for cell in cells).encode()
    block = parse(text, columns(seed))
    assert block.bad == []
    assert block.key_seed == seed
    assert block.keys[0].tolist() == keys_of(cells, seed).tolist()
    assert block.checks is None


@given(st.lists(texts, min_size=1, max_size=8, unique=True), st.sampled_from(SEEDS))
@example([letter * size for letter in "a\u00e4\u20ac" for size in range(1, 34)], SEEDS[2])
def test_lines_give_checks_of_hashed_keys_where_they_are_asked_for(cells, seed):
    """The module's parser, a row and its lines that only NumPy reads among them, against NumPy's `checks_at`."""
    text = "".join(f"0\t{'1e400' if cell == cells[0] else ''}\t{cell}\n0\t1e0\t{cell}\n" for cell in cells).encode()
    block = parse(text, replace(columns(seed), checked=True))
    assert len(block.bad) == 1
    data = [cell.encode() for cell in cells]
    sizes = np.array([len(cell) for cell in data])
    words = words_of(np.frombuffer(b"".join(data) + bytes(PAD), np.uint8))
    checks = checks_at(words, np.cumsum(sizes) - sizes, np.cumsum(sizes), seed)
    found = [0] * (2 * len(cells) - 1) if block.checks is None else block.checks[0].tolist()
    assert found == np.repeat(checks, 2)[1:].tolist()
    assert (block.checks is None) <= (not checks.any())
    assert (checks % 2).tolist() == [size > 8 for size in sizes]
    assert len(set(checks[checks > 0].tolist())) == (sizes > 8).sum()


def test_the_seeded_hash_is_that_of_pythons_own_bytes():
    """SipHash-1-3 since Python 3.11; of PYTHONHASHSEED=7, its key is the first 16 bytes of a generator."""
    if sys.hash_info.algorithm != "siphash13":
        pytest.skip("this Python hashes otherwise")
    state, key = 7, bytearray()
    for _ in range(16):
        state = (state * 214013 + 2531011) % 2**32
        key.append(state >> 16 & 0xFF)
    cells = [bytes(range(size)) for size in range(1, 40)]
    code = f"import json; print(json.dumps([hash(cell) for cell in {cells!r}]))"
    told = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": "7"}, check=True, capture_output=True
    ).stdout
    sizes = np.array([len(cell) for cell in cells])
    words = words_of(np.frombuffer(b"".join(cells) + bytes(PAD), np.uint8))
    found = siphash(words, np.cumsum(sizes) - sizes, sizes, np.frombuffer(bytes(key), "<u8"))
    assert found.view(np.int64).tolist() == json.loads(told)


MADE_TO_MEET = ["00000001zzzzzzzz", "00000888dvb@dNvc"]


def test_texts_that_were_made_to_share_a_key_share_none_with_a_seed():
    assert len(set(keys_of(MADE_TO_MEET).tolist())) == 1
    for seed in SEEDS[1:]:
        assert len(set(keys_of(MADE_TO_MEET, seed).tolist())) == 2


def test_keys_without_a_seed_are_what_they_were():
    first = {
        "00000001zzzzzzzz": 6927792139334843783,
        "more than eight": 16270492873352749460,
        "\u00e4" * 30: 2983016517233918904,
        "a" * 16: 1065293109029861048,
    }
    assert {text: key_of(text) for text in first} == first


def test_a_seed_changes_the_keys_of_long_texts_and_of_no_others():
    cells = ["", "a", "68fd1e64", "\u00e4\u00e4\u00e4\u00e4", "123456789", "\u20ac" * 9]
    kept = [keys_of(cells, seed) == keys_of(cells) for seed in SEEDS[1:]]
    assert [own.tolist() for own in kept] == [[True] * 4 + [False] * 2] * 3


def test_a_seed_follows_from_the_cells_alone():
    seed = learn_seed([["a", "b"], ["c", "d"]])
    assert is_seed(seed)
    assert seed == learn_seed([["a", "b"], ["c", "d"]])
    assert seed != learn_seed([["a", "b"], ["c", "e"]])
