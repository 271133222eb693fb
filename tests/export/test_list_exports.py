"""A model of lists and shared tables leaves the house: Scorer, table files, C++ program and eval agree."""

import json
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pandas as pd
import pytest
from conftest import CPU, SMALL
from mindspore import Tensor, nn
from program_310 import run, scored
from runs import rows_of

import eval as eval_program
import export as export_program
import preprocess as preprocess_program
import train as train_program
from src.base.errors import InputError
from src.base.sealed import read_facts, write_facts
from src.data.encoder import load_encoder
from src.data.layout import Layout
from src.data.manifest import VOCABULARY, find
from src.dataset import batches_of
from src.dlrm import DLRM
from src.export.exported import ExportFolder
from src.export.graph import EXPORTED, export_graph
from src.export.options import ExportSpec
from src.metrics.binary import logloss
from src.network.embedding import initial_values, whole_tables
from src.network.options import NetworkSpec
from src.rows.raw_rows import block_of_frame
from src.scorer import Scorer
from tests.lists import HEADER, lists_data, table

NETWORK = ["--towers=2", "--emb_dim=16", "--mixed_dims=0.5"]
ROWS = table(150, seed=5)


@pytest.fixture(scope="module")
def model(made_once):
    """A folder of data, a checkpoint of narrow vectors in two towers, exports by table type, and rows to score."""

    def make(folder):
        lists_data(folder, 700)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            train_program.main([CPU, *SMALL[1:], "--dataset_path=dataset", "--batch_size=64", "--lr=0.1",
                                "--optimizer=adagrad", "--importance_rows=100", *NETWORK])  # fmt: skip
            for kind in ("fp32", "int8"):
                export_program.main([CPU, "--checkpoint_path=checkpoint", f"--export_path={kind}",
                                     f"--table_type={kind}", "--export_batch_size=64"])  # fmt: skip
            export_program.main([CPU, "--checkpoint_path=checkpoint", "--export_path=graph", "--table_placement=graph",
                                 "--export_batch_size=64"])  # fmt: skip
            Path("new.csv").write_text("".join(f"{line}\n" for line in ROWS))
            preprocess_program.main(["--dataset_path=new.csv", "--export_path=fp32", "--preprocess_path=rows"])

    return made_once("lists_model", make)


def frame_of(lines, kind):
    """The rows as a DataFrame, whose cells of lists are of a kind."""
    frame = pd.DataFrame([line.split(",") for line in lines[1:]], columns=HEADER.split(","))
    for name, sign in (("tags", "|"), ("seen", ";")):
        cells = [[] if cell == "NULL" else [value for value in cell.split(sign) if value] for cell in frame[name]]
        frame[name] = frame[name] if kind is str else [kind(cell) for cell in cells]
    return frame


def test_scorer_gives_the_logits_of_eval(model, tmp_path):
    data = find(str(model / "dataset"))
    eval_program.main([CPU, f"--dataset_path={data.path}/test", f"--checkpoint_path={model}/checkpoint",
                       f"--metrics_file_name={tmp_path}/eval.jsonl", "--eval_batch_size=64"])  # fmt: skip
    (found,) = rows_of(tmp_path / "eval.jsonl", "eval")
    dense, ids, labels = (np.concatenate(column) for column in zip(*batches_of(data, "test", 64)))
    scores = Scorer(model / "fp32").score_ids(dense, ids).astype(np.float64)
    assert logloss(labels[:, 0], np.log(scores / (1 - scores))) == pytest.approx(found["logloss"], abs=1e-6)


@pytest.mark.filterwarnings("ignore:rows to score")
@pytest.mark.parametrize("kind", ["fp32", "int8", "graph"])
def test_the_cpp_program_gives_the_scores_of_the_scorer(model, program, here, kind):
    found = scored(program, model / kind, model / "rows")
    expected = Scorer(model / kind).score_lines(ROWS, has_labels=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(expected) > 0.1


@pytest.mark.parametrize("kind", [str, list, tuple, np.array])
def test_frames_hold_lists_arrays_or_text(model, kind):
    encoder, manifest = load_encoder(model / "fp32" / VOCABULARY, ("price",)), find(str(model / "dataset")).manifest
    columns = encoder.keyed(manifest.columns())
    ids = encoder.encode(block_of_frame(frame_of(ROWS, kind), columns, encoder.examples))[1]
    np.testing.assert_array_equal(ids, encoder.encode(block_of_frame(frame_of(ROWS, str), columns))[1])
    assert (ids[:, 1:4] == -1).any()


def test_frames_refuse_lists_elsewhere_and_odd_values_in_them(model):
    scorer, frame = Scorer(model / "fp32"), frame_of(ROWS, list)
    frame["site"] = [["s0"]] * len(frame)
    with pytest.raises(InputError, match=r"column 'site', row 0 is \['s0'\]: give categories as text"):
        scorer.score(frame)
    frame = frame_of(ROWS, list)
    frame.at[3, "tags"] = ["t0", 1.5]
    with pytest.raises(InputError, match=r"column 'tags', row 3 is 1.5: give categories as text"):
        scorer.score(frame)


def test_values_that_are_left_out_are_told_once(model):
    scorer = Scorer(model / "fp32")
    with pytest.warns(UserWarning, match=r"rows to score: values were left out, .*: 1 of tags beyond 3 in a cell"):
        scorer.score_lines([HEADER, "0,1,s0,t0|t1|t2|t3,,i1"], has_labels=True)


def test_ids_of_other_shapes_or_padding_elsewhere_are_refused(model):
    scorer = Scorer(model / "fp32")
    row = np.array([[1, 1, -1, -1, -1, -1, -1, -1, 1]])
    assert scorer.score_ids(np.zeros((1, 1)), row).shape == (1,)
    with pytest.raises(InputError, match=r"ids is int64 of shape \(1, 4\): it must be \[rows, 9\]"):
        scorer.score_ids(np.zeros((1, 1)), row[:, :4])
    row[0, 0] = -1
    with pytest.raises(InputError, match=r"row 1, field 1: id -1 is not among the \d+ of its table"):
        scorer.score_ids(np.zeros((1, 1)), row)


def test_lists_are_pooled_in_the_graph_as_where_they_are_looked_up(model, here):
    """By MindIR of both versions and by ONNX; auto leaves the tables in a file."""
    data = find(str(model / "dataset"))
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(data, "test", 64)))
    assert (ids == -1).any()
    expected = Scorer(model / "fp32").score_ids(dense, ids)
    assert ExportFolder.load(model / "fp32").table
    assert ExportFolder.load(model / "graph").table is None
    np.testing.assert_allclose(Scorer(model / "graph").score_ids(dense, ids), expected, rtol=0, atol=1e-6)
    into_graph = [CPU, f"--checkpoint_path={model}/checkpoint", "--table_placement=graph"]
    export_program.main([*into_graph, "--export_path=v3", "--mindir_version=3"])
    np.testing.assert_allclose(Scorer("v3").score_ids(dense, ids), expected, rtol=0, atol=1e-6)
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r tests/requirements.txt")
    export_program.main([*into_graph, "--export_path=onnx", "--file_format=ONNX", f"--export_batch_size={len(ids)}"])
    session = onnxruntime.InferenceSession("onnx/dlrm.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"dense": dense, "ids": ids})
    np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=1e-6)


POOLED = Layout((0, 1, 0, 2, 1), (1, 3, 4, 3, 2), ("", "sum", "mean", "max", "max"))


@pytest.mark.parametrize("version", [1, 3])
def test_each_pool_in_the_graph_is_that_of_plain_loops(tmp_path, version):
    """Values that come twice, and empty lists, whose vectors are zeros."""
    rows, rng = (9, 14, 6), np.random.default_rng(4)
    model = DLRM(2, whole_tables(rows, 4, initial_values(rows, 2), EXPORTED, POOLED), NetworkSpec(4, (4,), (1,)))
    ids = np.stack([rng.integers(0, rows[table], 20) for table in POOLED.of_ids(POOLED.tables)], 1).astype(np.int32)
    for start, size, pool in zip(POOLED.starts, POOLED.sizes, POOLED.pools):
        lengths = np.append([0, size], rng.integers(0, size + 1, 18)) if pool else np.full(20, 1)
        ids[:, start : start + size][np.arange(size) >= lengths[:, None]] = -1
    dense = rng.normal(size=(20, 2)).astype(np.float32)
    joint = model.tables.table.asnumpy()
    ends = np.cumsum([0, *(own + 1 for own in rows)])
    vectors = np.zeros((20, POOLED.fields, 4), np.float32)
    for row in range(20):
        for field, (start, size, pool) in enumerate(zip(POOLED.starts, POOLED.sizes, POOLED.pools)):
            own = [joint[ends[POOLED.tables[field]] + one] for one in ids[row, start : start + size] if one >= 0]
            if own:
                vectors[row, field] = {"mean": np.mean, "max": np.max}.get(pool, np.sum)(own, axis=0)
    plain = DLRM(2, whole_tables([1] * POOLED.fields, 4, lambda *_: None), NetworkSpec(4, (4,), (1,)))
    for mine, given in zip(plain.mlp_parameters(), model.mlp_parameters()):
        mine.set_data(given)
    expected = 1 / (1 + np.exp(-plain.score(Tensor(dense), Tensor(vectors)).asnumpy()))
    graph, *_ = export_graph(model, tmp_path, ExportSpec(export_batch_size=20, mindir_version=version), 2, "graph")
    found = nn.GraphCell(ms.load(str(graph)))(Tensor(dense), Tensor(ids)).asnumpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.01


def test_the_cpp_program_refuses_damaged_layouts_and_ids(model, program, here):
    """In one line each, before anything is scored."""

    def told(change, what):
        for name in ("m", "r"):
            shutil.rmtree(name, ignore_errors=True)
        shutil.copytree(model / "fp32", "m")
        shutil.copytree(model / "rows", "r")
        change()
        done = run(program, "--model=m", "--input=r", "--device_type=CPU")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert what in done.stderr

    def field(place, *words):
        def change():
            facts = read_facts(Path("m/dlrm.model"), "model")
            facts["field"][place] = words
            write_facts(Path("m/dlrm.model"), "model", [(key, *line) for key, lines in facts.items() for line in lines])

        return change

    rows = dict(zip(("site", "tags", "seen", "item"), find(str(model / "dataset")).manifest.table_rows))
    told(field(1, "tags", rows["tags"], 1, 3, "best"), "field tags: its vectors are pooled by 'best'")
    told(field(1, "tags", rows["tags"], 1, 0, "mean"), "field 2 of the model contradicts the others")
    told(field(3, "item", rows["item"] + 1, 2, 1, "one"), "field 4 of the model contradicts the others")
    told(field(1, "tags", rows["tags"], 1, 4, "mean"), "other columns or tables than the model")


def test_the_report_shuffles_a_list_as_a_whole(model):
    content = json.loads((model / "checkpoint/report.json").read_text())
    assert list(content["evaluation"]["importance"]["auc_drop"]) == ["price", "site", "tags", "seen", "item"]
    assert [field["field"] for field in content["evaluation"]["fields"]] == ["site", "tags", "seen", "item"]
    assert content["evaluation"]["importance"]["auc_drop"]["tags"] > 0.03


def test_shared_tables_without_lists_are_looked_up_in_the_graph(tmp_path):
    """By a graph of either version of MindIR."""
    rows, layout = (7, 5), Layout((0, 1, 0), (1, 1, 1), ("", "", ""))
    network = NetworkSpec(4, (4,), (1,))
    tables = whole_tables(rows, 4, initial_values(rows, 2), layout=layout)
    model = DLRM(2, tables, network)
    dense, ids = np.ones((3, 2), np.float32), np.array([[6, 4, 6], [0, 0, 1], [2, 3, 0]], np.int32)
    expected = 1 / (1 + np.exp(-model(Tensor(dense), Tensor(ids)).asnumpy()))
    joint = tables.table.asnumpy()
    np.testing.assert_array_equal(tables(Tensor(ids)).asnumpy(), joint[ids + np.array([0, 7, 0])])
    for version in (1, 3):
        folder = tmp_path / str(version)
        folder.mkdir()
        graph, *_ = export_graph(model, folder, ExportSpec(export_batch_size=3, mindir_version=version), 2, "graph")
        found = nn.GraphCell(ms.load(str(graph)))(Tensor(dense), Tensor(ids)).asnumpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_export_folder_knows_its_layout(model):
    folder = ExportFolder.load(model / "fp32")
    assert folder.manifest.layout.sizes == (1, 3, 4, 1)
    assert len(folder.table.table_rows) == 3
