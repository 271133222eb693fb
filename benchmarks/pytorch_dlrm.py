"""DLRM in PyTorch, written for the comparison: the same network, SGD with row-sparse table gradients, nothing else.

Two ways to hold the tables: 26 `EmbeddingBag`s, as in the public code of the paper, and one joint `Embedding`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

EMB_DIM = 16
BOTTOM, TOP = (512, 256, 64, EMB_DIM), (512, 256, 1)


def mlp(inputs: int, sizes: Sequence[int], last_relu: bool) -> nn.Sequential:
    """Linear layers with ReLU between them, and behind the last one if `last_relu`."""
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip([inputs, *sizes[:-1]], sizes)):
        layers.append(nn.Linear(before, after))
        if last_relu or index < len(sizes) - 1:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class DLRM(nn.Module):
    """The network; `joint` chooses between one table of all rows and one for each field.

    Inputs: dense [B, 13], ids: [B, F] int64 if joint, else F tensors [B]. Outputs: logits [B, 1].
    """

    def __init__(self, table_rows: Sequence[int], joint: bool):
        super().__init__()
        self.joint = joint
        if joint:
            starts = np.concatenate(([0], np.cumsum(table_rows)[:-1]))
            self.register_buffer("starts", torch.from_numpy(starts))
            self.table = nn.Embedding(sum(table_rows), EMB_DIM, sparse=True, _weight=_initial(sum(table_rows)))
        else:
            self.tables = nn.ModuleList(
                nn.EmbeddingBag(rows, EMB_DIM, mode="sum", sparse=True, _weight=_initial(rows)) for rows in table_rows
            )
        vectors = len(table_rows) + 1
        rows, columns = np.tril_indices(vectors, -1)
        self.register_buffer("pairs", torch.from_numpy(rows * vectors + columns))
        self.bottom = mlp(13, BOTTOM, True)
        self.top = mlp(EMB_DIM + len(rows), TOP, False)

    def forward(self, dense: torch.Tensor, ids: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
        """Logits of a batch."""
        bottom = self.bottom(dense)
        if self.joint:
            stacked = torch.cat((bottom.unsqueeze(1), self.table(ids + self.starts)), 1)
        else:
            offsets = torch.arange(len(dense))
            vectors = [table(field, offsets) for table, field in zip(self.tables, ids)]
            stacked = torch.cat((bottom, *vectors), 1).view(len(dense), -1, EMB_DIM)
        products = torch.bmm(stacked, stacked.transpose(1, 2)).flatten(1)
        return self.top(torch.cat((bottom, products.index_select(1, self.pairs)), 1))


def _initial(rows: int) -> torch.Tensor:
    return torch.rand(rows, EMB_DIM).sub_(0.5).mul_(0.01)


class Trainer:
    """Training steps on batches of NumPy arrays."""

    def __init__(self, table_rows: Sequence[int], joint: bool):
        torch.manual_seed(1)
        self.model = DLRM(table_rows, joint)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.loss = nn.BCEWithLogitsLoss()

    def batch(self, dense: np.ndarray, ids: np.ndarray, labels: np.ndarray) -> tuple:
        """Tensors of a batch, as `step` takes them."""
        wide = torch.from_numpy(ids.astype(np.int64))
        fields = wide if self.model.joint else [field.contiguous() for field in wide.unbind(1)]
        return torch.from_numpy(dense), fields, torch.from_numpy(labels)

    def step(
        self, dense: torch.Tensor, ids: torch.Tensor | Sequence[torch.Tensor], labels: torch.Tensor
    ) -> torch.Tensor:
        """Forward, backward and update; gives the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model(dense, ids), labels)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class MappedRows(Dataset):
    """Rows of memory-mapped arrays; an index is a whole batch of rows, which saves PyTorch a call for each row."""

    def __init__(self, folder: Path):
        self.columns = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("dense", "ids", "labels")]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, rows: list[int]) -> tuple[np.ndarray, ...]:
        return tuple(column[rows] for column in self.columns)


def epoch(trainer: Trainer, folder: Path, batch_size: int) -> Iterator[torch.Tensor]:
    """The losses of an epoch over the rows of a folder, shuffled, the last partial batch left out."""
    rows = MappedRows(folder)
    batches = BatchSampler(RandomSampler(rows), batch_size, drop_last=True)
    for dense, ids, labels in DataLoader(rows, sampler=batches, batch_size=None):
        fields = ids.long() if trainer.model.joint else [field.contiguous() for field in ids.long().unbind(1)]
        yield trainer.step(dense, fields, labels)
