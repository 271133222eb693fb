"""Trainings that begin with an earlier one's network, on a data folder whose vocabulary has grown from its own."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import preprocess_lines, write_raw
from mindspore.train import Callback
from runs import StopAt, Watch, bits, train_small

from src.base.errors import InputError
from src.checkpoints import checkpoint, protobuf
from src.checkpoints.protobuf import CheckpointFile
from src.data.encoder import load_encoder
from src.data.manifest import MANIFEST, VOCABULARY, find
from src.network.embedding import initial_values, joint_rows, whole_fields
from src.network.mixed_dims import widths_of
from src.network.options import NetworkSpec
from src.ranks.group import ONE_RANK
from src.ranks.placement import place
from src.ranks.slots import pieces_of
from src.rows.columns import Columns
from src.rows.keys import is_free
from src.training.rules import adam_corrections, rule_of
from src.training.step import _corrected
from src.training.warm_start import WarmStart

COLUMNS = Columns.numbered(2, 3)
NETWORK = {"emb_dim": 4, "bottom_mlp": (4,), "top_mlp": (8, 1)}
ONCE = {"do_eval": False, "overwrite": True, **NETWORK}


def lines(rows, seed):
    rng = np.random.default_rng(seed)
    cells = [rng.zipf(1.4, rows) % (150, 150, 12)[field] + 40 * seed * (field == 1) for field in range(3)]
    return ["\t".join(map(str, [rng.integers(2), *rng.integers(0, 99, 2), *row])) for row in zip(*cells)]


@pytest.fixture(scope="module")
def days(made_once):
    """Data folders of three days, each grown from the one before; rows were freed, and dealt anew."""

    def make(folder):
        old = {}
        for day in range(3):
            raw = write_raw(folder / f"{day}.txt", lines(500, day))
            data = preprocess_lines(raw, folder / f"day{day}", COLUMNS, **old)
            old = {"vocab_path": str(data.path), "grow": True, "forget_after": 1}

    folder = made_once("growing_days", make)
    return [find(str(folder / f"day{day}")) for day in range(3)]


class Begin(Callback):
    """Copies all values that change, as each training begins."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_begin(self, run_context):
        step = run_context.original_args().train_network
        values = step.row_values() | step.other_values()
        self.seen.append({name: value.asnumpy().copy() for name, value in values.items()})


def keys_of(data):
    """Of each table the keys of its rows, behind None for unseen values."""
    return [[None, *keys.tolist()] for keys in load_encoder(data.path / VOCABULARY, ("I1", "I2")).vocabulary.keys]


def vectors_of(data, joint, mixed_dims=0.0):
    """Of each table the vectors of its rows, of what has a row for each row of the joint table."""
    widths = widths_of(data.manifest.rows_of_tables, NetworkSpec(**NETWORK, mixed_dims=mixed_dims))
    tables = np.split(joint, np.cumsum(widths.packed_rows)[:-1])
    return [
        table.reshape(len(table) * share, -1)[:rows]
        for table, share, rows in zip(tables, widths.shares, data.manifest.rows_of_tables)
    ]


@pytest.mark.parametrize("options", [
    {"optimizer": "adam", "lr": 0.01}, {"optimizer": "rowwise_adagrad"},
    {"optimizer": "adagrad", "mixed_dims": 0.5}, {"optimizer": "sgd", "cpu_kernels": False, "new_rows": "unseen"},
], ids=lambda options: options["optimizer"])  # fmt: skip
def test_what_is_known_goes_on_to_the_bit(days, tmp_path, options, capsys):
    """Over two growths: by the values themselves, whatever ids they have."""
    mixed, like_unseen = options.get("mixed_dims", 0.0), options.get("new_rows") == "unseen"
    first = {name: value for name, value in options.items() if name != "new_rows"}
    watch, begin = Watch(6), Begin()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    train_small(days[0], tmp_path / "old", [watch], **ONCE, **first)
    train_small(days[2], tmp_path / "new", [begin], from_checkpoint=str(tmp_path / "old"), **ONCE, **options)
    (before, _), (after,) = watch.seen[6], begin.seen
    fresh = initial_values(days[2].manifest.rows_of_tables, 1)
    widths = widths_of(days[2].manifest.rows_of_tables, NetworkSpec(**NETWORK, mixed_dims=mixed))
    initial = vectors_of(days[2], joint_rows(whole_fields(widths.packed_rows), 4, fresh), mixed)
    middle, counts = keys_of(days[1]), {"kept": 0, "other": 0}
    for name in [name for name in after if name == "embedding" or name.startswith("tables.")]:
        old, new = vectors_of(days[0], before[name], mixed), vectors_of(days[2], after[name], mixed)
        for table, (old_keys, new_keys) in enumerate(zip(keys_of(days[0]), keys_of(days[2]))):
            for row, key in enumerate(new_keys):
                stays = key in old_keys and key in middle[table] and not (key and is_free(np.uint64(key)))
                expected = initial[table][row] if name == "embedding" else np.zeros_like(new[table][row])
                if stays:
                    assert old_keys.index(key) == row
                    expected = old[table][row]
                elif like_unseen and name == "embedding":
                    expected = old[table][0]
                assert new[table][row].tobytes() == expected.tobytes(), (name, table, row)
                counts["kept" if stays else "other"] += name == "embedding"
    for name in after.keys() - {"embedding", "steps_done"}:
        if not name.startswith("tables."):
            assert after[name].tobytes() == before[name].tobytes(), name
    if "steps_done" in after:
        assert int(after["steps_done"][0]) == 0
    out = capsys.readouterr().out
    assert f"behind its step 6: {counts['kept']} rows of tables kept; " in out
    assert ("kept no states" if options["optimizer"] == "sgd" else "the optimizer's states go on") in out
    progress = json.loads((tmp_path / "new/finished/progress.json").read_text())
    assert progress["steps_before"] == ([0, 0] if options["optimizer"] == "sgd" else [6, 6])
    tables = progress["begun_with"]["tables"].values()
    assert sum(one["kept"] for one in tables) == counts["kept"]
    assert sum(one["new"] + one["dealt"] + one["free"] for one in tables) == counts["other"]
    assert min(sum(one[what] for one in tables) for what in ("new", "dealt", "free")) > 0


def test_adam_s_corrections_have_the_earlier_steps_behind_them():
    """Kept moments are no longer small, as they are in a first training's first steps."""
    rule, whole = rule_of("adam"), adam_corrections()
    np.testing.assert_array_equal(_corrected(None, rule, 0, 100), whole[100:])
    assert _corrected(None, rule, 0, 10**9).tolist() == [whole[-1]]
    assert _corrected(np.array([0.5, 1.0]), rule, 0, 3)[:2].tolist() == [0.5 * whole[3], whole[4]]


@pytest.mark.parametrize(("mlp_optimizer", "resets"), [("sgd", False), ("adam", True)])
def test_states_that_begin_anew_are_corrected_from_the_first_step(days, tmp_path, mlp_optimizer, resets):
    """Of tables and of MLPs apart: by late steps' corrections Adam's first updates would be three times too large."""
    options = {**ONCE, "optimizer": "adam", "lr": 0.01, "epochs": 2}
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    train_small(days[0], tmp_path / "old", **options, mlp_optimizer=mlp_optimizer, reset_tables_each_epoch=resets)
    found = WarmStart(str(tmp_path / "old"), days[1], NetworkSpec(**NETWORK), ("adam", "adam"), "initial", ONE_RANK)
    assert found.steps_before == ((6, 12) if resets else (12, 0))
    counted = []

    class Factors(Callback):
        def on_train_begin(self, run_context):
            step = run_context.original_args().train_network
            counted.extend(float(step.counter.series[place].asnumpy()[0]) for place in step.factor_places[:2])

    train_small(days[1], tmp_path / "new", [Factors()], **options, from_checkpoint=str(tmp_path / "old"))
    corrections = adam_corrections()
    assert counted == pytest.approx([corrections[before] for before in found.steps_before])


def test_a_stopped_one_goes_on_as_any_other(days, tmp_path):
    """Though what it began with is gone; and a third training begins with it."""
    options = {**ONCE, "optimizer": "adam", "lr": 0.01, "save_steps": 2}
    for name in ("old", "whole", "parts", "third"):
        (tmp_path / name).mkdir()
    train_small(days[0], tmp_path / "old", **options)
    options["from_checkpoint"] = str(tmp_path / "old")
    train_small(days[1], tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train_small(days[1], tmp_path / "parts", [StopAt(5)], **options)
    (tmp_path / "old").rename(tmp_path / "gone")
    train_small(days[1], tmp_path / "parts", **options)
    assert bits(tmp_path / "parts/dlrm.ckpt") == bits(tmp_path / "whole/dlrm.ckpt")
    assert bits(tmp_path / "parts/finished/rest-6.ckpt") == bits(tmp_path / "whole/finished/rest-6.ckpt")
    options["from_checkpoint"] = str(tmp_path / "parts")
    train_small(days[2], tmp_path / "third", **options, report=True)
    assert "ancestors" in (tmp_path / "third/report.html").read_text()
    assert json.loads((tmp_path / "third/finished/progress.json").read_text())["steps_before"] == [12, 12]


def test_going_back_to_the_beginning_begins_with_it_again(days, tmp_path):
    begin = Begin()
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    train_small(days[0], tmp_path / "old", **ONCE, optimizer="adagrad")
    train_small(days[1], tmp_path / "new", [begin], **ONCE, optimizer="adagrad", lr=1e12, on_nonfinite="back",
                epochs=2, from_checkpoint=str(tmp_path / "old"))  # fmt: skip
    assert len(begin.seen) > 1
    for name, value in begin.seen[0].items():
        assert begin.seen[1][name].tobytes() == value.tobytes(), name


def test_tables_may_begin_each_epoch_with_it(days, old, tmp_path):
    """What the first step of the second epoch did not look up is as it was at the beginning, but for new rows."""
    begin, watch = Begin(), Watch(7)
    train_small(days[1], tmp_path, [begin, watch], **ONCE, optimizer="adagrad", epochs=2, reset_tables_each_epoch=True,
                from_checkpoint=str(old))  # fmt: skip
    values, touched = watch.seen[7]
    others = np.setdiff1d(np.arange(len(values["embedding"])), touched)
    kept = np.concatenate([one.kept for one in warm(days, old).rows])
    for name in ("embedding", "tables.sum"):
        same = (values[name] == begin.seen[0][name]).all(axis=1)
        assert same[others[kept[others]]].all()
        assert same[touched].mean() < 0.1
    assert not (values["embedding"] == begin.seen[0]["embedding"]).all(axis=1)[others[~kept[others]]].any()
    assert len(others[kept[others]]) > 30


def warm(days, old, **changed):
    network = NetworkSpec(**NETWORK | changed)
    return WarmStart(str(old), days[1], network, ("adagrad", "adagrad"), "initial", ONE_RANK)


@pytest.fixture(scope="module")
def old(days, made_once):
    """The folder of a run on the first day. Do not change its files."""
    return made_once("old_day", lambda folder: train_small(days[0], folder, **ONCE, optimizer="adagrad"))


def test_rows_come_from_any_parts_to_any_layout(days, old, tmp_path):
    anew = initial_values(days[1].manifest.rows_of_tables, 1)
    whole = joint_rows(whole_fields(days[1].manifest.rows_of_tables), 4, warm(days, old).tables(anew))
    parts = shutil.copytree(old, tmp_path / "parts")
    path = parts / "finished/state-6.ckpt"
    found = CheckpointFile(path)
    values = {name: found.read(name) for name in found.shapes}
    table = values.pop("embedding.C2")
    path.unlink()  # it is a link to others
    two = {checkpoint.PARTS: np.array([2], np.int32)}
    protobuf.write(path, (values | two | {"embedding.C2": table[:9]}).items())
    protobuf.write(path, (values | two | {"embedding.C2@0": table[:9]}).items())
    protobuf.write(checkpoint.part_of(path, 1), (two | {"embedding.C2@9": table[9:]}).items())
    fill = warm(days, parts).tables(anew)
    placement = place(days[1].manifest.rows_of_tables, "hybrid", 2, days[1].manifest.layout.uses)
    found = np.full_like(whole, np.nan)
    starts = np.cumsum([0, *days[1].manifest.rows_of_tables])
    for rank in range(2):
        pieces = pieces_of(placement, rank)
        joint, done = joint_rows(pieces, 4, fill), 0
        for piece in pieces:
            begin = starts[piece.table] + piece.low
            found[begin : begin + piece.rows] = joint[done : done + piece.rows]
            done += piece.rows
    np.testing.assert_array_equal(found, whole)


def test_a_network_alone_begins_its_optimizer_anew(days, old, tmp_path):
    by_file = warm(days, old / "dlrm.ckpt")
    assert "the optimizer's states begin anew, as dlrm.ckpt holds the network alone" in by_file.line()
    assert (by_file.steps_before, by_file.source.rest) == ((0, 0), None)
    copied = shutil.copytree(old, tmp_path / "copied", ignore=shutil.ignore_patterns("finished"))
    assert "holds the network alone" in warm(days, copied).line()
    other = WarmStart(str(old), days[1], NetworkSpec(**NETWORK), ("adam", "adagrad"), "initial", ONE_RANK)
    assert "the optimizer's states of tables begin anew, as its rule is another one" in other.line()


def test_refusals(days, old, tmp_path):
    def refused(message, begin=None, **changed):
        with pytest.raises(InputError, match=message):
            (begin or warm(days, old, **changed)).facts()

    refused(r"has top_mlp \[8, 1\], and this run \[9, 1\]: give --top_mlp as it was there", top_mlp=(9, 1))
    refused("from_checkpoint: checkpoint_path .* is not a file", warm(days, tmp_path / "none"))
    copied = shutil.copytree(old, tmp_path / "copied")
    shutil.rmtree(copied / "finished")
    (copied / MANIFEST).unlink()
    refused("has no manifest.json beside its checkpoint", warm(days, copied))
    rows = lines(300, 9)
    unrelated = preprocess_lines(write_raw(tmp_path / "u.txt", rows), tmp_path / "unrelated", COLUMNS)
    refused(r"was trained with another vocabulary than that of .*unrelated, which has not grown from it: preprocess",
            warm([None, unrelated], old))  # fmt: skip
    manifest = dataclasses.replace(days[1].manifest, fields=("C1", "C2", "more"))
    other = dataclasses.replace(days[1], manifest=manifest)
    refused("was trained with other fields, C3, more than", warm([None, other], old))
    narrow = shutil.copytree(old, tmp_path / "narrow")
    saved = (narrow / "finished/dlrm.yaml").read_text().partition("\n")[2]
    (narrow / "finished/dlrm.yaml").unlink()
    (narrow / "finished/dlrm.yaml").write_text(saved.replace("mixed_dims: 0.0", "mixed_dims: 0.56"))
    refused("has vectors of width 2 for C2, and by mixed_dims 0.56 this run 1, for the tables have grown: train anew",
            warm(days, narrow, mixed_dims=0.56))  # fmt: skip
    with pytest.raises(InputError, match="new_rows unseen has no effect without from_checkpoint: drop it"):
        train_small(days[1], tmp_path, **ONCE, new_rows="unseen")
    with pytest.raises(KeyboardInterrupt):
        train_small(days[1], tmp_path, [StopAt(5)], **ONCE, save_steps=2)
    kept = sorted(path.name for path in (tmp_path / "unfinished").iterdir())
    with pytest.raises(InputError, match="and this run"):
        train_small(days[1], tmp_path, **ONCE | {"top_mlp": (9, 1)}, resume=False, from_checkpoint=str(old))
    assert sorted(path.name for path in (tmp_path / "unfinished").iterdir()) == kept
