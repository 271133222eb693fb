"""Deltas: what an export changed becomes the whole export again, to the byte, in a running scorer too."""

import itertools
import json
import shutil
import threading
import warnings

import numpy as np
import pytest
from conftest import CPU, raw_lines
from stopping import Comes, run_program

import export as export_program
import src.export.live as live
import src.scorer as scorer_module
from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import mapped_arrays
from src.data.encoder import load_encoder
from src.data.manifest import MANIFEST, VOCABULARY
from src.export.changed_encoder import ChangedVocabulary, EncoderChange, changed_encoder, write_change
from src.export.delta import Delta, rows_of_tables
from src.export.exported import ExportFolder
from src.export.layered_tables import LayeredTables
from src.export.options import TABLE_TYPES
from src.export.table_file import TableFile, TableWriter, encode_rows
from src.scorer import Scorer
from tests.deltas import EXPORT, lines_with_new_values, make_days, next_day

LINES = lines_with_new_values(raw_lines(40, seed=21))


def bytes_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def days(made_once, run_folder, exports):
    """What `make_days` makes. Do not change its files."""
    return made_once("days", lambda folder: make_days(folder, run_folder / "checkpoint", exports["fp32"]))


@pytest.fixture(scope="module")
def scores(days):
    """The scores of LINES by the export of each day."""
    return [Scorer(days / name).score_lines(LINES, has_labels=True) for name in ("export_0", "export_1", "whole_2")]


def test_deltas_applied_give_the_whole_export_to_the_byte(days, tmp_path):
    whole = bytes_of(days / "whole_2")
    assert sorted(whole) == ["dlrm.mindir", "dlrm.model", "dlrm.tables", MANIFEST, VOCABULARY]
    assert bytes_of(days / "export_2") == whole
    export_program.main([f"--delta_from={days}/export_0", f"--apply_delta={days}/delta_1,{days}/delta_2",
                         f"--export_path={tmp_path}/both"])  # fmt: skip
    assert bytes_of(tmp_path / "both") == whole
    assert len({bytes_of(days / f"export_{day}")["dlrm.tables"] for day in range(3)}) == 3


def test_a_delta_holds_what_changed_alone(days):
    delta, old = Delta.load(days / "delta_1"), ExportFolder.load(days / "export_0")
    later = ExportFolder.load(days / "export_1")
    for before, now, start, later_start, ids in zip(
        old.table.table_rows, later.table.table_rows, old.table.starts, later.table.starts, delta.ids, strict=True
    ):
        rows = later.table.encoded(np.arange(now) + later_start)
        differ = (rows[:before] != old.table.encoded(np.arange(before) + start)).any(axis=1)
        assert ids.tolist() == [*np.flatnonzero(differ), *range(before, now)]
    assert 0.05 < len(np.concatenate(delta.ids)) / sum(later.table.table_rows) < 0.2
    assert (days / "delta_1/dlrm.encoder").stat().st_size < 0.5 * (days / "export_1/vocabulary.npz").stat().st_size
    assert f"{len(np.concatenate(delta.ids))} of {sum(later.table.table_rows):,} rows" in delta.words


def test_an_equal_model_gives_an_empty_delta(days, run_folder, tmp_path, capsys):
    export_program.main([*EXPORT, f"--checkpoint_path={run_folder}/checkpoint", f"--delta_from={days}/export_0",
                         f"--export_path={tmp_path}/none"])  # fmt: skip
    assert "none: 0 of " in capsys.readouterr().out
    assert not (tmp_path / "none/dlrm.encoder").exists()
    assert Delta.load(tmp_path / "none").new == ExportFolder.load(days / "export_0").identity


@pytest.mark.parametrize("followed", [False, True])
def test_a_scorer_scores_by_the_later_model(days, scores, tmp_path, followed):
    """Day after day, by the weights of one graph, and as the export that is whole does, to the bit."""
    scorer = Scorer(days / "export_0")
    if followed:
        scorer.follow(tmp_path / "deltas")
    for day, expected in enumerate(scores):
        if day and followed:
            shutil.copytree(days / f"delta_{day}", tmp_path / f"deltas/{day}")
        elif day:
            scorer.apply(days / f"delta_{day}")
        assert np.array_equal(scorer.score_lines(LINES, has_labels=True), expected)
        assert scorer.model.manifest == ExportFolder.load(days / f"export_{day}").manifest
    assert len(np.unique(np.stack(scores), axis=0)) == 3


def test_every_score_is_of_one_model(days, scores, monkeypatch):
    """Two threads score, in requests of several batches, while deltas are applied; no part of a model is another's."""
    monkeypatch.setattr(live, "HOST_SIZES", (8,))
    scorer = Scorer(days / "export_0")
    blocks = [Scorer(days / name).score_lines(LINES, has_labels=True) for name in ("export_0", "export_1", "whole_2")]
    assert all(np.abs(one - other).max() < 1e-6 for one, other in zip(blocks, scores))
    mixed = mixtures(days)
    assert all(np.abs(one - other).max() > 1e-4 for one in mixed for other in scores[:2])
    seen, begun = [[], []], threading.Barrier(3)

    def score(found):
        while not found or found[-1] != 2:
            now = scorer.score_lines(LINES, has_labels=True)
            found.append(next((day for day, one in enumerate(blocks) if np.array_equal(now, one)), -1))
            if len(found) == 1:
                begun.wait()

    threads = [threading.Thread(target=score, args=(found,)) for found in seen]
    for thread in threads:
        thread.start()
    begun.wait()
    for day in (1, 2):
        scorer.apply(days / f"delta_{day}")
    for thread in threads:
        thread.join()
    for found in seen:
        assert found == sorted(found)
        assert (found[0], found[-1]) == (0, 2)


def mixtures(days):
    """Scores of LINES by each part of day 0 and day 1, where not all are of one day."""
    models = [live.LiveModel.load(days / f"export_{day}") for day in (0, 1)]
    found = []
    for encoder, tables, graph in np.ndindex(2, 2, 2):
        if encoder == tables == graph:
            continue
        block = scorer_module.block_of_lines([line.encode() for line in LINES], models[encoder].columns)
        dense, ids = models[encoder].encoder.encode(block)
        rows = np.array(models[tables].model.manifest.table_rows)
        vectors = models[tables].model.table.lookup(np.where(ids < rows, ids, 0))
        cell = models[graph]._graphs.load(64, models[graph].model.graph, None)
        padded = (np.pad(one, [(0, 64 - len(one))] + [(0, 0)] * (one.ndim - 1)) for one in (dense, vectors))
        found.append(cell(*map(live.Tensor, padded)).asnumpy()[: len(LINES), 0])
    return found


def test_a_call_keeps_to_the_model_that_it_began_with(days, scores, tmp_path, monkeypatch):
    """Also where the delta comes between two blocks of its rows."""
    (tmp_path / "rows").write_text("".join(f"{line}\n" for line in LINES))
    scorer, blocks = Scorer(days / "export_0"), scorer_module.blocks_of_file

    def twice(path, columns):
        yield from blocks(path, columns)
        scorer.apply(days / "delta_1")
        yield from blocks(path, columns)

    monkeypatch.setattr(scorer_module, "blocks_of_file", twice)
    found = scorer.score_lines(tmp_path / "rows", has_labels=True)
    assert np.array_equal(found, np.tile(scores[0], 2))
    assert np.array_equal(scorer.score_lines(LINES, has_labels=True), scores[1])


def changed(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "rows": (lambda d: changed(d / "dlrm.rows", 5), "dlrm.rows is damaged"),
    "values": (lambda d: changed(d / "dlrm.tables", 4096 + 70), "checksum of page 0 of its rows differs"),
    "graph": (lambda d: changed(d / "dlrm.mindir", 3000), "dlrm.mindir is damaged"),
    "description": (lambda d: changed(d / "dlrm.after", 30), "dlrm.after is damaged"),
    "manifest": (lambda d: changed(d / MANIFEST, 30), "manifest.json is damaged"),
    "encoder": (lambda d: changed(d / "dlrm.encoder", 3000), "dlrm.encoder is damaged"),
    "facts": (lambda d: changed(d / "dlrm.delta", 30), "dlrm.delta is damaged"),
    "facts cut": (lambda d: (d / "dlrm.delta").write_bytes(b"dlrm\tdelta\t1\n"), "dlrm.delta is damaged"),
    "rows cut": (lambda d: (d / "dlrm.rows").write_bytes(b"1234"), "dlrm.rows is missing or has not its"),
    "values cut": (lambda d: (d / "dlrm.tables").write_bytes(b""), "dlrm.tables is missing or has not its"),
    "graph missing": (lambda d: (d / "dlrm.mindir").unlink(), "dlrm.mindir is missing or has not its"),
    "nothing": (shutil.rmtree, "d is no delta: name the --export_path"),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_refused_and_nothing_changes(days, tmp_path, kind):
    damage, message = DAMAGE[kind]
    shutil.copytree(days / "delta_1", tmp_path / "d")
    damage(tmp_path / "d")
    with pytest.raises(InputError, match=message) as refused:
        export_program.main([f"--delta_from={days}/export_0", f"--apply_delta={tmp_path}/d",
                             f"--export_path={tmp_path}/e"])  # fmt: skip
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "e").exists()
    scorer = Scorer(days / "export_0")
    before = scorer._live
    with pytest.raises(InputError, match=message):
        scorer.apply(tmp_path / "d")
    assert scorer._live is before


def test_a_delta_of_another_export_is_refused(days, scores, tmp_path):
    scorer = Scorer(days / "export_0")
    with pytest.raises(InputError, match="delta_2 changes another export than .*export_0: it is of"):
        scorer.apply(days / "delta_2")
    scorer.apply(days / "delta_1")
    with pytest.raises(InputError, match="delta_1 changes another export"):
        scorer.apply(days / "delta_1")
    assert np.array_equal(scorer.score_lines(LINES, has_labels=True), scores[1])


def test_a_followed_delta_that_is_damaged_is_told_once(days, scores, tmp_path):
    scorer = Scorer(days / "export_0")
    scorer.follow(tmp_path)
    shutil.copytree(days / "delta_1", tmp_path / "a")
    shutil.copytree(days / "delta_2", tmp_path / "of another")
    changed(tmp_path / "a/dlrm.rows", 5)
    with pytest.warns(UserWarning, match="the model stays as it is: .*dlrm.rows is damaged"):
        assert np.array_equal(scorer.score_lines(LINES, has_labels=True), scores[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(scorer.score_lines(LINES, has_labels=True), scores[0])
        shutil.copytree(days / "delta_1", tmp_path / "whole")
        assert np.array_equal(scorer.score_lines(LINES, has_labels=True), scores[2])


@pytest.mark.parametrize(("arguments", "message"), [
    (["--apply_delta=d"], "apply_delta needs the export that the deltas were made from: name it by --delta_from"),
    (["--delta_from=e", "--table_placement=graph"], "MINDIR with its tables in a file, not table_placement graph"),
    (["--delta_from=e", "--file_format=ONNX"], "MINDIR with its tables in a file, not file_format ONNX"),
    (["--delta_from=nothing"], "nothing is no exported model"),
    (["--delta_from={days}/export_0", "--export_path={days}/export_0"], "is what delta_from names, which stays"),
    (["--delta_from={days}/export_2"], "has 874 rows for C3, and the model 870: export the model whole"),
    (["--delta_from={exports[graph]}"], "has its tables in the graph, and a delta changes those of a file"),
    (["--delta_from={days}/export_0", "--table_type=int8"], "table_type .*: fp32 and int8: give --table_type=fp32"),
])  # fmt: skip
def test_models_that_no_delta_leads_to(days, exports, run_folder, here, arguments, message):
    filled = [one.format(days=days, exports=exports) for one in arguments]
    with pytest.raises(InputError, match=message):
        export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", *filled])
    assert not list(here.iterdir())


def test_other_columns_are_refused(days, here):
    shutil.copytree(days / "day_1", "other")
    manifest = json.loads((here / "other" / MANIFEST).read_text())
    del manifest["crc32"]
    manifest["fields"] = manifest["categorical"] = ["D1", *manifest["categorical"][1:]]
    (here / "other" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="has other fields than the model: .*: export the model whole"):
        export_program.main([CPU, "--checkpoint_path=other", f"--delta_from={days}/export_0"])


def test_a_killed_export_leaves_no_delta_and_the_old_export(days, here):
    """Killed when all but the sealed facts is written."""
    before = bytes_of(days / "export_0")
    arguments = [*EXPORT, f"--checkpoint_path={days}/day_1", f"--delta_from={days}/export_0", "--export_path=d"]
    code, output = run_program("export", here, *arguments, kill=Comes("a delta is to be sealed"))
    assert code == -9, output
    assert not (here / "d").exists()
    assert bytes_of(days / "export_0") == before
    export_program.main(arguments)
    assert bytes_of(here / "d") == bytes_of(days / "delta_1")


@pytest.mark.parametrize("table_type", TABLE_TYPES)
def test_layers_hold_the_rows_of_whole_tables(tmp_path, table_type):
    """Three changes, each of some rows and with more of them, against plain arrays."""
    rng = np.random.default_rng(3)
    values = [rng.normal(0, 1, (rows, 5)).astype(np.float32) for rows in (7, 300, 1)]

    def written(name, parts):
        with (tmp_path / name).open("wb") as file:
            writer = TableWriter([len(part) for part in parts], 5, table_type, file)
            for part in parts:
                writer.add(encode_rows(part, table_type))
            size, identity = writer.finish()
        table = TableFile(tmp_path / name)
        assert (size, identity) == ((tmp_path / name).stat().st_size, table.identity)
        return table

    tables = LayeredTables.of(written("0", values))
    for change in range(1, 4):
        ids = []
        for number, rows in enumerate((0, 20, 3)):
            before = len(values[number])
            values[number] = np.concatenate((values[number], rng.normal(0, 1, (rows, 5)).astype(np.float32)))
            some = np.flatnonzero(rng.random(before) < 0.3) if number != 1 or change != 2 else np.zeros(0, int)
            values[number][some] += 1
            ids.append(np.concatenate((some, np.arange(before, before + rows))))
        table_rows = [len(one) for one in values]
        tables = tables.changed_by(written(f"{change}", [v[i] for v, i in zip(values, ids)]), ids, table_rows)
        whole = written("whole", values)
        everything = np.arange(sum(table_rows))
        assert np.array_equal(tables.encoded(everything), whole.encoded(everything))
        asked = np.stack([rng.integers(0, rows, 50) for rows in table_rows], axis=1)
        assert np.array_equal(tables.lookup(asked), whole.lookup(asked))
    with pytest.raises(InputError, match="row 1, field 1: id 7 is not among the 7"):
        tables.lookup(np.array([[7, 0, 0]]))


def test_fields_that_share_tables_have_one_number_of_rows():
    lines = [("a", "5", "0", "1", "one"), ("b", "7", "1", "3", "mean"), ("c", "5", "0", "2", "sum")]
    assert rows_of_tables({"field": lines}) == (5, 7)
    assert rows_of_tables({"field": [line[:2] for line in lines]}) == (5, 7, 5)


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 3), (0, 1, 2, 3), (0, 1, 0, 1)])
def test_a_changed_encoder_codes_as_the_file_does(days, tmp_path, order):
    """Day after day, also where nothing changes, and back, where keys go; made again, its file's arrays are those."""
    next_day(days / "day_2", tmp_path / "day_3", 3)
    folders = [days / "export_0", days / "day_1", days / "day_2", tmp_path / "day_3"]
    manifest = ExportFolder.load(days / "export_0").manifest
    encoder = load_encoder(folders[0] / VOCABULARY, manifest.dense)
    arrays = mapped_arrays(MappedFile(folders[0] / VOCABULARY))
    whole = arrays
    for before, now in itertools.pairwise(order):
        old, new = (mapped_arrays(MappedFile(folders[day] / VOCABULARY)) for day in (before, now))
        write_change(tmp_path / "change", old, new)
        change = EncoderChange(tmp_path / "change", mapped_arrays(MappedFile(tmp_path / "change")))
        whole = change.made_of(whole)
        assert list(whole) == list(new)
        assert all(np.array_equal(whole[name], new[name]) and whole[name].dtype == new[name].dtype for name in new)
        encoder, arrays = changed_encoder(encoder, arrays, change, manifest.dense)
        expected = load_encoder(folders[now] / VOCABULARY, manifest.dense)
        block = scorer_module.block_of_lines([line.encode() for line in LINES], expected.keyed(manifest.columns()))
        assert all(map(np.array_equal, encoder.encode(block), expected.encode(block)))
        assert encoder.table_rows == expected.table_rows
        assert encoder.examples == expected.examples
        for field in range(26):
            assert np.array_equal(encoder.vocabulary.keys_of(field), expected.vocabulary.keys_of(field))
    assert isinstance(encoder.vocabulary, ChangedVocabulary)
