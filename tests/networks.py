"""Small networks, their training step, and both in plain loops in float64, written from the paper (arXiv 1906.00091).

`plain_forward`, `plain_gradients` and their helpers are the oracle of all tests of network, training and checkpoints.
"""

from pathlib import Path
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.checkpoints import checkpoint
from src.dlrm import DLRM
from src.network.embedding import EmbeddingTables, initial_rows
from src.network.options import NetworkSpec
from src.network.stock import STOCK
from src.training.options import OptimizationSpec
from src.training.step import TrainStep

ms.set_context(mode=ms.GRAPH_MODE)
ms.set_device("CPU")


def network_spec(bottom=(16,), top=(9, 1), towers=1, **more):
    """The shape of a network whose tables are as wide as its bottom MLP ends, for each tower."""
    return NetworkSpec(bottom[-1] * towers, tuple(bottom), tuple(top), towers=towers, **more)


def make_model(
    dense_dim=5, slot_dim=8, bottom=(16,), top=(9, 1), seed=1, operators=STOCK, compute_dtype=ms.float32, **network
):  # fmt: skip
    """A network whose field f has 5 + 3 f rows."""
    rows = [5 + 3 * field for field in range(slot_dim)]
    spec = network_spec(bottom, top, **network)
    tables = EmbeddingTables(rows, initial_rows(rows, spec.emb_dim, seed), operators)
    return DLRM(dense_dim, tables, spec, compute_dtype, seed)


def make_step(
    model, lr=0.15, table_lr=0.0, optimizer="sgd", mlp_optimizer="", *, factors=None, average_from=None,
    loss_scale=None, seed=1, exchange=None, reset_steps=0, **more,
):  # fmt: skip
    """The training step of a network, by the rules that these options say."""
    spec = OptimizationSpec(optimizer, mlp_optimizer, lr, table_lr, **more)
    return TrainStep(model, spec, factors, average_from, loss_scale, seed, exchange, reset_steps)


class Steps:
    """Networks with their training steps, which compile a graph once: what differs in values alone has it in common.

    A step that was made before with other values gets all those of the new one, and is what is given back.
    """

    def __init__(self):
        self.made = {}

    def __call__(self, operators, lr=0.15, table_lr=0.0, network=None, seed=2, **options):
        model = make_model(seed=seed, operators=operators, **(network or {}))
        new = make_step(model, lr, table_lr, **options)
        step = self.made.setdefault(repr((operators, network, options)), new)
        for name, value in changing(step).items():
            value.set_data(Tensor(changing(new)[name].asnumpy().copy()))
        return step.model, step


def changing(step):
    """All values of a step that changes them or is told them, by name."""
    rates = {rate.name: rate for rate in (step.learning_rate, step.table_learning_rate)}
    return step.row_values() | step.other_values() | rates


def loaded(path, data, operators=STOCK, **network):
    """The network of a checkpoint that was trained on a data folder; unless said otherwise, that of conftest's run."""
    options = {"emb_dim": 8, "bottom_mlp": (16, 8), "top_mlp": (32, 1)} | network
    return checkpoint.load(Path(path), data.manifest, NetworkSpec(**options), operators)


def make_batch(model, dense_dim, batch=6, seed=0):
    """dense, ids and labels for a network, as NumPy arrays of the types it takes."""
    rng = np.random.default_rng(seed)
    dense = rng.exponential(1.0, (batch, dense_dim)).astype(np.float32)
    ids = np.stack([rng.integers(0, rows, batch) for rows in model.tables.table_rows], 1).astype(np.int32)
    return dense, ids, rng.integers(0, 2, (batch, 1)).astype(np.float32)


def logits_of(model, dense, ids):
    return model(Tensor(dense), Tensor(ids)).asnumpy()


def plain_values(model):
    """Copies of all values in float64: layers (weight, bias) of both MLPs and a table for each field."""

    def layers(mlp):
        values = {name.rpartition(".")[0]: {} for name, _ in mlp.parameters_and_names()}
        for name, value in mlp.parameters_and_names():
            cell, _, kind = name.rpartition(".")
            values[cell][kind] = value.asnumpy().astype(np.float64)
        return [(value["weight"], value["bias"]) for value in values.values()]

    tables, start = [], 0
    everything = model.tables.table.asnumpy().astype(np.float64)
    for rows in model.tables.table_rows:
        tables.append(everything[start : start + rows])
        start += rows
    return SimpleNamespace(bottom=layers(model.towers[0].bottom), top=layers(model.towers[0].top), tables=tables)


def plain_mlp(layers, x, last_relu):
    """Output of each layer for one sample, the input first."""
    outputs = [x]
    for index, (weight, bias) in enumerate(layers):
        x = np.array([sum(w * v for w, v in zip(row, x)) + b for row, b in zip(weight.tolist(), bias.tolist())])
        if last_relu or index < len(layers) - 1:
            x = np.maximum(x, 0.0)
        outputs.append(x)
    return outputs


def plain_pairs(vectors, self_interaction):
    """Index pairs (i, j) that interact, row by row of the lower triangle."""
    return [(i, j) for i in range(vectors) for j in range(i + 1 if self_interaction else i)]


def plain_sample(values, dense, ids, interaction="dot", self_interaction=False):
    """Everything the network computes for one sample."""
    bottom = plain_mlp(values.bottom, dense.astype(np.float64), True)
    vectors = [bottom[-1]] + [table[row] for table, row in zip(values.tables, ids)]
    if interaction == "cat":
        features = np.concatenate(vectors)
    else:
        pairs = plain_pairs(len(vectors), self_interaction)
        features = np.concatenate([bottom[-1], [float(np.dot(vectors[i], vectors[j])) for i, j in pairs]])
    top = plain_mlp(values.top, features, False)
    return SimpleNamespace(bottom=bottom, vectors=vectors, top=top, logit=top[-1][0])


def plain_forward(values, dense, ids, **kind):
    """Logits [B, 1] in float64."""
    return np.array([[plain_sample(values, *row, **kind).logit] for row in zip(dense, ids)])


RATE = 0.15


def plain_loss(values, dense, ids, labels, interaction="dot", self_interaction=False, **_):
    """Mean sigmoid cross entropy, term by term."""
    logits = [plain_sample(values, *row, interaction, self_interaction).logit for row in zip(dense, ids)]
    terms = [
        -np.log(1 / (1 + np.exp(-logit))) if label else -np.log(1 / (1 + np.exp(logit)))
        for logit, label in zip(logits, labels[:, 0])
    ]
    return float(np.mean(terms))


def plain_gradients(values, dense, ids, labels, interaction="dot", self_interaction=False, **_):
    """Gradients of the mean loss: (weight, bias) of each layer, and a dense one for each table."""
    bottom = [(np.zeros_like(weight), np.zeros_like(bias)) for weight, bias in values.bottom]
    top = [(np.zeros_like(weight), np.zeros_like(bias)) for weight, bias in values.top]
    tables = [np.zeros_like(table) for table in values.tables]
    for features, row, label in zip(dense, ids, labels[:, 0]):
        sample = plain_sample(values, features, row, interaction, self_interaction)
        error = np.array([(1 / (1 + np.exp(-sample.logit)) - label) / len(labels)])
        back = plain_backward(values.top, sample.top, error, False, top)
        width = len(sample.bottom[-1])
        if interaction == "cat":
            vectors = back.reshape(-1, width).copy()
        else:
            vectors = np.zeros((len(sample.vectors), width))
            vectors[0] += back[:width]
            for g, (i, j) in zip(back[width:], plain_pairs(len(vectors), self_interaction)):
                vectors[i] += g * sample.vectors[j]
                vectors[j] += g * sample.vectors[i]
        plain_backward(values.bottom, sample.bottom, vectors[0], True, bottom)
        for table, place, gradient in zip(tables, row, vectors[1:]):
            np.add.at(table, place, gradient)
    return bottom, top, tables


def plain_backward(layers, outputs, back, last_relu, gradients):
    """Add one sample's gradients of an MLP's layers, and return that of its input."""
    for index in reversed(range(len(layers))):
        if last_relu or index < len(layers) - 1:
            back = back * (outputs[index + 1] > 0)
        gradients[index][0][...] += np.outer(back, outputs[index])
        gradients[index][1][...] += back
        back = layers[index][0].T @ back
    return back


def plain_step(values, batch, rate, **kind):
    """Names and values of all parameters after one step of dense SGD."""
    bottom, top, tables = plain_gradients(values, *batch, **kind)
    after = {"tables": np.concatenate([t - rate * g for t, g in zip(values.tables, tables)])}
    for name, layers, gradients in (("bottom", values.bottom, bottom), ("top", values.top, top)):
        for index, ((weight, bias), (dw, db)) in enumerate(zip(layers, gradients)):
            after[f"{name} weight {index}"] = weight - rate * dw
            after[f"{name} bias {index}"] = bias - rate * db
    return after


def values_by_name(model):
    """As `plain_step` names them."""
    values = plain_values(model)
    named = {"tables": np.concatenate(values.tables)}
    for name, layers in (("bottom", values.bottom), ("top", values.top)):
        for index, (weight, bias) in enumerate(layers):
            named |= {f"{name} weight {index}": weight, f"{name} bias {index}": bias}
    return named
