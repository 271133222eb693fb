"""Rows whose cells hold several values, and whose fields share a table."""

import random

from conftest import preprocess_lines, write_raw

from src.rows.schema import load_schema

SCHEMA = """
label: clicked
dense: [price]
categorical:
  - site
  - {name: tags, list: "|", max_values: 3, pool: mean}
  - {name: seen, list: ";", max_values: 4, pool: max, table: item}
  - {name: item, table: item}
separator: ","
header: true
missing: ["NULL"]
"""


HEADER = "clicked,price,site,tags,seen,item"


def table(rows, seed=1):
    """Lines with a header: lists of none to six values, some of them twice, some long ones."""
    rng = random.Random(seed)
    tags = [f"t{number}" for number in range(12)] + ["a tag of many letters", "日本"]
    lines = [HEADER]
    for _ in range(rows):
        own = rng.choices(tags, [1 / (1 + place) for place in range(len(tags))], k=rng.randrange(7))
        seen = [f"i{rng.randrange(20)}" for _ in range(rng.randrange(5))]
        item = f"i{rng.randrange(8, 30)}"
        click = rng.random() < (0.8 if "t0" in own or item in seen else 0.1)
        cell = rng.choice(["NULL", ""]) if not own else "|".join(own)
        lines.append(",".join([str(int(click)), str(rng.randrange(90)), f"s{rng.randrange(3)}", cell, ";".join(seen),
                               item]))  # fmt: skip
    lines[5] = "1,3,s0,t0||t1|,i1;,i1"  # nothing between two signs is no value
    return lines


def columns_of(tmp_path, schema=SCHEMA):
    (tmp_path / "schema.yaml").write_text(schema)
    return load_schema(tmp_path / "schema.yaml")


def lists_data(folder, rows=1000, **options):
    """A data folder of such rows, and beside it the raw file and the schema."""
    return preprocess_lines(
        write_raw(folder / "log.csv", table(rows)), folder / "dataset", columns_of(folder), **options
    )
