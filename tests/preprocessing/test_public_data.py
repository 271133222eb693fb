"""The schemas of docs/schemas/ on small files of the forms that they are for."""

import gzip
import io
import random
import tarfile
import zipfile

import pytest
from conftest import ROOT, raw_lines

from src.data.manifest import find
from src.preprocess_data import main

AVAZU = ("id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
         "device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21")  # fmt: skip


def run(folder, data_path, schema="", *options):
    options = [f"--schema={ROOT}/docs/schemas/{schema}.yaml"] * bool(schema) + list(options)
    main([f"--data_path={data_path}", f"--output_path={folder}/data", "--record_rows=16", *options])
    return find(str(folder / "data")).manifest


def rows_in(manifest):
    return {name: part.rows for name, part in manifest.parts.items()}


def test_avazu(tmp_path):
    rng, rows = random.Random(1), []
    for number in range(300):
        day = 21 + number // 30
        cells = [f"{rng.getrandbits(32):08x}" for _ in range(21)]
        rows.append(f"{10**19 + number},{rng.randrange(2)},1410{day}{rng.randrange(24):02d}," + ",".join(cells))
    (tmp_path / "train.gz").write_bytes(gzip.compress("\n".join([AVAZU, *rows, ""]).encode()))
    manifest = run(tmp_path, tmp_path / "train.gz", "avazu", "--split=hour:14103000")
    assert rows_in(manifest) == {"train": 270, "test": 30}
    assert (len(manifest.categorical), manifest.dense) == (21, ("hour hour", "hour weekday", "hour days"))


def test_movielens(tmp_path):
    rng = random.Random(2)
    rows = [f"{user},{rng.randrange(90)},{rng.randrange(1, 11) / 2},{1_000_000_000 + rng.randrange(10**8)}"
            for user in range(1, 71) for _ in range(5)]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "ml-25m.zip", "w") as archive:
        archive.writestr("ml-25m/README.txt", "x")
        archive.writestr("ml-25m/movies.csv", "movieId,title,genres\n")
        archive.writestr("ml-25m/ratings.csv", "\r\n".join(["userId,movieId,rating,timestamp", *rows, ""]))
    manifest = run(tmp_path, f"{tmp_path}/ml-25m.zip/ml-25m/ratings.csv", "movielens", "--split=random:userId")
    assert sum(rows_in(manifest).values()) == 350
    assert all(rows % 5 == 0 for rows in rows_in(manifest).values())  # a user is in one part
    clicks = sum(part.rows * part.label_mean for part in manifest.parts.values())
    assert round(clicks) == sum(float(row.split(",")[2]) >= 4 for row in rows)


def test_movielens_of_several_signs(tmp_path):
    rng = random.Random(2)
    rows = [f"{user}::{rng.randrange(90)}::{rng.randrange(1, 6)}::{978_300_000 + rng.randrange(10**6)}"
            for user in range(1, 71) for _ in range(5)]  # fmt: skip
    with zipfile.ZipFile(tmp_path / "ml-1m.zip", "w") as archive:
        archive.writestr("ml-1m/movies.dat", "1::Toy Story (1995)::Animation|Children's|Comedy\n")
        archive.writestr("ml-1m/ratings.dat", "\n".join([*rows, ""]))
    manifest = run(tmp_path, f"{tmp_path}/ml-1m.zip/ml-1m/ratings.dat", "movielens_dat", "--split=random:userId")
    assert sum(rows_in(manifest).values()) == 350
    clicks = sum(part.rows * part.label_mean for part in manifest.parts.values())
    assert round(clicks) == sum(int(row.split("::")[2]) >= 4 for row in rows)
    assert manifest.dense == ("timestamp hour", "timestamp weekday", "timestamp days")
    assert manifest.table_rows[0] == 1 + manifest.parts["train"].rows // 5


def test_kdd_cup_2012(tmp_path):
    rng = random.Random(3)
    rows = [[rng.choice([0, 0, 0, 1, 2]), rng.randrange(1, 9), *(rng.randrange(9) for _ in range(3)), 3, 1,
             *(rng.randrange(50) for _ in range(5))] for _ in range(200)]  # fmt: skip
    (tmp_path / "training.txt").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    manifest = run(tmp_path, tmp_path / "training.txt", "kdd_cup_2012")
    clicks = sum(part.rows * part.label_mean for part in manifest.parts.values())
    assert (round(clicks), len(manifest.categorical)) == (sum(row[0] > 0 for row in rows), 8)


def test_criteo_1tb(tmp_path):
    lines = raw_lines(24 * 10)
    for day in range(24):
        text = "".join(line + "\n" for line in lines[10 * day : 10 * day + 10])
        (tmp_path / f"day_{day}.gz").write_bytes(gzip.compress(text.encode()))
    path = ",".join(f"{tmp_path}/{pattern}" for pattern in ("day_?.gz", "day_1?.gz", "day_2[0-2].gz"))
    manifest = run(tmp_path, path, "", f"--test_path={tmp_path}/day_23.gz")
    assert rows_in(manifest) == {"train": 230, "test": 10}
    assert manifest.source["names"] == [f"day_{day}.gz" for day in range(24)]


def test_kaggles_criteo(tmp_path):
    with tarfile.open(tmp_path / "dac.tar.gz", "w:gz") as archive:
        for name, lines in {"readme.txt": ["x"], "test.txt": ["x"], "train.txt": raw_lines(70)}.items():
            content = "".join(line + "\n" for line in lines).encode()
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    assert rows_in(run(tmp_path, tmp_path / "dac.tar.gz")) == {"train": 60, "valid": 5, "test": 5}


@pytest.mark.parametrize("path", sorted((ROOT / "docs/schemas").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_schema_says_its_command(path):
    assert f"--schema=docs/schemas/{path.name}" in path.read_text()
