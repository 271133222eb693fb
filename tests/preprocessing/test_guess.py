"""A guessed schema reads the file, and says what each column seems to be."""

import random
from datetime import datetime, timedelta

import pandas as pd
import pytest
import yaml
from conftest import write_raw

from src.base.errors import InputError
from src.data.manifest import Manifest
from src.preprocess_data import main
from src.preprocessing.guess import _sign_of_lists

NAMES = ["id", "clicked", "price", "seen", "site", "city", "fixed", "known_later"]


def frame_of(rows=400):
    rng = random.Random(8)
    clicked = [int(rng.random() < 0.3) for _ in range(rows)]
    return pd.DataFrame({
        "id": [f"r{row}" for row in range(rows)],
        "clicked": clicked,
        "price": [rng.choice(["NULL", rng.randrange(1, 5000) / 4]) for _ in range(rows)],
        "seen": [datetime(2026, 3, 1) + timedelta(hours=rng.randrange(300)) for _ in range(rows)],
        "site": [f"s{rng.randrange(5)}" for _ in range(rows)],
        "city": [rng.choice(["Köln", "北京", "a, b", ""]) for _ in range(rows)],
        "fixed": ["x"] * rows,
        "known_later": [f"{'yes' if label else 'no'}{rng.randrange(3)}" for label in clicked],
    })  # fmt: skip


def guess(path, *more):
    schema = path.with_suffix(".yaml")
    main([f"--data_path={path}", f"--guess_schema={schema}", *more])
    return schema, yaml.safe_load(schema.read_text(encoding="utf-8"))


def check_read(path, schema):
    main([f"--data_path={path}", f"--schema={schema}", f"--output_path={path.parent}/data", "--record_rows=64",
          "--overwrite=True"])  # fmt: skip
    manifest = Manifest.load(path.parent / "data/manifest.json")
    assert sum(part.rows for part in manifest.parts.values()) == 400
    return manifest


@pytest.mark.parametrize(
    ("separator", "encoding"), [(",", "utf-8"), ("\t", "gb18030"), (";", "utf-8-sig"), ("|", "utf-16")]
)
def test_a_guessed_schema_reads_the_file(tmp_path, capfd, separator, encoding):
    frame = frame_of().assign(city=lambda frame: frame["city"].str.replace("Köln", "Koeln"))
    if separator == "\t":
        frame["city"] = frame["city"].str.replace(",", "")
    text = frame.to_csv(sep=separator, index=False, decimal="," if separator == ";" else ".", lineterminator="\r\n")
    if separator == ";":
        text = text.replace(".25", ",25").replace(".5", ",5").replace(".75", ",75").replace(".0;", ",0;")
    (tmp_path / "rows.csv").write_bytes(text.encode(encoding))
    schema, content = guess(tmp_path / "rows.csv")
    assert (content["label"], content["header"], content["missing"]) == ("clicked", True, ["NULL"])
    assert content.get("separator", "\t") == separator
    assert content["dense"][0] == "price"
    assert {key: content["dense"][1][key] for key in ("name", "as", "format")} == {
        "name": "seen", "as": "timestamp", "format": "iso",
    }  # fmt: skip
    assert content["categorical"] == ["site", "city", "known_later"]
    assert '#  - "id"  # an id' in schema.read_text(encoding="utf-8")
    assert '#  - "fixed"  # always the same' in schema.read_text(encoding="utf-8")
    told = capfd.readouterr().err
    assert "column 'known_later' alone tells the label (AUC 1.000)" in told
    assert told.count("alone tells the label") == 1
    check_read(tmp_path / "rows.csv", schema)


def test_a_file_without_header_and_with_other_labels_is_guessed(tmp_path):
    frame = frame_of().drop(columns=["id", "known_later"])
    frame["clicked"] = frame["clicked"].map({0: "left", 1: "bought"})
    write_raw(tmp_path / "rows.tsv", frame.to_csv(sep="\t", index=False, header=False).splitlines())
    schema, content = guess(tmp_path / "rows.tsv")
    assert "label: ???" in schema.read_text()
    schema.write_text(schema.read_text().replace("label: ???", 'label: "column 1"\npositive: ["bought"]\n#').replace(
        '  - "column 1"', "  #"))  # fmt: skip
    manifest = check_read(tmp_path / "rows.tsv", schema)
    assert manifest.source["columns"]["order"] == [f"column {number}" for number in range(1, 7)]


def test_a_file_of_columns_is_guessed(tmp_path):
    pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
    tags = [[f"t{tag}" for tag in range(row % 4)] for row in range(400)]
    frame = frame_of().assign(price=lambda frame: pd.to_numeric(frame["price"], "coerce"), tags=tags)
    frame.to_parquet(tmp_path / "rows.parquet")
    schema, content = guess(tmp_path / "rows.parquet")
    lists = {"name": "tags", "list": "|", "max_values": 3}
    assert (content["label"], content["categorical"]) == ("clicked", ["site", "city", "known_later", lists])
    check_read(tmp_path / "rows.parquet", schema)


def test_an_earlier_schema_is_kept(tmp_path):
    write_raw(tmp_path / "rows.tsv", frame_of().to_csv(sep="\t", index=False).splitlines())
    schema, _ = guess(tmp_path / "rows.tsv")
    schema.write_text("mine")
    with pytest.raises(InputError, match=r"rows.yaml is there: name another file"):
        guess(tmp_path / "rows.tsv")
    assert schema.read_text() == "mine"
    guess(tmp_path / "rows.tsv", "--overwrite=True")
    assert schema.read_text() != "mine"


def test_what_a_shop_in_europe_writes_is_guessed(tmp_path):
    """Prices with signs between thousands, codes that begin with zeros, days before months, labels in words."""
    rng = random.Random(5)
    lines = ["Retoure;Preis €;PLZ;Zeitpunkt"]
    for row in range(400):
        price = f"{rng.randrange(1, 9)}.{rng.randrange(1000):03},{rng.randrange(100):02}" if row % 2 else f"{row},5"
        moment = datetime(2026, 3, 1) + timedelta(minutes=rng.randrange(9000))
        lines.append(f"{rng.choice(['yes', 'no'])};{price};{rng.randrange(200, 300):05};{moment:%d.%m.%Y %H:%M}")
    schema, content = guess(write_raw(tmp_path / "orders.csv", lines))
    assert (content["label"], content["positive"]) == ("Retoure", ["yes"])
    assert (content["decimal"], content["thousands"]) == (",", ".")
    assert content["dense"][0] == "Preis €"
    assert (content["dense"][1]["name"], content["dense"][1]["format"]) == ("Zeitpunkt", "%d.%m.%Y %H:%M")
    assert content["categorical"] == ["PLZ"]
    check_read(tmp_path / "orders.csv", schema)


@pytest.mark.parametrize(("day", "form"), [("%Y%m%d", "%Y%m%d"), ("%Y年%m月%d日 %H:%M", "%Y年%m月%d日 %H:%M")])
def test_what_a_shop_in_china_writes_is_guessed(tmp_path, day, form):
    """Days as eight digits, whose name tells them from numbers, or in words; labels that say yes and no."""
    rng = random.Random(5)
    lines = ["日期,是否点击,城市"]
    for row in range(400):
        moment = datetime(2026, 3, 1) + timedelta(hours=row)
        lines.append(f"{moment.strftime(day)},{rng.choice('是否')},{rng.choice(['北京', '上海'])}")
    schema, content = guess(write_raw(tmp_path / "点击 日志.csv", lines))
    assert (content["label"], content["positive"]) == ("是否点击", ["是"])
    assert (content["dense"][0]["name"], content["dense"][0]["format"]) == ("日期", form)
    assert content["categorical"] == ["城市"]
    assert "the first 400 rows" in schema.read_text(encoding="utf-8")
    check_read(tmp_path / "点击 日志.csv", schema)


def lists_of(sign, rows=400, values=8, most=5):
    """Cells of some values in any order, a tenth of them empty."""
    rng = random.Random(3)
    tags = [f"tag {value}" if sign != " " else f"tag-{value}" for value in range(values)]
    return [sign.join(rng.sample(tags, rng.randrange(1, most))) if rng.random() < 0.9 else "" for _ in range(rows)]


@pytest.mark.parametrize(
    ("separator", "sign"), [(",", "|"), (",", ";"), ("\t", ","), (",", ","), (",", " "), ("|", "|")]
)
def test_lists_are_guessed_whatever_stands_between_their_values(tmp_path, separator, sign):
    """Also what stands between cells, in quotes."""
    frame = frame_of().assign(tags=lists_of(sign), price=[f"{row}.5" for row in range(400)])
    frame.to_csv(tmp_path / "rows.csv", sep=separator, index=False)
    schema, content = guess(tmp_path / "rows.csv")
    assert content["categorical"][-1] == {"name": "tags", "list": sign, "max_values": 4}
    assert content.get("decimal", ".") == "."
    manifest = check_read(tmp_path / "rows.csv", schema)
    assert manifest.layout.sizes[-1] == 4
    assert manifest.table_rows[-1] == 9


def test_lists_of_numbers_and_texts_of_columns_are_guessed(tmp_path):
    """Numbers with commas between are no decimals; and a file of columns may hold lists as text."""
    pytest.importorskip("pyarrow", reason="pip install -r tests/requirements.txt")
    seen = [cell.replace("tag ", "1") for cell in lists_of(",")]
    frame = frame_of().assign(seen=seen, price=[f"{row}.5" for row in range(400)], own=[["a|b", "c"]] * 400)
    frame.to_parquet(tmp_path / "rows.parquet")
    _, content = guess(tmp_path / "rows.parquet")
    assert {"name": "seen", "list": ",", "max_values": 4} in content["categorical"]
    assert {"name": "own", "list": "|", "max_values": 2} in content["categorical"]
    assert "decimal" not in content


ONE_VALUE = {
    "place": lambda rng: (
        f"{rng.choice('ABCDEFGH')}ville, {rng.choice(['Ohio', 'Iowa', 'Utah'])}{rng.choice(['', ', USA'])}"
    ),
    "address": lambda rng: (
        f"{rng.randrange(1, 40)} {rng.choice(['Oak', 'Elm', 'New Oak', 'Long Elm'])} {rng.choice(['St', 'Rd'])}"
    ),
    "name": lambda rng: " ".join(
        rng.choice(names) for names in (["Ann", "Bo"], ["", "C.", "D."], ["Li", "Ode", "Poe"])
    ),
    "title": lambda rng: " ".join(f"word{rng.randrange(3000)}" for _ in range(rng.randrange(2, 6))),
    "thousands": lambda rng: f"{rng.randrange(10 ** rng.randrange(2, 9)):,}",
    "agent": lambda rng: (
        f"Agent/5.0 (X{rng.randrange(4)}; rv:{rng.randrange(90)}.0) Fox{rng.choice(['', ' M'])}/{rng.randrange(9)}"
    ),
    "pair": lambda rng: f"{rng.choice('abcd')}|{rng.choice('abcd')}",
    "range": lambda rng: f"{rng.randrange(20)};{rng.randrange(20)}",
    "moment": lambda rng: f"{datetime(2026, 3, 1) + timedelta(minutes=rng.randrange(9000)):%d %m %Y %H:%M}",
}


def test_texts_with_signs_in_them_are_no_lists(tmp_path):
    """Places, addresses, names, sentences, numbers with thousands, and pairs."""
    rng = random.Random(4)
    frame = frame_of(2000).assign(**{name: [make(rng) for _ in range(2000)] for name, make in ONE_VALUE.items()})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    schema, _ = guess(tmp_path / "rows.csv")
    assert "list:" not in schema.read_text()


@pytest.mark.parametrize("texts", [
    [f"{number * 7919 % 10 ** (4 + number % 5):,}" for number in range(9000)],
    ["no offer today", "today no offer", "offer no more today"] * 99,
    ["a|b", "b|a", "a", "b"] * 99,
    ["1,5", "2,25", "5,1", "25,2"] * 99,
], ids=["thousands", "sentences", "pairs", "decimals"])  # fmt: skip
def test_few_texts_and_numbers_are_no_lists(texts):
    assert _sign_of_lists(texts, ()) == ""
    assert _sign_of_lists([*lists_of("|"), "NULL"], ("NULL",)) == "|"


def test_labels_of_other_numbers_are_asked_for_by_the_names_of_columns_that_may_be_them(tmp_path, capfd):
    write_raw(tmp_path / "rows.csv", ["bought,site", *(f"{row % 3 % 2 + 1},s{row % 5}" for row in range(400))])
    schema, _ = guess(tmp_path / "rows.csv")
    of_two = """; of two values: 'bought' (1, 2); say by positive: [".."] which are clicks"""
    assert of_two in capfd.readouterr().err
    assert of_two in schema.read_text()
    with pytest.raises(InputError, match=r"rows.yaml: label is still \?\?\?, as --guess_schema left it: name its"):
        main([f"--data_path={tmp_path}/rows.csv", f"--schema={schema}", f"--output_path={tmp_path}/data"])
    with pytest.raises(InputError, match=r"schema .*row.yaml is not a file: is it .*/rows.yaml\?"):
        main([f"--data_path={tmp_path}/rows.csv", f"--schema={tmp_path}/row.yaml", f"--output_path={tmp_path}/data"])


@pytest.mark.parametrize("header", [["y,site"], []])
def test_as_many_rows_are_looked_at_with_a_header_as_without(tmp_path, monkeypatch, header):
    monkeypatch.setattr("src.preprocessing.guess._SAMPLE_ROWS", 300)
    write_raw(tmp_path / "rows.csv", [*header, *(f"{row % 2},s{row % 5}" for row in range(400))])
    schema, _ = guess(tmp_path / "rows.csv")
    assert schema.read_text().startswith("# Guessed from the first 300 rows")
