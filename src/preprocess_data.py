"""Raw text to MindRecord: `python src/preprocess_data.py --data_path=./data/`.

The split is chronological: the last seventh of the lines is validation and test, everything before it is training.
A run that was killed goes on from the pieces that it had finished.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if __name__ == "__main__":
    from src.base.stops import end_at_once

    end_at_once()

import numpy as np

from src.base.errors import InputError, run
from src.data.counted import Growth
from src.data.encoder import load_encoder
from src.data.known_values import worst
from src.data.manifest import MANIFEST, VOCABULARY, DataFolder, Manifest
from src.data.transforms import TRANSFORMS
from src.engines.engine import engine_of
from src.model_utils.copying import is_unfinished, send
from src.model_utils.object_storage import is_remote, join, store_of
from src.model_utils.options import is_default, refuse_changed
from src.model_utils.staging import place_of_url, staged
from src.options import PreprocessDataOptions, resolve
from src.preprocessing.guess import guess_schema
from src.preprocessing.learning import manifest_in
from src.preprocessing.options import RawSpec
from src.preprocessing.run import preprocess
from src.rows.columns import Columns
from src.rows.raw_files import REJECTS, find_raws, refuse_twice
from src.rows.schema import load_schema
from src.rows.unpacking import file_and_member

_SHOWN = 3


def output_folder(data_path: str, output_path: str, raws: Sequence[Path]) -> Path:
    """Where the data folder goes: output_path, or else dataset below data_path or beside the first raw file."""
    if output_path:
        return Path(output_path)
    # By os, for which a list of files that is too long for a path is no folder.
    return (Path(data_path) if os.path.isdir(data_path) else file_and_member(raws[0])[0].parent) / "dataset"


def columns_of(raw: RawSpec, vocab_path: str = "") -> Columns:
    """The columns that a schema file names, or those of an earlier folder, or Criteo's in numbers that options give."""
    if raw.schema:
        return load_schema(Path(raw.schema))
    known = Path(vocab_path) / MANIFEST
    if vocab_path and known.is_file() and is_default(raw, "dense_dim") and is_default(raw, "slot_dim"):
        return manifest_in(known.parent).columns()
    return Columns.numbered(raw.dense_dim, raw.slot_dim)


def report(data: DataFolder) -> str:
    """What a person wants to know of a data folder that was just written."""
    manifest = data.manifest
    lines = [
        f"fields: {len(manifest.table_rows)}, table rows {sum(manifest.rows_of_tables)}, by field "
        + " ".join(f"{name}:{rows}" for name, rows in zip(manifest.fields, manifest.table_rows))
    ]
    if manifest.inputs != manifest.dense:
        lines.append(f"numeric inputs: {len(manifest.inputs)}, {', '.join(manifest.inputs)}")
    lines += growth_lines(manifest)
    if manifest.weight:
        lines.append(f"weighted by column {manifest.weight}, label means too")
    if one := manifest.negatives:
        lines.append(
            f"training rows without a click: {one.kept} of {one.rows} are kept; scores will be of all rows, with "
            f"logits {one.shift:+.4f}"
        )
    for name, part in manifest.parts.items():
        lines.append(
            f"{name}: {part.rows} rows, label mean {part.label_mean:.5f}, "
            f"unseen values {np.mean(part.unseen_share):.2%}"
            + (f", most in {most}" if (most := worst(manifest.fields, part.unseen_share)) else "")
            + (", all labels are alike, so there is no AUC" if part.label_mean in (0, 1) else "")
        )
    transform = load_encoder(data.path / VOCABULARY, manifest.dense).learned.transform
    if manifest.negative:
        counts = ", ".join(f"{name} {count}" for name, count in manifest.negative.items())
        kept = TRANSFORMS[transform].tells_negative
        lines.append(
            f"negative numbers: {counts}"
            + ("" if kept else f"; {transform} makes 0 of them, --numeric_transform=signed_log keeps them apart")
        )
    if manifest.shared_keys:
        several = ", ".join(f"{name} {count}" for name, count in manifest.shared_keys.items() if count)
        lines.append(
            f"values of more than 8 bytes, which are hashed: in {len(manifest.shared_keys)} fields; "
            + (f"keys of several values, which get one id: {several}" if several else "no two of training share a key")
        )
    if manifest.bad_rows:
        lines.append(f"bad rows: {manifest.bad_rows} skipped, in {data.path / REJECTS}")
    return "\n".join([*lines, f"data folder: {data.path}"])


def growth_lines(manifest: Manifest) -> list[str]:
    """What a growth changed, for people; nothing of a folder that has not grown."""
    growth = Growth.of(manifest)
    if not growth.number:
        return []
    totals = {what: sum(one[what] for one in growth.tables.values()) for what in ("new", "dealt", "freed", "free")}
    most = sorted(growth.tables.items(), key=lambda item: -item[1]["new"] - item[1]["dealt"])[:_SHOWN]
    told = ", ".join(f"{name} {one['new'] + one['dealt']}" for name, one in most if one["new"] + one["dealt"])
    return [
        f"growth {growth.number} of the vocabulary: {totals['new'] + totals['dealt']} values got rows, "
        f"{totals['dealt']} of them rows that were free" + (f", most in {told}" if told else "")
        + f"; {totals['freed']} values gave theirs up, {totals['free']} rows are free"
    ]  # fmt: skip


def with_copies(raw: RawSpec) -> RawSpec:
    """The same rows on this machine, of files that are in an object storage.

    Raises:
        InputError: a file can't be copied, or no output_path says where the data folder goes then.
    """
    if is_remote(raw.data_path) and not raw.output_path and not raw.guess_schema:
        raise InputError(f"data_path {raw.data_path} is in an object storage: name an --output_path, here or there")
    stage = Path(raw.stage_path)
    return replace(raw, data_path=staged(raw.data_path, stage), valid_path=staged(raw.valid_path, stage),
                   test_path=staged(raw.test_path, stage))  # fmt: skip


def refuse_finished_there(url: str) -> None:
    """Refuse to put a data folder where one is in an object storage.

    Raises:
        InputError: one is there.
    """
    store = store_of(url)
    if store.exists(join(url, MANIFEST)) and not is_unfinished(store, url):
        raise InputError(
            f"output {url} already holds preprocessed data: name another --output_path, or replace it with "
            f"--overwrite=True"
        )


def make_data_folder(options: PreprocessDataOptions) -> DataFolder:
    """Preprocess as options say, and tell of it."""
    raw = with_copies(options.raw)
    raws = find_raws(raw.data_path)
    paths = {"valid": raw.valid_path, "test": raw.test_path}
    own = {part: find_raws(path, f"{part}_path") for part, path in paths.items() if path}
    refuse_twice([*raws, *(one for files in own.values() for one in files)], "data_path")
    if own:
        contradicting = ["split", "valid_fraction", *([] if options.preprocessing.grow else ["vocab_path"])]
        refuse_changed(options.preprocessing, contradicting,
                       "with valid_path or test_path, whose rows are these parts: drop it")  # fmt: skip
    url = raw.output_path if is_remote(raw.output_path) else ""
    output = output_folder(
        raw.data_path, str(place_of_url(url, Path(raw.stage_path))) if url else raw.output_path, raws
    )
    if url and not raw.overwrite:
        refuse_finished_there(url)
    columns = columns_of(raw, options.preprocessing.vocab_path)
    with engine_of(options.engine) as engine:
        overwrite = raw.overwrite or bool(url)
        data = preprocess(raws, output, columns, options.preprocessing, overwrite, own, raw.order_by, engine)
    print(report(data))
    if url:
        print(f"copied {output} to {url}: {send(output, url)} files")
    return data


def main(argv: Sequence[str]) -> None:
    """Preprocess as the command line says, or guess a schema."""
    options = resolve(PreprocessDataOptions, argv)
    raw = options.raw
    if raw.guess_schema:
        print(guess_schema(find_raws(with_copies(raw).data_path), Path(raw.guess_schema), raw.overwrite))
        return
    make_data_folder(options)


if __name__ == "__main__":
    run(main, goes_on=True)
