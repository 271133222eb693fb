"""Graphs compiled for Ascend without a card: a few good ones, and wrong ones that must not pass."""

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from benchmarks import ascend_dryrun, ascend_graphs, cann_stubs
from benchmarks.dryrun_log import Outcome, follow, of_one_graph, out_of_order
from src.base.errors import InputError

WRONG = """
from types import SimpleNamespace
import numpy as np
from mindspore import Tensor, mint, nn, ops
from benchmarks import ascend_graphs
from src.ranks.exchange import Exchange

class Sent(nn.Cell):
    def __init__(self):
        super().__init__()
        self.exchange = Exchange(1, 2, True, lambda values, places, axis: mint.index_select(values, axis, places))
        self.exchange.set_slots([0, 1, 1, 0])
    def construct(self, vectors):
        return self.exchange.to_samples(vectors)

class OfNoDevice(ops.PrimitiveWithInfer):
    @ops.prim_attr_register
    def __init__(self):
        self.init_prim_io_names(inputs=["x"], outputs=["y"])
    def infer_shape(self, shape):
        return shape
    def infer_dtype(self, dtype):
        return dtype

class Unknown(nn.Cell):
    def __init__(self):
        super().__init__()
        self.unknown = OfNoDevice()
    def construct(self, vectors):
        return self.unknown(vectors)

class Older(nn.Cell):
    def __init__(self):
        super().__init__()
        self.add = ops.BiasAdd()
    def construct(self, vectors):
        return self.add(vectors, vectors.sum(0))

class Swapped(nn.Cell):
    def __init__(self, first):
        super().__init__()
        self.first, self.send = first, ops.AlltoAll(2, 0, 0)
    def construct(self, vectors):
        one, other = (vectors, vectors.reshape(-1)) if self.first else (vectors.reshape(-1), vectors)
        sent = self.send(one)
        return sent, self.send(ops.depend(other, sent))

def graph(name, cell, *shape):
    return SimpleNamespace(name=name, ranks=2, make=lambda: (cell(), (Tensor(np.zeros(shape, np.float32)),)))

def graphs():
    return [graph("sent", Sent, 4, 2, 8), graph("sent in a wrong shape", Sent, 4, 3, 8),
            graph("unknown operator", Unknown, 4, 8), graph("older operator", Older, 4, 8),
            *(graph(f"rank {rank} of swapped", lambda rank=rank: Swapped(rank), 4, 8) for rank in range(2)),
            *ascend_graphs.quick_graphs()]
"""
WRONG_ONES = 6


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory):
    """Graphs of WRONG and the quick ones, what became of them in processes, which leave nothing, and a line of each."""
    try:
        cann_stubs.stand_ins()
    except InputError as error:
        pytest.skip(f"no dry run here: {error}")
    folder = tmp_path_factory.mktemp("dry_run")
    (folder / "wrong.py").write_text(WRONG)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.chdir(folder)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # which Python, not the command, would leave
        patch.setattr(sys, "dont_write_bytecode", True)
        graphs = ascend_dryrun.graphs_of("wrong.py")
        outcomes = ascend_dryrun.compile_all(graphs, [f"--of={folder / 'wrong.py'}"], 1)
    assert os.listdir(folder) == ["wrong.py"]
    return graphs, outcomes, said.getvalue().splitlines()


def lines_of(capfd):
    """What was printed, and nothing on stderr."""
    out, err = capfd.readouterr()
    assert err == ""
    return out.splitlines()


def test_a_few_graphs_compile_with_aclnn_kernels_alone(dry_run, capfd):
    graphs, outcomes, (*train, evaluate) = (one[WRONG_ONES:] for one in dry_run)
    assert [one.name for one in graphs] == [one.name for one in ascend_dryrun.graphs_of("", quick=True)]
    assert ascend_dryrun.conclude(graphs, outcomes) == 0
    compared = "laid_out=3; collectives of 2 ranks compared, in 1 graphs"
    assert lines_of(capfd)[-2:] == [compared, "graphs=3 compiled=3 aclop=0"]
    for rank, line in zip((1, 0), train):
        assert line.startswith(f"train batch=128 hybrid rank {rank} of 2 float16")
        assert "collectives 4" in line  # ids and vectors, all else, gradients
    assert "collectives 0" in evaluate
    for line in (*train, evaluate):
        assert "compiled, laid out, kernels: aclnn" in line
        assert "memory 0.0 MB" not in line


def test_wrong_graphs_do_not_pass(dry_run, capfd):
    graphs, outcomes, said = dry_run
    assert ascend_dryrun.conclude(graphs, outcomes) == 1
    lines = lines_of(capfd)
    by_name = dict(line.split(": ", 1) for line in (*said, *lines) if ": " in line)
    assert by_name["sent"].startswith("compiled, laid out, kernels: aclnn 1, aclop 0, collectives 1")
    assert by_name["sent in a wrong shape"].startswith("NOT COMPILED, ValueError: ")
    unknown = by_name["unknown operator"]
    assert unknown.startswith("NOT COMPILED, RuntimeError: Ascend operator selection failed")
    assert "OfNoDevice" in unknown
    small, large = (f"AllToAll {one} to {one} in hccl_world_group of 0 1" for one in ("Float32(32)", "Float32(4, 8)"))
    assert f"rank 1 of swapped sends {large}; {small}, but rank 0 of swapped {small}; {large}" in lines
    assert "aclop 1 (BiasAdd 1)" in by_name["older operator"]
    assert by_name["aclop BiasAdd"] == "NOT EXPECTED"
    assert lines[-1].startswith("graphs=9 compiled=")


def test_the_command_refuses_in_one_line():
    command = [sys.executable, str(ROOT / "benchmarks/ascend_dryrun.py"), "--only=nothing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --only nothing: no graph's name has this text\n"


QUICK, OF = ["--quick"], ["--of=wrong.py"]


@pytest.mark.parametrize("argv", [QUICK, OF, ["--of=wrong.py", "--only=swapped"], ["--only=bfloat16"], []])
def test_the_command_compiles_the_graphs_that_it_says_in_processes_that_find_the_same(here, monkeypatch, argv):
    """And only what it says of all graphs becomes a result file."""
    Path("wrong.py").write_text(WRONG)
    compiled, worked, saved = [], [], []

    def compile_all(*given):
        compiled.append(given)
        return ["outcome"]

    monkeypatch.setattr(ascend_dryrun, "compile_all", compile_all)
    monkeypatch.setattr(ascend_dryrun, "conclude", lambda graphs, outcomes: 7 if outcomes == ["outcome"] else 0)
    monkeypatch.setattr(ascend_dryrun, "save", lambda graphs, outcomes: saved.append((graphs, outcomes)))
    monkeypatch.setattr(ascend_dryrun, "work", lambda *given: worked.append(given))
    assert ascend_dryrun.main([*argv, "--processes=3", "--keep_log=log"]) == 7
    ((graphs, arguments, processes, log),) = compiled
    assert (processes, log) == (3, "log")
    wanted = ascend_dryrun.graphs_of("wrong.py" if argv[:1] == OF else "", argv == QUICK)
    only = [word.removeprefix("--only=") for word in argv if word.startswith("--only=")] or [""]
    names = [one.name for one in wanted if only[0] in one.name]
    assert [one.name for one in graphs] == names
    assert (len(names) < len(wanted)) == (only != [""])
    assert saved == ([] if argv else [(graphs, ["outcome"])])
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")  # as a process, which has a folder of its own
    assert ascend_dryrun.main([*arguments, "--work=2,0"]) == 0
    ((found, numbers),) = worked
    assert ([one.name for one in found], numbers) == (names, [2, 0])
    assert len(compiled) == 1


def graph_of(rank):
    return ascend_graphs.Graph(mode="hybrid", ranks=2, rank=rank)


def test_ranks_that_send_in_different_orders_are_told():
    graphs = [graph_of(0), graph_of(1)]
    small, large = "AllToAll Int32(8)", "AllToAll Float32(8, 16)"
    for second, count in (([small, large], 0), ([large, small], 1), ([small], 1)):
        outcomes = [Outcome(graph.name, "", [("AllToAll", "hccl_kernel")] * len(sent), sent=sent)
                    for graph, sent in zip(graphs, ([small, large], second))]  # fmt: skip
        assert len(out_of_order(graphs, outcomes)) == count
        assert ascend_dryrun.conclude(graphs, outcomes) == int(count > 0)
    outcomes[1].sent = []
    assert out_of_order(graphs, outcomes) == [f"{graphs[1].name} told 0 of 1 collectives"]


def test_both_ranks_of_graphs_with_most_options_are_compared():
    graphs = ascend_graphs.all_graphs()
    names = [own[0].name for own in of_one_graph(graphs, [Outcome(graph.name, "") for graph in graphs])]
    assert len(names) == 4 + 2 + sum(graph.ranks == 2 for graph in ascend_graphs.combined())  # 2 of lists
    for options in (
        ("hybrid", "float16"), ("hybrid", "dropout"), ("hybrid", "average_share"), ("hybrid", "mixed_dims"),
        ("hybrid", "weighted"), ("hybrid", " optimizer=adam"), ("hybrid", "bfloat16"), ("hybrid", "cat"),
        ("hybrid", "lists"), ("data", "float16"), ("data", "towers=4"), ("data", "sampled negatives"),
    ):  # fmt: skip
        assert any(all(option in name for option in options) and " of 2" in name for name in names), options


def test_what_stays_is_named_and_is_no_failure(monkeypatch, capsys):
    graph, outcome = graph_of(0), Outcome("x 1", "", [("Old", "acl_kernel"), ("New", "opapi_kernel")])
    assert ascend_dryrun.conclude([graph], [outcome]) == 1
    monkeypatch.setitem(ascend_dryrun.STAYS, "Old", ("y ", "for a reason"))
    assert ascend_dryrun.conclude([graph], [outcome]) == 1
    monkeypatch.setitem(ascend_dryrun.STAYS, "Old", ("x ", "for a reason"))
    assert ascend_dryrun.conclude([graph], [outcome]) == 0
    compared = "laid_out=1; collectives of 0 ranks compared, in 0 graphs"
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "aclop Old: for a reason", compared, "graphs=1 compiled=1 aclop=1",
    ]  # fmt: skip


def test_a_process_that_dies_leaves_the_kernels_that_were_chosen():
    log = """ascend_dryrun: {"begins": 3, "name": "third"}
[INFO] x] A select aclnn kernel
[INFO] x] GenerateKernelBuildInfo] Default/cell/A-op0 input_num: 1
[INFO] x] B select aclop kernel
[INFO] x] GenerateKernelBuildInfo] Default/B-op12 input_num: 2
[INFO] x] GenerateKernelBuildInfo] B-op13 input_num: 2
[INFO] x] kernel opname:A, kernel type:opapi_kernel
"""
    outcomes = {3: Outcome("third")}
    assert list(follow(log.splitlines(), outcomes, stand_ins=True)) == [3]
    assert outcomes[3].error == "MindSpore died"
    assert outcomes[3].kernels == [("A", "opapi_kernel"), ("B", "acl_kernel"), ("B", "acl_kernel")]
    # Behind the choice of all kernels those of aclop can't be made by the stand-ins of CANN, which is no fault.
    log, outcomes = log + "x PrintOpSelectedNum] 0 1 2\n", {3: Outcome("third")}
    assert list(follow(log.splitlines(), outcomes, stand_ins=True)) == [3]
    assert (outcomes[3].error, outcomes[3].not_laid_out) == ("", "MindSpore died")
    shown = "third: compiled, not laid out (MindSpore died), kernels: aclnn 1, aclop 2 (B 2)"
    assert str(outcomes[3]).startswith(shown)


@pytest.mark.parametrize("end", ["", 'ascend_dryrun: {"ends": 3, "error": "X is null", "memory_mb": 0}\n'])
def test_what_fails_behind_the_choice_is_a_fault_but_for_aclop_kernels_without_cann(end):
    log = """ascend_dryrun: {"begins": 3, "name": "third"}
[INFO] x] A select KIND kernel
[INFO] x] GenerateKernelBuildInfo] Default/cell/A-op0 input_num: 1
x PrintOpSelectedNum] 0 1 2
"""
    for kind, stand_ins, faults in (("aclop", True, 0), ("aclop", False, 1), ("aclnn", True, 1), ("aclnn", False, 1)):
        outcomes = {3: Outcome("third")}
        assert list(follow((log.replace("KIND", kind) + end).splitlines(), outcomes, stand_ins)) == [3]
        assert bool(outcomes[3].error) == faults
        assert bool(outcomes[3].not_laid_out) != faults
        assert f"{outcomes[3]}".startswith("third: NOT COMPILED" if faults else "third: compiled, not laid out (")


def test_every_two_options_meet_in_a_training_step():
    graphs = ascend_graphs.all_graphs()
    assert len(graphs) >= 80
    assert len({graph.name for graph in graphs}) == len(graphs)
    names = " | ".join(graph.name for graph in graphs if graph.kind == "train")
    for one in [
        "adam",
        "rowwise_adagrad",
        "dcnv2",
        "self_interaction=True",
        "towers=4",
        "mixed_dims=0.3",
        "dropout=0.1",
        "average_share=0.5",
        "lr_schedule=cosine",
        "float16",
        "bfloat16",
        "batch=16384",
        "33,762,577",
    ]:
        assert one in names
    for one in ("data rank 7 of 8", "hybrid rank 7 of 8", "hybrid rank 1 of 2"):
        assert one in names
    pairs = [("optimizer=adam", "float16"), ("hybrid", "mixed_dims=0.3"), ("bfloat16", "dcnv2"), ("of 8", "towers=4")]
    for first, second in pairs:
        assert any(first in graph.name and second in graph.name for graph in graphs)


@pytest.mark.parametrize(("options", "message"), [
    (["--of=nothing.py"], "--of nothing.py is not a Python file"),
    (["--only=nothing"], "--only nothing: no graph's name has this text"),
])  # fmt: skip
def test_what_is_asked_for_must_be_there(options, message):
    with pytest.raises(InputError, match=message):
        ascend_dryrun.main(options)


def test_a_file_must_have_graphs(tmp_path):
    (tmp_path / "none.py").write_text("GRAPHS = []")
    with pytest.raises(InputError, match="has no function graphs"):
        ascend_dryrun.main([f"--of={tmp_path / 'none.py'}"])


def test_missing_tools_and_other_processors_are_told(monkeypatch):
    monkeypatch.setattr(cann_stubs.platform, "machine", lambda: "riscv64")
    with pytest.raises(InputError, match="no stand-ins of CANN for a riscv64 processor"):
        cann_stubs.stand_ins()
    monkeypatch.setattr(cann_stubs.shutil, "which", lambda tool, path=None: None)
    with pytest.raises(InputError, match=r"g\+\+ is missing: install g\+\+"):
        cann_stubs.stand_ins()


def test_an_installed_cann_is_used(tmp_path, monkeypatch):
    (tmp_path / "lib64").mkdir()
    (tmp_path / "lib64/libascendcl.so").touch()
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path))
    monkeypatch.setenv("LD_LIBRARY_PATH", "own")
    found = ascend_dryrun.environment(8)
    assert (found["ASCEND_HOME_PATH"], found["LD_LIBRARY_PATH"]) == (str(tmp_path), "own")
    assert (found["RANK_SIZE"], found["MS_SIMULATION_LEVEL"]) == ("8", "1")
