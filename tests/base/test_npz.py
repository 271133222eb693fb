"""Arrays in files: whole or not at all, read in parts, and in files without names."""

import resource

import numpy as np
import pytest

from src.base.files import MappedFile
from src.base.npz import StoredArray, is_whole, mapped_arrays, page_out, save_arrays, scratch_array, stored_arrays


def test_arrays_that_the_disk_does_not_hold_leave_nothing(tmp_path):
    """Whether the first array is too much, or a later one that is made meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        for sizes in ((1_000_000,), (10, 90_000, 80_000)):
            with pytest.raises(OSError, match=r"a\.npz"):
                save_arrays(tmp_path / "a.npz", ((f"x{size}", np.zeros(size, np.uint8)) for size in sizes))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_parts_of_arrays_are_read_and_a_cut_file_is_told(tmp_path):
    arrays = {"keys": np.arange(1000, dtype=np.uint64), "one": np.array(3), "none": np.empty(0, np.uint32)}
    save_arrays(tmp_path / "a.npz", arrays)
    stored = stored_arrays(tmp_path / "a.npz")
    assert set(stored) == {"keys", "none"}
    assert stored["keys"].read(990, 1000).tolist() == list(range(990, 1000))
    assert (stored["none"].read(0, 0).dtype, stored["none"].size) == (np.uint32, 0)
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[:4000])
    with pytest.raises(OSError, match="has become shorter"):
        stored["keys"].read(990, 1000)


def test_arrays_of_any_kind_and_shape_are_mapped_as_they_were(tmp_path):
    arrays = {
        "scalar": np.array(2.5), "text": np.array(["ab", "c"]), "flags": np.zeros((3, 0), bool),
        "columns": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)), "bytes": np.frombuffer(b"abc", "u1"),
        "times": np.array(["2026-01-02"], "M8[s]"), "pairs": np.array([(1, 2.0)], [("a", "<u4"), ("b", "<f8")]),
    }  # fmt: skip
    save_arrays(tmp_path / "a.npz", arrays)
    save_arrays(tmp_path / "b.npz", iter(arrays.items()))  # as they are made
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = mapped_arrays(MappedFile(tmp_path / "a.npz"))
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert (found[name].dtype, found[name].flags.f_contiguous) == (array.dtype, array.flags.f_contiguous)
    assert list(mapped_arrays(MappedFile(tmp_path / "a.npz"), ["times", "scalar"])) == ["scalar", "times"]


def test_whatever_byte_is_damaged_is_told_or_does_not_matter(tmp_path):
    path, damaged = tmp_path / "a.npz", tmp_path / "b.npz"
    save_arrays(path, {"a": np.arange(5), "b": np.arange(3, dtype=np.float32)})
    whole, told = path.read_bytes(), 0
    for place in range(len(whole)):
        damaged.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        if is_whole(damaged):
            found = {name: array.tolist() for name, array in mapped_arrays(MappedFile(damaged)).items()}
            assert found == {"a": [0, 1, 2, 3, 4], "b": [0, 1, 2]}, place
        else:
            told += 1
        damaged.write_bytes(whole[:place])
        assert not is_whole(damaged)
    assert is_whole(path)
    assert told > len(whole) / 2


def test_another_file_in_its_place_is_looked_at_anew(tmp_path):
    for size in (3, 5):
        save_arrays(tmp_path / "a.npz", {"a": np.arange(size), f"b{size}": np.arange(size)})
        found = stored_arrays(tmp_path / "a.npz")
        assert set(found) == {"a", f"b{size}"}
        assert found.pop("a").read().tolist() == list(range(size))
        assert isinstance(stored_arrays(tmp_path / "a.npz")["a"], StoredArray)  # whatever was done with what it gave


def test_what_is_paged_out_is_still_there(tmp_path):
    scratch = scratch_array(tmp_path, np.int64, 100_000)
    scratch[:] = np.arange(100_000)
    page_out(scratch[5:])
    save_arrays(tmp_path / "a.npz", {"a": scratch})
    mapped = mapped_arrays(MappedFile(tmp_path / "a.npz"))["a"]
    page_out(mapped)
    np.testing.assert_array_equal(mapped, np.arange(100_000))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert scratch_array(tmp_path, np.int64, 0).tolist() == []
    page_out(np.zeros(3))
