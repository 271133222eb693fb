"""The compiled operators: when they can't be had, the life of their library, and layers against plain NumPy."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from conftest import CPU, ORIGINAL, ROOT
from mindspore import Tensor, nn, ops
from networks import (
    make_batch,
    make_model,
)

import train
from src.base import native
from src.model_utils import CPU_THREADS
from src.network import cpu_kernels
from src.network.layers import MLP


class Gradients(nn.Cell):
    """Of sum(weight * mlp(x)) with respect to x and all parameters."""

    def __init__(self, mlp):
        super().__init__()
        self.mlp = mlp
        self.gradients = ops.value_and_grad(self.weighted, 0, ms.ParameterTuple(mlp.trainable_params()))

    def weighted(self, x, weight):
        return (self.mlp(x) * weight).sum()

    def construct(self, x, weight):
        return self.gradients(x, weight)[1]


def plain_layer_gradients(layers, x, gradient, last_relu):
    """As `Gradients`, in float64: of x, then (weight, bias) of each layer."""
    results = [x]
    for index, (weight, bias) in enumerate(layers):
        product = results[-1] @ weight.T + bias
        results.append(np.maximum(product, 0) if last_relu or index < len(layers) - 1 else product)
    found = []
    for index in reversed(range(len(layers))):
        if last_relu or index < len(layers) - 1:
            gradient = gradient * (results[index + 1] > 0)
        found[:0] = [gradient.T @ results[index], gradient.sum(0)]
        gradient = gradient @ layers[index][0]
    return [gradient, *found]


@pytest.mark.parametrize("batch", [1, 130, 1100])
@pytest.mark.parametrize("last_relu", [True, False])
@pytest.mark.parametrize("sizes", [(3, 1), (128, 256, 5), (7, 300, 128)])
def test_layers_and_their_gradients(sizes, last_relu, batch, operators):
    """To 1e-4 of the largest value; rows with and without a gap behind them, in one part and in several."""
    rng = np.random.default_rng(1)
    mlp = MLP(sizes[0] + 125, sizes, last_relu, rng, operators=operators)
    values = [value.asnumpy().astype(np.float64) for value in mlp.trainable_params()]
    layers = list(zip(values[::2], values[1::2]))
    x = rng.normal(size=(batch, sizes[0] + 125)).astype(np.float32)
    weight = rng.normal(size=(batch, sizes[-1])).astype(np.float32)
    x_gradient, gradients = Gradients(mlp)(Tensor(x), Tensor(weight))
    expected = plain_layer_gradients(layers, x.astype(np.float64), weight.astype(np.float64), last_relu)
    for got, plain in zip([x_gradient, *gradients], expected, strict=True):
        assert got.shape == plain.shape
        np.testing.assert_allclose(got.asnumpy(), plain, rtol=0, atol=1e-4 * np.abs(plain).max() + 1e-12)


def test_nan_is_not_hidden_by_relu(compiled):
    mlp = MLP(4, (8, 2), True, np.random.default_rng(1), operators=compiled)
    mlp.layers[0].weight.set_data(Tensor(np.full((8, 4), np.nan, np.float32)))
    assert np.isnan(mlp(Tensor(np.ones((3, 4), np.float32))).asnumpy()).all()


def test_library_stays_when_no_graph_uses_it(compiled):
    """Its threads outlive every graph; MindSpore closes it with the last one."""
    model = make_model(operators=compiled)
    dense, ids, _ = make_batch(model, 5)
    model(Tensor(dense), Tensor(ids))
    del model
    gc.collect()
    assert compiled.kernels.library.name in Path("/proc/self/maps").read_text()


def load_in_new_folder(tmp_path, monkeypatch, source=None):
    monkeypatch.setattr(native, "BUILD", tmp_path / "build")
    if source is not None:
        (tmp_path / "kernels.cc").write_text(source)
        monkeypatch.setattr(cpu_kernels, "SOURCE", tmp_path / "kernels.cc")
    return cpu_kernels.load()


def test_no_compiler_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert load_in_new_folder(tmp_path, monkeypatch) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "slower" in line
    assert "install g++" in line


def test_source_that_does_not_compile_is_one_line_and_leaves_no_file(tmp_path, monkeypatch, capsys):
    assert load_in_new_folder(tmp_path, monkeypatch, "int broken(") is None
    compiling, line = capsys.readouterr().err.splitlines()
    assert compiling.startswith("compiling ")
    assert "can't compile" in line
    assert not list((tmp_path / "build").iterdir())


def test_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "build").write_text("a file")
    assert load_in_new_folder(tmp_path, monkeypatch) is None
    (line,) = capsys.readouterr().err.splitlines()
    assert "can't be written" in line


def test_library_is_compiled_once_and_anew_for_another_source(tmp_path, monkeypatch, capsys):
    first = load_in_new_folder(tmp_path, monkeypatch, "// one")
    assert load_in_new_folder(tmp_path, monkeypatch).library == first.library
    assert capsys.readouterr().err.count("compiling") == 1
    assert load_in_new_folder(tmp_path, monkeypatch, "// two").library != first.library


def test_edit_of_an_included_file_makes_a_new_library(tmp_path, monkeypatch):
    """Also of one that is included by another one, or from two sides, or includes itself in a circle."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels/outer.h").write_text('#pragma once\n#include <vector>\n  # include "../kernels/inner.h"\n')
    inner = tmp_path / "kernels/inner.h"
    libraries = []
    for number in (1, 2, 2):
        inner.write_text(f'#pragma once\n#include "outer.h"\n// {number}')
        source = '#include "kernels/inner.h"\n#include "kernels/outer.h"\n'
        libraries.append(load_in_new_folder(tmp_path, monkeypatch, source).library)
    assert libraries[0] != libraries[1] == libraries[2]


def test_included_file_that_is_missing_is_one_line(tmp_path, monkeypatch, capsys):
    assert load_in_new_folder(tmp_path, monkeypatch, '#include "missing.h"') is None
    _, line = capsys.readouterr().err.splitlines()
    assert "missing.h" in line


def test_all_files_of_the_kernels_are_in_the_library(tmp_path, monkeypatch):
    """An edit of any of them makes a new one. The compiler is one that writes nothing."""
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || touch "$2"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    folder = shutil.copytree(cpu_kernels.SOURCE.parent, tmp_path / "kernels")
    monkeypatch.setattr(cpu_kernels, "SOURCE", folder / cpu_kernels.SOURCE.name)
    libraries = {load_in_new_folder(tmp_path, monkeypatch).library}
    files = sorted(folder.iterdir())
    for path in files:
        path.write_text(path.read_text() + "// edited\n")
        libraries.add(load_in_new_folder(tmp_path, monkeypatch).library)
    assert len(libraries) == 1 + len(files)


def test_training_without_a_compiler_goes_on(tiny_data, here, monkeypatch, capsys):
    """With MindSpore's operators, told in a line."""
    monkeypatch.setattr(native, "BUILD", here / "build")
    monkeypatch.setenv("CXX", "no-such-compiler")
    train.main([CPU, ORIGINAL, f"--dataset_path={tiny_data.path}", "--bottom_mlp=[8,16]", "--top_mlp=[8,1]"])
    assert "CPU operators of MindSpore alone" in capsys.readouterr().err
    assert Path("checkpoint/dlrm.ckpt").exists()


def test_threads_are_those_that_the_user_allows_and_not_mindspore():
    """MindSpore lets the C library, but not Python, believe that OMP_NUM_THREADS is 1; this halved the speed."""
    program = """
import ctypes, os, sys
import mindspore
mindspore.set_device("CPU")
from src.model_utils import CPU_THREADS, aot
library = ctypes.CDLL(None)
library.getenv.restype = ctypes.c_char_p
print(repr(library.getenv(CPU_THREADS.encode()).decode()))
"""
    others = {name: value for name, value in os.environ.items() if name not in ("OMP_NUM_THREADS", CPU_THREADS)}
    for given in ({}, {"OMP_NUM_THREADS": "3"}, {"OMP_NUM_THREADS": "1", CPU_THREADS: ""}):
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=others | given, capture_output=True,
                              text=True, check=True)  # fmt: skip
        assert done.stdout.splitlines()[-1] == repr(given.get(CPU_THREADS, given.get("OMP_NUM_THREADS", "")))


def test_threads_of_the_operators_take_no_signals(compiled):
    """Their frames would be written over the heap, where oneDNN multiplies: see held_back in src/base/stops.py."""
    program = """
import ctypes, os, sys
from pathlib import Path
sizes = [(999, 8), (8, 8), (8,), (999, 8)]  # x, weight, bias, result
kept = [(ctypes.c_float * 7992)() for _ in sizes] + [(ctypes.c_int64 * len(size))(*size) for size in sizes]
places = [ctypes.addressof(one) for one in kept]
data, shapes = ((ctypes.c_void_p * 4)(*part) for part in (places[:4], places[4:]))
before = set(os.listdir("/proc/self/task"))
failed = ctypes.CDLL(sys.argv[1]).LinearRelu(4, data, (ctypes.c_int * 4)(2, 2, 1, 2), shapes, None, None, None)
(own,) = set(os.listdir("/proc/self/task")) - before
masks = [Path(f"/proc/self/task/{thread}/status").read_text().partition("SigBlk:")[2].split()[0]
         for thread in (own, os.getpid())]
print(failed, *(int(mask, 16) >> 1 & 1 for mask in masks))  # whether SIGINT is blocked
"""
    done = subprocess.run([sys.executable, "-c", program, str(compiled.kernels.library)], capture_output=True,
                          env=os.environ | {CPU_THREADS: "2"}, text=True, check=True)  # fmt: skip
    assert done.stdout.split() == ["0", "1", "0"]
