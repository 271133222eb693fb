"""Who gets which row of a vocabulary that grows, against a plain loop over values; and what is kept of it."""

import numpy as np
import pytest

from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import mapped_arrays, save_arrays
from src.data.counted import Counted, Growth
from src.data.growth import Found, Rule, TableCounts, Waiting, Watched, grow, merge_places
from src.data.vocabulary import Vocabulary, count, ordered
from src.rows.keys import free_keys, is_free, keys_of, text_of


class Plain:
    """A table as dictionaries and lists: of each row its value or None, and of each value [count, first, seen]."""

    def __init__(self, values, least, most):
        counted = {value: values.count(value) for value in values}
        order = sorted(counted, key=lambda value: (-counted[value], value))
        room = most - 1 if most else len(order)
        self.rows = [value for value in order if counted[value] >= least][:room]
        self.facts = {value: [times, 0, 0] for value, times in counted.items()}
        self.since = [0] * len(self.rows)

    def grow(self, values, number, least, forget_after, most):
        place = {value: -1 for value, (times, _, _) in self.facts.items() if times >= least}
        before = {value: times for value, (times, _, _) in self.facts.items()}
        for at, value in enumerate(values):
            facts = self.facts.setdefault(value, [0, number, number])
            facts[0], facts[2] = facts[0] + 1, number
            if facts[0] == least:
                place[value] = at
        gone = [value for value, facts in self.facts.items() if forget_after and number - facts[2] >= forget_after]
        for value in gone:
            self._free(value, number)
            del self.facts[value]
        comes = [value for value, facts in self.facts.items() if facts[0] >= least and value not in self.rows]
        if most:
            ranked = [(-self.facts[one][0], -2, row, one) for row, one in enumerate(self.rows) if one is not None]
            ranked += [(-self.facts[value][0], place[value], value, value) for value in comes]
            kept = {value for *_, value in sorted(ranked)[: most - 1]}
            for value in [value for value in self.rows if value is not None and value not in kept]:
                self._free(value, number)
            comes = [value for value in comes if value in kept]
        for value in sorted(comes, key=lambda one: (place[one], -before.get(one, 0) if place[one] < 0 else 0, one)):
            if None in self.rows:
                at = self.rows.index(None)
            else:
                at = len(self.rows)
                self.rows.append(None), self.since.append(0)
            self.rows[at], self.since[at] = value, number

    def _free(self, value, number):
        if value in self.rows:
            at = self.rows.index(value)
            self.rows[at], self.since[at] = None, number


def fitted(values, least, most):
    """Keys and counts of a first fit."""
    keys, totals = count(np.array(values, np.uint64)[None])[0]
    own, counts = ordered(keys, totals, least)
    room = most - 1 if most else len(own)
    rare = totals < least
    left = np.concatenate([own[room:], keys[rare]]), np.concatenate([counts[room:], totals[rare]])
    return own[:room], TableCounts.since_fit(counts[:room], Waiting.since_fit(*left))


def grown(keys, table, values, rule, pieces=1):
    """The same behind a growth by values, which are counted in some pieces."""
    vocabulary = Vocabulary(["C"], [keys])
    watched = Watched(vocabulary, (rule.least,), "")
    late = [(np.empty(0, np.uint64), np.empty(0, np.int64))]
    at = np.arange(len(values))
    for part in np.array_split(at, pieces):
        own, rows = watched.first_places(0, np.array(values, np.uint64)[part], np.arange(len(part)))
        late.append((own, rows + (part[0] if len(part) else 0)))
    distinct, totals = count(np.array(values, np.uint64)[None])[0][:2]
    found = Found(distinct, totals, *merge_places(late, rule.least))
    return grow(keys, table, found, vocabulary.ids_of(0, distinct), rule)


@pytest.mark.parametrize(
    ("least", "forget_after", "most"), [(1, 0, 0), (3, 0, 0), (1, 2, 0), (2, 1, 0), (2, 0, 9), (1, 2, 7), (3, 3, 12)]
)
def test_growths_deal_rows_as_a_loop_over_values_does(least, forget_after, most):
    rng = np.random.default_rng([least, forget_after, most])
    days = [(rng.zipf(1.4, 120) % 60 + 3 * day).tolist() for day in range(7)]
    plain = Plain(days[0], least, most)
    keys, table = fitted(days[0], least, most)
    for number, values in enumerate(days[1:], 1):
        keys, table = grown(keys, table, values, Rule(number, least, forget_after, most), pieces=1 + number % 4)
        plain.grow(values, number, least, forget_after, most)
        expected = [free_keys(np.array(row)) if value is None else value for row, value in enumerate(plain.rows)]
        assert keys.tolist() == [int(key) for key in expected]
        assert is_free(keys).tolist() == [value is None for value in plain.rows]
        facts = [plain.facts[value] if value is not None else [0, 0, 0] for value in plain.rows]
        assert np.stack([table.counts, table.first, table.seen], 1).tolist() == facts
        assert table.since.tolist() == plain.since
        waiting = sorted(set(plain.facts) - set(plain.rows))
        own = table.waiting
        assert own.keys.tolist() == waiting
        assert np.stack([own.counts, own.first, own.seen], 1).tolist() == [plain.facts[value] for value in waiting]
    if forget_after or most:
        assert (table.since[:6] > 0).any(), "rows must have been dealt anew"


@pytest.mark.parametrize("least", [1, 2, 5])
def test_values_get_the_same_rows_in_one_growth_or_in_several(least):
    rng = np.random.default_rng(least)
    first, rest = (rng.zipf(1.3, size).astype(np.uint64).tolist() for size in (200, 600))
    keys, table = fitted(first, least, 0)
    whole, whole_table = grown(keys, table, rest, Rule(1, least))
    for number, part in enumerate(np.array_split(np.array(rest, np.uint64), 5), 1):
        keys, table = grown(keys, table, part.tolist(), Rule(number, least))
    assert len(keys) > len(fitted(first, least, 0)[0]) + 10
    assert keys.tolist() == whole.tolist()
    for name in ("keys", "counts"):
        assert getattr(table.waiting, name).tolist() == getattr(whole_table.waiting, name).tolist()
    assert table.counts.tolist() == whole_table.counts.tolist()


def test_keys_of_free_rows_are_no_text():
    rows = np.array([0, 5, 255, 2**31 - 2])
    keys = free_keys(rows)
    assert len(set(keys.tolist())) == 4
    assert is_free(keys).all()
    assert [text_of(int(key)) for key in keys] == [None] * 4
    texts = ["", "a", "ÿ", "\x7f", "日本", "a longer text than eight bytes", *map(chr, range(0x80, 0x3000, 7))]
    assert not is_free(keys_of(texts)).any()


def test_counts_are_read_as_they_were_written(tmp_path):
    keys, table = fitted([5, 5, 5, 6, 7, 7], 2, 0)
    keys, other = grown(keys, table, [8, 8, 9, 5], Rule(1, 2, 1))
    counted = Counted(3, 10, [table, other, fitted([], 1, 0)[1]], [(0.5, 1.25), (3.0, 0.1)])
    counted.save(tmp_path / "counts.npz")
    found = Counted.load(tmp_path / "counts.npz")
    assert (found.number, found.rows, found.scales) == (3, 10, [(0.5, 1.25), (3.0, 0.1)])
    for one, same in zip(counted.tables, found.tables, strict=True):
        for name in ("counts", "first", "seen", "since"):
            assert getattr(one, name).tolist() == getattr(same, name).tolist()
            assert getattr(one, name).dtype == getattr(same, name).dtype
        assert [array.tolist() for array in vars(one.waiting).values()] == [
            array.tolist() for array in vars(same.waiting).values()
        ]
    arrays = mapped_arrays(MappedFile(tmp_path / "counts.npz"))
    save_arrays(tmp_path / "newer.npz", arrays | {"more": np.array(1)})
    with pytest.raises(InputError, match="newer.npz holds more, which this program does not know: use the program"):
        Counted.load(tmp_path / "newer.npz")


def test_the_last_growth_with_an_encoder_counts():
    growth = Growth(3, ("a", "b", "b"))
    assert [growth.born_of("c", one) for one in "abcd"] == [0, 2, 3, None]
    assert Growth().born_of("a", "a") == 0
