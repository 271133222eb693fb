"""Tables of mixed widths: a packed network computes and learns as one whose narrow tables stand by themselves."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import CPU, ORIGINAL
from mindspore import Tensor, nn, ops
from networks import loaded, make_step, network_spec

import export as export_program
import train
from src import table_accuracy
from src.base.errors import InputError
from src.checkpoints import run_folder
from src.dataset import batches_of
from src.dlrm import DLRM
from src.metrics.monitored import measured
from src.network.embedding import EmbeddingTables, initial_values, joint_rows, whole_fields
from src.network.mixed_dims import widths_of
from src.network.stock import STOCK
from src.options import TrainOptions, resolve
from src.ranks.placement import Piece
from src.scorer import Scorer
from src.training.evaluation import score
from src.training.rules import RULES

ROWS, BOTTOM, TOP, TEMPERATURE = (3, 41, 1001, 9, 77), (8,), (8, 1), 0.3
NETWORK = network_spec(BOTTOM, TOP, mixed_dims=TEMPERATURE)
WIDTHS = widths_of(ROWS, NETWORK)


def make(operators=STOCK):
    rows = WIDTHS.packed_rows
    values = joint_rows(whole_fields(rows), 8, initial_values(ROWS, 1))
    return DLRM(2, EmbeddingTables(rows, values, operators), NETWORK, widths=WIDTHS)


def batch(samples=32):
    """Ids that come again, and neighbours that share a row, in every field."""
    rng = np.random.default_rng(3)
    ids = np.stack([rng.integers(0, min(rows, 12), samples) for rows in ROWS], 1).astype(np.int32)
    labels = rng.integers(0, 2, (samples, 1)).astype(np.float32)
    return rng.normal(size=(samples, 2)).astype(np.float32), ids, labels


def apart(model):
    """The tables of a packed network as they would stand by themselves, [n, d], and the projections [d, D]."""
    ends = np.cumsum(WIDTHS.packed_rows)
    packed = np.split(model.tables.table.asnumpy().copy(), ends[:-1])
    tables = [rows.reshape(-1, 8 // share)[:n] for rows, share, n in zip(packed, WIDTHS.shares, ROWS)]
    matrices = [np.eye(8, dtype=np.float32)] * len(ROWS)
    for (_, fields), parameter in zip(WIDTHS.projections.items(), model.projections.get_parameters()):
        for field, matrix in zip(fields, parameter.asnumpy().copy()):
            matrices[field] = matrix
    return tables, matrices


def test_widths_fall_with_the_rows():
    """8 (3 / n)^0.3 is 8, 3.7, 1.4, 5.8 and 3.0."""
    assert [8 // share for share in WIDTHS.shares] == [8, 4, 1, 8, 4]
    assert WIDTHS.packed_rows == (3, 21, 126, 9, 39)
    assert WIDTHS.projections == {4: [1, 4], 1: [2]}
    assert WIDTHS.projection_values == sum(value.size for value in make().projections.get_parameters())
    assert widths_of(ROWS, network_spec((8,))).packed_rows == ROWS
    assert widths_of((2, 10**6), network_spec((12,), mixed_dims=9)).shares == (
        1,
        4,
    )  # 12 values can be shared by 4 vectors, not by 8
    assert widths_of((2, 10**6), network_spec((8,), mixed_dims=1e300)).shares == (1, 8)
    criteo = widths_of((10_131_227, 2_202_608, 305, 24, 12517, 633, 3), network_spec((16,), mixed_dims=0.3))
    assert 16 * sum(criteo.packed_rows) < 0.1 * 16 * sum(criteo.table_rows)


def test_no_projection_where_all_are_of_full_width():
    names = [[parameter.name for parameter in DLRM(
        2, EmbeddingTables(ROWS, np.zeros((sum(ROWS), 8), np.float32)), network_spec(BOTTOM, TOP), widths=widths
    ).get_parameters()] for widths in (None, widths_of(ROWS, network_spec(BOTTOM, TOP)))]  # fmt: skip
    assert names[0] == names[1]


@pytest.mark.parametrize("towers", [1, 2])
def test_logits_are_those_of_projected_vectors(operators, towers):
    model = make(operators) if towers == 1 else None
    if model is None:
        tables = make(operators).tables
        model = DLRM(2, tables, network_spec((4,), TOP, 2), widths=WIDTHS)
    dense, ids, _ = batch()
    tables, matrices = apart(model)
    wide = np.concatenate([table @ matrix for table, matrix in zip(tables, matrices)])
    plain = DLRM(2, EmbeddingTables(ROWS, wide, operators), network_spec((8 // towers,), TOP, towers))
    for own, other in zip(plain.mlp_parameters(), model.mlp_parameters()):
        own.set_data(Tensor(other.asnumpy()))
    expected = plain(Tensor(dense), Tensor(ids)).asnumpy()
    assert np.abs(model(Tensor(dense), Tensor(ids)).asnumpy() - expected).max() < 1e-5
    assert np.abs(expected - expected[0]).max() > 1e-2


class OfVectors(nn.Cell):
    """The gradient of a tower's mean loss with respect to its vectors."""

    def __init__(self, tower):
        super().__init__()
        self.tower, self.gradient = tower, ops.grad(self.loss)

    def loss(self, vectors, dense, labels):
        return ops.binary_cross_entropy_with_logits(self.tower(dense, vectors), labels, reduction="mean")

    def construct(self, vectors, dense, labels):
        return self.gradient(vectors, dense, labels)


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_a_step_is_that_of_tables_by_themselves(operators, optimizer):
    """From the gradients of the projected vectors, those of tables and projections follow by the chain rule."""
    model = make(operators)
    before, matrices = apart(model)
    dense, ids, labels = batch()
    columns = [Tensor(column) for column in (dense, ids, labels)]
    looked_up = [table[of_field] for table, of_field in zip(before, ids.T)]
    vectors = np.stack([rows @ matrix for rows, matrix in zip(looked_up, matrices)], 1)

    of_vectors = OfVectors(model.towers[0])(Tensor(vectors), columns[0], columns[2]).asnumpy()
    of_tables = [np.zeros_like(table) for table in before]
    for field, (table, matrix) in enumerate(zip(of_tables, matrices)):
        np.add.at(table, ids[:, field], of_vectors[:, field] @ matrix.T)
    narrow = (1, 2, 4)
    of_matrices = [looked_up[field].T @ of_vectors[:, field] for field in narrow]
    make_step(model, 0.1, optimizer=optimizer)(*columns)
    after, projected = apart(model)
    trained = [*after, *(projected[field] for field in narrow)]
    started = [*before, *(matrices[field] for field in narrow)]
    for new, old, gradient in zip(trained, started, [*of_tables, *of_matrices], strict=True):
        scale = 1 if optimizer == "sgd" else 1 / (np.abs(gradient) + 1e-10)
        clear = (np.abs(gradient) > 1e-6) | (gradient == 0)  # Adagrad's first step is the sign of the gradient
        assert np.abs(new - (old - 0.1 * gradient * scale))[clear].max() < 2e-4
        assert np.abs(new - old).max() > 0
    for new, old, field in zip(after, before, ids.T):
        others = np.setdiff1d(np.arange(len(old)), field)
        assert np.array_equal(new[others], old[others])  # neighbours in looked-up rows among them


def test_pieces_of_full_width_are_those_of_the_whole():
    """From any first row, within a packed row or not."""
    model = make()
    tables, matrices = apart(model)
    starts = np.cumsum([0, *WIDTHS.packed_rows])

    def packed(piece, values):
        values[:] = model.tables.table.asnumpy()[starts[piece.table] + piece.low : starts[piece.table] + piece.high]

    by_width = {4: np.stack([matrices[1], matrices[4]]), 1: np.stack([matrices[2]])}
    fill = WIDTHS.full_width(packed, by_width.__getitem__)
    for piece in (
        Piece(1, 0, 41),
        Piece(1, 7, 8),
        Piece(2, 3, 1001),
        Piece(2, 13, 30),
        Piece(3, 2, 9),
        Piece(4, 76, 77),
    ):
        values = np.full((piece.rows, 8), np.nan, np.float32)
        fill(piece, values)
        expected = (tables[piece.table] @ matrices[piece.table])[piece.low : piece.high]
        assert np.abs(values - expected).max() < 1e-6


def test_odd_width_is_refused():
    with pytest.raises(InputError, match="mixed_dims 0.3 halves widths, and emb_dim 9 is odd"):
        resolve(TrainOptions, [CPU, "--mixed_dims=0.3", "--emb_dim=9", "--bottom_mlp=[9]"])


@pytest.mark.parametrize("optimizer", [*RULES])
def test_optimizers_that_would_change_neighbours_are_refused(optimizer):
    flags = [CPU, "--mixed_dims=0.3", f"--optimizer={optimizer}"]
    if optimizer in ("sgd", "adagrad"):
        assert resolve(TrainOptions, flags).network.mixed_dims == 0.3
        flags.append("--table_weight_decay=0.1")
        optimizer = "table_weight_decay"
    with pytest.raises(InputError, match=rf"mixed_dims 0.3 packs several vectors in a row, of which .*{optimizer} "):
        resolve(TrainOptions, flags)


def test_trains_stops_goes_on_evaluates_and_exports(tiny_data, tmp_path, monkeypatch):
    """All tables are smaller in the checkpoint; programs score alike; a second epoch refills them and is resumed."""
    monkeypatch.chdir(tmp_path)
    sizes = ["--emb_dim=8", "--bottom_mlp=[8]", "--top_mlp=[8,1]", "--mixed_dims=0.4"]
    command = [CPU, ORIGINAL, f"--dataset_path={tiny_data.path}", "--batch_size=49", "--epochs=2", *sizes,
               "--importance_rows=20", "--reset_tables_each_epoch=True", "--optimizer=adagrad", "--lr=0.02",
               "--restart_lr_each_epoch=True", "--lr_schedule=polynomial", "--decay_share=0.5",
               "--log_steps=5", "--save_steps=3"]  # fmt: skip
    train.main([*command, "--ckpt_path=whole"])

    class Stop(BaseException):
        pass

    real = run_folder.Run.commit
    saves = []

    def commit(self, progress, step, best_step):
        real(self, progress, step, best_step)
        saves.append(step)
        if len(saves) == 12:
            raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(run_folder.Run, "commit", commit)
        with pytest.raises(Stop):
            train.main(command)
    saved = Path("checkpoint/unfinished/dlrm.yaml")
    _, *lines = saved.read_text().splitlines()  # the first has the checksum of the others
    lines = [line for line in lines if not line.startswith("label_smoothing")]
    saved.write_text("\n".join(lines))  # as by a version that had neither checksum nor this option yet
    train.main(command)
    assert Path("checkpoint/dlrm.ckpt").read_bytes() == Path("whole/dlrm.ckpt").read_bytes()

    manifest = tiny_data.manifest
    model = loaded("checkpoint/dlrm.ckpt", tiny_data, bottom_mlp=(8,), top_mlp=(8, 1), mixed_dims=0.4)
    assert len(model.tables.table) < 0.5 * sum(manifest.table_rows)
    dense, ids, labels = (np.concatenate(column) for column in zip(*batches_of(tiny_data, "test", 64)))
    _, logits = score(model, batches_of(tiny_data, "test", 64), 64)
    for placement in ("graph", "host"):
        export_program.main([CPU, f"--export_path={placement}", f"--table_placement={placement}"])
        assert np.abs(Scorer(placement).score_ids(dense, ids) - 1 / (1 + np.exp(-logits))).max() < 1e-6
    exact, _, small = table_accuracy.evaluate([CPU, f"--dataset_path={tiny_data.path}"])
    assert exact.metrics == pytest.approx(measured(labels[:, 0], logits), abs=1e-6)
    assert 0 < small.largest_difference < 0.01
    export_program.main([CPU, "--export_path=calibrated", "--calibrate=True", f"--dataset_path={tiny_data.path}"])
    calibrated = Scorer("calibrated").score_ids(dense, ids)
    found = np.log(calibrated / (1 - calibrated))
    slope, bias = np.polyfit(logits, found, 1)
    assert abs(slope - 1) + abs(bias) > 1e-3
    assert found == pytest.approx(slope * logits + bias, abs=1e-4)
    with pytest.raises(InputError, match="the model needs"):
        loaded("checkpoint/dlrm.ckpt", tiny_data, top_mlp=(8, 1))
    report = json.loads(Path("checkpoint/report.json").read_text())
    assert report["options"]["mixed_dims"] == 0.4
    rates = [point[1] for point in report["curves"]["rate"]]
    assert rates[: len(rates) // 2] == rates[len(rates) // 2 :]  # each epoch begins at the full rate
    assert max(rates) > 2 * min(rates)
    with pytest.raises(InputError, match=r"mixed_dims 0\.001 has no effect: .* all get the full width"):
        train.main([flag.replace("dims=0.4", "dims=0.001") for flag in command] + ["--ckpt_path=other"])
    assert '"kind": "resume"' in Path("metrics.jsonl").read_text()
