"""
Frames as files, a page at a time: CSV, Parquet, JSON. A file is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Protocol

import msgspec
import pandas as pd


class TableFile(Protocol):
    """
    A file that takes pages with the same columns.
    """

    def add(self, page: pd.DataFrame) -> None:
        """
        Write the page behind the others.
        """

    def finish(self) -> None:
        """
        Write what a whole file has at its end.
        """


@contextmanager
def open_table(path: Path, form: str) -> Iterator[TableFile]:
    """
    A file to be written, readable by its owner alone; it takes its name when all is written.

    Args:
        path: Of the file.
        form: `csv`, `parquet` or `json`.
    Raises:
        OSError: it cannot be written.
        ImportError: Parquet without pyarrow.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    part.touch(mode=0o600)
    try:
        with part.open("wb" if form == "parquet" else "w") as file:
            table = _KINDS[form](file)
            yield table
            table.finish()
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


class _Csv:
    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        self._has_head = False

    def add(self, page: pd.DataFrame) -> None:
        _flat(page).to_csv(self._file, index=False, header=not self._has_head)
        self._has_head = True

    def finish(self) -> None:
        pass


class _Json:
    """
    A list of records, one a line.
    """

    def __init__(self, file: IO[Any]) -> None:
        self._file = file
        self._between = "["

    def add(self, page: pd.DataFrame) -> None:
        plain = page.astype("object").where(page.notna(), None)
        for row in plain.to_dict("records"):
            line = msgspec.json.encode(row, enc_hook=_text_of).decode()
            self._file.write(f"{self._between}\n{line}")
            self._between = ","

    def finish(self) -> None:
        self._file.write("[]\n" if self._between == "[" else "\n]\n")


def _flat(page: pd.DataFrame) -> pd.DataFrame:
    """
    Mappings and lists as JSON texts, for forms that have none.
    """
    found = page.copy(deep=False)
    for name, kind in page.dtypes.items():
        if kind == "object":
            found[name] = [
                msgspec.json.encode(one, enc_hook=_text_of).decode()
                if isinstance(one, (dict, list))
                else one
                for one in page[name]
            ]
            found[name] = found[name].astype("object")
    return found


def _text_of(value: Any) -> Any:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else str(value)


class _Parquet:
    def __init__(self, file: IO[Any]) -> None:
        import pyarrow
        import pyarrow.parquet

        self._arrow = pyarrow
        self._file = file
        self._schema: Any = None
        self._writer: Any = None

    def add(self, page: pd.DataFrame) -> None:
        if self._writer is None:
            self._schema = self._arrow.schema(
                [self._arrow.field(str(n), self._type_of(str(k))) for n, k in page.dtypes.items()]
            )
            self._writer = self._arrow.parquet.ParquetWriter(self._file, self._schema)
        page = _flat(page)
        columns = [self._column(page[name], self._schema.field(name).type) for name in page]
        self._writer.write_table(self._arrow.Table.from_arrays(columns, schema=self._schema))

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _type_of(self, dtype: str) -> Any:
        """
        By the dtype alone: a column of texts may be empty in the first page.
        """
        if dtype.startswith("datetime64"):
            return self._arrow.timestamp("ms", tz="UTC")
        named = {"float64": "float64", "int64": "int64", "boolean": "bool", "bool": "bool"}
        return self._arrow.type_for_alias(named.get(dtype.lower(), "string"))

    def _column(self, column: pd.Series[Any], kind: Any) -> Any:
        if column.dtype in ("float64", "int64"):
            return self._arrow.array(column.to_numpy(), type=kind)
        plain = column.astype("object").where(column.notna(), None)
        return self._arrow.array(plain.tolist(), type=kind)


_KINDS: dict[str, Callable[[IO[Any]], TableFile]] = {
    "csv": _Csv,
    "json": _Json,
    "parquet": _Parquet,
}
