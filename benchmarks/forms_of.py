"""The forms of benchmarks/forms.py: how tables of click logs are written, and the schema of each."""

import gzip
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from src.preprocessing.options import PreprocessingSpec
from src.preprocessing.planted import draw_any
from src.rows.cells.column import TextColumn
from src.rows.columns import Columns

_SCHEMAS = Path(__file__).resolve().parents[1] / "docs/schemas"
_FEW, _TAIL = (6, 4, 40, 12), 1_000_000  # values of fields with effects, and of one with a long tail


@dataclass(frozen=True)
class Made:
    """Rows in the order of the file, with the label's column among them; labels, their chances and, if they have some,
    weights, [B].
    """

    frame: pd.DataFrame
    labels: np.ndarray
    chances: np.ndarray
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class Form:
    """A form of click logs.

    Attributes:
        name: what people call it.
        make: so many rows.
        write: writes rows, with or without the label's column, below a name, and returns the path to give.
        label: the label's column.
        schema: a schema's content, or the file of one; None for Criteo's columns, which need none.
        options: of src/preprocess_data.py.
    """

    name: str
    make: Callable[[int], Made]
    write: Callable[[pd.DataFrame, str], str]
    label: str = "label"
    schema: dict[str, Any] | Path | None = None
    options: tuple[str, ...] = ()

    def schema_file(self, place: Path) -> Path:
        """The schema as a file, which is written unless there is one."""
        if isinstance(self.schema, Path):
            return self.schema
        place.write_text(yaml.safe_dump(self.schema, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return place

    def test_rows(self, made: Made, count: int) -> np.ndarray:
        """Numbers of the test rows, of which there are so many: the last ones, but of a split at random."""
        split = next((word.partition("=")[2] for word in self.options if word.startswith("--split=random:")), "")
        if not split:
            return np.arange(len(made.labels) - count, len(made.labels))
        rule = PreprocessingSpec(split=split).part_rule
        assert rule
        texts = TextColumn.of([str(value).encode() for value in made.frame[rule.column]])
        found: np.ndarray = np.flatnonzero(rule.parts_of(texts, Columns((), ())) == 2)
        return found


def _text(frame: pd.DataFrame, path: str, **options: Any) -> str:
    Path(path).write_bytes(frame.to_csv(index=False, **options).encode())
    return path


def _names() -> tuple[list[str], list[str]]:
    numbers = [f"price {place}" for place in range(3)]
    return numbers, [*(f"field {place}" for place in range(len(_FEW))), "user"]


def _texts_of(codes: np.ndarray, *endings: str) -> list[str]:
    """Text of codes, whose endings come in turns."""
    return [f"v{code}{endings[code % len(endings)]}" for code in codes.tolist()]


def _plain(rows: int, endings: Sequence[str] = ("",)) -> Made:
    """Three numbers, fields with effects, and one with a long tail."""
    drawn = draw_any(1, rows, 3, (*_FEW, _TAIL))
    numbers, fields = _names()
    columns = {"label": drawn.labels} | dict(zip(numbers, drawn.numbers))
    columns |= {name: _texts_of(codes, *endings) for name, codes in zip(fields, drawn.codes)}
    return Made(pd.DataFrame(columns), drawn.labels, drawn.chances)


_SCHEMA = {"label": "label", "dense": _names()[0], "categorical": _names()[1]}


def _avazu(rows: int) -> Made:
    """Ten days, of ever the same number of rows; clicks are rarer in the morning."""
    hours = np.sort(np.random.default_rng(2).integers(0, 240, rows))
    sizes = [_TAIL if name in ("device_id", "device_ip") else 5 + place for place, name in enumerate(_AVAZU)]
    drawn = draw_any(2, rows, 0, sizes, more=np.where(hours % 24 < 12, -0.3, 0.3))
    times = [f"1410{21 + hour // 24}{hour % 24:02d}" for hour in hours.tolist()]
    columns: dict[str, Any] = {"id": range(10**18, 10**18 + rows), "click": drawn.labels, "hour": times}
    columns |= {name: [f"{code * 2654435761 % 2**32:08x}" for code in codes.tolist()]
                for name, codes in zip(_AVAZU, drawn.codes)}  # fmt: skip
    return Made(pd.DataFrame(columns), drawn.labels, drawn.chances)


_AVAZU = [
    "C1", "banner_pos", "site_id", "site_domain", "site_category", "app_id", "app_domain", "app_category", "device_id",
    "device_ip", "device_model", "device_type", "device_conn_type", *(f"C{number}" for number in range(14, 22)),
]  # fmt: skip


def _write_avazu(frame: pd.DataFrame, name: str) -> str:
    Path(f"{name}.gz").write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    return f"{name}.gz"


def _movielens(rows: int) -> Made:
    """Sorted by user; a rating follows from the movie and the hour of the day."""
    rng = np.random.default_rng(3)
    seconds = 1_500_000_000 + rng.integers(0, 10**7, rows)
    drawn = draw_any(3, rows, 0, (60, _TAIL), more=np.where(seconds // 3600 % 24 < 12, -0.9, 0.9))
    stars = np.where(drawn.labels, 4 + rng.integers(0, 3, rows) / 2, rng.integers(1, 8, rows) / 2)
    users = np.sort(rng.integers(1, rows // 20, rows))
    columns = {"userId": users, "movieId": drawn.codes[0] + 1, "rating": stars, "timestamp": seconds}
    return Made(pd.DataFrame(columns), drawn.labels, drawn.chances)


def _write_movielens(frame: pd.DataFrame, name: str) -> str:
    with zipfile.ZipFile(f"{name}.zip", "w") as archive:
        archive.writestr("ml-25m/movies.csv", "movieId,title,genres\n")
        archive.writestr("ml-25m/ratings.csv", frame.to_csv(index=False, lineterminator="\r\n"))
    return f"{name}.zip/ml-25m/ratings.csv"


def _kdd(rows: int) -> Made:
    """Counts of clicks and impressions; adID and descriptionID have effects, queries and users a long tail."""
    rng = np.random.default_rng(4)
    names = ("displayURL", "adID", "advertiserID", "queryID", "keywordID", "titleID", "descriptionID")
    drawn = draw_any(4, rows, 2, (30, 200, 20, _TAIL, _TAIL, 40, 60))
    clicks = drawn.labels * rng.integers(1, 4, rows)
    columns: dict[str, Any] = {"click": clicks, "impression": clicks + rng.integers(1, 9, rows)}
    columns |= dict(zip(names[:3], drawn.codes))
    columns |= dict(zip(("depth", "position"), np.nan_to_num(drawn.numbers)))
    columns |= dict(zip(names[3:], drawn.codes[3:])) | {"userID": rng.integers(0, rows // 4, rows)}
    return Made(pd.DataFrame(columns), drawn.labels, drawn.chances)


def _write_tabs(frame: pd.DataFrame, name: str) -> str:
    return _text(frame, f"{name}.txt", sep="\t", header=False)


def _criteo(rows: int) -> Made:
    drawn = draw_any(5, rows, 13, (*_FEW, *[7] * 18, *[_TAIL] * 4))
    numbers = np.floor(drawn.numbers)
    columns = {"label": drawn.labels} | {f"I{place + 1}": pd.array(one, "Int64") for place, one in enumerate(numbers)}
    columns |= {f"C{place + 1}": [f"{code * 2654435761 % 2**32:08x}" for code in codes.tolist()]
                for place, codes in enumerate(drawn.codes)}  # fmt: skip
    return Made(pd.DataFrame(columns), drawn.labels, drawn.chances)


def _write_criteo(frame: pd.DataFrame, name: str) -> str:
    """24 days; rows to score in one file."""
    if "label" not in frame:
        return _write_tabs(frame, name)
    for day, rows in enumerate(np.array_split(np.arange(len(frame)), 24)):
        text = frame.iloc[rows].to_csv(index=False, header=False, sep="\t")
        Path(f"day_{day}.gz").write_bytes(gzip.compress(text.encode()))
    return "day_?.gz,day_1?.gz,day_2[0-2].gz"


def _write_excel(frame: pd.DataFrame, name: str) -> str:
    text = frame.to_csv(index=False, sep=";", decimal=",", lineterminator="\r\n")
    Path(f"{name}.csv").write_bytes(("\ufeff" + text).encode())
    return f"{name}.csv"


def _write_parts(frame: pd.DataFrame, name: str) -> str:
    """A folder of Parquet files, in turns by pandas, and with dictionaries, nulls and several groups of rows."""
    import pyarrow as pa
    from pyarrow import parquet

    folder = Path(name)
    folder.mkdir()
    texts = [column for column in frame if column.startswith("field") or column == "user"]
    for part, rows in enumerate(np.array_split(np.arange(len(frame)), 5)):
        some = frame.iloc[rows].replace({"field 2": {"v0": None}})
        path = folder / f"part-{part}.parquet"
        if part % 2 == 0:
            some.to_parquet(path)
            continue
        table = pa.Table.from_pandas(some, preserve_index=False)
        for column in texts:
            place = table.column_names.index(column)
            table = table.set_column(place, column, table[column].dictionary_encode())
        parquet.write_table(table, path, row_group_size=max(len(some) // 3, 1), compression="zstd")
    return name


def _write_gb18030(frame: pd.DataFrame, name: str) -> str:
    Path(f"{name}.csv").write_bytes(frame.to_csv(index=False).encode("gb18030"))
    return f"{name}.csv"


def _only(numbers: int, sizes: Sequence[int]) -> Callable[[int], Made]:
    def make(rows: int) -> Made:
        drawn = draw_any(6, rows, numbers, sizes)
        columns: dict[str, Any] = {"label": drawn.labels}
        columns |= {f"number {place}": one for place, one in enumerate(drawn.numbers)}
        columns |= {f"field {place}": _texts_of(codes, "") for place, codes in enumerate(drawn.codes)}
        return Made(pd.DataFrame(columns), drawn.labels, drawn.chances)

    return make


def _lists(rows: int) -> Made:
    drawn = draw_any(7, rows, 1, (*_FEW[:2], _TAIL), (30, 12))
    columns: dict[str, Any] = {"label": drawn.labels, "price": drawn.numbers[0]}
    columns |= {f"field {place}": _texts_of(codes, "") for place, codes in enumerate(drawn.codes)}
    columns |= {name: ["|".join(f"t{value}" for value in cell) for cell in cells]
                for name, cells in zip(("tags", "seen"), drawn.lists)}  # fmt: skip
    return Made(pd.DataFrame(columns), drawn.labels, drawn.chances)


def _weighted(rows: int) -> Made:
    """Half of the rows count a tenth, and their labels are turned round: without weights there is nothing to learn."""
    made = _plain(rows)
    weights = np.where(np.random.default_rng(8).random(rows) < 0.5, 1.0, 0.1)
    labels = np.where(weights < 1, 1 - made.labels, made.labels).astype(np.uint8)
    return Made(made.frame.assign(label=labels, paid=weights), labels, made.chances, weights)


def _csv(frame: pd.DataFrame, name: str) -> str:
    return _text(frame, f"{name}.csv")


_HEADER: dict[str, Any] = {"header": True, "separator": ","}
_CHINESE = dict(zip([*_names()[0], *_names()[1]], ["价格", "数量", "年龄", "城市", "网站", "设备", "频道", "用户"]))

FORMS = (
    Form("Avazu", _avazu, _write_avazu, "click", _SCHEMAS / "avazu.yaml", ("--split=hour:14102800,14103000",)),
    Form("MovieLens", _movielens, _write_movielens, "rating", _SCHEMAS / "movielens.yaml", ("--split=random:userId",)),
    Form("KDD Cup 2012, track 2", _kdd, _write_tabs, "click", _SCHEMAS / "kdd_cup_2012.yaml",
         ("--split=random:userID",)),
    Form("Criteo 1TB", _criteo, _write_criteo, options=("--test_path=day_23.gz",)),
    Form("CSV by pandas, with quotes and line ends in cells", lambda rows: _plain(rows, ("", ' "x", y', "\nz")), _csv,
         schema=_HEADER | _SCHEMA),
    Form("CSV by Excel: byte order mark, CRLF, decimal commas", _plain, _write_excel,
         schema=_SCHEMA | {"header": True, "separator": ";", "decimal": ","}),
    Form("Parquet in parts, by pandas and with dictionaries and nulls", _plain, _write_parts, schema=_SCHEMA),
    Form("CSV in gb18030", lambda rows: _renamed(_plain(rows, ("城", "市")), _CHINESE), _write_gb18030,
         schema=_HEADER | {"encoding": "gb18030", "label": "label", "dense": list(_CHINESE.values())[:3],
                           "categorical": list(_CHINESE.values())[3:]}),
    Form("only numbers", _only(4, ()), _write_tabs,
         schema={"label": "label", "dense": [f"number {place}" for place in range(4)]}),
    Form("only categories", _only(0, _FEW), _write_tabs,
         schema={"label": "label", "categorical": [f"field {place}" for place in range(len(_FEW))]}),
    Form("lists in cells", _lists, _csv,
         schema=_HEADER | {"label": "label", "dense": ["price"], "categorical": [
             *(f"field {place}" for place in range(3)), {"name": "tags", "list": "|", "max_values": 3},
             {"name": "seen", "list": "|", "max_values": 3, "pool": "mean"}]}),
    Form("weights", _weighted, _csv, schema=_HEADER | _SCHEMA | {"weight": "paid"}),
)  # fmt: skip


def _renamed(made: Made, names: dict[str, str]) -> Made:
    return Made(made.frame.rename(columns=names), made.labels, made.chances)
