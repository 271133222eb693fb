"""Optimizers: row-sparse for the embedding tables, dense for the MLPs.

A table's update costs what its looked-up rows cost, whatever the number of rows: the gradient exists
only for the vectors of the batch, and is scattered into the table in place.
"""

from mindspore import Parameter, nn, ops


class TableSGD(nn.Cell):
    """Plain SGD on the looked-up rows; equal to dense SGD, since every other row's gradient is zero.

    Args:
        table: [R, D].

    Inputs:
        rows: [B, F] int32, duplicates add up. gradients: [B, F, D] with respect to the looked-up vectors.
        learning_rate: scalar.
    """

    def __init__(self, table: Parameter):
        super().__init__()
        self.table = table
        self.width = table.shape[1]
        self.scatter_sub = ops.ScatterSub()

    def construct(self, rows, gradients, learning_rate):
        steps = gradients.reshape(-1, self.width) * learning_rate
        return self.scatter_sub(self.table, rows.reshape(-1), steps)


class DenseSGD(nn.Cell):
    """Plain SGD on whole parameters. `nn.SGD` keeps two more copies of every value, which plain SGD has no use for.

    Args:
        parameters: what is updated.

    Inputs: gradients, one for each parameter; learning_rate, scalar.
    """

    def __init__(self, parameters: list[Parameter]):
        super().__init__()
        self.values = tuple(parameters)
        self.assign_sub = ops.AssignSub()

    def construct(self, gradients, learning_rate):
        done: tuple = ()
        for value, gradient in zip(self.values, gradients):
            done = (*done, self.assign_sub(value, gradient * learning_rate))
        return done
