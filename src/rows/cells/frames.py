"""DataFrames as Arrow's columns, in which values stay what they are: no number becomes text and a number again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src.base.errors import InputError


def write_frame(frame: pd.DataFrame, path: Path, names: Sequence[str] = ()) -> None:
    """Write columns of a DataFrame as a Parquet file, in the order of its rows and without its index.

    Args:
        frame: the rows.
        path: the file.
        names: of the columns; none for all.

    Raises:
        InputError: pyarrow is not there, there are no rows, or a column is missing, there twice, has a name that is no
            text or values that no file of columns can hold.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise InputError(
            "the rows are a DataFrame, which is handed over by pyarrow, and that is not installed: "
            "pip install -r requirements-parquet.txt, or write the rows to a file of text and give its path"
        ) from None
    if not len(frame):
        raise InputError("the DataFrame has no rows: give some")
    if odd := [name for name in frame.columns if not isinstance(name, str)]:
        raise InputError(f"the DataFrame has a column {odd[0]!r}, whose name is no text: rename its columns")
    names = list(names or frame.columns)
    if missing := [name for name in names if name not in frame.columns]:
        columns = ", ".join(frame.columns)[:200]
        raise InputError(f"the DataFrame has no column {missing[0]!r}: its columns are {columns}")
    if twice := [name for name in names if not isinstance(frame[name], pd.Series)]:
        raise InputError(f"the DataFrame has column {twice[0]!r} more than once: drop one of them")
    parquet.write_table(pa.table({name: _array(pa, frame[name]) for name in names}), path)


def _array(pa: Any, column: pd.Series) -> Any:
    try:
        found = pa.array(column, from_pandas=True)
        kind = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
        if isinstance(kind, pa.BaseExtensionType):  # pandas' own, such as of pd.cut, which is no kind of Parquet's
            raise TypeError(str(kind))
        return found
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"column {column.name!r} of the DataFrame holds values of several kinds, or of one that no raw row has "
            f"({str(error).splitlines()[0]}): make text, numbers, times or lists of them"
        ) from None
