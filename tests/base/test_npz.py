"""Arrays in files: whole or not at all, read in parts, and in files without names."""

import resource

import numpy as np
import pytest

from src.base.errors import InputError
from src.base.files import MappedFile
from src.base.npz import StoredArray, mapped_arrays, page_out, save_arrays, scratch_array, stored_arrays, whole_arrays


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


def test_values_that_are_not_what_was_written_are_told(tmp_path):
    """Not of parts, of which no checksum is known; zip files' own reader would tell, too."""
    path = tmp_path / "a.npz"
    save_arrays(path, {"good": np.arange(3), "bad": np.arange(7777), "none": np.empty(0)})
    assert stored_arrays(path)["none"].read().tolist() == []
    data = path.read_bytes()
    path.write_bytes(data.replace(np.int64(5000).tobytes(), np.int64(5001).tobytes()))
    stored, told = stored_arrays(path), r"a\.npz is damaged: remove it, and start again"
    assert stored["good"].read().tolist() == [0, 1, 2]
    assert stored["bad"].read(0, 10).tolist() == list(range(10))
    with pytest.raises(InputError, match=told):
        stored["bad"].read()
    assert [array.tolist() for array in whole_arrays(path, ["none", "good"])] == [[], [0, 1, 2]]
    with pytest.raises(InputError, match=told):
        whole_arrays(path, ["bad"])
    for size in (0, 5000):
        path.write_bytes(data[:size])
        for look in (stored_arrays, lambda place: whole_arrays(place, ["good"])):
            with pytest.raises(InputError, match=told):
                look(path)


@pytest.mark.parametrize(
    "to", [b"'<R8', 'fortran_order': False, 'shape': (7,)", b"'<i8', 'fortran_order': False, 'shape': (77)"]
)
def test_headers_that_numpy_refuses_are_refused_as_by_numpy(tmp_path, to):
    path = tmp_path / "a.npz"
    save_arrays(path, {"a": np.arange(7)})
    path.write_bytes(path.read_bytes().replace(b"'<i8', 'fortran_order': False, 'shape': (7,)", to))
    with pytest.raises(ValueError, match="is not"):
        mapped_arrays(MappedFile(path))
    with pytest.raises(InputError, match="is damaged"):
        stored_arrays(path)


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
