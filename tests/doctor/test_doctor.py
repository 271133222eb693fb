"""Rows with one mistake each, made from good ones, are told by its name; good rows are told nothing."""

import dataclasses
import gzip
import hashlib
import json
import shutil
from contextlib import contextmanager

import numpy as np
import pytest
from conftest import CPU, ROOT
from mindspore import Tensor
from world import FIRST, NAMES, SCHEMA, STEP_S, shop_rows, written

import train as train_program
from src import preprocess_data as preprocess_data_program
from src.base.errors import InputError
from src.data.manifest import find
from src.doctor import __main__ as program
from src.doctor.diagnosis import CHECKS, diagnose
from src.doctor.evidence import of_folder, of_raw
from src.doctor.trained import Trained
from src.network.options import NetworkSpec
from src.rows.schema import load_schema

NETWORK = NetworkSpec(emb_dim=8, bottom_mlp=(16, 8), top_mlp=(16, 1))
SMALL = ["--emb_dim=8", "--bottom_mlp=[16,8]", "--top_mlp=[16,1]", "--importance_rows=0", "--compare_linear=False"]
ROWS, LATER = 7000, FIRST + 7000 * STEP_S
WITHOUT_NUMBERS = """label: click
dense: []
categorical: [site, city, device, item]
columns: [click, when, price, age, visits, site, city, device, item, user, tags]
separator: ","
"""


def trained_shop(folder, schema, rows, names, *more):
    """A data folder and a checkpoint of these rows."""
    (folder / "schema.yaml").write_text(schema)
    written(folder / "train.csv", rows, names)
    preprocess_data_program.main([f"--data_path={folder}/train.csv", f"--schema={folder}/schema.yaml",
                                  f"--output_path={folder}/dataset"])  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_program.main([CPU, f"--dataset_path={folder}/dataset", *SMALL, "--batch_size=50", "--eval_steps=epoch",
                            *more])  # fmt: skip


@pytest.fixture(scope="session")
def shop(made_once):
    """The shop's data folder, schema and checkpoint. Do not change its files."""
    return made_once("shop", lambda folder: trained_shop(folder, SCHEMA, shop_rows(ROWS), NAMES, "--epochs=2"))


@pytest.fixture(scope="module")
def trained(shop):
    return Trained(str(shop / "checkpoint"), NETWORK)


@pytest.fixture(scope="module")
def columns(shop):
    return load_schema(shop / "schema.yaml")


@pytest.fixture(scope="module")
def later():
    """Rows that came after training."""
    return shop_rows(1000, 5, LATER)


def said(capsys):
    """What the doctor said, behind lines of what it uses."""
    lines = capsys.readouterr().out.splitlines()
    return lines[next(place for place, line in enumerate(lines) if line.startswith(("first: ", "nothing found: "))) :]


def changed(rows, name, change):
    place = NAMES.index(name)
    return [[*row[:place], change(row[place]), *row[place + 1 :]] for row in rows]


def exchanged(rows, one, other):
    places = {NAMES.index(one): NAMES.index(other), NAMES.index(other): NAMES.index(one)}
    return [[row[places.get(place, place)] for place in range(len(row))] for row in rows]


def with_labels_of_others(rows):
    order = np.random.default_rng(3).permutation(len(rows))
    return [[rows[other][0], *row[1:]] for other, row in zip(order, rows)]


def md5_of(text):
    return hashlib.md5(text.encode()).hexdigest()[:8]


def in_cents(text):
    return f"{100 * float(text):.0f}"


def in_gb18030(text):
    return text.encode("gb18030")


def cut(path, size):
    path.write_bytes(path.read_bytes()[:-size])
    return path


def packed_and_cut(path):
    whole = gzip.compress(path.read_bytes())
    path.with_suffix(".gz").write_bytes(whole[: len(whole) // 2])
    return path.with_suffix(".gz")


# Name of the mistake, what makes a file of good rows into one that has it, and words of what is said.
MISTAKES = {
    "two columns swapped": (
        "swapped columns", lambda rows, path: written(path, exchanged(rows, "site", "device")),
        ["site holds device's values", "device holds site's values", "--vocab_path="]),
    "two numbers swapped": (
        "swapped columns", lambda rows, path: written(path, exchanged(rows, "price", "visits")),
        ["price holds visits's values"]),
    "columns moved by one": (
        "shifted columns", lambda rows, path: written(path, [[*row[:5], row[9], *row[5:9], row[10]] for row in rows]),
        ["4 columns hold values of the column 1 place before them", "city holds site's values"]),
    "semicolons": (
        "another separator", lambda rows, path: written(path, rows, separator=";"),
        ["';' separates 11 cells", "say separator: ';'"]),
    "a line of names within": (
        "header as a row", lambda rows, path: written(path, [*rows[:400], NAMES, *rows[400:]]),
        ["line 402 holds names (click, when, price", "sed -i 402d"]),
    "the end is missing": (
        "truncated file", lambda rows, path: cut(written(path, [*rows[:-1], [*rows[-1][:-1], ""]]), 4),
        ["the last line, 1,001, ends after 10 of 11 cells", "copy"]),
    "the end of a packed file is missing": (
        "truncated file", lambda rows, path: packed_and_cut(written(path, rows)), ["end-of-stream", "copy"]),
    "gb18030 read as utf-8": (
        "another encoding", lambda rows, path: written(path, changed(rows, "city", lambda text: text.replace("ź", "z")),
                                                       encoding="gb18030"),
        ["read as utf-8, and its bytes are gb18030", "say encoding: gb18030"]),
    "gb18030 read as latin-1": (
        "another encoding of values",
        lambda rows, path: written(path, changed(rows, "city", lambda text: in_gb18030(text).decode("latin-1"))),
        ["values of city look like gb18030 read as latin-1", "say encoding: gb18030"]),
    "upper case": (
        "another spelling", lambda rows, path: written(path, changed(rows, "site", str.upper)),
        ["values of site are written in upper case, expected lower"]),
    "a prefix": (
        "another spelling", lambda rows, path: written(path, changed(rows, "site", "site_".__add__)),
        ["with 'site_' in front"]),
    "no leading zeros": (
        "another spelling", lambda rows, path: written(path, changed(rows, "item", lambda text: str(int(text)))),
        ["without the zeros in front that training had"]),
    "read by pandas as floats": (
        "another spelling", lambda rows, path: written(path, changed(rows, "item", lambda text: f"{int(text)}.0")),
        ["values of item are written as numbers", ".0' is '000"]),
    "values of a list in quotes": (
        "another spelling",
        lambda rows, path: written(path, changed(rows, "tags", lambda text: text.replace("t", "T"))),
        ["values of tags are written in upper case"]),
    "another hash": (
        "another hashing",
        lambda rows, path: written(path, changed(rows, "site", md5_of)),
        ["values of site look like training's, and 100% of them are others", "the function and the seed"]),
    "cents for euros": (
        "another unit", lambda rows, path: written(path, changed(rows, "price", in_cents)),
        ["100 times what they were in training: price (median "]),
    "thousands": (
        "another unit", lambda rows, path: written(path, changed(rows, "price", lambda text: str(float(text) / 1000))),
        ["1/1,000 of what they were in training: price (median 0.0"]),
    "logarithms already": (
        "logarithms of numbers",
        lambda rows, path: written(path, changed(rows, "price", lambda text: str(np.log1p(float(text))))),
        ["numbers are logarithms already, log(x + 1)", "takes the logarithm by itself"]),
    "a number is lost": (
        "empty column", lambda rows, path: written(path, changed(rows, "price", lambda _: "")),
        ["price is always empty in 1,000 rows"]),
    "a category is lost": (
        "empty column", lambda rows, path: written(path, changed(rows, "site", lambda _: "")),
        ["site is always empty"]),
    "a number means something else": (
        "moved numbers", lambda rows, path: written(path, changed(rows, "age", lambda text: str(int(text or 0) % 20))),
        ["numbers lie elsewhere than in training: age PSI "]),
    "shuffled labels": (
        "shuffled labels", lambda rows, path: written(path, with_labels_of_others(rows)),
        ["labels have nothing to do with their rows: AUC 0.", "by their key"]),
    "inverted labels": (
        "inverted labels", lambda rows, path: written(path, changed(rows, "click", lambda text: str(1 - int(text)))),
        ["scores rank clicks last: AUC 0.1", "positive:"]),
    "three of four others left out": (
        "another label mean",
        lambda rows, path: written(path, [row for place, row in enumerate(rows) if row[0] == "1" or place % 4 == 0]),
        ["the odds of a click are 3.", "--calibrate=True"]),
    "one label": (
        "one label", lambda rows, path: written(path, changed(rows, "click", lambda _: "0")),
        ["all 1,000 rows have label 0"]),
    "training rows among them": (
        "test rows in training", lambda rows, path: written(path, [*shop_rows(ROWS)[3000:3300], *rows]),
        ["23.1% of the 1,300 rows (300) stand among the rows that were trained on"]),
    "rows from before training": (
        "time travel", lambda rows, path: written(path, shop_rows(1000, 6, FIRST - 10_000 * STEP_S)),
        ["100% of the rows are older than half of the training rows by when days", "--order_by="]),
    "a column made of the label": (
        "label leak", lambda rows, path: written(path, [[*row[:4], str(int(row[0]) * 9 + int(row[4]) % 3), *row[5:]]
                                                        for row in rows]),
        ["visits (AUC 1.000) alone tells the label"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_by_its_name_and_nothing_else_is(trained, columns, later, tmp_path, mistake):
    name, make, words = MISTAKES[mistake]
    path = make(later, tmp_path / "rows.csv")
    found = diagnose(of_raw(trained, [path], columns, str(path)))
    assert list(found.found) == [name]
    first, *_ = found.lines()
    assert first.startswith(f"first: {name}: ")
    for word in words:
        assert word in first


def test_each_mistake_has_names_of_checks():
    assert {name for name, *_ in MISTAKES.values()} <= {check.name for check in CHECKS}
    assert len({name for name, *_ in MISTAKES.values()}) >= 15


@pytest.mark.parametrize(("rows", "seed", "drift"), [(1000, 5, 0), (3000, 11, 0), (120, 12, 0), (2000, 13, 0.05),
                                                     (12, 14, 0)])  # fmt: skip
def test_good_rows_are_told_nothing(trained, columns, tmp_path, rows, seed, drift):
    path = written(tmp_path / "rows.csv", shop_rows(rows, seed, LATER, drift))
    found = diagnose(of_raw(trained, [path], columns, str(path)))
    assert found.found == {}
    assert not found.not_looked or rows < 100
    assert found.lines()[0].startswith(f"nothing found: {rows:,} raw rows of {path} beside 6,000 training rows")


@pytest.mark.parametrize("part", ["", "/valid"])
def test_a_good_folder_is_told_nothing(trained, shop, part):
    found = diagnose(of_folder(trained, find(f"{shop}/dataset{part}"), "dataset"))
    assert found.found == {}
    assert set(found.not_looked) == {"the rows are coded: name their raw files by --data_path"}


def test_a_good_model_of_categories_alone_is_told_nothing(made_once, monkeypatch, capsys):
    folder = made_once(
        "categories", lambda folder: trained_shop(folder, WITHOUT_NUMBERS, shop_rows(2100), None, "--epochs=1")
    )
    path = written(folder / "rows.csv", shop_rows(500, 7), None)
    once = Trained(f"{folder}/checkpoint", NETWORK)  # compiled once
    monkeypatch.setattr(program, "Trained", lambda *_: once)
    for where in (f"--dataset_path={folder}/dataset", f"--data_path={path}"):
        assert program.main([f"--checkpoint={folder}/checkpoint", where]) == 0
        assert said(capsys)[0].startswith("nothing found: ")


def test_a_folder_of_another_vocabulary_is_told_first(trained, shop, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "Trained", lambda *_: trained)
    written(tmp_path / "rows.csv", shop_rows(1000, 8, LATER))
    preprocess_data_program.main([f"--data_path={tmp_path}/rows.csv", f"--schema={shop}/schema.yaml",
                                  f"--output_path={tmp_path}/dataset", "--numeric_transform=signed_log"])  # fmt: skip
    assert program.main([f"--checkpoint_path={shop}/checkpoint", f"--dataset_path={tmp_path}/dataset"]) == 1
    first, *others = said(capsys)
    assert first.startswith("first: another vocabulary: the rows are coded by another vocabulary of ")
    assert "numeric_transform 'signed_log', expected 'log'" in first
    assert f"--vocab_path={shop}/checkpoint" in first
    assert any("shuffled labels" in line and "not looked for" in line for line in others)


def test_a_schema_in_another_order_is_told_and_rows_are_not_read(trained, shop, later, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "Trained", lambda *_: trained)
    path = written(tmp_path / "rows.csv", later)
    (tmp_path / "schema.yaml").write_text(SCHEMA.replace("site, city", "city, site"))
    assert (
        program.main([f"--checkpoint={shop}/checkpoint", f"--data_path={path}", f"--schema={tmp_path}/schema.yaml"])
        == 1
    )
    first, *_ = said(capsys)
    assert first.startswith(
        "first: other columns: column 7 of 12 is 'city', expected 'site' (the same names in another"
    )


def test_of_a_file_without_rows_nothing_is_said_not_to_be_there(trained, shop, tmp_path, monkeypatch, capsys):
    """What can't be seen is not looked for, and "no sign of: other columns" would send people elsewhere."""
    monkeypatch.setattr(program, "Trained", lambda *_: trained)
    (tmp_path / "rows.csv").write_bytes(bytes(range(256)) * 20)
    argv = [f"--checkpoint={shop}/checkpoint", f"--data_path={tmp_path}/rows.csv", f"--schema={shop}/schema.yaml"]
    assert program.main(argv) == 1
    lines = said(capsys)
    assert not [line for line in lines if line.startswith("no sign of")]
    (line,) = (line for line in lines if line.endswith("(no row could be read)"))
    assert "other columns" in line


@contextmanager
def weights(model, change):
    """The network with other weights of its MLPs for a while."""
    kept = {parameter.name: parameter.asnumpy().copy() for parameter in model.mlp_parameters()}
    rng = np.random.default_rng(2)
    try:
        for parameter in model.mlp_parameters():
            parameter.set_data(Tensor(change(kept[parameter.name], rng).astype(np.float32)))
        yield
    finally:
        for parameter in model.mlp_parameters():
            parameter.set_data(Tensor(kept[parameter.name]))


def with_report(trained, shop, folder, auc):
    """The same model, whose report says that it has another AUC."""
    shutil.copytree(shop / "checkpoint", folder, ignore=shutil.ignore_patterns("unfinished", "finished"))
    report = json.loads((folder / "report.json").read_text())
    report["evaluation"]["metrics"]["auc"] = auc
    (folder / "report.json").write_text(json.dumps(report))
    found = Trained(str(folder), NETWORK)
    found.model = trained.model  # which is compiled
    return found


def test_a_checkpoint_of_another_run_is_told(trained, columns, later, tmp_path):
    path = written(tmp_path / "rows.csv", later)
    with weights(trained.model.model, lambda values, rng: values + rng.normal(0, 0.3, values.shape)):
        found = diagnose(of_raw(trained, [path], columns, str(path))).found
    assert next(iter(found)) == "another checkpoint"
    assert "on valid rows, expected 0.8" in found["another checkpoint"].sentence


def test_a_model_that_has_not_learned_is_told(trained, shop, columns, later, tmp_path):
    path = written(tmp_path / "rows.csv", later)
    unlearned = with_report(trained, shop, tmp_path / "checkpoint", 0.5)
    with weights(trained.model.model, lambda values, _: np.zeros_like(values)):
        found = diagnose(of_raw(unlearned, [path], columns, str(path))).found
    assert next(iter(found)) == "a model that has not learned"
    told = found["a model that has not learned"]
    assert "scores all rows alike" in told.sentence
    assert "--lr=" in told.sentence
    assert "--config_path=best_config.yaml" in told.remedy


def test_labels_shuffled_before_training_are_told(trained, shop, columns, later, tmp_path):
    path = written(tmp_path / "rows.csv", with_labels_of_others(later))
    unlearned = with_report(trained, shop, tmp_path / "checkpoint", 0.5)
    order = np.random.default_rng(1).permutation(len(trained.rows.labels))
    unlearned.rows = dataclasses.replace(trained.rows, labels=trained.rows.labels[order])
    with weights(trained.model.model, lambda values, _: np.zeros_like(values)):
        found = diagnose(of_raw(unlearned, [path], columns, str(path))).found
    assert next(iter(found)) == "shuffled labels"
    assert "labels of the training rows have nothing to do with their columns" in found["shuffled labels"].sentence


def test_without_the_training_rows_what_can_be_is_told(trained, shop, columns, later, tmp_path):
    path = written(tmp_path / "rows.csv", changed(later, "site", str.upper))
    alone = with_report(trained, shop, tmp_path / "checkpoint", trained.evaluated[1])
    alone.data, alone.why_no_data = None, "the folder is gone: name it with --trained_path"
    found = diagnose(of_raw(alone, [path], columns, str(path)))
    assert list(found.found) == ["another spelling"]
    assert "moved numbers" in found.not_looked[alone.why_no_data]


@pytest.mark.parametrize(("argv", "message"), [
    ([], "neither is given of dataset_path and data_path: name the rows"),
    (["--dataset_path=a", "--data_path=b"], "both are given of dataset_path and data_path"),
    (["--dataset_path=a", "--schema=b"], "schema has no effect with dataset_path"),
    (["--dataset_path=a", "--checkpoint=nowhere"], "checkpoint_path nowhere is not a file"),
    (["--data_path=nothing.csv"], "there is no file nothing.csv"),
    (["--data_path=nothing.csv", "--trained_path=nothing"], "dataset_path nothing"),
])  # fmt: skip
def test_what_cant_be_followed_is_refused(shop, argv, message):
    argv = argv if any("checkpoint" in word for word in argv) else [f"--checkpoint={shop}/checkpoint", *argv]
    with pytest.raises(InputError, match=message):
        program.main(argv)


def test_a_checkpoint_without_a_manifest_is_refused(tmp_path):
    (tmp_path / "dlrm.ckpt").touch()
    with pytest.raises(InputError, match="has no manifest.json beside it"):
        program.main([f"--checkpoint={tmp_path}", "--dataset_path=x"])


def test_the_documentation_has_all_checks_as_they_are():
    rows = (ROOT / "docs/doctor.md").read_text().partition("|---|---|---|\n")[2].partition("\n\n")[0]
    expected = [f"| {check.name} | {check.looks_at} | {check.threshold} |" for check in CHECKS]
    assert rows.splitlines() == expected
