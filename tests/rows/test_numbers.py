"""Numbers that are not plain whole ones: the compiled parser gives the bits that NumPy gives, and refuses the same."""

import random
import struct

import numpy as np
import pytest

from src.rows import lines
from src.rows.columns import Columns
from src.rows.lines import parse

COLUMN = Columns.numbered(1, 1)
ODD = [
    "-0",
    "-0.0",
    ".5",
    "-.5",
    "7.",
    "-7.",
    "+3.5",
    "+-5",
    "-+5",
    "++5",
    "--5",
    "+",
    "-",
    ".",
    "-.",
    "+.",
    "e5",
    ".e5",
    "1e",
    "1e+",
    "1e-60",
    "-1e-60",
    "1e-400",
    "1e400",
    "-1e400",
    "1e39",
    "1e38",
    "3.4028235e38",
    "3.4028236e38",
    "3.40282357e38",
    "nan",
    "inf",
    "-inf",
    "infinity",
    "0x10",
    "0x1p3",
    "1_0",
    "1.5.5",
    "1.5f",
    "1,5",
    "00012.50",
    "1E5",
    "1e05",
    "1E-05",
    "123456789012345678901234567890",
    "0.1000000000000000055511151231257827021181583404541015625",
    "١.5",
]


def odd_numbers(count, seed=5):
    """Any float32, decimals of any length and exponent, and texts that are nearly numbers."""
    rng = random.Random(seed)
    for _ in range(count):
        kind = rng.randrange(5)
        if kind == 0:
            yield repr(struct.unpack("<f", struct.pack("<I", rng.randrange(1 << 32)))[0])
        elif kind == 1:
            yield f"{rng.uniform(-1e4, 1e4):.{rng.randrange(12)}f}"
        elif kind == 2:
            yield f"{rng.choice(['', '+', '-'])}{rng.randrange(10 ** rng.randrange(1, 25))}.{rng.randrange(10**6)}"
        elif kind == 3:
            yield f"{rng.uniform(-10, 10)!r}e{rng.randrange(-60, 60)}"
        else:
            yield "".join(rng.choice("0123456789..eE+-") for _ in range(rng.randrange(1, 14)))


def test_the_compiled_parser_gives_numpys_bits(monkeypatch):
    assert lines._library(), "install g++"
    texts = [*ODD, *odd_numbers(30_000)]
    text = "".join(f"1\t{number}\tc\n" for number in texts).encode()
    compiled = parse(text, COLUMN)
    monkeypatch.setattr(lines, "_library", lambda: None)
    plain = parse(text, COLUMN)
    assert compiled.numbers.tobytes() == plain.numbers.tobytes()
    assert compiled.bad == plain.bad
    assert 1000 < len(plain.bad) < len(texts) / 2


@pytest.mark.parametrize("text", ["1.5", "-0.25", "1e3", "123456789", "+7", ".5"])
def test_a_decimal_is_not_left_to_numpy(monkeypatch, text):
    """There each cell is a turn of a loop in Python."""

    def no_numpy(*_):
        raise AssertionError

    monkeypatch.setattr(lines, "_parse", no_numpy)
    assert parse(f"1\t{text}\tc\n".encode(), COLUMN).numbers.tolist() == [[np.float32(float(text))]]
