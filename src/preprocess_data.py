"""Raw text to MindRecord: `python src/preprocess_data.py --data_path=./data/`.

The split is chronological: the last seventh of the lines is validation and test, everything before it is training.
A run that was killed goes on from the pieces that it had finished.
"""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from src.base.errors import run
from src.data.lines import Columns
from src.data.manifest import DataFolder
from src.data.raw_files import REJECTS, find_raws
from src.data.schema import load_schema
from src.model_utils.config import Config, resolve
from src.preprocessing.run import Options, preprocess


def output_folder(data_path: str, output_path: str, raws: Sequence[Path]) -> Path:
    """Where the data folder goes: output_path, or else dataset below data_path or beside the first raw file."""
    if output_path:
        return Path(output_path)
    path = Path(data_path)
    return (path if path.is_dir() else raws[0].parent) / "dataset"


def columns_of(config: Config) -> Columns:
    """The columns that a schema file names, or Criteo's in the numbers that the options give."""
    if config.schema:
        return load_schema(Path(config.schema))
    return Columns.numbered(config.dense_dim, config.slot_dim)


def report(data: DataFolder) -> str:
    """What a person wants to know of a data folder that was just written."""
    manifest = data.manifest
    lines = [
        f"fields: {len(manifest.table_rows)}, table rows {sum(manifest.table_rows)}, by field "
        + " ".join(f"{name}:{rows}" for name, rows in zip(manifest.fields, manifest.table_rows))
    ]
    if manifest.inputs != manifest.dense:
        lines.append(f"numeric inputs: {len(manifest.inputs)}, {', '.join(manifest.inputs)}")
    for name, part in manifest.parts.items():
        lines.append(
            f"{name}: {part.rows} rows, label mean {part.label_mean:.5f}, "
            f"unseen values {np.mean(part.unseen_share):.2%}"
            + (", all labels are alike, so there is no AUC" if part.label_mean in (0, 1) else "")
        )
    if manifest.bad_rows:
        lines.append(f"bad rows: {manifest.bad_rows} skipped, in {data.path / REJECTS}")
    return "\n".join([*lines, f"data folder: {data.path}"])


def main(argv: Sequence[str]) -> None:
    """Preprocess as the command line says."""
    config = resolve("preprocess_data", argv)
    raws = find_raws(config.data_path)
    given = {option.name: getattr(config, option.name) for option in fields(Options)}
    output = output_folder(config.data_path, config.output_path, raws)
    print(report(preprocess(raws, output, columns_of(config), Options(**given), config.overwrite)))


if __name__ == "__main__":
    run(main)
