"""Keys of categorical values: 64 bits that stand for a text, in NumPy as raw_text.cc has them in C++.

Text of up to 8 bytes, such as Criteo's 8 hex digits, is its own key, little-endian with zeros behind; longer text is
hashed. Keys of hashed text have a first byte of the form 10xxxxxx, which no UTF-8 text begins with, so that the two
kinds never meet. Neither does UTF-8 text hold the byte 11111111, with which the keys of a table's free rows begin.

Each vocabulary has a seed, and who does not know it can't make longer texts that share a key: the hash is SipHash-1-3
(Aumasson and Bernstein, 2012) with the seed as its key, 62 bits of it. Two of n values of a field share a key by chance
with a probability of n^2 / 2^63. While values are counted, a second hash of 31 bits stands beside each key, its check,
and tells such texts apart; of later rows no one would notice, for texts are not kept. Vocabularies of the first kind
have no seed, "", and a hash of their own.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from src.rows.text import utf8

PAD = 8  # bytes that must stand behind the text whose words are taken
KEEP_FIRST = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)
_MULTIPLIER, _MULTIPLIER_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_SEED_BYTES = 16
_NO_SEED = np.zeros(2, np.uint64)  # of checks
_FREE = np.uint64(0xFF)
_SIP_START = np.frombuffer(b"uespemosmodnarodarenegylsetybdet", "<u8")  # "somepseudorandomlygeneratedbytes", by words


def learn_seed(cells: Sequence[Sequence[str]]) -> str:
    """The seed that follows from some rows' cells, of each column: who does not have the rows does not know it."""
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[: 2 * _SEED_BYTES]


def is_seed(text: str) -> bool:
    """Whether a text has the form of a seed: 32 hex digits."""
    return len(text) == 2 * _SEED_BYTES and set(text) <= set("0123456789abcdef")


def seed_words(seed: str) -> np.ndarray:
    """A seed as two numbers, uint64."""
    return np.frombuffer(bytes.fromhex(seed), "<u8")


def words_of(buffer: np.ndarray) -> np.ndarray:
    """The 8 bytes from every position on, but the last 7."""
    return np.ndarray(len(buffer) - 7, "<u8", buffer, strides=(1,))


def keys_at(words: np.ndarray, starts: np.ndarray, ends: np.ndarray, seed: str) -> np.ndarray:
    """The keys of cells, uint64 of the shape of their places.

    Args:
        words: `words_of` the text and PAD bytes behind it.
        starts, ends: each cell's first byte, and the one behind it.
        seed: the vocabulary's.
    """
    keys, hashed = _short_keys(words, starts, ends)
    if hashed.any():
        places = words, starts[hashed], (ends - starts)[hashed]
        hashes = siphash(*places, seed_words(seed)) if seed else _first_hash(*places)
        keys[hashed] = hashes & ~np.uint64(0xC0) | np.uint64(0x80)
    return keys


def _short_keys(words: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first 8 bytes of cells, and which of them must be hashed."""
    sizes = ends - starts
    keys = words[starts] & KEEP_FIRST[np.minimum(sizes, 8)]
    return keys, (sizes > 8) | (keys & np.uint64(0xC0) == np.uint64(0x80))


def checks_at(words: np.ndarray, starts: np.ndarray, ends: np.ndarray, seed: str) -> np.ndarray:
    """The checks of cells, uint32: odd numbers for those whose keys are hashed, and 0 for the others."""
    _, hashed = _short_keys(words, starts, ends)
    checks = np.zeros(starts.shape, np.uint32)
    if hashed.any():
        state = _sip_state(words, starts[hashed], (ends - starts)[hashed], seed_words(seed) if seed else _NO_SEED)
        state[1] ^= np.uint64(0xDD)
        for _ in range(3):
            _round(state)
        checks[hashed] = np.bitwise_xor.reduce(state).astype(np.uint32) | np.uint32(1)
    return checks


def siphash(words: np.ndarray, starts: np.ndarray, sizes: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """SipHash-1-3 of cells of any length."""
    hashes: np.ndarray = np.bitwise_xor.reduce(_sip_state(words, starts, sizes, seed))
    return hashes


def hidden_keys(keys: np.ndarray, tables: np.ndarray | int, secret: str) -> np.ndarray:
    """Hashes, uint64, of keys and the numbers of their tables, by a secret of the form of a seed.

    SipHash-1-3 of both: who does not know the secret learns nothing of a key from its hash, nor that two tables hold
    the same one.
    """
    cells = np.empty((keys.size + 1, 2), "<u8")  # and some bytes behind the last
    cells[:-1, 0], cells[-1] = keys.reshape(-1), 0
    cells[:-1, 1] = np.broadcast_to(np.asarray(tables, np.int64).astype(np.uint64), keys.shape).reshape(-1)
    starts = np.arange(keys.size) * cells.itemsize * 2
    sizes = np.full(keys.size, cells.itemsize * 2)
    if not keys.size:
        return np.zeros(keys.shape, np.uint64)
    return siphash(words_of(cells.view(np.uint8).reshape(-1)), starts, sizes, seed_words(secret)).reshape(keys.shape)


def _sip_state(words: np.ndarray, starts: np.ndarray, sizes: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Its state [4, B]: eight bytes a round, the last ones with the size; then three rounds more."""
    state = np.tile((_SIP_START ^ np.tile(seed, 2))[:, None], len(starts))
    for done in range(0, int(sizes.max()) + 1, 8):
        rows = np.flatnonzero(sizes >= done)
        left = sizes[rows] - done
        word = words[starts[rows] + done] & KEEP_FIRST[np.minimum(left, 8)]
        word |= np.where(left < 8, sizes[rows].astype(np.uint64) << np.uint64(56), np.uint64(0))
        mixed = state[:, rows]
        mixed[3] ^= word
        _round(mixed)
        mixed[0] ^= word
        state[:, rows] = mixed
    state[2] ^= np.uint64(0xFF)
    for _ in range(3):
        _round(state)
    return state


def _round(state: np.ndarray) -> None:
    """One SipRound of states [4, B], in place."""
    a, b, c, d = state
    a += b
    c += d
    b[:], d[:] = _turned(b, 13) ^ a, _turned(d, 16) ^ c
    a[:] = _turned(a, 32)
    c += b
    a += d
    b[:], d[:] = _turned(b, 17) ^ c, _turned(d, 21) ^ a
    c[:] = _turned(c, 32)


def _turned(words: np.ndarray, bits: int) -> np.ndarray:
    return words << np.uint64(bits) | words >> np.uint64(64 - bits)


def _first_hash(words: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The hash of vocabularies without a seed.

    A turn multiplies twice, with a shift between: after one product a word's last bytes have hardly spread.
    """
    hashes = sizes.astype(np.uint64) * _MULTIPLIER
    for done in range(0, int(sizes.max()), 8):
        left = sizes - done
        rows = np.flatnonzero(left > 0)
        word = words[starts[rows] + done] & KEEP_FIRST[np.minimum(left[rows], 8)]
        mixed = (hashes[rows] ^ word) * _MULTIPLIER
        mixed = (mixed ^ mixed >> np.uint64(32)) * _MULTIPLIER_2
        hashes[rows] = mixed ^ mixed >> np.uint64(32)
    return hashes


def keys_of(texts: Sequence[str], seed: str = "") -> np.ndarray:
    """The keys of categorical values, uint64 [B]."""
    cells = [utf8(text) for text in texts]
    sizes = np.array([len(cell) for cell in cells], np.int64)
    ends = np.cumsum(sizes)
    buffer = np.frombuffer(b"".join(cells) + bytes(PAD), np.uint8)
    return keys_at(words_of(buffer), ends - sizes, ends, seed)


def key_of(text: str, seed: str = "") -> int:
    """The key of one categorical value."""
    return int(keys_of([text], seed)[0])


def free_keys(rows: np.ndarray) -> np.ndarray:
    """Keys that no text has, uint64, another one for each row of a table."""
    keys: np.ndarray = rows.astype(np.uint64) << np.uint64(8) | _FREE
    return keys


def is_free(keys: np.ndarray) -> np.ndarray:
    """Which of the keys are those of free rows, bool."""
    free: np.ndarray = keys & _FREE == _FREE
    return free


def text_of(key: int) -> str | None:
    """The categorical value of a key, or None if it was hashed, or is of a free row."""
    data = int(key).to_bytes(8, "little")
    return None if data[0] & 0xC0 == 0x80 or data[0] == _FREE else data.rstrip(b"\0").decode("utf-8", "replace")
