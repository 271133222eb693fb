"""Numeric transforms against plain loops, and through the encoder's file: those of the present, and new ones."""

import io
import math
import statistics

import numpy as np
import pytest
from conftest import preprocess_lines, raw_lines, write_raw
from hypothesis import given
from hypothesis import strategies as st
from test_numeric import many, plain_share, present, some_numbers, summary_of

from src.base.errors import InputError
from src.base.npz import save_arrays
from src.data.encoder import Encoder, Learned, learn, load_encoder
from src.data.manifest import VOCABULARY, find
from src.data.numeric import merge, summarise
from src.data.transforms import TRANSFORMS, Quantile, StandardLog, Transform
from src.data.vocabulary import HashedVocabulary, Vocabulary
from src.dataset import batches_of
from src.preprocessing.options import PreprocessingSpec
from src.rows.block import Block
from src.rows.columns import Columns
from src.rows.lines import parse


def log_of(value):
    return math.log(max(value, 0.0) + 1)


def plain_log(values, known):
    return [0.0 if value is None else log_of(value) for value in values]


def plain_standard_log(values, known):
    logs = [log_of(value) for value in known]
    mean, deviation = (statistics.fmean(logs), statistics.pstdev(logs) or 1) if logs else (0, 1)
    return [0.0 if value is None else (log_of(value) - mean) / deviation for value in values]


def plain_quantile(values, known):
    if not known:
        return [0.0 for _ in values]
    shares = [plain_share(known, value) for value in known]
    mean, deviation = statistics.fmean(shares), statistics.pstdev(shares) or 1

    def share_of(value):
        value = min(max(value, known[0]), known[-1])
        below = max(other for other in known if other <= value)
        above = min(other for other in known if other >= value)
        between = 0 if below == above else (value - below) / (above - below)
        return (1 - between) * plain_share(known, below) + between * plain_share(known, above)

    return [0.0 if value is None else (share_of(value) - mean) / deviation for value in values]


# What becomes of values, None for an empty cell, where `known` are the present ones of training, in order.
PLAIN = {"log": plain_log, "standard_log": plain_standard_log, "quantile": plain_quantile}


def column_of(values):
    return np.array([math.nan if value is None else value for value in values], np.float32)


@pytest.mark.parametrize("name", PLAIN)
@given(st.lists(st.tuples(some_numbers, some_numbers), min_size=1, max_size=3))
def test_transforms_equal_plain_loops(name, columns):
    """Each column has values that it learns from, and others that become inputs."""
    transform = TRANSFORMS[name]
    rows = max(len(values) for _, values in columns)
    filled = [values + [None] * (rows - len(values)) for _, values in columns]
    numbers = np.stack([column_of(values) for values in filled], axis=1)
    learned = [transform.learn(summary_of(known)) for known, _ in columns]
    found = transform(numbers, learned if transform.learns else ())
    expected = [PLAIN[name](values, present(known)) for (known, _), values in zip(columns, filled)]
    np.testing.assert_allclose(found.T, expected, rtol=1e-4, atol=1e-5)


@given(some_numbers)
def test_mean_and_deviation_of_logs(values):
    logs = [math.log(max(value, 0.0) + 1) for value in present(values)]
    ((mean, deviation),) = StandardLog().learn(summary_of(values))
    assert mean == pytest.approx(statistics.fmean(logs) if logs else 0, rel=1e-6, abs=1e-6)
    assert deviation == pytest.approx((statistics.pstdev(logs) if logs else 0) or 1, rel=1e-6)


@given(some_numbers)
def test_quantile_curve_gives_standardised_shares(values):
    ordered = present(values)
    ((places, shares),) = Quantile().learn(summary_of(values))
    if not ordered:
        assert (places.tolist(), shares.tolist()) == ([0], [0])
        return
    plain = [plain_share(ordered, value) for value in ordered]
    mean, deviation = statistics.fmean(plain), statistics.pstdev(plain) or 1
    assert mean == pytest.approx(0.5)
    assert places.tolist() == sorted(set(ordered))
    expected = [(plain_share(ordered, value) - mean) / deviation for value in sorted(set(ordered))]
    assert shares.tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_quantile_curve_of_many_values_is_close_to_all():
    parts = many()
    ordered = np.sort(np.concatenate(parts))
    ((places, shares),) = Quantile().learn(merge([summarise(part) for part in parts]))
    assert 400 < len(places) <= 1000
    found = np.interp(ordered, places, shares)
    assert found.mean() == pytest.approx(0, abs=1e-5)
    assert found.std() == pytest.approx(1, abs=1e-5)
    middle = (np.searchsorted(ordered, ordered, "left") + np.searchsorted(ordered, ordered, "right")) / 2 / len(ordered)
    expected = (middle - middle.mean()) / middle.std()
    assert np.abs(found - expected).max() < 0.01


class Root(Transform):
    """Learns nothing; an empty cell becomes -1."""

    empty = -1.0

    def apply(self, numbers, learned):
        assert learned == ()
        return np.sqrt(np.maximum(numbers, 0)).astype(np.float64)


class Clipped(Transform):
    """Learns two arrays of each column: its largest values, and how often they occur."""

    keeps = ("edges", "largest")

    def learn(self, summary):
        values, counts = summary
        return values[-2:], counts[-2:]

    def apply(self, numbers, learned):
        tops = [values[-1] if len(values) else 0 for values, _ in learned]
        return np.stack([np.minimum(column, top) for column, top in zip(numbers.T, tops)]).T


NEW = {"root": Root(), "clipped": Clipped()}


@pytest.fixture
def registered(monkeypatch):
    for name, transform in NEW.items():
        monkeypatch.setitem(TRANSFORMS, name, transform)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("transform", [*TRANSFORMS.values(), *NEW.values()], ids=[*TRANSFORMS, *NEW])
def test_any_number_becomes_an_input(transform):
    """The contract of a transform, for columns with values of all kinds, with one, and with none."""
    values = [None, -3e38, -2.5, 0.0, 1e-38, 7.0, 3e38]
    summaries = [summary_of(values), summary_of([4.0]), summary_of([None])]
    learned = [transform.learn(summary) for summary in summaries]
    assert [len(arrays) for arrays in learned] == [len(transform.keeps)] * 3
    numbers = np.stack([column_of(values)] * 3, axis=1)
    inputs = transform(numbers, tuple(learned) if transform.learns else ())
    assert (inputs.dtype, inputs.shape, inputs.flags.c_contiguous) == (np.float32, numbers.shape, True)
    assert np.isfinite(inputs).all()
    assert (inputs[0] == transform.empty).all()
    assert transform(numbers[:0], tuple(learned) if transform.learns else ()).shape == (0, 3)


VALUES = ([1.0, 2.0, 2.0, None, 9.0], [None, -1.0, 0.0, 0.5, 3.0])
NUMBERS = np.stack([column_of(values) for values in VALUES], axis=1)
BLOCK = Block(np.zeros(5, np.uint8), NUMBERS, np.array([[7, 8, 7, 0, 7]], np.uint64))
KEYS = np.array([7, 8], np.uint64)


def encoder_of(name, **options):
    given = {"missing": False, "buckets": 0, "counts": ()} | options
    learned = learn(name, summaries=[summary_of(values) for values in VALUES], rows=5, **given)
    return Encoder(("I1", "I2"), Vocabulary(["C1"], [KEYS]), learned)


@pytest.mark.parametrize("name", [*TRANSFORMS, *NEW])
@pytest.mark.parametrize("more", [{}, {"missing": True, "buckets": 2, "counts": [np.array([3, 1])]}])
def test_encoder_goes_through_its_file(registered, tmp_path, name, more):
    encoder = encoder_of(name, **more)
    encoder.save(tmp_path / "one.npz")
    loaded = load_encoder(tmp_path / "one.npz", ("I1", "I2"))
    loaded.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert loaded.learned.transform == name
    assert (loaded.inputs, loaded.fields, loaded.table_rows) == (encoder.inputs, encoder.fields, encoder.table_rows)
    for one, other in zip(encoder.encode(BLOCK), loaded.encode(BLOCK)):
        assert one.tobytes() == other.tobytes()
    learned = [TRANSFORMS[name].learn(summary_of(values)) for values in VALUES]
    expected = TRANSFORMS[name](NUMBERS, learned if TRANSFORMS[name].learns else ())
    np.testing.assert_array_equal(loaded.encode(BLOCK)[0][:, :2], expected)


def archive_of(arrays):
    """The bytes of an .npz file."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize("name", ["log", "standard_log", "quantile"])
def test_files_of_the_first_form_are_read_and_kept(tmp_path, name):
    """They name no kind, and hold keys alone, under the names of their fields."""
    encoder = encoder_of(name, missing=True, buckets=2, counts=[np.array([3, 1])])
    learned = [TRANSFORMS[name].learn(summary_of(values)) for values in VALUES]
    kept = {"log": "", "standard_log": "log_scales", "quantile": "quantiles"}[name]
    before = {"C1": KEYS} | {
        f"/inputs/{kept}/{number}": array for number, (array,) in enumerate(learned if kept else ())
    }
    before |= {"/inputs/missing/0": np.array(0), "/inputs/missing/1": np.array(1)}
    before |= {f"/inputs/edges/{number}": edges for number, edges in enumerate(encoder.learned.edges)}
    before |= {"/inputs/counts/0": encoder.learned.counts[0]}
    (tmp_path / "old.npz").write_bytes(archive_of(before))
    old = load_encoder(tmp_path / "old.npz", ("I1", "I2"))
    assert (old.inputs, old.fields, old.table_rows) == (encoder.inputs, encoder.fields, encoder.table_rows)
    for one, other in zip(old.encode(BLOCK), encoder.encode(BLOCK)):
        assert one.tobytes() == other.tobytes()
    assert old.examples == encoder.examples
    old.save(tmp_path / "new.npz")
    assert (tmp_path / "new.npz").read_bytes() == archive_of(before)


def test_a_new_kind_stands_in_the_file_by_name(registered, tmp_path):
    for name, expected in (
        ("root", []),
        ("clipped", [f"/inputs/transform/{kept}/{column}" for kept in ("edges", "largest") for column in (0, 1)]),
    ):
        encoder_of(name).save(tmp_path / "e.npz")
        with np.load(tmp_path / "e.npz") as arrays:
            own = [name for name in arrays.files if name.startswith("/inputs/") and name != "/inputs/examples"]
            assert own == ["/inputs/transform", *expected]
            assert str(arrays["/inputs/transform"]) == name


@pytest.mark.parametrize("name", NEW)
@pytest.mark.parametrize("shuffle_rows", [False, True])
def test_a_new_kind_goes_from_raw_rows_to_batches(registered, tmp_path, name, shuffle_rows):
    """Nothing but the registry knows of it; both ways to write shards; and new days by the model's encoder."""
    raw = write_raw(tmp_path / "train.txt", raw_lines(100))
    options = {"numeric_transform": name, "shuffle_rows": shuffle_rows, "shard_rows": 32, "record_rows": 8}
    data = preprocess_lines(raw, tmp_path / "d", **options)
    assert PreprocessingSpec(**options).learns_from_numbers == (name == "clipped")
    assert find(str(tmp_path / "d")).manifest.options["numeric_transform"] == name
    block = parse(raw.read_bytes(), Columns.numbered())
    columns = block.numbers[:86].T
    expected = np.sqrt(np.maximum(block.numbers, 0)), np.minimum(block.numbers, np.nanmax(columns, axis=1))
    plain = expected[name == "clipped"]
    plain[np.isnan(block.numbers)] = -1 if name == "root" else 0
    found = np.concatenate([dense for part in ("train", "valid", "test") for dense, _, _ in batches_of(data, part, 9)])
    order = np.lexsort(plain[:86].T), np.lexsort(found[:86].T)
    np.testing.assert_array_equal(found[:86][order[1]], plain[:86][order[0]])
    np.testing.assert_array_equal(found[86:], plain[86:])
    new = preprocess_lines(raw, tmp_path / "new", vocab_path=str(data.path))
    assert (new.path / VOCABULARY).read_bytes() == (data.path / VOCABULARY).read_bytes()
    again = np.concatenate([dense for dense, _, _ in batches_of(new, "test", 9)])
    np.testing.assert_array_equal(again, plain)


SCALES = {f"/inputs/log_scales/{column}": np.array([0, 1], np.float32) for column in (0, 1)}
CURVES = {f"/inputs/quantiles/{column}": np.zeros((2, 1), np.float32) for column in (0, 1)}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"/inputs/transform": np.array("root")},
            "e.npz says that numbers are transformed by 'root', and this program knows log, standard_log, quantile, ",
        ),
        ({"/inputs/transform": np.zeros(3)}, r"are transformed by '\[0. 0. 0.\]', and this program knows log"),
        ({"/inputs/asinh/0": np.zeros(2)}, "e.npz holds /inputs/asinh/0, which this program does not know: use"),
        (SCALES | CURVES, "holds /inputs/quantiles/0, which this program does not know"),
        ({"/inputs/transform": np.array("log")} | SCALES, "holds /inputs/log_scales/0, which this program does not"),
        (SCALES | {"/inputs/log_scales/3": np.zeros(2)}, "holds /inputs/log_scales/3, which this program does not"),
        ({"/inputs/transform/scale/0": np.zeros(2)}, "holds /inputs/transform/scale/0, which this program does not"),
        ({"/inputs/missing": np.array(1)}, "holds /inputs/missing, which this program does not know"),
        ({"/inputs/log_scales/0": np.zeros(2)}, "does not hold what standard_log learned of 2 numeric columns"),
        ({"/inputs/transform": np.array("quantile")}, "does not hold what quantile learned of 2 numeric columns"),
    ],
)
def test_a_file_of_a_program_that_knows_more_is_refused(tmp_path, arrays, message):
    save_arrays(tmp_path / "e.npz", {"C1": KEYS} | arrays)
    with pytest.raises(InputError, match=message):
        load_encoder(tmp_path / "e.npz", ("I1", "I2"))


def test_another_kind_of_hashing_is_refused(tmp_path):
    Encoder(("I1",), HashedVocabulary(["C1"], 5), Learned()).save(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as arrays:
        held = dict(arrays)
    assert load_encoder(tmp_path / "e.npz", ("I1",)).table_rows == (5,)
    save_arrays(tmp_path / "e.npz", held | {"/seed": np.array(3)})
    with pytest.raises(InputError, match=r"e.npz holds /seed, which this program does not know: use the program"):
        load_encoder(tmp_path / "e.npz", ("I1",))
