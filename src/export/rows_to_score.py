"""Rows for the C++ program: of a data folder, or of raw files, coded by the encoder of an exported model."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from src.base.errors import InputError
from src.base.logs import warn
from src.data.encoder import Encoder, load_encoder
from src.data.known_values import Unseen, usual_shares, warning, warning_of_dropped
from src.data.manifest import VOCABULARY, DataFolder
from src.export.exported import ExportFolder
from src.export.scored_files import Rows, RowSource
from src.rows.block import BadRow, Block, first_categories
from src.rows.columns import Columns
from src.rows.raw_files import REJECTS, advice, find_raws, is_many, misfit, write_rejects
from src.rows.reader import RawInput

_BATCH = 1 << 16
_CELL_BYTES = 1 << 20  # of a file, in which an example is looked for


def of_part(data: DataFolder, model: ExportFolder) -> RowSource:
    """The rows of the named part of a data folder, or else of test.

    Raises:
        InputError: the part has no rows, or other categories stand behind its ids than behind the model's.
    """
    part = data.part_to_score()
    if data.manifest.sha256(VOCABULARY) != model.vocabulary:
        raise InputError(
            f"data folder {data.path} was coded with another vocabulary than that of {model.path}: name a raw file, or "
            f"preprocess it with --vocab_path={model.path}"
        )
    from src.dataset import batches_of  # late, for it needs MindSpore, and raw rows do not

    def blocks() -> Iterator[Rows]:
        done = 0
        for dense, ids, labels, *weights in batches_of(data, part, _BATCH):
            lines = np.arange(done + 1, done + len(ids) + 1)
            yield dense, ids, labels[:, 0].astype(np.uint8), lines, *(one[:, 0] for one in weights)
            done += len(ids)

    return RowSource(blocks(), data.manifest.weight)


def of_raw_files(
    dataset_path: str, columns: Columns, max_bad_rows: int, model: ExportFolder, folder: Path
) -> RowSource:
    """The rows of raw text.

    Args:
        dataset_path: a raw file, a folder of one, or several files with commas between.
        columns: what the lines hold.
        max_bad_rows: lines that may be left out.
        model: whose encoder codes them.
        folder: takes what is unpacked, until the rows are through, and the lines left out.

    Raises:
        InputError: no such file, or other columns than the model's; while the rows are read: more bad lines than
            allowed, the first of which is named.
    """
    trained = model.manifest.columns()
    if (columns.lists, columns.shared) != (trained.lists, trained.shared):
        raise InputError(
            f"the schema names other lists or shared tables than the model in {model.path} was trained on: give the "
            f"schema that it was trained with"
        )
    if (columns.dense, columns.categorical) != (model.manifest.dense, model.manifest.categorical):
        raise InputError(
            f"the schema names columns {columns.dense + columns.categorical}, the model in {model.path} was trained on "
            f"{model.manifest.dense + model.manifest.categorical}: give a schema with these names in this order"
        )
    raws = find_raws(dataset_path, "dataset_path")
    encoder = load_encoder(model.path / VOCABULARY, model.manifest.dense)
    columns = encoder.keyed(columns)
    manifest = model.manifest
    unseen = Unseen(manifest.fields, usual_shares(manifest), columns.key_seed, manifest.layout)
    source = RowSource(iter(()), columns.weight)
    source.blocks = _coded(raws, columns, max_bad_rows, encoder, folder, source, unseen)
    return source


def _coded(
    raws: Sequence[Path], columns: Columns, max_bad_rows: int, encoder: Encoder, folder: Path,
    source: RowSource, unseen: Unseen,
) -> Iterator[Rows]:  # fmt: skip
    raw_input = RawInput(raws, columns, folder)
    spans = raw_input.spans(0, raw_input.rows, max(raw_input.rows, 1))
    for span in spans:
        rows = 0
        for block in raw_input.read(span):
            source.skipped += block.bad
            if len(source.skipped) > max_bad_rows:
                raise _refusal(source.skipped[0], raws[0], block, columns, max_bad_rows)
            dense, ids = encoder.encode(block)
            unseen.add(ids, block)
            yield dense, ids, block.labels, block.lines, *([] if block.weights is None else [block.weights])
            rows += len(ids)
        source.inputs += [(span.raw, rows)] if span.raw else []
    found = unseen.unmatched(encoder.examples, lambda: first_categories(spans[:1], raw_input.columns[0], _CELL_BYTES))
    if found:
        warn(warning("rows to score", found))
    if left_out := warning_of_dropped("rows to score", unseen.dropped, dict(zip(unseen.fields, unseen.layout.sizes))):
        warn(left_out)
    if source.skipped:
        write_rejects(folder / REJECTS, source.skipped)
    raw_input.remove_unpacked()


def _refusal(row: BadRow, raw: Path, block: Block, columns: Columns, max_bad_rows: int) -> InputError:
    """The error of the first bad row, once there are too many, which is with those of a block."""
    place = str(row) if row.file else f"{raw} {row}"  # of several files the row knows its own
    share, width, hint = len(block.bad) / (len(block.bad) + len(block.labels)), len(columns.file_names), ""
    if columns.label and row.reason.startswith(f"{len(columns.without_label().file_names)} columns"):
        hint = " (rows without a label need --has_labels=False)"
    elif not columns.label and row.reason.startswith(f"{width + 1} columns"):
        hint = " (rows with a label need --has_labels=True)"
    if misfit(block.bad, share, columns):
        hint = ""  # nearly all rows have another width than this one
    what = f". {advice(block.bad, share, columns, 'leave such rows out with --max_bad_rows')}"
    return InputError(f"{place}{hint}; {max_bad_rows} bad rows are allowed{'' if hint and is_many(share) else what}")
