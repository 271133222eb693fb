"""The export folder as programs find it: damage, and files of something else, are noticed."""

import shutil
from dataclasses import replace

import pytest
from conftest import preprocess_lines, raw_lines, write_raw

from src.base.errors import InputError
from src.base.sealed import read_facts, write_facts
from src.data.manifest import MANIFEST, VOCABULARY, Manifest
from src.export.exported import ExportFolder
from src.scorer import Scorer


@pytest.mark.parametrize(("name", "change", "message"), [
    ("dlrm.mindir", lambda data: data[:-1], "is missing or has not its"),
    ("dlrm.mindir", lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:], "is damaged"),
    ("dlrm.tables", lambda data: data[:-1], "dlrm.tables is missing or has not its"),
    ("dlrm.model", lambda data: data.replace(b"width\t8", b"width\t9"), "is damaged"),
    ("vocabulary.npz", lambda data: data + b"x", "manifest.json says .*: export the model again"),
    ("vocabulary.npz", lambda data: data[:-1] + b"x", "its checksum differs.: export the model again"),
    ("manifest.json", lambda data: data[:-9], "is not a manifest .*: export the model again"),
])  # fmt: skip
def test_damage_of_an_export_is_noticed(exports, tmp_path, name, change, message):
    shutil.copytree(exports["fp32"], tmp_path / "e")
    path = tmp_path / "e" / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError, match=message):
        ExportFolder.load(tmp_path / "e")


def test_tables_of_another_export_are_noticed(exports, tmp_path):
    shutil.copytree(exports["fp32"], tmp_path / "e")
    shutil.copyfile(exports["fp16"] / "dlrm.tables", tmp_path / "e/dlrm.tables")
    with pytest.raises(InputError, match="dlrm.tables is missing or has not its"):
        ExportFolder.load(tmp_path / "e")


def test_tables_of_other_values_are_noticed(exports, tmp_path):
    from src.export.table_file import TableFile, write_tables

    shutil.copytree(exports["fp32"], tmp_path / "e")
    write_tables(tmp_path / "e/dlrm.tables", TableFile(exports["fp32"] / "dlrm.tables").table_rows, 8,
                 lambda piece, values: values.fill(piece.table))  # fmt: skip
    with pytest.raises(InputError, match="is of another export than the model"):
        ExportFolder.load(tmp_path / "e")


@pytest.mark.parametrize("name", ["dlrm.tables", "dlrm.mindir", "manifest.json", "vocabulary.npz"])
def test_a_missing_file_is_named(exports, tmp_path, name):
    shutil.copytree(exports["fp32"], tmp_path / "e")
    (tmp_path / "e" / name).unlink()
    with pytest.raises(InputError, match=f"{name} is missing.*: export the model again"):
        ExportFolder.load(tmp_path / "e")
    with pytest.raises(InputError, match="other.mindir is not there: name what export.py wrote"):
        ExportFolder.load(tmp_path / "e/other.mindir")


def test_the_encoder_of_another_model_is_refused(exports, tmp_path):
    """Each file is whole, and the vocabulary is the one that its manifest names."""
    other = preprocess_lines(write_raw(tmp_path / "o.txt", raw_lines(300, seed=9)), tmp_path / "other")
    shutil.copytree(exports["fp32"], tmp_path / "e")
    for name in (MANIFEST, VOCABULARY):
        shutil.copyfile(other.path / name, tmp_path / "e" / name)
    for call in (ExportFolder.load, Scorer):
        with pytest.raises(InputError, match=r"manifest.json is of another model: export the model again"):
            call(tmp_path / "e")


@pytest.mark.parametrize("change", [
    {"table_rows": lambda m: (9, *m.table_rows[1:])}, {"fields": lambda m: (*m.fields[1:], m.fields[0])},
    {"inputs": lambda m: m.inputs[1:]},
])  # fmt: skip
def test_other_columns_than_the_descriptions_are_refused(exports, tmp_path, change):
    shutil.copytree(exports["graph"], tmp_path / "e")
    manifest = Manifest.load(tmp_path / "e" / MANIFEST)
    replace(manifest, **{name: value(manifest) for name, value in change.items()}).save(tmp_path / "e")
    with pytest.raises(InputError, match="is of another model: export the model again"):
        ExportFolder.load(tmp_path / "e")


@pytest.mark.parametrize(("key", "values", "message"), [
    ("graph", [("other.mindir",)], "other.mindir is not among the files"),
    ("file", [("../x", 5, "0")], "x is no file in an exported model's folder"),
    ("width", [("wide",)], "dlrm.model is not as this version of the program writes it"),
    ("field", [], "dlrm.model is not as this version of the program writes it"),
])  # fmt: skip
def test_a_description_of_something_else_is_refused(exports, tmp_path, key, values, message):
    shutil.copytree(exports["fp32"], tmp_path / "e")
    facts = read_facts(tmp_path / "e/dlrm.model", "model") | {key: values}
    write_facts(tmp_path / "e/dlrm.model", "model", [(name, *line) for name, lines in facts.items() for line in lines])
    with pytest.raises(InputError, match=message):
        ExportFolder.load(tmp_path / "e")


@pytest.mark.parametrize("name", ["nothing", "."])
def test_a_folder_without_an_export_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"is no exported model: .* holds 0 files named \*.model"):
        ExportFolder.load(tmp_path / name)
