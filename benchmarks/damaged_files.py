"""Flipped bits and cuts in each kind of file that the programs read again.

    python benchmarks/damaged_files.py                200 flips and 50 cuts of each file
    python benchmarks/damaged_files.py --flips=5 --cuts=2 --only=manifest

A small data folder, checkpoint, stopped training, export and scores are made first. Whoever reads a damaged file must
refuse it in one line, or give what the whole file gives, to the bit. Anything else is a FAULT. The last line is
`files=N damages=.. refused=.. alike=.. faults=..`, and the exit code is 1 if there are faults.
"""

import argparse
import functools
import gzip
import hashlib
import lzma
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.odd_cases import plain_rows, text_of

PROGRAM = ROOT / "ascend310_infer/out/main"
_CPU = "--device_target=CPU"
_NETWORK = ("--emb_dim=4", "--bottom_mlp=[4]", "--top_mlp=[1]", "--eval_batch_size=64")
_READ_BY_CPP = ("export", "preprocess_Result")
Reader = Callable[[], Any]
_TRAINING = (
    _CPU,
    "--dataset_path=data",
    *_NETWORK,
    "--batch_size=8",
    "--report=False",
    "--optimizer=adam",
)  # fmt: skip - whose states are what a network's file has not


def make(program: Path | None) -> str:
    """One file of each kind, in the working folder; what tells the C++ program's scores of whole ones, "" for none."""
    import export
    import preprocess
    import train
    from src import preprocess_data
    from src.checkpoints import run_folder

    text = text_of(plain_rows()).encode()
    Path("rows.gz").write_bytes(gzip.compress(text))
    Path("rows.xz").write_bytes(lzma.compress(text))
    Path("rows.txt").write_bytes(text)
    preprocess_data.main(["--data_path=rows.txt", "--output_path=data", "--dense_dim=2", "--slot_dim=3",
                          "--record_rows=16"])  # fmt: skip
    train.main([*_TRAINING, "--epochs=1"])
    make_parts()
    commit = run_folder.Run.commit

    def stop(*given: Any) -> None:
        commit(*given)
        raise KeyboardInterrupt

    run_folder.Run.commit = stop  # type: ignore[method-assign]
    try:
        train.main([*_TRAINING, "--epochs=1", "--ckpt_path=stopped", "--save_steps=5"])
    except KeyboardInterrupt:
        pass
    finally:
        run_folder.Run.commit = commit  # type: ignore[method-assign]
    export.main([_CPU, "--table_placement=host"])
    preprocess.main(["--dataset_path=rows.txt"])
    return digest(score(program)) if program else ""


def score(program: Path, place: Path = Path()) -> bytes:
    """The C++ program's scores of what lies in a folder.

    Raises:
        InputError: it refuses, in one line.
    """
    from src.base.errors import InputError
    from src.export.scored_files import RowFiles, Scores

    command = [program, "--model=export/dlrm.mindir", "--input=preprocess_Result", "--device_type=CPU"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place)
    if done.returncode == 2 and len(done.stderr.splitlines()) == 1:
        raise InputError(done.stderr)
    assert done.returncode == 0, done.stderr
    return Scores.load(place / "result_Files", RowFiles.load(place / "preprocess_Result")).values.tobytes()


def read_raw(name: str) -> Reader:
    """Reads the rows of a raw file."""

    def read() -> list[bytes]:
        from src.rows.columns import Columns
        from src.rows.raw_rows import blocks_of_file

        blocks = list(blocks_of_file(Path(name), Columns.numbered(2, 3)))
        return [part.tobytes() for block in blocks for part in (block.labels, block.numbers, block.keys)]

    return read


def read_data() -> Any:
    """All rows of the data folder, and its facts."""
    from src.data.manifest import VOCABULARY, find
    from src.dataset import batches_of

    data = find("data")
    data.manifest.verify(data.path, [VOCABULARY])
    batches = [batch for part in data.manifest.parts for batch in batches_of(data, part, 64)]
    return repr(data.manifest), [array.tobytes() for batch in batches for array in batch]


def read_checkpoint(folder: str) -> Reader:
    """Reads the network's options and values."""

    def read() -> Any:
        from src.checkpoints import checkpoint
        from src.data.manifest import Manifest
        from src.options import EvalOptions, resolve

        options = resolve(EvalOptions, [_CPU, f"--checkpoint_path={folder}/dlrm.ckpt"])
        manifest = Manifest.load(Path(folder) / "manifest.json")
        model = checkpoint.load(Path(folder) / "dlrm.ckpt", manifest, options.network)
        return repr(options.network), [value.asnumpy().tobytes() for value in model.get_parameters()]

    return read


def make_parts() -> None:
    """The checkpoint as two ranks write it, each half of every table."""
    from src.checkpoints import protobuf
    from src.checkpoints.checkpoint import PARTS, TABLE, part_of

    whole = protobuf.CheckpointFile(Path("checkpoint/dlrm.ckpt"))
    values = {name: whole.read(name) for name in whole.shapes}
    common = {name: value for name, value in values.items() if not name.startswith(TABLE)}
    Path("parts").mkdir()
    for name in ("dlrm.yaml", "manifest.json", "vocabulary.npz"):
        shutil.copyfile(f"checkpoint/{name}", f"parts/{name}")
    for rank in range(2):
        own = {} if rank else dict(common)
        for name in values.keys() - common.keys():
            half = len(values[name]) // 2
            own[f"{name}@{rank * half}"] = values[name][half:] if rank else values[name][:half]
        own[PARTS] = np.array([2], np.int32)
        protobuf.write(part_of(Path("parts/dlrm.ckpt"), rank), own.items())
    assert digest(read_checkpoint("parts")()) == digest(read_checkpoint("checkpoint")())


@functools.cache
def prepared_for(folder: str, epochs: int) -> Any:
    """What a run works on that goes on in a checkpoint folder."""
    from src.options import TrainOptions, resolve
    from src.training.prepare import Specs, prepare, start

    options = resolve(TrainOptions, [*_TRAINING, f"--ckpt_path={folder}", f"--epochs={epochs}"])
    runtime = start(options.device, options.compute, options.parallel)
    return prepare(Specs(options.data, options.network, options.optimization, options.schedule, options.evaluation,
                         options.kept, runtime))  # fmt: skip


def read_state(folder: str, epochs: int) -> Reader:
    """Reads, as a run that goes on does, what it has to go on with."""

    def read() -> Any:
        from src import run
        from src.checkpoints.run_folder import Run
        from src.training.resume import values_of

        unfinished = Path(folder) / "unfinished"
        was_stopped, prepared = (unfinished / "progress.json").is_file(), prepared_for(folder, epochs)
        try:
            with Run(Path(folder), prepared.folder, prepared.specs.saved()) as own:
                state = run.stopped_state(prepared, own)
                assert state, "it begins anew"
                training = run.begin(prepared, own, state)
                state.restore(training.step)
                values = values_of(training.step, prepared.folder.manifest.fields)
                return repr(state.progress), {name: value.tobytes() for name, value in values.items()}
        finally:
            if not was_stopped:  # who goes on with a run that ended well makes it one that was stopped
                shutil.rmtree(unfinished, ignore_errors=True)

    return read


def read_export() -> Any:
    """All that an exported model holds."""
    from src.data.encoder import load_encoder
    from src.data.manifest import VOCABULARY
    from src.export.exported import ExportFolder
    from src.rows.columns import Columns
    from src.rows.lines import parse

    model = ExportFolder.load(Path("export"))
    assert model.table
    encoder = load_encoder(model.path / VOCABULARY, model.manifest.dense)
    dense, ids = encoder.encode(parse(Path("rows.txt").read_bytes(), encoder.keyed(Columns.numbered(2, 3))))
    most = max(model.table.table_rows)
    every = np.minimum(np.arange(most)[:, None], np.array(model.table.table_rows) - 1)
    found = (dense.tobytes(), ids.tobytes(), model.table.lookup(every).tobytes())
    return repr((model.graph, model.batch_size, model.width, model.manifest)), found, model.graph.read_bytes()


def read_rows() -> Any:
    """The files between the programs, as Python reads them."""
    from src.export.scored_files import RowFiles, Scores

    rows = RowFiles.load(Path("preprocess_Result"))
    scores = Scores.load(Path("result_Files"), rows) if Path("result_Files").is_dir() else None
    found = (rows.labels().tobytes(), rows.numbers().tobytes(), repr(rows))
    return found, scores and (scores.values.tobytes(), scores.seconds)


def kinds(program: Path | None) -> dict[str, tuple[Path, Reader | None]]:
    """Each kind of file, the file, and who reads it, which is the C++ program where it is None."""
    found: dict[str, tuple[Path, Reader | None]] = {
        "raw .gz": (Path("rows.gz"), read_raw("rows.gz")),
        "raw .xz": (Path("rows.xz"), read_raw("rows.xz")),
        "MindRecord": (Path("data/train/part-00000.mindrecord"), read_data),
        "MindRecord's index": (Path("data/train/part-00000.mindrecord.db"), read_data),
        "manifest": (Path("data/manifest.json"), read_data),
        "vocabulary": (Path("data/vocabulary.npz"), read_data),
        "checkpoint": (Path("checkpoint/dlrm.ckpt"), read_checkpoint("checkpoint")),
        "options beside a checkpoint": (Path("checkpoint/dlrm.yaml"), read_checkpoint("checkpoint")),
        "first of two parts": (Path("parts/dlrm.ckpt"), read_checkpoint("parts")),
        "second of two parts": (Path("parts/dlrm.rank_1.ckpt"), read_checkpoint("parts")),
        "state": (next(Path("stopped/unfinished").glob("state-*.ckpt")), read_state("stopped", 1)),
        "rest of a state": (next(Path("stopped/unfinished").glob("rest-*.ckpt")), read_state("stopped", 1)),
        "progress": (Path("stopped/unfinished/progress.json"), read_state("stopped", 1)),
        "progress of a run that ended": (Path("checkpoint/finished/progress.json"), read_state("checkpoint", 2)),
        "MindIR": (Path("export/dlrm.mindir"), read_export),
        "table file": (Path("export/dlrm.tables"), read_export),
        "description of an export": (Path("export/dlrm.model"), read_export),
        "manifest of an export": (Path("export/manifest.json"), read_export),
        "vocabulary of an export": (Path("export/vocabulary.npz"), read_export),
        "labels": (Path("preprocess_Result/labels/000000.bin"), read_rows),
        "lines": (Path("preprocess_Result/lines/000000.bin"), read_rows),
        "index": (Path("preprocess_Result/index"), read_rows),
    }
    if program:
        found |= {
            "dense": (Path("preprocess_Result/dense/000000.bin"), None),
            "ids": (Path("preprocess_Result/ids/000000.bin"), None),
            "index, in C++": (Path("preprocess_Result/index"), None),
            "MindIR, in C++": (Path("export/dlrm.mindir"), None),
            "table file, in C++": (Path("export/dlrm.tables"), None),
            "description of an export, in C++": (Path("export/dlrm.model"), None),
            "scores": (Path("result_Files/000000.bin"), read_rows),
            "index of scores": (Path("result_Files/index"), read_rows),
        }
    return found


def damages(data: bytes, flips: int, cuts: int, seed: int) -> list[tuple[str, bytes]]:
    """Copies of a file with a bit flipped or the end cut off, and what was done."""
    rng = np.random.default_rng(seed)
    found = []
    for place, bit in zip(rng.integers(0, len(data), flips).tolist(), rng.integers(0, 8, flips).tolist()):
        changed = bytes([data[place] ^ 1 << bit])
        found.append((f"bit {bit} of byte {place}", data[:place] + changed + data[place + 1 :]))
    sizes = rng.integers(0, len(data), cuts).tolist()
    return found + [(f"cut to {size} bytes", data[:size]) for size in sizes]


def digest(value: Any) -> str:
    """What tells one result from another."""
    return hashlib.sha256(repr(value).encode()).hexdigest()


def verdict_of(read: Reader, whole: str, what: str) -> str:
    """What became of a damaged file: refused, alike, or a fault, which one, and what the damage was."""
    from src.base.errors import InputError

    try:
        return "alike" if digest(read()) == whole else f"FAULT: it was accepted, with other values ({what})"
    except InputError:
        return "refused"
    except OSError as error:
        return "refused" if error.filename else f"FAULT: no file is named: {error!r} ({what})"
    except BaseException as error:
        return f"FAULT: {error!r} ({what})"


def main(argv: Sequence[str]) -> int:
    """Damage the files, and print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--only", default="")
    parser.add_argument("--program", default=str(PROGRAM), help="the C++ program; empty for none")
    given = parser.parse_args(argv)
    program = Path(given.program).resolve() if given.program else None
    if program == PROGRAM and not PROGRAM.is_file():
        subprocess.run(["bash", str(ROOT / "ascend310_infer/build.sh"), "--cpu"], check=True)
    before, total = Path.cwd(), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="damaged_files") as folder:
        os.chdir(folder)
        try:
            scored = make(program)
            chosen = {kind: own for kind, own in kinds(program).items() if given.only in kind}
            for number, (kind, (path, read)) in enumerate(chosen.items()):
                how = given.flips, given.cuts, number
                verdicts = (
                    damage(path, read, *how) if read or not program else damage_copies(path, program, scored, *how)
                )
                total.update(verdict.split(":")[0] for verdict in verdicts)
                shown = Counter(verdict[:150] for verdict in verdicts)
                print(f"{kind}: " + ", ".join(f"{count} {verdict}" for verdict, count in shown.items()), flush=True)
        finally:
            os.chdir(before)
    counts = f"refused={total['refused']} alike={total['alike']} faults={total['FAULT']}"
    print(f"files={len(chosen)} damages={total.total()} {counts}")
    return 1 if total["FAULT"] else 0


def damage(path: Path, read: Reader, flips: int, cuts: int, seed: int) -> list[str]:
    """The verdict of each damage to a file, which is whole again afterwards."""
    data, whole = path.read_bytes(), digest(read())
    verdicts = []
    try:
        for what, damaged in damages(data, flips, cuts, seed):
            path.unlink()  # it may be a link to another file
            path.write_bytes(damaged)
            verdicts.append(verdict_of(read, whole, what))
    finally:
        path.unlink()
        path.write_bytes(data)
    return verdicts


def damage_copies(path: Path, program: Path, whole: str, flips: int, cuts: int, seed: int) -> list[str]:
    """The same of a file that the C++ program reads, in copies: it takes 0.3 s to start, and several run at once.

    Args:
        path, flips, cuts, seed: as of `damage`.
        program: it.
        whole: what tells its scores of whole files.
    """
    data = path.read_bytes()

    def verdict(damaged: tuple[str, bytes]) -> str:
        what, content = damaged
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            place = Path(folder)
            for name in _READ_BY_CPP:
                shutil.copytree(name, place / name, copy_function=os.link)
            (place / path).unlink()
            (place / path).write_bytes(content)
            return verdict_of(lambda: score(program, place), whole, what)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(verdict, damages(data, flips, cuts, seed)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
