"""Writing a published folder, which published.py reads."""

import os
import secrets
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from src.base.files import check_place, link_or_copy, whole_file, whole_folder
from src.base.sealed import sealed_json
from src.checkpoints.checkpoint import fill_mlps, full_width
from src.checkpoints.evaluated import evaluations_of
from src.checkpoints.names import REPORT, REPORT_PAGE, TABLE
from src.data.encoder import Encoder, load_encoder
from src.data.manifest import VOCABULARY, Manifest
from src.data.parts import File
from src.data.vocabulary import Vocabulary
from src.export.table_file import chunks
from src.network.options import NetworkSpec
from src.publishing.card import Facts, card
from src.publishing.network import read_key, without_tables
from src.publishing.options import PublishSpec
from src.publishing.published import CARD, CHECKED, CONFIG, KIND, TENSORS, VERSION, is_published
from src.publishing.shown import page_for_others, without_values
from src.publishing.tensor_file import write_tensors
from src.report.files import load_report


def publish(checkpoint: Path, manifest: Manifest, network: NetworkSpec, spec: PublishSpec, overwrite: bool) -> None:
    """Publish a checkpoint, and tell of it; the folder is there whole or not at all.

    Args:
        checkpoint: the file, in one part or several.
        manifest: the one beside it.
        network: its shape.
        spec: where.
        overwrite: whether an earlier published model may be replaced.

    Raises:
        InputError: the checkpoint does not fit the network, or something is in the place that may not be replaced.
    """
    folder = Path(spec.publish)

    def check() -> None:
        check_place(folder, is_published, "publish", overwrite)

    check()
    report, evaluations = report_of(checkpoint), evaluations_of(checkpoint)
    encoder = load_encoder(checkpoint.with_name(VOCABULARY), manifest.dense)
    hashed = spec.hash_vocabulary and isinstance(encoder.vocabulary, Vocabulary)
    if spec.hash_vocabulary:
        report, evaluations = without_values(report), without_values(list(evaluations))
        manifest = replace(manifest, options=without_values(dict(manifest.options)))
    with whole_folder(folder, check) as beside:
        shown, encoder = _write_encoder(beside, checkpoint, manifest, encoder, spec, hashed)
        facts = Facts(shown, replace(network, mixed_dims=0.0), network.mixed_dims, encoder, hashed, report,
                      evaluations, folder.resolve().name)  # fmt: skip
        parameters = write_network(beside / TENSORS, checkpoint, manifest, network)
        _write_config(beside, facts)
        if report:
            (beside / REPORT_PAGE).write_text(page_for_others(report, evaluations), encoding="utf-8")
        (beside / CARD).write_text(card(facts, parameters, beside), encoding="utf-8")
    told = f"; evaluations on the card: {len(evaluations)}" if evaluations else ""
    print(f"published {checkpoint} in {folder}: {TENSORS}, encoder and card{told}; fill in the card's licence")
    if not evaluations:
        print("the card tells of no test rows: run eval.py, then publish again with --overwrite=True")
    if hashed:
        print(f"the key of the categories' hashes is {spec.key_path}: who scores raw rows needs it; never publish it")


def report_of(checkpoint: Path) -> dict[str, Any]:
    """The report of the training that a checkpoint came of; empty where there is none."""
    return load_report(checkpoint.parent) if (checkpoint.parent / REPORT).is_file() else {}


def write_network(path: Path, checkpoint: Path, manifest: Manifest, network: NetworkSpec) -> int:
    """Write a checkpoint's values, the tables piece by piece in memory of a fixed size; returns how many the MLPs have.

    Vectors of mixed widths become ones of full width, as in an export.
    """
    parts, fill = full_width(checkpoint, manifest, network)
    model = without_tables(manifest, replace(network, mixed_dims=0.0))
    fill_mlps(model, parts)
    own = {parameter.name: parameter.asnumpy() for parameter in model.mlp_parameters()}
    width, rows = network.emb_dim, manifest.rows_of_tables
    shapes = {name: values.shape for name, values in own.items()}
    shapes |= {TABLE + name: (count, width) for name, count in zip(manifest.tables, rows)}

    def pieces() -> Iterator[np.ndarray]:
        yield from own.values()
        for _, values in chunks(rows, width, fill):
            yield values

    write_tensors(path, shapes, pieces())
    parts.check_all_read()
    return sum(values.size for values in own.values())


def _write_encoder(
    folder: Path, checkpoint: Path, manifest: Manifest, encoder: Encoder, spec: PublishSpec, hashed: bool
) -> tuple[Manifest, Encoder]:
    """Write the encoder, and of the manifest what scoring needs; returns them as they are written."""
    if spec.hash_vocabulary:
        encoder = encoder.hidden(_key_of(spec.key_path) if hashed else "")
        encoder.save(folder / VOCABULARY)
    else:
        link_or_copy(checkpoint.with_name(VOCABULARY), folder / VOCABULARY)
    source = {"columns": manifest.source.get("columns", {})}
    parts = {name: replace(part, shards=(), shard_rows=()) for name, part in manifest.parts.items()}
    options = {"split": manifest.options.get("split", "")}
    files = (File.of(folder, folder / VOCABULARY),)
    shown = replace(manifest, source=source, parts=parts, options=options, files=files)
    shown.save(folder)
    return shown, encoder


def _key_of(path: Path) -> str:
    """The key in a file, which an earlier publishing of the same folder left, or a new one."""
    if path.exists():
        return read_key(path)
    key = secrets.token_hex(16)
    with whole_file(path, sync=True) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(f"{key}\n".encode())
    return key


def _write_config(folder: Path, facts: Facts) -> None:
    manifest = facts.manifest
    content = {
        "model_type": KIND,
        "version": VERSION,
        "network": asdict(facts.network),
        "inputs": list(manifest.inputs),
        "fields": list(manifest.fields),
        "table_rows": list(manifest.table_rows),
        "encoder": {"file": VOCABULARY, "hashed": facts.hashed},
        "files": {name: vars(File.of(folder, folder / name)) for name in CHECKED},
    }
    (folder / CONFIG).write_text(sealed_json(content) + "\n", encoding="utf-8")
