"""Models of later days, without training: some rows of the tables and the MLPs are others, values come and go."""

import shutil
from dataclasses import replace

import numpy as np
from conftest import CPU

from src.checkpoints import protobuf
from src.checkpoints.parts import open_parts
from src.data.encoder import Encoder, load_encoder
from src.data.manifest import MANIFEST, VOCABULARY, File, Manifest
from src.data.vocabulary import Vocabulary
from src.rows.keys import keys_of

EXPORT = [CPU, "--export_batch_size=8"]
TABLE = "embedding."
DEALT_ANEW = 3  # rows of C3 and C12, from id 5 on


def new_values(day=1):
    """Values that come on a day: what C3 and C12 have in rows dealt anew, and behind the last."""
    return [f"{day:04x}{number:04x}" for number in range(DEALT_ANEW + 4)]


def next_day(old, new, day):
    """A checkpoint as a day's training might leave it: C1 has other vectors, all weights differ.

    On day 2 the vocabulary stays. On others two values of C2 change places, C3 and C12 get rows, and some rows of
    theirs belong to other values, so that each part of the model changes scores.
    """
    new.mkdir(parents=True)
    rng = np.random.default_rng(day)
    manifest = Manifest.load(old / MANIFEST)
    if day == 2:
        shutil.copyfile(old / VOCABULARY, new / VOCABULARY)
    else:
        _grow(old, new, day)
    encoder = load_encoder(new / VOCABULARY, manifest.dense)
    replace(manifest, table_rows=encoder.table_rows, files=(File.of(new, new / VOCABULARY),), parts={}).save(new)
    (file,) = open_parts(old / "dlrm.ckpt")
    entries = {}
    for name, shape in file.shapes.items():
        values = np.array(file.read(name)).reshape(shape)
        if not name.startswith(TABLE):
            values += rng.normal(0, 0.05, shape).astype(np.float32)
        else:
            rows = encoder.table_rows[manifest.fields.index(name.removeprefix(TABLE))]
            some = rng.random(len(values)) < (1 if name == f"{TABLE}C1" else 0.05)
            values[some] += rng.normal(0, 0.1, (some.sum(), shape[1])).astype(np.float32)
            values = np.concatenate((values, rng.normal(0, 0.1, (rows - len(values), shape[1])).astype(np.float32)))
        entries[name] = values
    protobuf.write(new / "dlrm.ckpt", entries.items())
    (new / "dlrm.yaml").write_bytes((old / "dlrm.yaml").read_bytes())


def _grow(old, new, day):
    manifest = Manifest.load(old / MANIFEST)
    encoder = load_encoder(old / VOCABULARY, manifest.dense)
    keys = [np.array(own) for own in encoder.vocabulary.keys]
    keys[1][[0, 1]] = keys[1][[1, 0]]
    coming = keys_of(new_values(day), encoder.vocabulary.key_seed)
    for table in (2, 11):
        keys[table][4 : 4 + DEALT_ANEW] = coming[:DEALT_ANEW]
        keys[table] = np.concatenate((keys[table], coming[DEALT_ANEW:]))
    vocabulary = Vocabulary(manifest.categorical, keys, key_seed=encoder.vocabulary.key_seed)
    Encoder(manifest.dense, vocabulary, encoder.learned, encoder.examples).save(new / VOCABULARY)


def lines_with_new_values(lines):
    """Rows, of which every other one has a value of day 1 in C3."""
    found = []
    for number, line in enumerate(lines):
        cells = line.split("\t")
        if number % 2:
            cells[1 + 13 + 2] = new_values()[number // 2 % (DEALT_ANEW + 4)]
        found.append("\t".join(cells))
    return found


def make_days(folder, checkpoint, export):
    """Days 1 and 2 behind a run: checkpoints day_1 .., deltas delta_1 .. from one to the next, and the exports.

    export_0 is the run's, export_1 and export_2 are made by the deltas; whole_2 is that of day_2 as a whole.
    """
    import export as export_program

    shutil.copytree(export, folder / "export_0")
    for day in (1, 2):
        next_day(checkpoint, folder / f"day_{day}", day)
        checkpoint, old = folder / f"day_{day}", f"--delta_from={folder}/export_{day - 1}"
        export_program.main([*EXPORT, f"--checkpoint_path={checkpoint}", old, f"--export_path={folder}/delta_{day}"])
        export_program.main([old, f"--apply_delta={folder}/delta_{day}", f"--export_path={folder}/export_{day}"])
    export_program.main([*EXPORT, f"--checkpoint_path={checkpoint}", f"--export_path={folder}/whole_2",
                         "--table_placement=host"])  # fmt: skip
