"""Raw rows from an object storage, and the data folder to one: a real server of S3's interface, on this machine."""

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import raw_lines, write_raw

from src.base.errors import InputError
from src.data.manifest import find
from src.model_utils import copying, object_storage, staging
from src.model_utils.copying import CHECKSUMS
from src.model_utils.moxing_adapter import ModelArtsSpec, job
from src.model_utils.object_storage import store_of
from src.preprocess_data import main
from src.preprocessing.learning import load_known
from src.rows.columns import Columns

if not all(map(find_spec, ("s3fs", "moto", "flask"))):  # imported late: half a second and 60 MB in each process
    pytest.skip("pip install -r tests/requirements.txt", allow_module_level=True)
SMALL = ["--shard_rows=64", "--record_rows=64"]


@pytest.fixture(scope="module")
def server():
    """Its address."""
    import logging

    from moto.moto_server import threaded_moto_server as threaded

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = threaded.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(server, here, monkeypatch):
    """An url of an empty bucket, by fsspec's configuration as users give it."""
    import fsspec

    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server, "key": "any", "secret": "any"})
    monkeypatch.setattr(copying, "WAIT_S", 0.0)
    files, name = fsspec.filesystem("s3"), f"b{os.urandom(8).hex()}"
    files.mkdir(name)
    return f"s3://{name}"


def put(url, content):
    import fsspec

    with fsspec.open(url, "wb") as file:
        file.write(content)


def text_of(lines):
    return "".join(line + "\n" for line in lines).encode()


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_rows_come_from_there_and_the_data_folder_goes_there(bucket, here, capsys):
    """Its files are those of a run on this machine alone, and it can be copied back."""
    lines = raw_lines(300)
    put(f"{bucket}/logs/day_2.txt", text_of(lines[:100]))
    put(f"{bucket}/logs/day_10.txt", text_of(lines[100:]))
    put(f"{bucket}/logs/other.csv", b"no rows")
    main([f"--data_path={bucket}/logs/day_*.txt", f"--output_path={bucket}/made", *SMALL])
    told = capsys.readouterr().out
    assert f"copied {bucket}/logs to data/stage/" in told
    assert f"to {bucket}/made: " in told.splitlines()[-1]
    write_raw(here / "logs/day_2.txt", lines[:100])
    write_raw(here / "logs/day_10.txt", lines[100:])
    main(["--data_path=logs/day_*.txt", "--output_path=local", *SMALL])
    copying.main([f"{bucket}/made", "back"])
    found = contents(here / "back")
    assert CHECKSUMS in found
    del found[CHECKSUMS]
    assert found == contents(here / "local")
    assert find("back").manifest.source["names"] == ["day_2.txt", "day_10.txt"]
    with pytest.raises(InputError, match=r"^output s3://\S+/made already holds preprocessed data: name another --out"):
        main([f"--data_path={bucket}/logs/day_*.txt", f"--output_path={bucket}/made", *SMALL])
    with pytest.raises(InputError, match=r"^back is there: name a new place, or move it away"):
        copying.main([f"{bucket}/made", "back"])
    main(["--data_path=logs/day_2.txt", f"--output_path={bucket}/made", "--overwrite=True", *SMALL])
    copying.main([f"{bucket}/made/", "again"])
    assert find("again").manifest.source["lines"] == 100


def test_a_copy_is_made_anew_where_the_file_has_changed(bucket, here, capsys):
    """Also to one of the same size; and is taken where it has not."""
    url = f"{bucket}/train.txt"
    put(url, text_of(raw_lines(60)))
    main([f"--data_path={url}", "--output_path=one", *SMALL])
    main([f"--data_path={url}", "--output_path=two", *SMALL])
    assert capsys.readouterr().out.count(f"copied {url} to ") == 1
    text = text_of(raw_lines(60))
    put(url, text[:-2] + b"z\n")
    main([f"--data_path={url}", "--output_path=three", *SMALL])
    assert capsys.readouterr().out.count(f"copied {url} to ") == 1
    assert find("one").manifest == find("two").manifest != find("three").manifest


def test_two_patterns_of_one_folder_have_a_copy_each(bucket, here):
    lines = raw_lines(120)
    for name, some in (("day_1.txt", lines[:60]), ("day_2.txt", lines[60:90]), ("later_1.txt", lines[90:])):
        put(f"{bucket}/logs/{name}", text_of(some))
    main(
        [
            f"--data_path={bucket}/logs/day_*.txt",
            f"--valid_path={bucket}/logs/later_*.txt",
            "--output_path=made",
            *SMALL,
        ]
    )
    assert {name: part.rows for name, part in find("made").manifest.parts.items()} == {"train": 90, "valid": 30}
    main([f"--data_path={bucket}/logs/day_2*,{bucket}/logs/later_*.txt", "--output_path=two", *SMALL])
    assert find("two").manifest.source["names"] == ["day_2.txt", "later_1.txt"]


@pytest.mark.parametrize("kind", ["replaced", "more"])
def test_files_that_change_while_they_are_copied_are_refused(bucket, here, monkeypatch, kind):
    """One that is replaced by another of its size, or comes beside it; once they stay, they are copied."""
    url, lines = f"{bucket}/logs", raw_lines(60)
    put(f"{url}/a.txt", text_of(lines))
    place = Path("data/stage", hashlib.sha256(url.encode()).hexdigest()[:16], "logs")
    copied = staging.fetch

    def fetch(*args):
        if kind == "more":
            put(f"{url}/b.txt", text_of(lines))
        copied(*args)
        if kind == "replaced":
            put(f"{url}/a.txt", text_of(lines)[:-2] + b"z\n")

    monkeypatch.setattr(staging, "fetch", fetch)
    with pytest.raises(InputError, match=r"logs changed while it was copied: begin again when nobody writes there"):
        staging.staged(url, Path("data/stage"))
    monkeypatch.setattr(staging, "fetch", copied)
    assert staging.staged(url, Path("data/stage")) == str(place)
    assert sorted(path.name for path in place.iterdir()) == ["a.txt", "b.txt"][: 1 + (kind == "more")]
    assert (place / "a.txt").read_bytes().endswith(b"z\n" if kind == "replaced" else text_of([lines[-1]]))


def test_a_run_that_was_stopped_while_it_sent_its_folder_is_done_again(bucket, here, monkeypatch):
    """The manifest is there, and the files that it names may not be; what was whole is refused as ever."""
    write_raw(here / "train.txt", raw_lines(60))
    command, sent = ["--data_path=train.txt", f"--output_path={bucket}/made", *SMALL], copying._send_files

    def stop(store, path, source, url, checksums):
        sent(store, path, source, url, {name: one for name, one in checksums.items() if "train/" not in name})
        if "manifest.json" in checksums:
            raise KeyboardInterrupt

    monkeypatch.setattr(copying, "_send_files", stop)
    with pytest.raises(KeyboardInterrupt):
        main(command)
    monkeypatch.setattr(copying, "_send_files", sent)
    assert store_of(bucket).exists(f"{bucket}/made/manifest.json")
    main(command)
    copying.main([f"{bucket}/made", "back"])
    manifest = find("back").manifest
    manifest.verify(here / "back", [file.name for file in manifest.files])
    with pytest.raises(InputError, match="already holds preprocessed data"):
        main(command)


def test_a_job_trains_on_a_copy(bucket, here):
    """As on ModelArts, of whichever storage."""
    write_raw(here / "train.txt", raw_lines(60))
    main(["--data_path=train.txt", "--output_path=made", *SMALL])
    copying.main(["made", f"{bucket}/made"])
    spec = ModelArtsSpec(True, data_url=f"{bucket}/made", train_url=f"{bucket}/out")
    with job(spec, "dataset", Path("checkpoint"), [Path("results")]):
        find("dataset").manifest.verify(here / "dataset", [file.name for file in find("made").manifest.files])
        (here / "results").mkdir()
        (here / "results/one").write_text("one")
    assert store_of(bucket).files(f"{bucket}/out/results")["one"] == 3


@pytest.mark.parametrize(("argv", "line"), [
    (["--data_path={}/none.txt", "--output_path=out"], "is not there, or empty: check the name of the bucket"),
    (["--data_path={}/none.txt"], "is in an object storage: name an --output_path, here or there"),
    (["--data_path=s3://none-{0}/train.txt", "--output_path=out"], "can't be listed|is not there, or empty"),
    (["--data_path=gs://any/train.txt", "--output_path=out"], r"gs://\S+ can't be reached .*: pip install -r requ"),
    (["--data_path=hm://any/train.txt", "--output_path=out"], r"hm://\S+ can't be reached .*: pip install -r requ"),
])  # fmt: skip
def test_what_is_not_there_is_one_line(bucket, here, argv, line):
    with pytest.raises(InputError, match=line):
        main([one.replace("{}", bucket).replace("{0}", bucket[5:]) for one in argv])
    assert not (here / "out").exists()


def test_what_reads_files_of_this_machine_says_how_to_copy():
    how = "is in an object storage, .* copy it by 'python -m src.model_utils.copying s3://a/b FOLDER', and name that"
    with pytest.raises(InputError, match=f"^dataset_path s3://a/b {how}"):
        find("s3://a/b")
    with pytest.raises(InputError, match=f"^vocab_path s3://a/b {how}"):
        load_known("s3://a/b", Columns.numbered())


@pytest.mark.parametrize("argv", [[], ["one", "two"], ["s3://a/b", "s3://a/c"]])
def test_one_side_of_a_copy_is_here_and_the_other_there(argv):
    with pytest.raises(InputError, match="copying takes a source and a target, one of which is an url, not"):
        copying.main(argv)


def test_fsspec_is_optional(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(object_storage.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"^s3://a/b can't be reached \(No module named 'fsspec'\): pip install -r re"):
        store_of("s3://a/b")
