"""A published model: by other programs' readers, by Scorer and create_network, its card, and what it does not tell."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pandas as pd
import pytest
from conftest import CPU, ROOT, raw_lines
from mindspore import Tensor
from networks import loaded
from runs import rows_of
from safetensors.numpy import load_file

import eval as eval_program
import export
from mindspore_hub_conf import create_network
from src.base.errors import InputError
from src.checkpoints.evaluated import evaluations_of
from src.checkpoints.names import EVALUATIONS
from src.data.encoder import Encoder, load_encoder
from src.data.hidden import HiddenVocabulary
from src.data.manifest import Manifest, find
from src.data.parts import Negatives
from src.data.vocabulary import HashedVocabulary
from src.dataset import batches_of
from src.network.options import NetworkSpec
from src.publishing.card import _METRICS, Facts, _data, _evaluation, _kept
from src.publishing.tensor_file import TensorFile, write_tensors
from src.rows.columns import Example
from src.rows.keys import text_of
from src.rows.raw_rows import block_of_frame
from src.scorer import Scorer

NEW = ["\t".join(line.split("\t")[1:]) for line in raw_lines(100, seed=5)]  # rows without a label
NEW.append("\t".join([*NEW[0].split("\t")[:38], "a value that nobody has seen"]))


@pytest.fixture(scope="module")
def published(run_folder, tiny_data, made_once):
    """model/, published of a checkpoint that was evaluated, and private/ with hashed categories, of one checkpoint."""

    def make(folder: Path) -> None:
        others = shutil.ignore_patterns(EVALUATIONS)  # of other tests, which may come first
        shutil.copytree(run_folder / "checkpoint", folder / "checkpoint", ignore=others)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            eval_program.main([f"--dataset_path={tiny_data.path}", "--checkpoint_path=checkpoint", CPU])
            export.main(["--checkpoint_path=checkpoint", "--publish=model"])
            export.main(["--checkpoint_path=checkpoint", "--publish=private", "--hash_vocabulary=True"])

    return made_once("published", make)


def test_scores_elsewhere_are_those_of_the_export(published, exports, tmp_path):
    """In another process, with nothing of the training at hand, by the card's lines; and safetensors' own reader."""
    shutil.copytree(published / "model", tmp_path / "model")
    (tmp_path / "new_rows.txt").write_text("".join(line + "\n" for line in NEW))
    code = re.search(r"```python\n(.*?)```", (tmp_path / "model/README.md").read_text(), re.S)[1]
    assert len(code.splitlines()) <= 10
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code.replace("print(", "scores = (")
    script += "\nimport numpy; numpy.save('scores.npy', scores); print(network.tables.table.shape)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(2062, 8)"
    expected = Scorer(exports["fp32"]).score_lines(NEW)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-6)
    assert np.std(expected) > 0.1
    values = load_file(tmp_path / "model/model.safetensors")
    parameters = ms.load_checkpoint(str(published / "checkpoint/dlrm.ckpt"))
    assert set(values) == set(parameters)
    assert all(np.array_equal(values[name], parameters[name].asnumpy()) for name in values)
    assert set(ms.load_checkpoint(str(tmp_path / "model/model.safetensors"), format="safetensors")) == set(values)


def test_the_network_is_the_checkpoints(published, tiny_data):
    dense, ids, _ = next(iter(batches_of(tiny_data, "test", 50)))[:3]
    dense, ids = Tensor(np.asarray(dense, np.float32)), Tensor(np.asarray(ids, np.int32))
    expected = loaded(published / "checkpoint/dlrm.ckpt", tiny_data)(dense, ids).asnumpy()
    for name in ("model", "private"):  # ids need no key
        found = create_network("dlrm", checkpoint_path=str(published / name))(dense, ids).asnumpy()
        assert np.array_equal(found, expected)


def test_the_cards_numbers_are_those_of_eval(published):
    """Read by huggingface_hub, which takes the header; all digits there, four in the table."""
    hub = pytest.importorskip("huggingface_hub")
    (row,) = (one for one in rows_of(published / "metrics.jsonl", "eval") if one.get("part") == "test")
    found = hub.ModelCard.load(published / "model/README.md")
    results = [one for one in found.data.eval_results if one.dataset_split == "test"]
    values = {one.metric_type: one.metric_value for one in results}
    assert values == {kind: row[name] for name, (kind, _) in _METRICS.items()}
    (area,) = (one for one in results if one.metric_type == "roc_auc")
    assert (area.metric_args["low"], area.metric_args["high"]) == (row["auc_low"], row["auc_high"])
    assert area.dataset_name == "lines 1859 to 2000 of train.txt"
    assert (found.data.library_name, found.data.license) == ("mindspore", "unknown")
    (line,) = (one for one in found.text.splitlines() if one.startswith("| 142 test rows"))
    for cell in (f"{row['auc']:.4f} ({row['auc_low']:.4f} to {row['auc_high']:.4f})", f"{row['ece']:.4f}"):
        assert f"| {cell} |" in line
    validation = {one.dataset_split for one in found.data.eval_results}
    assert validation == {"test", "validation"}
    assert hub.metadata_load(published / "model/README.md")["model-index"][0]["name"] == "model"
    page = (published / "model/report.html").read_text()
    assert f"{row['auc']:.4f}" in page


def test_evaluations_are_of_this_checkpoint_alone(published, tmp_path):
    shutil.copytree(published / "checkpoint", tmp_path / "checkpoint")
    path = tmp_path / "checkpoint/dlrm.ckpt"
    (one,) = evaluations_of(path)
    assert (one["part"], one["rows"]) == ("test", 142)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # another checksum: another network
    path.write_bytes(data)
    assert evaluations_of(path) == []
    kept = tmp_path / "checkpoint/evaluations.json"
    kept.write_text(kept.read_text().replace("142", "143"))
    with pytest.raises(
        InputError, match=r"evaluations.json is damaged .*: remove it, and evaluate the checkpoint again"
    ):
        evaluations_of(published.parent / tmp_path / "checkpoint/dlrm.ckpt")


def test_hashed_categories_get_the_same_ids_by_the_key_alone(published, tmp_path):
    plain, private = Scorer(published / "model"), Scorer(published / "private")
    np.testing.assert_array_equal(private.score_lines(NEW), plain.score_lines(NEW))
    with pytest.warns(UserWarning, match="values that training did not have"):
        private.score_lines(["\t".join([*line.split("\t")[:13], *[f"o{row}"] * 26]) for row, line in enumerate(NEW)])
    shutil.copytree(published / "private", tmp_path / "private")
    with pytest.raises(InputError, match=r"private.key is not there: this model's categories are keyed hashes"):
        Scorer(tmp_path / "private")
    key = published / "private.key"
    np.testing.assert_array_equal(Scorer(tmp_path / "private", key_path=key).score_lines(NEW), plain.score_lines(NEW))
    (tmp_path / "private.key").write_text("0" * 32)
    with pytest.raises(InputError, match="holds keyed hashes of its categories, and the key is another one"):
        Scorer(tmp_path / "private")
    assert key.stat().st_mode & 0o077 == 0


def test_hashed_categories_are_in_no_file(published, tiny_data):
    """Neither as text nor as the keys that guesses give; without hashing they are, so the search finds them."""
    names = tiny_data.manifest.dense
    known = load_encoder(tiny_data.path / "vocabulary.npz", names)
    keys = [int(key) for key in known.vocabulary.keys_of(2)]
    texts = [text.encode() for key in keys if (text := text_of(key))]
    assert len(texts) > 500
    for name, expected in (("model", True), ("private", False)):
        content = b"".join(path.read_bytes() for path in (published / name).iterdir())
        assert any(text in content for text in texts) is expected
    secret = (published / "private.key").read_text().strip()
    hidden = load_encoder(published / "private/vocabulary.npz", names, secret).vocabulary
    assert isinstance(hidden, HiddenVocabulary)
    assert not set(keys) & {int(key) for key in hidden.keys_of(2)}
    assert secret.encode() not in content
    # By the checksum of what is not published, who knows all values but one sees whether a guess of that one is right.
    for name in ("vocabulary.npz", "dlrm.ckpt"):
        assert hashlib.sha256((published / "checkpoint" / name).read_bytes()).hexdigest().encode() not in content
    assert hashlib.sha256((published / "private/vocabulary.npz").read_bytes()).hexdigest() in (
        published / "private/README.md").read_text()  # fmt: skip
    rng = np.random.default_rng(1)
    some = np.array([np.append(rng.choice(known.vocabulary.keys_of(field), 3), 7) for field in range(26)], np.uint64)
    np.testing.assert_array_equal(hidden.encode(some), known.vocabulary.encode(some))


def test_a_hashed_encoder_refuses_the_frames_that_the_plain_one_does(published):
    """Where a column had text such as 00054, or NULL, pandas' defaults make other values of them, with other scores."""
    names = Manifest.load(published / "model/manifest.json").dense
    known = load_encoder(published / "checkpoint/vocabulary.npz", names)
    odd = [Example(("00054",), "00054", "NULL"), *[Example(("7",))] * 25]
    encoder = Encoder(names, known.vocabulary, known.learned, odd).hidden("0" * 32)
    columns = Manifest.load(published / "model/manifest.json").columns()
    numbers = dict.fromkeys(columns.categorical, [7]) | dict.fromkeys(names, [1.0])
    for value, message in ((54, "a number, and training had text such as"), (None, "which pandas takes for a missing")):
        frame = pd.DataFrame(numbers | {columns.categorical[0]: pd.Series([value], dtype=object)})
        with pytest.raises(InputError, match=f"{message}.*") as told:
            block_of_frame(frame, columns, encoder.examples)
        assert "00054" not in str(told.value)
        assert "NULL" not in str(told.value)
    frame = pd.DataFrame(numbers | {columns.categorical[0]: ["x"]})
    assert block_of_frame(frame, columns, encoder.examples).keys.shape == (26, 1)
    lines = list(_kept(facts_of(published, encoder)))
    assert not any("values as text" in line for line in lines)
    assert "of each categorical column, whether it has text that is no whole number, or is a word such as NULL" in lines


def facts_of(published, encoder, **changed):
    manifest = replace(Manifest.load(published / "model/manifest.json"), **changed)
    return Facts(manifest, NetworkSpec(), 0.0, encoder, False, {}, (), "model")


def test_the_card_of_hashed_rows_counts_the_examples_that_are_there(published):
    encoder = Encoder(("I1",), HashedVocabulary(("C1",), 4), examples=[Example(("a", "b"), "a")])
    plain, hidden = (list(_kept(facts_of(published, one))) for one in (encoder, encoder.hidden("")))
    assert plain[1] == hidden[1] == "no list of categories: ids are hashes of them"
    assert plain[2].startswith("2 category values as text")
    assert not any("values as text" in line for line in hidden)


def test_the_card_tells_the_share_of_clicks_before_rows_were_sampled(published):
    found = _data(facts_of(published, None, negatives=Negatives(1000, 250, 0.25)))
    mean = Manifest.load(published / "model/manifest.json").parts["train"].label_mean
    assert f"of all, {100 * mean / (mean + 4 * (1 - mean)):.2f} % are clicks" in found


def test_the_card_tells_that_figures_of_sampled_training_rows_are_of_these(published):
    found = evaluations_of(published / "checkpoint/dlrm.ckpt")
    train = replace(facts_of(published, None), evaluations=[found[0] | {"part": "train"}])
    sampled = replace(train, manifest=replace(train.manifest, negatives=Negatives(1000, 250, 0.25)))
    told = "Of training rows without a click only some are there"
    cards = [_evaluation(one) for one in (train, sampled, replace(sampled, evaluations=found))]
    assert [told in card for card in cards] == [False, True, False]


def test_nothing_else_of_the_rows_is_published(published, tiny_data):
    """No rows' file, no place on this machine; of the manifest what scoring needs."""
    folder = published / "model"
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "config.json", "model.safetensors", "vocabulary.npz", "manifest.json", "report.html"}  # fmt: skip
    for path in folder.iterdir():
        assert str(tiny_data.path).encode() not in path.read_bytes(), path
    manifest = Manifest.load(folder / "manifest.json")
    assert [file.name for file in manifest.files] == ["vocabulary.npz"]
    assert (manifest.source.keys(), manifest.options) == ({"columns"}, {"split": ""})
    with pytest.raises(InputError, match="is a published model, which has no rows: name the data folder"):
        find(str(folder)).shards("test")


def test_a_hashed_model_does_not_tell_by_which_values_rows_were_split(published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(published / "checkpoint", tmp_path / "checkpoint")
    manifest = Manifest.load(tmp_path / "checkpoint/manifest.json")
    split = "C1=secret town,b/c"
    replace(manifest, options=dict(manifest.options) | {"split": split}).save(tmp_path / "checkpoint")
    report = json.loads((tmp_path / "checkpoint/report.json").read_text())
    report["data"]["preprocessing"]["split"] = split
    (tmp_path / "checkpoint/report.json").write_text(json.dumps(report))
    export.main(["--checkpoint_path=checkpoint", "--publish=plain"])
    export.main(["--checkpoint_path=checkpoint", "--publish=hidden", "--hash_vocabulary=True"])
    told = {name for name in ("README.md", "manifest.json", "report.html")
            if "secret town" in (tmp_path / "plain" / name).read_text()}  # fmt: skip
    assert told == {"README.md", "manifest.json", "report.html"}
    assert not any(b"secret town" in path.read_bytes() for path in (tmp_path / "hidden").iterdir())
    assert "Split: by column C1." in (tmp_path / "hidden/README.md").read_text()


def test_publishing_again_needs_overwrite_and_keeps_the_key(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(published / "checkpoint", tmp_path / "checkpoint")
    (tmp_path / "checkpoint/evaluations.json").unlink()
    again = ["--checkpoint_path=checkpoint", "--publish=model", "--hash_vocabulary=True"]
    export.main(again)
    assert "the card tells of no test rows: run eval.py, then publish again" in capsys.readouterr().out
    assert "142 test rows" not in (tmp_path / "model/README.md").read_text()
    with pytest.raises(InputError, match="publish model already holds an earlier result"):
        export.main(again)
    key, first = (tmp_path / "model.key").read_text(), (tmp_path / "model/vocabulary.npz").read_bytes()
    export.main([*again, "--overwrite=True"])
    assert (tmp_path / "model.key").read_text() == key
    assert (tmp_path / "model/vocabulary.npz").read_bytes() == first
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine").touch()
    with pytest.raises(InputError, match="publish other holds something else than an earlier result"):
        export.main(["--checkpoint_path=checkpoint", "--publish=other", "--overwrite=True"])


@pytest.mark.parametrize(("name", "message"), [
    ("model.safetensors", "model.safetensors is missing or damaged"),
    ("vocabulary.npz", "vocabulary.npz is missing or damaged"),
    ("manifest.json", "manifest.json is missing or damaged"),
    ("config.json", "config.json is damaged"),
])  # fmt: skip
def test_damaged_files_are_refused(published, tmp_path, name, message):
    shutil.copytree(published / "model", tmp_path / "model", copy_function=shutil.copyfile)
    path = tmp_path / "model" / name
    data = bytearray(path.read_bytes())
    place = data.index(b"16") if name == "config.json" else len(data) // 2
    data[place] = ord("3") if name == "config.json" else data[place] ^ 1
    path.write_bytes(data)
    for load in (Scorer, lambda folder: create_network("dlrm", checkpoint_path=str(folder))):
        with pytest.raises(InputError, match=message):
            load(tmp_path / "model")


def test_card_and_page_may_be_changed(published, tmp_path):
    shutil.copytree(published / "model", tmp_path / "model", copy_function=shutil.copyfile)
    text = (tmp_path / "model/README.md").read_text()
    (tmp_path / "model/README.md").write_text(text.replace("license: unknown", "license: apache-2.0"))
    (tmp_path / "model/report.html").unlink()
    assert len(Scorer(tmp_path / "model").score_lines(NEW[:3])) == 3


@pytest.mark.parametrize(("argv", "message"), [
    (["--hash_vocabulary=True"], "hash_vocabulary True has no effect without publish: name a folder by --publish"),
    (["--publish=x", "--file_format=ONNX"], "file_format ONNX has no effect with publish"),
    (["--publish=x", "--calibrate=True"], "calibrate True has no effect with publish"),
    (["--publish=/"], "publish / has no name: name a folder in it"),
])  # fmt: skip
def test_options_without_effect_are_refused(argv, message):
    with pytest.raises(InputError, match=message):
        export.main(argv)


def test_a_file_of_tensors(tmp_path):
    """In pieces of any size, as the format's own library reads them; what is cut or of other types is refused."""
    path = tmp_path / "x.safetensors"
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(4, 3) + 6
    write_tensors(path, {"a": (2, 3), "b": (4, 3), "none": (0, 3)}, [first, second[:1], second[1:]])
    found = load_file(path)
    assert np.array_equal(found["a"], first)
    assert np.array_equal(found["b"], second)
    file = TensorFile(path)
    assert np.array_equal(file.value("b"), second)
    assert np.array_equal(file.rows(["a", "b"], 3), np.concatenate([first, second]))
    with pytest.raises(InputError, match="x.safetensors holds no c"):
        file.value("c")
    with pytest.raises(InputError, match="does not hold its tables one behind the other"):
        file.rows(["b", "a"], 3)
    with pytest.raises(InputError, match="the network holds nan or infinity"):
        write_tensors(tmp_path / "y", {"a": (1,)}, [np.array([np.nan], np.float32)])
    assert not (tmp_path / "y").exists()
    data = path.read_bytes()
    for wrong in (data[:-1], data[:20], data.replace(b"F32", b"I32"), b"\xff" * 40):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match="is no whole file of float32 safetensors"):
            TensorFile(path)
    assert json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"] == {"format": "mindspore"}
