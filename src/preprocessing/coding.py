"""All rows of a run coded to MindRecord files, from pieces of work that a killed run need not do again."""

from collections.abc import Sequence
from pathlib import Path

from src.data import records
from src.data.encoder import Encoder
from src.data.manifest import MANIFEST, VOCABULARY
from src.data.parts import File
from src.data.vocabulary import Vocabulary
from src.preprocessing.journal import NEW, Journal, Work
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.shards import Coding, Shard
from src.preprocessing.source import Piece, Source
from src.preprocessing.steps import bundle_rows, bundles_of, encode_rows, gather_bucket, scatter_rows

Shards = dict[str, list[Shard]]  # of each part


def _forget_lost_shards(journal: Journal, folder: Path, step: str, names: Sequence[str]) -> None:
    """Of a run that was killed while it put them in place, shards may stand there; without a manifest they are whole.

    With a manifest that run had ended, and the shards that stand there are those of an earlier data folder.
    """
    for number, name in enumerate(names):
        if not (folder / NEW / name).is_file() and ((folder / MANIFEST).exists() or not (folder / name).is_file()):
            journal.forget(step, number)


def code(source: Source, journal: Journal, encoder: Encoder, folder: Path, options: PreprocessingSpec) -> Shards:
    """Code all rows to MindRecord files, those of training in random order if the options say so.

    The encoder must be that of the new folder's file, by whose path it goes to workers that are not forked.
    """
    new, layout = folder / NEW, encoder.layout
    of_tables = sum(layout.of_tables(encoder.table_rows)) if isinstance(encoder.vocabulary, Vocabulary) else 0
    options.check_memory(len(source.columns.categorical), len(encoder.inputs) + layout.ids, journal.workers, of_tables)
    for part in source.bounds:
        (new / part).mkdir(exist_ok=True)
    shuffled = "train" if options.shuffle_rows else None
    mixed = [piece for piece in source.pieces if piece.part == shuffled]
    others = [piece for piece in source.pieces if piece.part != shuffled]
    scattered = tuple(journal.path("scatter", number).with_suffix(".rows") for number in range(len(mixed)))
    bundles = bundles_of(scattered)
    bundled = tuple(journal.path("bundle", number).with_suffix(".rows") for number in range(len(bundles)))
    largest = max((piece.rows for piece in source.pieces), default=0)
    coding = Coding(source.columns, encoder, options.record_rows, options.seed, scattered, bundled, largest)
    files = {"record_rows": options.record_rows, "file_rows": largest}
    decides = source.plan() | {"vocabulary": File.of(new, new / VOCABULARY).sha256}
    journal.plan("scatter", decides | ({"seed": options.seed, "pieces": len(mixed)} if mixed else {}))
    journal.plan("bundle", {}, "scatter")
    journal.plan("gather", files, "scatter")
    journal.plan("encode", decides | files | {"pieces": [_name(piece) for piece in others]})
    for step, pieces in (("gather", mixed), ("encode", others)):
        _forget_lost_shards(journal, folder, step, [_name(piece) for piece in pieces])
    left = journal.missing("gather", len(mixed)) or journal.missing("encode", len(others))
    if left and journal.engine.is_forked:
        encoder.prepare()
        records.prepare()
    scatter = [
        Work(scatter_rows, (piece.spans, number), piece.rows, piece.follows, scattered[number])
        for number, piece in enumerate(mixed)
    ]
    journal.finish("scatter", scatter, "rows", coding)
    bundle = [Work(bundle_rows, (files,), target=path) for files, path in zip(bundles, bundled)]
    journal.finish("bundle", bundle, "bundles", coding)
    gather = [Work(gather_bucket, (piece.number,), piece.rows, target=new / _name(piece)) for piece in mixed]
    journal.finish("gather", gather, "rows", coding, needs=records.NEEDS)
    encode = [Work(encode_rows, (piece.spans,), piece.rows, piece.follows, new / _name(piece)) for piece in others]
    journal.finish("encode", encode, "rows", coding, needs=records.NEEDS)
    shards: Shards = {part: [] for part in source.bounds}
    for step, pieces in (("gather", mixed), ("encode", others)):
        for number, piece in enumerate(pieces):
            shards[piece.part].append(Shard.of(journal.load(step, number, "shard")[0], piece.part))
    return shards


def _name(piece: Piece) -> str:
    """Of a piece's shard, below the data folder."""
    return f"{piece.part}/part-{piece.number:05d}.mindrecord"
