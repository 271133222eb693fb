"""Rows to .bin files for the C++ program: `python preprocess.py --dataset_path=dataset/test --export_path=./export`.

The rows are a part of a data folder (by default test), or raw text, coded by the exported model's vocabulary.
"""

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

from collections.abc import Sequence
from pathlib import Path

from src.base.errors import run
from src.model_utils.options import refuse_changed
from src.options import PreprocessOptions, resolve

_OF_RAW_ROWS = ("has_labels", "schema", "max_bad_rows")


def main(argv: Sequence[str]) -> None:
    """Write rows as the command line says, to a folder that is there whole or not at all."""
    spec = resolve(PreprocessOptions, argv).rows
    # Imported here, so that a mistake on the command line does not wait for MindSpore.
    from src.base.files import check_place, whole_folder
    from src.data.manifest import find, is_data_folder, place_of
    from src.export import rows_to_score
    from src.export.exported import ExportFolder
    from src.export.scored_files import RowFiles
    from src.rows.schema import load_schema

    folder, dataset = Path(spec.preprocess_path), place_of(spec.dataset_path)
    from_parts = is_data_folder(dataset)
    if from_parts:
        refuse_changed(spec, _OF_RAW_ROWS, f"on the data folder {dataset}, only on raw text: drop it")

    def check() -> None:
        check_place(folder, RowFiles.are_in, "preprocess_path", spec.overwrite)

    check()
    model = ExportFolder.load(Path(spec.export_path))
    columns = load_schema(Path(spec.schema)) if spec.schema else model.manifest.columns()
    with whole_folder(folder, check) as beside:
        if from_parts:
            source = rows_to_score.of_part(find(str(dataset)), model)
        else:
            source = rows_to_score.of_raw_files(
                str(dataset), columns if spec.has_labels else columns.without_label(), spec.max_bad_rows,
                model, beside,
            )  # fmt: skip
        table_rows = model.manifest.layout.of_ids(model.manifest.table_rows)
        rows = RowFiles.write(beside, source, table_rows, model.vocabulary, spec.has_labels)
    labels = "with labels" if spec.has_labels else "without labels"
    print(f"{folder}: {rows.rows} rows of {dataset}, {labels}; {len(source.skipped)} bad ones left out")


if __name__ == "__main__":
    run(main)
