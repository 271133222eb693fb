"""Data folders, checkpoints, stopped runs and exports that commit 4353fc0 made give what they gave there.

`fixtures/made_by_4353fc0/make.py` says how they were made. Where that was done, all results are equal to the bit, but
for logits, which are had from float32 probabilities here (3e-6). The tolerances are for other CPUs, which may round
sums and logarithms otherwise: MindSpore's own operators in place of the compiled ones make a difference of 4e-7.
"""

import json
import re
import shutil
import tarfile
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from conftest import CPU, ORIGINAL
from mindspore.mindrecord import FileReader

import eval as eval_program
import export as export_program
import postprocess as postprocess_program
import preprocess as preprocess_program
import train as train_program
from src import preprocess_data as preprocess_data_program
from src.base.errors import InputError
from src.data.encoder import load_encoder
from src.data.vocabulary import HashedVocabulary
from src.report import __main__ as report_program
from src.scorer import Scorer

HERE = Path(__file__).parent / "fixtures/made_by_4353fc0"
EXPECTED = json.loads((HERE / "expected.json").read_text())
DATA, CHECKPOINTS, STOPPED, EXPORTS = (EXPECTED[name] for name in ("data", "checkpoints", "stopped", "exports"))
EXPORT_OF = {facts["data"]: name for name, facts in EXPORTS.items()}
KINDS = {"dense": "<f4", "ids": "<i4", "labels": "u1"}
ROUNDING = 1e-5  # of a logit, weight, loss or other metric


@pytest.fixture(scope="module")
def arrays():
    with np.load(HERE / "expected.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """Do not change its files."""
    folder = tmp_path_factory.mktemp("old")
    for path in HERE.glob("*.tar.xz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def here(unpacked, tmp_path, monkeypatch):
    """A working folder where the old files stand at the paths that the old commands named."""
    for folder in unpacked.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_close(found, expected, tolerance=ROUNDING, name=""):
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=name)


def own(folder):
    """Put a copy in the place of old files that a program is to change."""
    source = Path(folder).resolve()
    Path(folder).unlink()
    shutil.copytree(source, folder)


def rows_of(kind, path="metrics.jsonl"):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [row for row in rows if row["kind"] == kind]


def check_metrics(found, expected):
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=0, abs=ROUNDING)


def lines_of(data):
    return Path(f"raw/{DATA[data]['raw']}_new.txt").read_text().splitlines()


def logits_of(scores):
    scores = scores.astype(np.float64)
    return np.log(scores) - np.log1p(-scores)


def check_coded(argv, export, expected, arrays):
    """preprocess.py gives these inputs, ids and labels."""
    preprocess_program.main([*argv, f"--export_path={export}", "--preprocess_path=coded", "--overwrite=True"])
    for name, kind in KINDS.items():
        wanted = arrays[f"{expected}/{name}"]
        found = np.fromfile(f"coded/{name}/000000.bin", kind).reshape(wanted.shape)
        assert_close(found, wanted, 1e-6 if name == "dense" else 0)


@pytest.mark.parametrize("data", DATA)
def test_old_data_folder_and_new_rows_for_it_are_coded_as_before(here, arrays, data):
    facts, export = DATA[data], f"exports/{EXPORT_OF[data]}"
    check_coded([f"--dataset_path=data/{data}"], export, f"data/{data}", arrays)
    schema = [option for option in facts["new"] if option.startswith("--schema")]
    check_coded([f"--dataset_path=raw/{facts['raw']}_new.txt", *schema], export, f"new/{data}", arrays)
    preprocess_data_program.main(facts["new"])
    files = {
        file["name"]: file["sha256"] for file in json.loads(Path(f"new/{data}/manifest.json").read_text())["files"]
    }
    assert files["vocabulary.npz"] == facts["vocabulary"]
    check_coded([f"--dataset_path=new/{data}"], export, f"new/{data}", arrays)


def records_of(folder, part):
    """Dense values, and ids and labels as bytes, of a part's records, which hold them in this order."""
    for shard, rows in zip(part["shards"], part["shard_rows"], strict=True):
        reader = FileReader(str(folder / shard))
        records = [record["rows"] for record in reader.get_next()]
        reader.close()
        row_bytes = sum(map(len, records)) // rows
        for record in records:
            yield record, len(record) // row_bytes


@pytest.mark.parametrize("data", DATA)
def test_preprocessing_writes_the_old_data_folder(here, data):
    """The same rows in the same records; logarithms, and what is learned of numbers, may be rounded otherwise."""
    old, new = Path(f"data/{data}").resolve(), Path(f"data/{data}")
    Path("data").unlink()
    preprocess_data_program.main(DATA[data]["argv"])
    found, expected = (json.loads((folder / "manifest.json").read_text()) for folder in (new, old))
    for name in ("parts", "inputs", "fields", "table_rows", "source"):
        assert found[name] == expected[name], name
    now, then = (load_encoder(folder / "vocabulary.npz", found["dense"]) for folder in (new, old))
    ours, theirs = (encoder.vocabulary.arrays() | encoder.learned.arrays() for encoder in (now, then))
    hashed = isinstance(now.vocabulary, HashedVocabulary)  # of more bits now, so ids are others
    assert [name for name in ours if name not in ("/hash_bits", "/key_seed")] == list(theirs)
    for name in theirs:
        if ours[name].dtype.kind == "f":
            assert_close(ours[name], theirs[name], 1e-6, name)
        else:
            np.testing.assert_array_equal(ours[name], theirs[name], name)
    for part in found["parts"].values():
        for (ours, rows), (theirs, _) in zip(records_of(new, part), records_of(old, part), strict=True):
            dense = 4 * rows * len(found["inputs"])
            ids = 4 * rows * len(found["fields"]) * hashed
            assert ours[dense + ids :] == theirs[dense + ids :]
            assert_close(np.frombuffer(ours[:dense], "<f4"), np.frombuffer(theirs[:dense], "<f4"), 1e-6)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_old_checkpoint_evaluates_and_exports_as_before(here, arrays, checkpoint):
    """On the old test rows, and on new ones that the new preprocessing codes by the checkpoint's vocabulary."""
    facts = CHECKPOINTS[checkpoint]
    data = facts["data"]
    new = [option for option in DATA[data]["new"] if not option.startswith("--vocab_path")]
    preprocess_data_program.main([*new, f"--vocab_path=checkpoints/{checkpoint}"])
    for folder in ("data", "new"):
        eval_program.main([CPU, f"--dataset_path={folder}/{data}", f"--checkpoint_path=checkpoints/{checkpoint}"])
    on_test, on_new = rows_of("eval")
    check_metrics(on_test, facts["test"])
    check_metrics(on_new, facts["new"])
    export_program.main(
        [CPU, f"--checkpoint_path=checkpoints/{checkpoint}", "--export_path=e", "--export_batch_size=64"]
    )
    logits = logits_of(Scorer("e").score_lines(lines_of(data), has_labels=True))
    assert_close(logits, arrays[f"checkpoints/{checkpoint}"].ravel())


def weights_of(path):
    return {name: value.asnumpy() for name, value in ms.load_checkpoint(str(path)).items()}


def check_weights(found, expected):
    assert set(found) == set(expected)
    for name, values in found.items():
        assert_close(values, expected[name], name=name)


def test_training_with_an_old_options_file_on_an_old_data_folder_gives_the_old_weights(here):
    train_program.main(["--config_path=checkpoints/dot/dlrm.yaml", "--ckpt_path=again", "--report=False"])
    check_weights(weights_of("again/dlrm.ckpt"), weights_of("checkpoints/dot/dlrm.ckpt"))


@pytest.mark.parametrize("run", ["sgd", "hybrid"])
def test_best_network_of_an_old_stopped_run_evaluates_as_it_did_there(here, run):
    progress = json.loads(Path(f"stopped/{run}/unfinished/progress.json").read_text())
    best = f"stopped/{run}/unfinished/best-{progress['best_step']}.ckpt"
    (dataset,) = (option for option in STOPPED[run]["argv"] if option.startswith("--dataset_path"))
    eval_program.main([CPU, f"{dataset}/valid", f"--checkpoint_path={best}"])
    check_metrics(rows_of("eval")[0], progress["best"])


@pytest.mark.parametrize("run", STOPPED)
def test_old_stopped_run_goes_on_and_ends_as_it_did(here, arrays, capsys, run):
    own("stopped")
    facts, folder = STOPPED[run], Path(f"stopped/{run}")
    with pytest.raises(InputError, match=r"holds a training that was stopped, with seed 1 instead of 7"):
        train_program.main(
            [ORIGINAL, *(option for option in facts["argv"] if not option.startswith("--seed=")), "--seed=7"]
        )
    train_program.main([ORIGINAL, *facts["argv"]])
    assert f"going on from step {facts['step']} of " in capsys.readouterr().out
    losses = {str(row["step"]): row["loss"] for row in rows_of("loss")}
    assert losses == pytest.approx(facts["losses"], rel=0, abs=ROUNDING)
    evaluations = {str(row["step"]): row for row in rows_of("eval")}
    assert list(evaluations) == list(facts["evaluations"])
    for step, expected in facts["evaluations"].items():
        check_metrics(evaluations[step], expected)
    (end,) = rows_of("end")
    assert {name: end.get(name) for name in facts["end"]} == facts["end"]
    weights = {name.split("/")[2]: values for name, values in arrays.items() if name.startswith(f"{folder}/")}
    check_weights(weights_of(folder / "dlrm.ckpt"), weights)
    assert not (folder / "unfinished").exists()


@pytest.mark.parametrize("export", EXPORTS)
def test_old_export_scores_raw_lines_as_before(here, arrays, export):
    scores = Scorer(f"exports/{export}").score_lines(lines_of(EXPORTS[export]["data"]), has_labels=True)
    assert_close(scores, arrays[f"exports/{export}"], 1e-6)


@pytest.mark.parametrize("export", ["fp32", "int8"])
def test_old_checkpoint_is_exported_as_before(here, arrays, export):
    facts = EXPORTS[export]
    argv = [option for option in facts["argv"] if not option.startswith("--export_path")]
    export_program.main([*argv, "--export_path=again"])
    assert Path("again/dlrm.tables").read_bytes() == Path(f"exports/{export}/dlrm.tables").read_bytes()
    scores = Scorer("again").score_lines(lines_of(facts["data"]), has_labels=True)
    assert_close(scores, arrays[f"exports/{export}"])


def test_old_rows_and_scores_of_the_c_program_are_read(here, arrays):
    postprocess_program.main(["--preprocess_path=scored/preprocess_Result", "--result_path=scored/result_Files"])
    check_metrics(rows_of("infer")[0], EXPECTED["scored"])
    assert_close(np.loadtxt("scores.csv", delimiter=",", skiprows=1), arrays["scored"], 1e-9)


def test_old_reports_are_compared_as_before(here, capsys):
    assert report_program.main(EXPECTED["compared"]["argv"]) == 1
    said, expected = capsys.readouterr().out.splitlines(), EXPECTED["compared"]["text"].splitlines()
    assert said[-1] == expected[-1]
    figures = [float(one) for one in re.findall(r"[-+]?\d+\.\d+", "\n".join(said))]  # whose places are others
    for one in re.findall(r"[-+]?\d+\.\d+", "\n".join(expected)):
        assert min(abs(float(one) - figure) for figure in figures) < 6e-5, one
