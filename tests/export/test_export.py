"""export.py: each form scores as the checkpoint does, and the folder is written whole or not at all."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CPU, ORIGINAL
from mindspore.train.mind_ir_pb2 import ModelProto
from networks import loaded

import export as export_program
from src.base.errors import InputError
from src.base.sealed import read_facts
from src.dataset import batches_of
from src.export import mindir
from src.export.exported import ExportFolder
from src.export.folder import _refuse_large_onnx, table_placement
from src.export.options import ExportSpec
from src.scorer import Scorer
from src.training.evaluation import score

SIZES = {"bottom_mlp": (16, 8), "top_mlp": (32, 1)}


@pytest.fixture(scope="module")
def expected(run_folder, tiny_data):
    """Dense values, ids and the scores of all test rows by the checkpoint itself."""
    model = loaded(run_folder / "checkpoint/dlrm.ckpt", tiny_data)
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "test", 64)))
    _, logits = score(model, batches_of(tiny_data, "test", 64), 64)
    return dense, ids, 1 / (1 + np.exp(-logits.astype(np.float64)))


def export(run_folder, folder, *argv):
    export_program.main([CPU, f"--checkpoint_path={run_folder}/checkpoint/dlrm.ckpt", f"--export_path={folder}", *argv])
    return folder


@pytest.mark.parametrize(("kind", "tolerance"), [("graph", 1e-6), ("fp32", 1e-6), ("fp16", 1e-3), ("int8", 2e-2)])
def test_exported_model_scores_as_the_checkpoint(exports, expected, kind, tolerance):
    dense, ids, scores = expected
    found = Scorer(exports[kind]).score_ids(dense, ids)
    assert found.dtype == np.float32
    assert found.shape == (142,)
    assert np.abs(found - scores).max() < tolerance
    if tolerance > 1e-6:  # rounding is seen
        assert np.abs(found - scores).max() > 1e-7


def test_folder_holds_all_that_scoring_needs(exports, run_folder):
    names = ["dlrm.mindir", "dlrm.model", "dlrm.tables", "manifest.json", "vocabulary.npz"]
    assert sorted(path.name for path in exports["fp32"].iterdir()) == names
    assert sorted(path.name for path in exports["graph"].iterdir()) == [n for n in names if n != "dlrm.tables"]
    for name in ("manifest.json", "vocabulary.npz"):
        assert (exports["fp32"] / name).read_bytes() == (run_folder / "checkpoint" / name).read_bytes()
    facts = read_facts(exports["fp32"] / "dlrm.model", "model")
    assert facts["batch_size"] == [("8",)]
    assert [name for name, _ in facts["field"]] == [f"C{field + 1}" for field in range(26)]
    for path in exports["fp32"].iterdir():
        assert path.stat().st_mode & 0o777 == 0o644


def model_proto(path):
    model = ModelProto()
    model.ParseFromString(path.read_bytes())
    return model


@pytest.mark.parametrize("kind", ["graph", "fp32"])
def test_graph_has_no_labels_or_states_and_is_of_version_1(exports, kind):
    model = model_proto(exports[kind] / "dlrm.mindir")
    assert model.mind_ir_version == 1
    assert [value.name.split(":")[-1] for value in model.graph.input] == [
        "dense",
        "ids" if kind == "graph" else "vectors",
    ]
    assert [list(value.tensor[0].dims) for value in model.graph.input][0] == [8, 13]
    names = {parameter.name.split(":")[-1] for parameter in model.graph.parameter}
    layers = [f"{mlp}.layers.{layer}.{kind}" for mlp in ("bottom", "top") for layer in (0, 1)
              for kind in ("weight", "bias")]  # fmt: skip
    assert names == set(layers) | ({"tables.table"} if kind == "graph" else set())
    # What is an attribute in this version is no input.
    primitives = {primitive.name: primitive for primitive in model.primitives}
    for node in model.graph.node:
        if node.op_type.startswith("REF::MatMul"):
            assert len(node.input) == 2
            given = {attribute.name: attribute.i for attribute in primitives[node.op_type[5:]].attribute}
            assert (given["transpose_a"], given["transpose_b"]) == (0, 1)


def test_an_operator_that_the_rewriting_does_not_know_is_refused(exports):
    model = model_proto(exports["fp32"] / "dlrm.mindir")
    model.primitives[0].op_type = "Tanh"
    with pytest.raises(ValueError, match="operator Tanh is not known"):
        mindir.to_version_1(model)


@pytest.mark.parametrize("placement", ["graph", "host"])
def test_version_3_scores_the_same(run_folder, exports, expected, tmp_path, placement):
    folder = export(run_folder, tmp_path / "v3", "--mindir_version=3", f"--table_placement={placement}")
    assert model_proto(folder / "dlrm.mindir").mind_ir_version == 3
    dense, ids, scores = expected
    assert np.abs(Scorer(folder).score_ids(dense, ids) - scores).max() < 1e-6


@pytest.mark.parametrize("placement", ["graph", "host"])
def test_onnx_scores_equal_in_onnxruntime(run_folder, expected, tmp_path, placement):
    import onnxruntime

    folder = export(run_folder, tmp_path / "onnx", "--file_format=ONNX", "--export_batch_size=142",
                    f"--table_placement={placement}")  # fmt: skip
    dense, ids, scores = expected
    session = onnxruntime.InferenceSession(str(folder / "dlrm.onnx"), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    table = ExportFolder.load(folder).table
    assert (table is None) == (placement == "graph")
    (found,) = session.run(None, dict(zip(names, (dense, table.lookup(ids) if table else ids))))
    assert np.abs(found[:, 0] - scores).max() < 1e-6
    with pytest.raises(InputError, match="is no MindIR: export the model with --file_format=MINDIR"):
        Scorer(folder)


def test_crosses_are_exported_to_onnx(tiny_data, tmp_path, monkeypatch):
    import onnxruntime

    import train

    monkeypatch.chdir(tmp_path)
    sizes = ["--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[8,1]", "--interaction=dcnv2", "--dcn_layers=2"]
    train.main([CPU, ORIGINAL, f"--dataset_path={tiny_data.path}", "--batch_size=343", "--do_eval=False", *sizes])
    export_program.main([CPU, "--file_format=ONNX", "--export_batch_size=142", "--export_path=onnx"])
    export_program.main([CPU, "--export_path=mindir"])
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "test", 64)))
    session = onnxruntime.InferenceSession("onnx/dlrm.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(None, dict(zip([value.name for value in session.get_inputs()], (dense, ids))))
    assert np.abs(found[:, 0] - Scorer("mindir").score_ids(dense, ids)).max() < 1e-6


def test_air_without_ascend_is_refused(run_folder, tmp_path):
    with pytest.raises(InputError, match="file_format AIR needs device_target Ascend, and it is CPU"):
        export(run_folder, tmp_path / "air", "--file_format=AIR")
    argv = [f"--checkpoint_path={run_folder}/checkpoint", f"--export_path={tmp_path}/air", "--file_format=AIR"]
    with pytest.raises(InputError, match="device_target Ascend with device_id 0: MindSpore finds none"):
        export_program.main(argv)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "interaction", [["--interaction=cat"], ["--self_interaction=True"], ["--interaction_op=dcnv2", "--dcn_rank=5"]]
)
def test_other_interactions_are_exported(tiny_data, tmp_path, monkeypatch, interaction):
    import train

    monkeypatch.chdir(tmp_path)
    sizes = ["--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[8,1]"]
    train.main(
        [CPU, ORIGINAL, f"--dataset_path={tiny_data.path}", "--batch_size=343", "--do_eval=False", *sizes, *interaction]
    )
    dense, ids, _ = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "test", 64)))
    found = []
    for placement in ("graph", "host"):
        export_program.main([CPU, f"--export_path={placement}", f"--table_placement={placement}"])
        found.append(Scorer(placement).score_ids(dense, ids))
    options = {
        "--interaction=cat": {"interaction": "cat"},
        "--self_interaction=True": {"self_interaction": True},
        "--interaction_op=dcnv2": {"interaction": "dcnv2", "dcn_rank": 5},
    }[interaction[0]]
    model = loaded("checkpoint/dlrm.ckpt", tiny_data, emb_dim=4, bottom_mlp=(4,), top_mlp=(8, 1), **options)
    _, logits = score(model, batches_of(tiny_data, "test", 64), 64)
    for scores in found:
        assert np.abs(scores - 1 / (1 + np.exp(-logits))).max() < 1e-6


def test_checkpoint_in_parts_is_exported(run_folder, exports, tmp_path):
    """The parts of a hybrid run, made of the whole checkpoint: half of a table in each."""
    from src.checkpoints import protobuf
    from src.checkpoints.protobuf import CheckpointFile

    shutil.copytree(run_folder / "checkpoint", tmp_path / "c")
    whole = CheckpointFile(tmp_path / "c/dlrm.ckpt")
    values = {name: whole.read(name) for name in whole.shapes}
    table = values.pop("embedding.C3")
    half = len(table) // 2
    first = values | {"embedding.C3@0": table[:half], "parts": np.array([2], np.int32)}
    protobuf.write(tmp_path / "c/dlrm.ckpt", first.items())
    second = {f"embedding.C3@{half}": table[half:], "parts": np.array([2], np.int32)}
    protobuf.write(tmp_path / "c/dlrm.rank_1.ckpt", second.items())
    folder = tmp_path / "e"
    export_program.main([CPU, f"--checkpoint_path={tmp_path}/c", f"--export_path={folder}", "--table_placement=host"])
    assert (folder / "dlrm.tables").read_bytes() == (exports["fp32"] / "dlrm.tables").read_bytes()


@pytest.mark.parametrize(("wanted", "table_type", "rows", "found"), [
    ("auto", "fp32", 1_000_000, "graph"), ("auto", "fp32", 1_000_001, "host"), ("auto", "int8", 10, "host"),
    ("graph", "fp32", 10**9, "graph"), ("host", "fp32", 10, "host"),
])  # fmt: skip
def test_placement(wanted, table_type, rows, found):
    assert table_placement(wanted, table_type, [rows - 1, 1], 16, 64) == found


def test_an_earlier_export_stays_unless_it_may_be_replaced(run_folder, tmp_path):
    folder = export(run_folder, tmp_path / "e", "--file_name=first")
    with pytest.raises(InputError, match="already holds an earlier result: name another --export_path, or replace it"):
        export(run_folder, folder, "--file_name=second")
    assert (folder / "first.mindir").is_file()
    export(run_folder, folder, "--file_name=second", "--overwrite=True")
    assert not (folder / "first.mindir").exists()
    assert ExportFolder.load(folder / "second.mindir").graph.name == "second.mindir"
    assert [path.name for path in tmp_path.iterdir()] == ["e"]


def test_a_folder_of_something_else_is_never_replaced(run_folder, tmp_path):
    (tmp_path / "e").mkdir()
    (tmp_path / "e/thesis.txt").write_text("years")
    with pytest.raises(InputError, match="holds something else than an earlier result"):
        export(run_folder, tmp_path / "e", "--overwrite=True")
    assert (tmp_path / "e/thesis.txt").read_text() == "years"


def test_a_failed_export_leaves_nothing(run_folder, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("src.export.folder.write_tables", fail)
    with pytest.raises(OSError, match="No space left"):
        export(run_folder, tmp_path / "e", "--table_placement=host")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("argv", "message"), [
    (["--table_type=int8", "--table_placement=graph"], "table_type int8 has no effect with table_placement graph"),
    (["--file_name=a/b"], "file_name is 'a/b': it must be a name"),
    (["--mindir_version=2"], "mindir_version is 2: it must be 1 or 3"),
    (["--file_format=ONNX", "--mindir_version=3"], "mindir_version 3 has no effect with file_format ONNX"),
    (["--export_batch_size=0"], "export_batch_size is 0"),
    (["--emb_dim=16", "--bottom_mlp=[16]"], "the model needs"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(run_folder, tmp_path, argv, message):
    with pytest.raises(InputError, match=message):
        export(run_folder, tmp_path / "e", *argv)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "message"), [
    ("manifest.json", "has no manifest.json beside it"),
    ("vocabulary.npz", "is missing, though manifest.json lists it"),
])  # fmt: skip
def test_checkpoint_without_its_encoder_is_refused(run_folder, tmp_path, name, message):
    shutil.copytree(run_folder / "checkpoint", tmp_path / "c")
    (tmp_path / "c" / name).unlink()
    with pytest.raises(InputError, match=message):
        export_program.main([CPU, f"--checkpoint_path={tmp_path}/c", f"--export_path={tmp_path}/e"])
    assert not (tmp_path / "e").exists()


def test_table_accuracy_of_types(run_folder, tiny_data, capsys):
    from src import table_accuracy

    table_accuracy.main([CPU, f"--checkpoint_path={run_folder}/checkpoint", f"--dataset_path={tiny_data.path}"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    by_type = {line[0]: line[1:] for line in lines[2:]}
    assert [by_type[name][0] for name in ("fp32", "fp16", "int8")] == ["1.00", "0.50", "0.38"]
    assert float(by_type["fp32"][-1]) == 0 < float(by_type["fp16"][-1]) < float(by_type["int8"][-1]) < 0.05


def test_rounded_tables_are_those_of_the_files(run_folder, tiny_data, exports, expected):
    """table_accuracy's rounding and the file's are one."""
    from src.checkpoints.checkpoint import open_network
    from src.checkpoints.stored import StoredTables
    from src.export.table_file import TableFile
    from src.network.mixed_dims import Widths
    from src.table_accuracy import rounded

    manifest, widths = tiny_data.manifest, Widths(tiny_data.manifest.table_rows, 8)
    _, ids, _ = expected
    tables = StoredTables(open_network(run_folder / "checkpoint/dlrm.ckpt", manifest, widths), widths, manifest.layout)
    vectors = tables.full_width(ids)
    for kind in ("fp16", "int8"):
        found = rounded(vectors.reshape(-1, 8), kind).reshape(vectors.shape)
        assert np.array_equal(found, TableFile(exports[kind] / "dlrm.tables").lookup(ids))


def test_a_graph_within_the_graph_is_refused():
    """It would stay as it is, under the stamp of version 1."""
    model = SimpleNamespace(functions=[SimpleNamespace(name="inner")])
    with pytest.raises(ValueError, match="inner, a graph within the graph, is not known to the rewriting"):
        mindir.to_version_1(model)


def test_tables_that_onnx_can_not_hold_are_refused_with_a_remedy():
    spec = ExportSpec(file_format="ONNX")
    with pytest.raises(InputError, match=r"ONNX holds at most 2 GB, and the tables have 2.2: give --table_placement=h"):
        _refuse_large_onnx(spec, "graph", [33_762_577], 16)
    _refuse_large_onnx(spec, "host", [33_762_577], 16)
