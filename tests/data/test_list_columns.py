"""Cells of several values, and fields that share a table, from text to records, by plain loops over the raw lines."""

import json
from collections import Counter

import numpy as np
import pytest
from conftest import preprocess_lines, write_raw

from src.base.errors import InputError
from src.data.encoder import load_encoder
from src.data.layout import PADDING, Layout
from src.data.manifest import VOCABULARY, Manifest
from src.dataset import batches_of
from src.preprocess_data import main
from src.rows.cells.column import TextColumn, lists_of
from src.rows.cells.lists import ListColumn, split_cells
from src.rows.columns import Columns
from src.rows.keys import key_of
from tests.lists import HEADER, SCHEMA, columns_of, table


def plain_values(line):
    """The values of each categorical column of a line."""
    _, _, site, tags, seen, item = line.split(",")
    tags = [value for value in tags.split("|") if value not in ("", "NULL")]
    return [site], tags, [value for value in seen.split(";") if value], [item]


def plain_ids(lines, train, seed):
    """Rows of ids as the definition has them: by falling frequency, ties by key; seen and item have one table."""
    counts = [Counter(), Counter(), Counter()]
    for line in lines[:train]:
        for field, values in enumerate(plain_values(line)):
            counts[min(field, 2)].update(values)
    ids = []
    for counted in counts:
        order = sorted(counted, key=lambda value: (-counted[value], key_of(value, seed)))
        ids.append({value: 1 + place for place, value in enumerate(order)})
    rows = []
    for line in lines:
        row = []
        for field, (values, most) in enumerate(zip(plain_values(line), (1, 3, 4, 1))):
            own = [ids[min(field, 2)].get(value, 0) for value in values]
            while len(own) > most:
                rarest = max(own, key=lambda one: one or 1 << 30)
                del own[len(own) - 1 - own[::-1].index(rarest)]
            row += own + [PADDING] * (most - len(own))
        rows.append(row)
    return np.array(rows), [len(one) + 1 for one in ids]


def ids_of(data):
    """Ids of all rows in their order."""
    parts = [part for part in ("train", "valid", "test") if part in data.manifest.parts]
    return np.concatenate([ids for part in parts for _, ids, _ in batches_of(data, part, 64)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Lines, columns, and the data folder made of them."""
    folder, lines = tmp_path_factory.mktemp("lists"), table(700)
    columns = columns_of(folder)
    data = preprocess_lines(write_raw(folder / "log.csv", lines), folder / "dataset", columns)
    return lines[1:], columns, data


def test_ids_of_lists_and_shared_tables_are_those_of_plain_loops(made):
    """The most frequent values of a long cell are kept, in its order; known and unknown ones, twice if twice there."""
    lines, _, data = made
    manifest = data.manifest
    encoder = load_encoder(data.path / VOCABULARY, manifest.dense)
    expected, rows = plain_ids(lines, manifest.parts["train"].rows, encoder.vocabulary.key_seed)
    np.testing.assert_array_equal(ids_of(data), expected)
    assert manifest.table_rows == (rows[0], rows[1], rows[2], rows[2])
    assert manifest.layout == encoder.layout == Layout((0, 1, 2, 2), (1, 3, 4, 1), ("", "mean", "max", ""))
    assert (manifest.tables, manifest.rows_of_tables) == (("site", "tags", "seen"), tuple(rows))


def test_values_left_out_and_unseen_ones_are_counted_by_value(made):
    lines, _, data = made
    manifest = data.manifest
    beyond = [sum(max(0, len(plain_values(line)[field]) - most) for line in lines) for field, most in ((1, 3), (2, 4))]
    assert manifest.dropped == {"tags": beyond[0]}
    assert beyond[1] == 0
    for name, part in manifest.parts.items():
        ids = np.concatenate([ids for _, ids, _ in batches_of(data, name, 64)])
        seen = ids[:, 4:8]
        assert part.unseen_share[2] == (seen == 0).sum() / (seen != PADDING).sum()


def test_rows_are_read_back_by_the_saved_manifest_and_encoder(made, tmp_path):
    """Columns, layout and vocabulary survive their files; shuffled rows are the same ones."""
    lines, columns, data = made
    manifest = Manifest.load(data.path / "manifest.json")
    assert (manifest.layout, manifest.dropped) == (data.manifest.layout, data.manifest.dropped)
    given = manifest.columns()
    assert (given.lists, given.shared) == (columns.lists, columns.shared)
    raw = write_raw(tmp_path / "log.csv", [HEADER, *lines])
    shuffled = preprocess_lines(raw, tmp_path / "shuffled", columns, shuffle_rows=True)
    train = data.manifest.parts["train"].rows
    assert sorted(map(tuple, ids_of(shuffled)[:train])) == sorted(map(tuple, ids_of(data)[:train]))
    assert shuffled.manifest.parts["train"].unseen_share == data.manifest.parts["train"].unseen_share
    coded = preprocess_lines(raw, tmp_path / "coded", columns, vocab_path=str(data.path))
    np.testing.assert_array_equal(ids_of(coded), ids_of(data))


def test_hashed_lists_keep_their_first_values(made, tmp_path):
    lines, columns, _ = made
    raw = write_raw(tmp_path / "log.csv", [HEADER, *lines])
    data = preprocess_lines(raw, tmp_path / "dataset", columns, hash_rows=1000)
    encoder, ids = load_encoder(data.path / VOCABULARY, data.manifest.dense), ids_of(data)
    for row, line in enumerate(lines):
        tags, seen = plain_values(line)[1:3]
        for values, own in ((tags, ids[row, 1:4]), (seen, ids[row, 4:8])):
            keys = np.array([key_of(value, encoder.vocabulary.key_seed) for value in values[: len(own)]], np.uint64)
            found = encoder.vocabulary.ids_of(0, keys).tolist()
            assert own.tolist() == found + [PADDING] * (len(own) - len(found))
    assert data.manifest.table_rows == (1000,) * 4


def test_category_counts_of_a_list_are_the_mean_of_its_values(made, tmp_path):
    lines, columns, _ = made
    raw = write_raw(tmp_path / "log.csv", [HEADER, *lines])
    data = preprocess_lines(raw, tmp_path / "dataset", columns, category_counts=True, numeric_buckets=4)
    assert data.manifest.inputs == ("price", *(f"{name} count" for name in columns.categorical))
    assert data.manifest.layout.sizes == (1, 3, 4, 1, 1)
    scores = load_encoder(data.path / VOCABULARY, data.manifest.dense).learned.counts
    dense, ids, _ = next(iter(batches_of(data, "train", 300)))
    for row in range(300):
        own = [one for one in ids[row, 1:4] if one != PADDING]
        assert dense[row, 2] == pytest.approx(np.mean(scores[1][own]) if own else 0, abs=1e-6)
        assert dense[row, 4] == scores[2][ids[row, 8]]


@pytest.mark.parametrize("cells", [["a|b", "", "|", "a||b|", "x", "|y"], [], [""], ["long enough to be hashed|b"]])
def test_split_cells_equal_those_of_python(cells):
    """By the fast way of text, and by that of any form of file."""
    columns, one = Columns((), ("tags",), missing=("x",)), ListColumn("tags", "|")
    column = TextColumn.of([cell.encode() for cell in cells])
    found, plain = column.lists(one, columns), lists_of([cell.split("|") for cell in cells], columns)
    np.testing.assert_array_equal(found.keys, plain.keys)
    np.testing.assert_array_equal(found.counts, plain.counts)
    assert plain.counts.tolist() == [len([one for one in cell.split("|") if one not in ("", "x")]) for cell in cells]
    starts, _, counts = split_cells(column.buffer, column.starts, column.ends, "|")
    assert len(starts) == counts.sum()


@pytest.mark.parametrize("form", ["lists", "arrays", "text", "dictionary", "arrow"])
def test_lists_of_parquet_and_arrow_are_those_of_text(made, tmp_path, form):
    """The same records and vocabulary, also of text in a column of few distinct cells."""
    pa = pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
    from pyarrow import parquet

    lines, columns, data = made
    cells = dict(zip(HEADER.split(","), zip(*(line.split(",") for line in lines))))
    table = {"clicked": pa.array(map(int, cells["clicked"])), "price": pa.array(map(int, cells["price"]))}
    table |= {name: pa.array(cells[name]) for name in ("site", "item", "tags", "seen")}
    if form in ("lists", "arrays", "arrow"):
        kind = pa.large_list(pa.string()) if form == "arrays" else pa.list_(pa.string())
        tags = [None if cell in ("", "NULL") else cell.split("|") for cell in cells["tags"]]
        table |= {"tags": pa.array(tags, kind), "seen": pa.array([cell.split(";") for cell in cells["seen"]], kind)}
    if form == "dictionary":
        table |= {name: table[name].dictionary_encode() for name in ("tags", "seen")}
    path = tmp_path / f"log.{'arrow' if form == 'arrow' else 'parquet'}"
    if form == "arrow":
        with pa.ipc.new_file(str(path), pa.table(table).schema) as writer:
            writer.write_table(pa.table(table), max_chunksize=97)
    else:
        parquet.write_table(pa.table(table), path, row_group_size=64)
    found = preprocess_lines(path, tmp_path / "dataset", columns)
    np.testing.assert_array_equal(ids_of(found), ids_of(data))
    assert found.manifest.dropped == data.manifest.dropped
    assert load_encoder(found.path / VOCABULARY, ("price",)).examples == load_encoder(
        data.path / VOCABULARY, ("price",)
    ).examples  # fmt: skip


def test_lists_where_the_schema_says_none_are_refused(made, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
    from pyarrow import parquet

    rows = {name: pa.array(["1"] * 9) for name in HEADER.split(",")} | {"site": pa.array([["s0"]] * 9)}
    parquet.write_table(pa.table(rows), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"column 'site' holds list<.*>: give a column of text, numbers or times"):
        preprocess_lines(tmp_path / "log.parquet", tmp_path / "dataset", made[1])
    rows |= {"site": pa.array(["s0"] * 9), "tags": pa.array([["t0"]] * 9)}
    parquet.write_table(pa.table(rows), tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"column 'tags' holds list<.*>: give a column of text"):
        preprocess_lines(tmp_path / "log.parquet", tmp_path / "dataset", made[1], split="random:tags")


@pytest.mark.parametrize(("entry", "message"), [
    ("{name: tags, list: ab}", "column 'tags': list is 'ab': it must be the one sign"),
    ("{name: tags, list: ','}\nquote: ''\n#", "column 'tags': list is ',', which stands between cells"),
    ("{name: tags, list: '\"'}", "column 'tags': list is '\"', which stands between cells or around them"),
    ("{name: tags, list: x}", "column 'tags': list is 'x': it must be the one sign"),
    ("{name: tags, list: true}", "column 'tags': list is True: it must be the one sign"),
    ("{name: tags, list: '|', max_values: 0}", "column 'tags': max_values is 0: it must be a whole number from 1"),
    ("{name: tags, list: '|', max_values: true}", "column 'tags': max_values is True: it must be"),
    ("{name: tags, list: '|', pool: best}", "column 'tags': pool is 'best': it must be one of sum, mean, max"),
    ("{name: tags, max_values: 3}", "max_values of 'tags' has no effect without list"),
    ("{name: tags, pol: sum}", "categorical holds {'name': 'tags', 'pol': 'sum'}: it must be a name, or"),
    ("{list: '|'}", "it must be a name, or of the form"),
    ("{name: tags, table: 3}", "it must be a name, or of the form"),
])  # fmt: skip
def test_entries_that_make_no_sense_are_refused_in_one_line(tmp_path, entry, message):
    schema = f"label: clicked\nseparator: ','\ndense: [price]\ncategorical:\n- site\n- {entry}\n"
    with pytest.raises(InputError) as found:
        columns_of(tmp_path, schema)
    assert message in str(found.value)
    assert "\n" not in str(found.value)


def test_values_in_quotes_may_have_the_sign_between_cells(made, tmp_path):
    """The rows are those of another sign; a cell without quotes has one value."""
    lines, _, data = made
    cells = [line.split(",") for line in lines]
    quoted = [[f'"{cell.replace("|", ",")}"' if "|" in cell else cell for cell in row] for row in cells]
    assert any('"' in cell for row in quoted for cell in row)
    raw = write_raw(tmp_path / "log.csv", [HEADER, *map(",".join, quoted)])
    columns = columns_of(tmp_path, SCHEMA.replace("'|'", "','").replace('"|"', '","'))
    assert columns.lists[0].separator == ","
    found = preprocess_lines(raw, tmp_path / "dataset", columns)
    np.testing.assert_array_equal(ids_of(found), ids_of(data))


def test_other_counts_for_fields_of_one_table_are_refused(tmp_path):
    raw = write_raw(tmp_path / "log.csv", table(30))
    with pytest.raises(InputError, match=r"field_min_count: item has 2 and a field that it shares its table with 1"):
        preprocess_lines(raw, tmp_path / "dataset", columns_of(tmp_path), field_min_count="item:2")
    data = preprocess_lines(raw, tmp_path / "dataset", columns_of(tmp_path), field_min_count="item:2,seen:2")
    assert data.manifest.table_rows[2] == data.manifest.table_rows[3]


def test_a_vocabulary_of_other_lists_is_refused(made, tmp_path):
    lines, _, data = made
    raw = write_raw(tmp_path / "log.csv", [HEADER, *lines])
    other = columns_of(tmp_path, SCHEMA.replace("max_values: 3", "max_values: 2"))
    with pytest.raises(InputError, match=r"is for other lists or shared tables than the raw files are said to hold"):
        preprocess_lines(raw, tmp_path / "dataset", other, vocab_path=str(data.path))


def test_values_that_are_left_out_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    columns_of(tmp_path)
    write_raw(tmp_path / "log.csv", table(200))
    main(["--data_path=log.csv", "--schema=schema.yaml", "--output_path=dataset"])
    dropped = Manifest.load(tmp_path / "dataset/manifest.json").dropped["tags"]
    told = f"values were left out, the least frequent ones of their cells: {dropped} of tags beyond 3 in a cell"
    assert f"all rows: {told}" in capsys.readouterr().err


@pytest.mark.parametrize("change", [
    {"tables": (0, 1, 2)}, {"sizes": (1, 3, 4)}, {"pools": ("", "best", "max", "")}, {"tables": (0, 2, 1, 1)},
    {"sizes": (1, 0, 4, 1)}, {"sizes": (2, 3, 4, 1)},
])  # fmt: skip
def test_a_layout_that_contradicts_itself_is_no_manifest(made, tmp_path, change):
    manifest = json.loads((made[2].path / "manifest.json").read_text())
    manifest["layout"] |= change
    del manifest["crc32"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is not a manifest of this program"):
        Manifest.load(tmp_path / "manifest.json")
