"""A preprocessing run: from raw files to a data folder, in pieces that a killed run need not do again."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.base.errors import InputError
from src.base.workers import run_parallel
from src.data import records
from src.data.encoder import Encoder, learn, load_encoder
from src.data.lines import BadRow, Columns
from src.data.manifest import MANIFEST, PARTS, VOCABULARY, DataFolder, File, Manifest, Part, raw_format
from src.data.raw_files import REJECTS, RawInput, Span, fingerprint, is_packed, write_rejects
from src.data.transforms import TRANSFORMS
from src.data.vocabulary import AnyVocabulary, HashedVocabulary, Vocabulary
from src.preprocessing.journal import FOLDER, Journal, record
from src.preprocessing.steps import (
    Shard,
    bad_rows_of,
    count_span,
    encode_span,
    gather_bucket,
    merge_column,
    merge_field,
    scatter_span,
    split,
)  # fmt: skip

_SHOWN_BAD_ROWS = 3
_FIRST_ROWS = 1000


@dataclass(frozen=True)
class Options:
    """How rows are split, coded and packed; the options of the same names."""

    train_line_count: int = 0
    valid_fraction: float = 0.5
    min_count: int = 1
    field_min_count: str = ""
    max_rows_per_field: int = 0
    hash_rows: int = 0
    vocab_scope: str = "train"
    vocab_path: str = ""
    numeric_transform: str = "log"
    missing_indicators: bool = False
    numeric_buckets: int = 0
    category_counts: bool = False
    shuffle_rows: bool = False
    seed: int = 1
    max_bad_rows: int = 0
    record_rows: int = 512
    shard_rows: int = 262_144

    @property
    def learns_from_numbers(self) -> bool:
        """Whether the values of numeric columns are counted too."""
        return TRANSFORMS[self.numeric_transform].learns or self.missing_indicators or self.numeric_buckets > 0


def preprocess(
    raws: Sequence[Path], folder: Path, columns: Columns, options: Options, overwrite: bool = False
) -> DataFolder:
    """Make a data folder of raw files: count, merge, encode, and the manifest last.

    Args:
        raws: the raw files, in order of time; .gz and .xz are unpacked.
        folder: the data folder to write.
        columns: what the lines hold.
        options: how.
        overwrite: whether a data folder in that place is replaced.

    Raises:
        InputError: no rows, fewer than asked for, more bad ones than allowed, a vocabulary that does not fit, or a data
            folder in the place of the new one.
    """
    if (folder / MANIFEST).exists() and not overwrite:
        raise InputError(
            f"output {folder} already holds preprocessed data: name another --output_path, or replace it with "
            f"--overwrite=True"
        )
    return _Run(raws, folder, columns, options).data_folder()


class _Run:
    """One run; arguments as for `preprocess`."""

    def __init__(self, raws: Sequence[Path], folder: Path, columns: Columns, options: Options):
        self.raws, self.folder, self.given_columns, self.options = raws, folder, columns, options
        self.names = ", ".join(map(str, raws))
        for raw in raws:
            if raw.stat().st_size == 0:
                raise InputError(f"{raw} is empty: it must hold lines of raw text")
        self.given = [fingerprint(raw) for raw in raws]
        self.known = self._known_encoder(columns)
        plan = {"raw": self.given, **asdict(columns), **asdict(options)}
        if any(is_packed(raw) for raw in raws):
            self.journal = Journal(folder, plan)
            self._find_rows(columns)
        else:  # a mistake is found before anything is made
            self._find_rows(columns)
            self.journal = Journal(folder, plan)
        if (folder / MANIFEST).exists():
            self.journal.forget("encode")  # of a run killed just before it would have ended

    def _known_encoder(self, columns: Columns) -> Encoder | None:
        """The encoder at vocab_path, if one is given."""
        if not self.options.vocab_path:
            return None
        place = Path(self.options.vocab_path)
        if not (place / MANIFEST).is_file() or not (place / VOCABULARY).is_file():
            raise InputError(
                f"vocab_path {place} has no {MANIFEST} and {VOCABULARY}: name the data or checkpoint folder "
                f"of the model"
            )
        manifest = Manifest.load(place / MANIFEST)
        manifest.verify(place, [VOCABULARY])
        if (manifest.dense, manifest.categorical) != (columns.dense, columns.categorical):
            raise InputError(
                f"vocab_path {place} is for columns {manifest.dense + manifest.categorical}, the raw files are said to "
                f"hold {columns.dense + columns.categorical}: give its --schema"
            )
        return load_encoder(place / VOCABULARY, manifest.dense)

    def _find_rows(self, columns: Columns) -> None:
        """Where the rows are in the files, and which part they belong to."""
        files = RawInput(self.raws, columns, self.folder / FOLDER)
        orders = files.columns
        for raw, order in zip(self.raws, orders):
            if order != orders[0]:
                raise InputError(f"{raw} has another header than {self.raws[0]}: give files of one form")
        self.columns = orders[0]
        wanted, names = self.options.train_line_count, self.names
        if files.rows == 0:
            raise InputError(f"{names} is empty: it must hold lines of raw text")
        if wanted > files.rows:
            raise InputError(
                f"train_line_count is {wanted}, but {names} has {files.rows} lines: give at most that, or leave the "
                f"option away to read all"
            )
        self.rows = wanted or files.rows
        self._refuse_other_kinds_of_file(files)
        self.bounds = {"test": (0, self.rows)} if self.known else split(self.rows, self.options.valid_fraction)
        self.spans: list[tuple[str, int, Span]] = [
            (part, number, span)
            for part, (first, last) in self.bounds.items()
            for number, span in enumerate(files.spans(first, last, self.options.shard_rows))
        ]
        parts = ", ".join(f"{part} {first + 1}-{last}" for part, (first, last) in self.bounds.items())
        print(f"{names}: {self.rows} rows; {parts}", flush=True)

    def _refuse_other_kinds_of_file(self, files: RawInput) -> None:
        """A file that begins with nothing but bad rows holds other columns, or no rows at all."""
        span = files.spans(0, min(self.rows, _FIRST_ROWS), _FIRST_ROWS)[0]
        blocks = list(files.read(span))
        if span.rows > 1 and not any(len(block.labels) for block in blocks):
            raise InputError(
                f"{self.names}: none of the first {span.rows} lines is a row of {len(self.columns.names)} columns; "
                f"{blocks[0].bad[0]}. Are --dense_dim and --slot_dim right, or is a --schema needed?"
            )

    def data_folder(self) -> DataFolder:
        """Do what is not done yet."""
        bad, bad_rows = self._count()
        self._make_room()  # only now, so that a refused input leaves an earlier data folder whole
        encoder = self.known or self._encoder()
        encoder.save(self.folder / VOCABULARY)
        if bad:
            write_rejects(self.folder / REJECTS, bad)
        shards = self._encode(encoder)
        if [fingerprint(raw) for raw in self.raws] != self.given:
            raise InputError(f"{self.names} changed while it was read: start again when it is whole")
        names = [name for name in (VOCABULARY, REJECTS) if (self.folder / name).is_file()]
        parts = {part: _part(self.bounds[part], shards[part]) for part in self.bounds}
        manifest = Manifest(
            self.columns.dense,
            self.columns.categorical,
            encoder.table_rows,
            {name: part for name, part in parts.items() if part},
            (*(File.of(self.folder, self.folder / name) for name in names),
             *(file for part in shards.values() for shard in part for file in shard.files)),
            bad_rows,
            {"names": [raw.name for raw in self.raws], "lines": self.rows, "columns": raw_format(self.given_columns)},
            asdict(self.options) | {"vocab_path": Path(self.options.vocab_path).name},
            encoder.inputs,
            encoder.fields,
        )  # fmt: skip
        manifest.save(self.folder)
        self.journal.close()
        return DataFolder(self.folder, manifest)

    def _make_room(self) -> None:
        """Remove files of an earlier data folder, but those that this plan's journal knows; nothing else is touched."""
        (self.folder / MANIFEST).unlink(missing_ok=True)  # from here on the folder is not valid
        if self.journal.any("encode"):
            return
        for name in (VOCABULARY, REJECTS):
            (self.folder / name).unlink(missing_ok=True)
        for part in PARTS:
            for path in (self.folder / part).glob("part-*.mindrecord*"):
                path.unlink()

    def _pieces(
        self, step: str, function: Callable[..., Any], work: Sequence[tuple[Any, ...]], sizes: Sequence[int], unit: str,
        *shared: Any,
    ) -> None:  # fmt: skip
        """Do the pieces of a step that are not finished yet."""
        missing = self.journal.missing(step, len(work))
        if len(missing) < len(work):
            done = len(work) - len(missing)
            print(f"{step}: going on from an earlier run, {done} of {len(work)} pieces are done", flush=True)
        arguments = [(self.journal.path(step, number), function, *work[number]) for number in missing]
        for _ in run_parallel(step, record, arguments, [sizes[number] for number in missing], unit, shared):
            pass

    def _count(self) -> tuple[list[BadRow], int]:
        """Count all spans; the bad lines, of which no more than max_bad_rows may be."""
        allowed = self.options.max_bad_rows
        spans = [span for _, _, span in self.spans]
        self._pieces(
            "count", count_span, [(span,) for span in spans], [span.rows for span in spans], "rows",
            self.columns, allowed + _SHOWN_BAD_ROWS, self.options.learns_from_numbers,
        )  # fmt: skip
        bad: list[BadRow] = []
        bad_rows, rows = 0, dict.fromkeys(PARTS, 0)
        for number, (part, _, _) in enumerate(self.spans):
            with self.journal.load("count", number) as arrays:
                bad_rows += int(arrays["bad_rows"])
                rows[part] += int(arrays["rows"])
                if len(bad) <= allowed + _SHOWN_BAD_ROWS:
                    bad += bad_rows_of(arrays)
        if bad_rows > allowed:
            self.journal.close()
            with contextlib.suppress(OSError):  # unless there is something else in it
                self.folder.rmdir()
            shown = "; ".join(str(row) for row in bad[:_SHOWN_BAD_ROWS])
            more = "; ..." if bad_rows > _SHOWN_BAD_ROWS else ""
            raise InputError(
                f"{self.names} has {bad_rows} bad rows, {allowed} are allowed: {shown}{more}. Mend "
                f"them, or skip them into {REJECTS} with --max_bad_rows={bad_rows}"
            )
        if not rows["train" if "train" in self.bounds else "test"]:
            raise InputError(f"{self.names} has no good row to train on: mend the bad ones")
        return bad, bad_rows

    def _encoder(self) -> Encoder:
        """What is learned from the training rows, or from all."""
        options, scope = self.options, self.options.vocab_scope
        spans = [number for number, (part, _, _) in enumerate(self.spans) if part == "train" or scope == "all"]
        counted = [self.journal.path("count", number) for number in spans]
        vocabulary, counts = self._vocabulary(counted)
        columns = range(len(self.columns.dense) if options.learns_from_numbers else 0)
        work = [(column,) for column in columns]
        self._pieces("merge_numbers", merge_column, work, [1 for _ in columns], "columns", counted)
        found = [self.journal.load("merge_numbers", column) for column in columns]
        learned = learn(
            options.numeric_transform, options.missing_indicators, options.numeric_buckets,
            [(arrays["values"], arrays["counts"]) for arrays in found], counts if options.category_counts else (),
            sum(int(self.journal.load("count", number)["rows"]) for number in spans),
        )  # fmt: skip
        return Encoder(self.columns.dense, vocabulary, learned)

    def _vocabulary(self, counted: Sequence[Path]) -> tuple[AnyVocabulary, list[np.ndarray]]:
        """The vocabulary of the counted rows and how often each id's category occurs there, or none but a hash."""
        names, options = self.columns.categorical, self.options
        if options.hash_rows:
            return HashedVocabulary(names, options.hash_rows), []
        pairs = [pair.rpartition(":") for pair in options.field_min_count.split(",") if pair]
        by_field = {name: int(least) for name, _, least in pairs}
        if unknown := set(by_field) - set(names):
            raise InputError(
                f"field_min_count: there is no field {sorted(unknown)[0]!r}: the fields are {', '.join(names)}"
            )
        work = [(field, by_field.get(name, options.min_count)) for field, name in enumerate(names)]
        self._pieces("merge", merge_field, work, [1 for _ in work], "fields", counted, options.max_rows_per_field)
        merged = [self.journal.load("merge", field) for field in range(len(names))]
        return Vocabulary(names, [arrays["keys"] for arrays in merged]), [arrays["counts"] for arrays in merged]

    def _encode(self, encoder: Encoder) -> dict[str, list[Shard]]:
        """Each part's shards."""
        for part in self.bounds:
            (self.folder / part).mkdir(exist_ok=True)
        if self.journal.missing("encode", len(self.spans)):
            encoder.prepare()
            records.prepare()
        shuffled = "train" if self.options.shuffle_rows else None
        mixed = [span for part, _, span in self.spans if part == shuffled]
        scattered = [self.journal.folder / f"scattered-{number:05d}.npy" for number in range(len(mixed))]
        scatter = list(zip(mixed, range(len(mixed)), scattered))
        common, seed = (self.columns, encoder), self.options.seed
        self._pieces("scatter", scatter_span, scatter, [span.rows for span in mixed], "rows", *common, len(mixed), seed)
        work = [
            (part == shuffled, number, span, self.folder / part / f"part-{number:05d}.mindrecord")
            for part, number, span in self.spans
        ]
        sizes, ending = [span.rows for _, _, span in self.spans], (self.folder, self.options.record_rows)
        self._pieces("encode", _encode_or_gather, work, sizes, "rows", scattered, seed, *common, *ending)
        shards: dict[str, list[Shard]] = {part: [] for part in self.bounds}
        for piece, (part, _, _) in enumerate(self.spans):
            shards[part].append(Shard.of(self.journal.load("encode", piece)))
        return shards


def _encode_or_gather(gather: bool, number: int, span: Span, path: Path, scattered: Sequence[Path], seed: int,
                      columns: Columns, encoder: Encoder, folder: Path, record_rows: int) -> Any:  # fmt: skip
    """A shard: of a span of lines, or of a bucket of shuffled rows."""
    if gather:
        return gather_bucket(number, path, scattered, seed, encoder, folder, record_rows)
    return encode_span(span, path, columns, encoder, folder, record_rows)


def _part(bounds: tuple[int, int], shards: list[Shard]) -> Part | None:
    rows = sum(shard.rows for shard in shards)
    if not rows:
        return None
    unseen = np.sum([shard.unseen for shard in shards], axis=0) / rows
    return Part(
        rows,
        bounds[0] + 1,
        bounds[1],
        sum(shard.clicks for shard in shards) / rows,
        tuple(unseen.tolist()),
        tuple(shard.files[0].name for shard in shards if shard.rows),
        tuple(shard.rows for shard in shards if shard.rows),
    )
