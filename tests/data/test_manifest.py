import dataclasses
import json
import shutil

import pytest

from src.base.errors import InputError
from src.data.manifest import MANIFEST, DataFolder, Manifest, find
from src.data.parts import File, Part

CONTENTS = {
    "vocabulary.npz": b"vocabulary",
    "train/part-00000.mindrecord": b"a" * 100,
    "train/part-00000.mindrecord.db": b"index",
    "train/part-00001.mindrecord": b"b" * 90,
    "train/part-00001.mindrecord.db": b"index",
    "test/part-00000.mindrecord": b"c" * 80,
    "test/part-00000.mindrecord.db": b"index",
}


@pytest.fixture
def folder(tmp_path):
    """A data folder of files that stand for real ones; of its parts valid has no rows."""
    path = tmp_path / "dataset"
    for name, content in CONTENTS.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    shards = ("train/part-00000.mindrecord", "train/part-00001.mindrecord")
    Manifest(
        ("I1", "I2"),
        ("C1",),
        (7,),
        {
            "train": Part(12, 1, 13, 0.25, (0.0,), shards, (8, 4)),
            "test": Part(2, 14, 15, 0.1 + 0.2, (1 / 3,), ("test/part-00000.mindrecord",), (2,)),
        },
        tuple(File.of(path, path / name) for name in CONTENTS),
        1,
        {"name": "train.txt", "bytes": 300, "lines": 15},
        {"valid_fraction": 0.0, "min_count": 1, "vocab_scope": "train"},
    ).save(path)
    return path


def test_load_gives_what_was_saved(folder):
    manifest = Manifest.load(folder / MANIFEST)
    again = folder.parent / "again"
    again.mkdir()
    manifest.save(again)
    assert Manifest.load(again / MANIFEST) == manifest
    assert manifest.parts["test"] == Part(2, 14, 15, 0.1 + 0.2, (1 / 3,), ("test/part-00000.mindrecord",), (2,))
    assert manifest.table_rows == (7,)
    assert [path.name for path in again.iterdir()] == [MANIFEST]


def test_inputs_and_fields_are_the_columns_unless_given(folder):
    """As in a manifest that knows nothing of them."""
    manifest = Manifest.load(folder / MANIFEST)
    assert (manifest.inputs, manifest.fields) == (("I1", "I2"), ("C1",))
    content = json.loads((folder / MANIFEST).read_text())
    del content["inputs"], content["fields"], content["crc32"]
    (folder / MANIFEST).write_text(json.dumps(content))
    assert Manifest.load(folder / MANIFEST) == manifest
    more = dataclasses.replace(manifest, inputs=("I1", "I2", "I2 missing"), fields=("C1", "I1 bucket"))
    more.save(folder)
    assert Manifest.load(folder / MANIFEST) == more


def test_save_replaces_an_earlier_manifest(folder):
    changed = dataclasses.replace(Manifest.load(folder / MANIFEST), bad_rows=5)
    changed.save(folder)
    assert Manifest.load(folder / MANIFEST) == changed


def test_file_measures_size_and_checksum(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "y").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # of "abc", from FIPS 180-2
    assert File.of(tmp_path, tmp_path / "x" / "y") == File("x/y", 3, expected)


def test_verify_passes_a_whole_folder(folder):
    Manifest.load(folder / MANIFEST).verify(folder, list(CONTENTS))


@pytest.mark.parametrize("name", CONTENTS)
def test_verify_refuses_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{folder / name} is missing.*preprocess the data again"):
        Manifest.load(folder / MANIFEST).verify(folder, list(CONTENTS))


def test_verify_refuses_a_truncated_file(folder):
    (folder / "train/part-00001.mindrecord").write_bytes(b"b" * 89)
    with pytest.raises(InputError, match=r"part-00001.mindrecord has 89 bytes, manifest.json says 90"):
        Manifest.load(folder / MANIFEST).verify(folder, list(CONTENTS))


def test_verify_refuses_a_changed_file_of_the_same_size(folder):
    (folder / "test/part-00000.mindrecord").write_bytes(b"c" * 79 + b"d")
    with pytest.raises(InputError, match=r"test/part-00000.mindrecord has changed .*its checksum differs"):
        Manifest.load(folder / MANIFEST).verify(folder, list(CONTENTS))


def test_part_files_are_those_of_the_part(folder):
    manifest = Manifest.load(folder / MANIFEST)
    assert manifest.part_files("train") == [name for name in CONTENTS if name.startswith("train/")]
    assert manifest.part_files("valid") == []


def test_shards_are_in_order_and_checked(folder):
    data = find(str(folder))
    paths = [str(folder / "train" / f"part-0000{number}.mindrecord") for number in (0, 1)]
    assert data.shards("train") == (paths, [8, 4])
    (folder / "train/part-00000.mindrecord.db").write_bytes(b"INDEX")
    with pytest.raises(InputError, match=r"part-00000.mindrecord.db has changed"):
        data.shards("train")
    assert data.shards("test") == ([str(folder / "test" / "part-00000.mindrecord")], [2])


@pytest.mark.parametrize("end", ["", "/", "//"])
@pytest.mark.parametrize(("below", "part"), [("", None), ("/train", "train"), ("/test", "test")])
def test_find_takes_the_folder_or_one_of_its_parts(folder, below, part, end):
    data = find(str(folder) + below + end)
    assert data == DataFolder(folder, Manifest.load(folder / MANIFEST), part)


@pytest.mark.parametrize(
    ("where", "given", "part"), [("train", ".", "train"), (".", ".", None), ("..", "dataset/test/", "test")]
)
def test_find_takes_relative_paths(folder, monkeypatch, where, given, part):
    monkeypatch.chdir(folder / where)
    data = find(given)
    assert data.path.resolve() == folder
    assert data.named_part == part


def test_find_refuses_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"dataset_path \S+/nowhere is not a folder: name the data folder"):
        find(str(tmp_path / "nowhere"))


def test_find_refuses_a_file(folder):
    with pytest.raises(InputError, match=r"manifest.json is not a folder"):
        find(str(folder / MANIFEST))


@pytest.mark.parametrize("below", ["", "train"])
def test_find_refuses_a_folder_without_manifest(folder, below):
    (folder / MANIFEST).unlink()
    with pytest.raises(InputError, match=r"holds no manifest.json.*run src/preprocess_data.py"):
        find(str(folder / below))


def test_find_names_the_data_folder_below(folder, tmp_path):
    """Of a folder of raw rows, beside which preprocessing has written."""
    shutil.copytree(folder, tmp_path / "data/dataset")
    with pytest.raises(InputError, match=r"data holds no manifest.json.*did you mean \S+/data/dataset\?$"):
        find(str(tmp_path / "data"))


def test_find_refuses_another_folder_within_the_data_folder(folder):
    (folder / "other").mkdir()
    with pytest.raises(InputError, match=r"other holds no manifest.json"):
        find(str(folder / "other"))


def test_find_refuses_a_half_written_manifest(folder):
    """A run that was killed while it wrote the manifest leaves it under another name."""
    (folder / MANIFEST).rename(folder / (MANIFEST + ".tmp"))
    with pytest.raises(InputError, match=r"holds no manifest.json"):
        find(str(folder))


GARBAGE = {
    "empty": b"",
    "cut_off": b'{"version": 1, "dense": ["I1"',
    "no_json": b"columns: 40",
    "no_text": b"\xff\xfe\x00",
    "list": b"[1, 2]",
    "number": b"3",
    "null": b"null",
    "no_version": b"{}",
    "nothing_but_version": b'{"version": 1}',
    "part_is_no_object": b'{"version": 1, "parts": {"train": 3}, "files": []}',
    "file_is_no_object": b'{"version": 1, "parts": {}, "files": [3]}',
    "unknown_key": b'{"version": 1, "parts": {}, "files": [], "colour": 1}',
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(InputError, match=r"manifest.json is not a manifest of this program.*preprocess the data again"):
        find(str(folder))


def test_manifest_of_another_version_is_refused(folder):
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | {"version": content["version"] + 1}))
    with pytest.raises(InputError, match=r"is of another version of this program: preprocess the data again"):
        find(str(folder))


WRONG_SHARDS = {
    "outside": ({"shards": ["../elsewhere/part-00000.mindrecord"]}, r"'\.\./elsewhere/part-00000.mindrecord' is no l"),
    "within_but_out": (
        {"shards": ["test/../../x.mindrecord"]},
        r"'test/../../x.mindrecord' is no listed file of test/",
    ),
    "not_listed": (
        {"shards": ["test/part-00009.mindrecord"]},
        r"'test/part-00009.mindrecord' is no listed file of te",
    ),
    "of_another_part": ({"shards": ["train/part-00000.mindrecord"]}, "is no listed file of te"),
    "too_few_rows": ({"shard_rows": [1]}, "the shards of test do not make up its 2 rows"),
    "too_many_numbers": ({"shard_rows": [1, 1]}, "the shards of test do not make up its 2 rows"),
}


@pytest.mark.parametrize(("change", "message"), WRONG_SHARDS.values(), ids=WRONG_SHARDS)
def test_shards_are_among_the_checked_files_of_the_folder(folder, change, message):
    content = json.loads((folder / MANIFEST).read_text())
    content["parts"]["test"] |= change
    (folder / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        find(str(folder))


def test_a_file_that_the_manifest_does_not_list_is_refused(folder):
    with pytest.raises(InputError, match=rf"{folder / MANIFEST} lists no other.npz: preprocess the data again"):
        Manifest.load(folder / MANIFEST).verify(folder, ["other.npz"])


def test_a_changed_value_is_refused(folder):
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(content | {"bad_rows": content["bad_rows"] + 1}))
    with pytest.raises(InputError, match="manifest.json is damaged"):
        Manifest.load(folder / MANIFEST)
