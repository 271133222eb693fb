"""The seed of the keys of long texts: learned with the vocabulary, and used by all who read rows for it."""

import numpy as np
import pytest
from conftest import write_raw

from src.data.encoder import Encoder, load_encoder
from src.data.manifest import VOCABULARY, Manifest
from src.data.parts import File
from src.data.vocabulary import Vocabulary
from src.dataset import batches_of
from src.preprocess_data import report
from src.preprocessing import run
from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.run import preprocess
from src.rows.columns import Columns
from src.rows.keys import is_seed, keys_of
from src.rows.lines import parse

COLUMNS = Columns.numbered(1, 1)
MADE_TO_MEET = ["00000001zzzzzzzz", "00000888dvb@dNvc"]  # share a key where there is no seed
TEXTS = [*MADE_TO_MEET, "short", "a text of more than eight bytes"] * 8


def made(folder, texts, columns=COLUMNS, name="raw.txt", number="5", **options):
    raw = write_raw(
        folder / name, [columns.separator.join([str(row % 2), number, text]) for row, text in enumerate(texts)]
    )
    return preprocess([raw], folder / name.replace(".", "-"), columns, PreprocessingSpec(**options))


def encoder_of(data):
    return load_encoder(data.path / VOCABULARY, data.manifest.dense)


def ids_of(data):
    return np.concatenate([ids for part in data.manifest.parts for _, ids, _ in batches_of(data, part, 64)])[:, 0]


@pytest.mark.parametrize("options", [{}, {"hash_rows": 1000}, {"shuffle_rows": True}])
def test_texts_that_were_made_to_share_a_key_are_two_categories(tmp_path, options):
    data = made(tmp_path, TEXTS, **options)
    assert np.bincount(ids_of(data))[1:].tolist().count(8) == 4


@pytest.mark.parametrize("options", [{}, {"record_rows": 1, "shard_rows": 1}])
def test_texts_that_share_a_key_are_counted_and_told(tmp_path, monkeypatch, options):
    """Without a seed some can be made, in the same piece of the work or in another; with one none is known."""
    data = made(tmp_path, TEXTS, **options)
    assert data.manifest.shared_keys == {"C1": 0}
    assert "hashed: in 1 fields; no two of training share a key" in report(data)
    monkeypatch.setattr(run, "key_seed_of", lambda _: "")
    data = made(tmp_path, TEXTS, name="unseeded.txt", **options)
    assert data.manifest.shared_keys == {"C1": 1}
    assert "hashed: in 1 fields; keys of several values, which get one id: C1 1" in report(data)
    short = made(tmp_path, ["short", "words"] * 8, name="short.txt", **options)
    assert (
        short.manifest.shared_keys == made(tmp_path, TEXTS, name="hashed.txt", hash_rows=9).manifest.shared_keys == {}
    )
    assert "hashed" not in report(short)


def test_the_seed_is_that_of_the_training_rows_in_any_form(tmp_path):
    data = made(tmp_path, TEXTS)
    seed = encoder_of(data).vocabulary.key_seed
    assert is_seed(seed)
    commas = Columns(("I1",), ("C1",), separator=",")
    assert encoder_of(made(tmp_path, TEXTS, commas, "commas.txt", seed=5)).vocabulary.key_seed == seed
    later = made(tmp_path, [*TEXTS[:-1], "another last row"], name="later.txt")
    assert encoder_of(later).vocabulary.key_seed == seed
    assert encoder_of(made(tmp_path, ["first", *TEXTS[1:]], name="other.txt")).vocabulary.key_seed != seed
    assert encoder_of(made(tmp_path, TEXTS, name="numbers.txt", number="6")).vocabulary.key_seed != seed


def test_new_rows_are_read_with_the_seed_of_the_known_vocabulary(tmp_path):
    data = made(tmp_path, TEXTS)
    new = made(tmp_path, [*TEXTS[::-1], "one more long text"], name="new.txt", vocab_path=str(data.path))
    expected = dict(zip(TEXTS, ids_of(data).tolist()))
    assert ids_of(new).tolist() == [*(expected[text] for text in TEXTS[::-1]), 0]


def test_rows_for_a_vocabulary_without_a_seed_are_read_as_they_were(tmp_path):
    keys = keys_of(list(dict.fromkeys(TEXTS))[1:])
    Encoder(("I1",), Vocabulary(["C1"], [keys])).save(tmp_path / VOCABULARY)
    Manifest(("I1",), ("C1",), (4,), {}, (File.of(tmp_path, tmp_path / VOCABULARY),), 0, {}, {}).save(tmp_path)
    new = made(tmp_path, TEXTS, vocab_path=str(tmp_path))
    assert ids_of(new).tolist() == [1, 1, 2, 3] * 8
    assert encoder_of(new).vocabulary.key_seed == ""


def test_rows_that_were_read_with_another_seed_are_not_coded(tmp_path):
    encoder = encoder_of(made(tmp_path, TEXTS))
    with pytest.raises(AssertionError, match="rows must be read with the columns that `keyed` gives"):
        encoder.encode(parse(b"1\t5\tshort\n", COLUMNS))
    dense, ids = encoder.encode(parse(b"1\t5\tshort\n", encoder.keyed(COLUMNS)))
    assert (dense.shape, ids.shape) == ((1, 1), (1, 1))
