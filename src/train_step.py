"""One training step: the only place with gradients and loss scale.

Legend: B batch, N dense features, F fields, D width of a vector.
"""

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.dlrm import DLRM
from src.optimizers import DenseSGD, TableSGD


class TrainStep(nn.Cell):
    """Forward, backward and update for one batch.

    The gradient is taken with respect to the looked-up vectors, never to a table: its size is B F D,
    whatever the number of rows.

    Args:
        model: the network; its parameters are updated in place.
        learning_rate: of tables and MLPs.
        loss_scale: factor on the loss while gradients are taken, undone before the update; for float16 products.

    Inputs: dense [B, N] float32, ids [B, F] int32, labels [B, 1] float32 of 0 and 1.
    Outputs: the mean loss of the batch before the update, scalar float32.
    """

    def __init__(self, model: DLRM, learning_rate: float, loss_scale: float = 1.0):
        super().__init__(auto_prefix=False)
        self.model = model
        self.tables = model.tables
        self.learning_rate = Parameter(Tensor(learning_rate, ms.float32), name="learning_rate", requires_grad=False)
        self.loss_scale = loss_scale
        parameters = model.mlp_parameters()
        self.table_optimizer = TableSGD(model.tables.table)
        self.dense_optimizer = DenseSGD(parameters)
        self.loss_and_gradients = ops.value_and_grad(self.scaled_loss, 1, ParameterTuple(parameters))

    def scaled_loss(self, dense, vectors, labels):
        """Mean sigmoid cross entropy with logits (paper, section 2.1), times the loss scale."""
        logits = self.model.score(dense, vectors)
        return ops.binary_cross_entropy_with_logits(logits, labels, reduction="mean") * self.loss_scale

    def construct(self, dense, ids, labels):
        rows = self.tables.rows_of(ids)
        vectors = self.tables.lookup(rows)
        loss, (vector_gradients, gradients) = self.loss_and_gradients(dense, vectors, labels)
        rate = self.learning_rate / self.loss_scale
        loss = ops.depend(loss / self.loss_scale, self.table_optimizer(rows, vector_gradients, rate))
        return ops.depend(loss, self.dense_optimizer(gradients, rate))
