"""The law behind generated rows: how numbers and categories are distributed, and the click model that draws labels.

Shares of empty cells, the distribution of the integers and the number of distinct values of each field follow the real
data, at 137 thousand rows as at 45.8 million; no row of it is in here. Cells of a row are independent but for their
being empty. Since the click model is known, the best AUC anything can reach is known too: see `planted_logits`.

From day to day values come and go, and the law drifts: a rank of a field, such as its most frequent value, is taken by
another value at the end of its life, with an effect of its own, while all effects turn slowly. Day 0 is the plain law.

Legend for the shapes below: B rows of a block, N dense features, F fields, D width of the planted vectors.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BLOCK_ROWS = 16_384  # drawn whole even where the file ends inside, so that a shorter file is a prefix of a longer one

# Columns of a group are empty together. Share of rows, columns counted from I1 = 0 to C26 = 38.
MISSING = (
    (0.4509, (0, 9)), (0.2134, (2,)), (0.2145, (3, 12)), (0.0263, (4,)), (0.2227, (5,)), (0.0428, (6, 8, 10)),
    (0.0005, (7,)), (0.7652, (11,)), (0.0345, (15, 16, 24, 28, 33, 36)), (0.4418, (31, 32, 37, 38)),
    (0.1218, (18,)), (0.7613, (34,)),
)  # fmt: skip

# Integers: the share of the filled cells below each edge; log-uniform, rounded down, from edge to edge.
EDGES = (0, 1, 2, 3, 5, 10, 20, 50, 100, 300, 1000, 3000, 10_000, 100_000, 2_500_000)
SHARE_BELOW = np.array((
    (0, .426, .602, .699, .802, .907, .965, .994, .999, 1, 1, 1, 1, 1, 1),  # I1
    (.103, .276, .431, .487, .54, .61, .684, .788, .853, .927, .971, .996, 1, 1, 1),  # I2
    (0, .005, .165, .272, .418, .612, .773, .914, .967, .994, .999, .999, 1, 1, 1),  # I3
    (0, .054, .22, .349, .525, .748, .911, .997, 1, 1, 1, 1, 1, 1, 1),  # I4
    (0, .019, .042, .057, .069, .092, .121, .159, .19, .245, .316, .524, .746, .963, 1),  # I5
    (0, .065, .1, .131, .182, .274, .397, .595, .744, .908, .984, .998, 1, 1, 1),  # I6
    (0, .225, .36, .45, .565, .715, .832, .932, .97, .994, .999, 1, 1, 1, 1),  # I7
    (0, .114, .197, .267, .378, .565, .758, .999, 1, 1, 1, 1, 1, 1, 1),  # I8
    (0, .032, .072, .103, .152, .24, .357, .56, .727, .915, .99, .999, 1, 1, 1),  # I9
    (0, .479, .923, .987, .999, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1),  # I10
    (0, .234, .582, .726, .85, .941, .982, .998, 1, 1, 1, 1, 1, 1, 1),  # I11
    (0, .743, .899, .932, .957, .977, .99, .998, 1, 1, 1, 1, 1, 1, 1),  # I12
    (0, .063, .225, .35, .519, .732, .892, .99, .998, 1, 1, 1, 1, 1, 1),  # I13
))  # fmt: skip
SHARE_BELOW_MINUS_1 = 0.001  # of I2, the one column with negative values: -1, and now and then -2

# Categories: the share of the most frequent value; then a bounded Zipf-Mandelbrot law (x + offset)^-exponent on
# 0 <= x < size, value 1 + floor(x). Fitted to the distinct counts of 137,139 and of all 45,840,617 real rows.
FIELDS = (
    (0.5, 1.929, 1.77, 1459), (0.113, 4.012, 70.4, 582), (0.026, 1.055, 1.73, 1.377e9), (0.037, 1.204, 12.3, 8.41e6),
    (0.674, 2.565, 1.96, 304), (0.451, 5.304, 0.861, 22), (0.021, 1.989, 378, 12_510), (0.595, 2.228, 1.85, 632),
    (0.9, 1.1, 10, 2), (0.222, 1.63, 198, 93_200), (0.032, 2.633, 310, 5680), (0.026, 1.086, 3.63, 1.135e9),
    (0.032, 2.46, 216, 3190), (0.349, 6, 4.53, 26), (0.016, 2.186, 192, 14_990), (0.026, 1.142, 9.4, 3.201e8),
    (0.46, 1.1, 1.58, 9), (0.032, 2.488, 107, 5651), (0.617, 1.854, 23.5, 2171), (0.34, 1.1, 10, 2),
    (0.026, 1.115, 6.98, 9.577e8), (0.569, 6, 2.07, 16), (0.437, 1.115, 0.335, 14), (0.055, 1.323, 7.28, 3.05e5),
    (0.255, 6, 10.3, 103), (0.074, 1.317, 15.2, 1.437e5),
)  # fmt: skip

# The planted model. It is the same world for every seed: a seed draws other rows, not other weights.
PLANTED_SEED = 1906_00091
BIAS = -1.9  # for a label mean of 0.257
MAIN_SCALE = 0.2  # deviation of the main effect of a category's value
HOT = 64  # values of a field that carry signal at all
HALF_SHARE = 0.1  # share of the rows at which a value has half its strength: what is rare cannot be learnt, nor matters
GOLDEN_ANGLE = 2.39996  # from one value's vector to the next one's: any first few point all ways
VECTOR_WIDTH = 2
# Strength of the vectors of a field. The model to be tried learns interactions with plain SGD in one epoch, so the
# strong ones are where a few values share the rows evenly (C14, C20), and C9, C17 and C23 have weak ones.
VECTOR_STRENGTH = {8: 0.1, 13: 0.58, 16: 0.1, 19: 0.58, 22: 0.1}
# The integers have a vector too: in each direction, tanh of a sum of (column, weight).
DENSE_VECTOR_STRENGTH = 5.0
DENSE_VECTOR = ((4, 0.8), (5, 0.5)), ((1, 0.8), (8, -0.5))
DENSE_PRODUCTS = ((4, 1, 0.6),)  # (column, column, weight) of a product of their tanh
DENSE_LINEAR = np.array(
    (0.13, 0.2, -0.13, -0.15, -0.32, -0.26, 0.26, -0.13, 0.13, 0.15, 0.26, 0.07, -0.1), np.float32
)  # by column

# From day to day.
DRIFT = 0.08  # radians by which all effects turn in a day
LIVES = ((1, 1000), (HOT, 24), (2**62, 5))  # days that a value lives below each rank; its first day is any of these
BIAS_SWING = 0.15  # of the bias, up and down in a week
OCCUPANT = 0x9E3779B1  # makes other values of a rank's later occupants

NO_NUMBER = -3  # stands for an empty integer cell


@dataclass(frozen=True)
class Law:
    """The click model of a day.

    Attributes:
        bias: of the logits.
        effects: main effect and vector of the hottest values, [F, HOT + 1, 1 + D]; the last stands for the others.
        linear: effects of the numbers, [N].
    """

    bias: float
    effects: np.ndarray
    linear: np.ndarray


def occupants(field: int, ranks: np.ndarray, day: int) -> np.ndarray:
    """Which of the values that a field's ranks have one after the other they have on a day, from 0; ranks too."""
    lives = np.select([ranks < below for below, _ in LIVES], [days for _, days in LIVES])
    mixed = (ranks.astype(np.uint64) * np.uint64(64) + np.uint64(field)) * np.uint64(0xD6E8FEB86659FD93)
    begins = (mixed >> np.uint64(33)).astype(np.int64) % lives
    found: np.ndarray = (day + begins) // lives
    return found


def values_of(ranks: np.ndarray, day: int) -> np.ndarray:
    """Numbers of the values that have ranks [F, B] on a day, of 32 bits; -1 stays, and on day 0 all do."""
    if not day:
        return ranks
    numbers = np.stack([occupants(field, np.maximum(own, 0), day) for field, own in enumerate(ranks)])
    return np.where(ranks < 0, ranks, ranks ^ (numbers * OCCUPANT & 0xFFFFFFFF))


def draw(seed: int, index: int, rows: int, day: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw the first `rows` rows of block `index` of a day, before they become text.

    Returns the integers [N, B] with NO_NUMBER where empty, the categories [F, B] as ranks from 0, the most frequent
    value of the field, with -1 where empty, the true logits [B], float32, and the labels [B], uint8.
    """
    rng = np.random.default_rng([seed, index, *([day] if day else [])])
    uniform = rng.random((len(MISSING) + len(SHARE_BELOW) + len(FIELDS) + 1, BLOCK_ROWS))[:, :rows]
    for_missing, for_dense, for_ranks, for_label = np.split(uniform, (len(MISSING), len(MISSING) + 13, -1))
    dense = np.stack([_integers(column, u) for column, u in enumerate(for_dense)])
    ranks = np.stack([_ranks(u, *law) for u, law in zip(for_ranks, FIELDS)])
    for u, (share, columns) in zip(for_missing, MISSING):
        empty = u < share
        for column in columns:
            if column < len(dense):
                dense[column, empty] = NO_NUMBER
            else:
                ranks[column - len(dense), empty] = -1
    logits = planted_logits(dense, ranks, law_of(day))
    labels = for_label[0] < 1 / (1 + np.exp(-logits.astype(np.float64)))
    return dense, ranks, logits, labels.astype(np.uint8)


def _integers(column: int, u: np.ndarray) -> np.ndarray:
    """Integers of a column at the quantiles `u`, by interpolation on the scale of log(x + 1)."""
    x = np.expm1(np.interp(u, SHARE_BELOW[column], np.log1p(EDGES)))
    values = (x + 1e-9).astype(np.int64)  # the small summand lets an edge come out as itself
    if SHARE_BELOW[column, 0] > 0:
        values[u < SHARE_BELOW[column, 0]] = -1
        values[u < SHARE_BELOW_MINUS_1] = -2
    return values


def _ranks(u: np.ndarray, top: float, exponent: float, offset: float, size: float) -> np.ndarray:
    """Ranks of a field at the quantiles `u`: 0 for the top share, then the inverse of the bounded power law."""
    power = 1 - exponent
    low, high = offset**power, (size + offset) ** power
    rest = np.maximum(u - top, 0) / (1 - top)
    x = (low + rest * (high - low)) ** (1 / power) - offset
    return np.where(u < top, 0, np.clip(x, 0, math.ceil(size) - 1).astype(np.int64) + 1)


def _dense_moments() -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column's log(x + 1), [N, 1], empty and negative counted as 0."""
    u = (np.arange(10_000) + 0.5) / 10_000
    filled = np.ones(39)
    for share, columns in MISSING:
        filled[list(columns)] = 1 - share
    logs = np.stack([np.log1p(np.maximum(_integers(column, u), 0)) for column in range(13)])
    mean = logs.mean(1) * filled[:13]
    deviation = np.sqrt((logs**2).mean(1) * filled[:13] - mean**2)
    return mean.astype(np.float32)[:, None], deviation.astype(np.float32)[:, None]


def _value_effects(day: int) -> np.ndarray:
    """Main effect and vector of the hottest values of each field, [F, HOT + 1, 1 + D]; the last stands for the others.

    An effect is its random weight times share / (share + HALF_SHARE), so nothing rare matters. The vectors of a field
    are centred, so that they add interactions and, on average over the other fields, no main effects.
    """
    rng = np.random.default_rng(PLANTED_SEED)
    effects = np.zeros((len(FIELDS), HOT + 1, 1 + VECTOR_WIDTH))
    for field, law in enumerate(FIELDS):
        ranks = _ranks((np.arange(200_000) + 0.5) / 200_000, *law)
        shares = np.bincount(ranks[ranks < HOT], minlength=HOT) / len(ranks)  # among the filled cells
        fade = shares / (shares + HALF_SHARE)
        angles = rng.uniform(0, 2 * np.pi) + np.arange(HOT) * GOLDEN_ANGLE + DRIFT * day
        main = _turned(rng.normal(0, MAIN_SCALE, HOT), field, day)
        for number, of_number in _later_occupants(field, day):
            own = np.random.default_rng([PLANTED_SEED, field, number])
            main = np.where(of_number, own.normal(0, MAIN_SCALE, HOT), main)
            angles = np.where(of_number, angles + own.uniform(0, 2 * np.pi, HOT), angles)
        main = main * fade
        vectors = np.stack((np.cos(angles), np.sin(angles)), 1)
        vectors = (vectors - (shares @ vectors) / shares.sum()) * fade[:, None] * VECTOR_STRENGTH.get(field, 0.0)
        effects[field, :HOT, 0] = main - (vectors**2).sum(1) / 2
        effects[field, :HOT, 1:] = vectors
    return effects.astype(np.float32)


def _turned(main: np.ndarray, field: int, day: int) -> np.ndarray:
    """Main effects [HOT] of a field, which turn to others of the same size."""
    others = np.random.default_rng([PLANTED_SEED, field, 0]).normal(0, MAIN_SCALE, HOT)
    return main if not day else np.cos(DRIFT * day) * main + np.sin(DRIFT * day) * others


def _later_occupants(field: int, day: int) -> list[tuple[int, np.ndarray]]:
    """The numbers, from 1, of the values that hot ranks have on a day, and which of these have each, [HOT] bool."""
    numbers = occupants(field, np.arange(HOT), day)
    return [(number, numbers == number) for number in np.unique(numbers[numbers > 0]).tolist()]


@functools.cache
def law_of(day: int) -> Law:
    """The click model of a day, from 0."""
    turned = np.cos(DRIFT * day) * DENSE_LINEAR + np.sin(DRIFT * day) * np.roll(DENSE_LINEAR, 5)
    bias = BIAS + BIAS_SWING * math.sin(2 * math.pi * day / 7)
    return Law(bias, _value_effects(day), turned.astype(np.float32) if day else DENSE_LINEAR)


DENSE_MEAN, DENSE_DEVIATION = _dense_moments()


def planted_logits(dense: np.ndarray, ranks: np.ndarray, law: Law | None = None) -> np.ndarray:
    """The true logits [B], float32, of integers [N, B] and ranks [F, B] as `draw` returns them.

    A factorisation machine: a bias, main effects of integers (linear in log(x + 1), standardised) and of hot values,
    a product of two integers, and the dot products of all pairs among the vectors of the fields and the one of the
    integers. Empty and negative integers count as 0; empty categories have no effect. Unless given, the law is day 0's.
    """
    law = law or law_of(0)
    s = (np.log1p(np.maximum(dense, 0).astype(np.float32)) - DENSE_MEAN) / DENSE_DEVIATION
    t = np.tanh(s)
    # No product of matrices: it would wake BLAS's threads, which then spin on the cores of the other workers.
    logits = law.bias + (law.linear[:, None] * s).sum(0)
    for a, b, weight in DENSE_PRODUCTS:
        logits += weight * t[a] * t[b]
    n = np.stack([np.tanh(sum(weight * s[column] for column, weight in terms)) for terms in DENSE_VECTOR])
    n *= DENSE_VECTOR_STRENGTH  # [D, B]
    total = n
    for field, rank in enumerate(ranks):
        effect = law.effects[field].take(np.minimum(rank, HOT), axis=0)  # [B, 1 + D]; -1 takes the last row as well
        logits += effect[:, 0]
        if field in VECTOR_STRENGTH:
            total = total + effect[:, 1:].T
    # |sum of v|^2 = sum of |v|^2 + twice the pairs; the fields' own |v|^2 is taken off in their main effects.
    return (logits + ((total**2).sum(0) - (n**2).sum(0)) / 2).astype(np.float32)


# A smaller law, for tables of any columns, which a few ten thousand rows are enough to learn.
_ANY_BIAS, _PRODUCT, _MOST_EFFECTS = -0.4, 1.1, 512
_NUMBER_EFFECTS, _FIELD_EFFECTS, _LIST_EFFECT = (0.8, -0.5), (0.5, 0.4, 0.3), 0.5


@dataclass(frozen=True)
class AnyRows:
    """Rows of any columns: numbers [N, B] of two decimals, nan where empty; codes [F, B] from 0; lists of codes, [B] of
    each of the columns of lists; the true chances [B], and labels [B] drawn by them.
    """

    numbers: np.ndarray
    codes: np.ndarray
    lists: list[list[list[int]]]
    chances: np.ndarray
    labels: np.ndarray


def draw_any(
    seed: int, rows: int, numbers: int, sizes: Sequence[int], list_sizes: Sequence[int] = (),
    more: np.ndarray | float = 0.0,
) -> AnyRows:  # fmt: skip
    """Draw rows of a table of any columns.

    The first two numbers have effects, as tanh of their standardised log(x + 1), an empty one as 0. Of the fields with
    up to 512 values, some have main effects, and of the first two whether their codes are both even or both odd counts;
    without fields the product of the first two numbers does. Of the first column of lists, values' effects add up, of
    others their mean counts. Fields of more values have a long tail, and no effect.

    Args:
        seed: of the rows; the law is the same for every seed.
        rows, numbers: B and N.
        sizes: how many codes each field has.
        list_sizes: the same of columns of lists, which have up to 3 values a cell.
        more: further effects, of columns that the caller has, [B].
    """
    rng, law = np.random.default_rng(seed), np.random.default_rng(PLANTED_SEED)
    drawn = np.round(np.exp(rng.normal(2.3, 1, (numbers, rows))), 2)
    drawn[rng.random(drawn.shape) < 0.1] = np.nan
    s = np.tanh((np.log1p(np.nan_to_num(drawn[:2])) - 2.2) / 0.9)
    logits = _ANY_BIAS + more + sum(effect * one for effect, one in zip(_NUMBER_EFFECTS, s))
    codes = np.stack([_any_codes(rng, size, rows) for size in sizes]) if sizes else np.empty((0, rows), np.int64)
    hot = [field for field, size in enumerate(sizes) if size <= _MOST_EFFECTS]
    for scale, field in zip(_FIELD_EFFECTS, hot[::-1]):  # the last ones, and the first two if there are no others
        logits = logits + scale * law.normal(size=_MOST_EFFECTS)[codes[field]]
    if len(hot) > 1:
        logits = logits + _PRODUCT * np.where((codes[hot[0]] + codes[hot[1]]) % 2, -1, 1)
    elif len(s) > 1:
        logits = logits + 2 * _PRODUCT * s[0] * s[1]
    lists: list[list[list[int]]] = []
    for size in list_sizes:
        weights, cells = _LIST_EFFECT * law.normal(size=size), rng.integers(0, size, (rows, 3))
        counts = rng.integers(0, 4, rows)
        sums = (weights[cells] * (np.arange(3) < counts[:, None])).sum(1)
        logits = logits + (2 * sums / np.maximum(counts, 1) if lists else sums)
        lists.append([cell[:count] for cell, count in zip(cells.tolist(), counts.tolist())])
    chances = 1 / (1 + np.exp(-logits))
    return AnyRows(drawn, codes, lists, chances, (rng.random(rows) < chances).astype(np.uint8))


def _any_codes(rng: np.random.Generator, size: int, rows: int) -> np.ndarray:
    if size <= _MOST_EFFECTS:
        return rng.integers(0, size, rows)
    return np.minimum(_ranks(rng.random(rows), 0.05, 1.2, 10.0, size - 1), size - 1)
