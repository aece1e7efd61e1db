"""Questions in parquet files, with encoded pictures in a column, as the hub keeps data sets."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from g2vlm.data.shards.writing import parquet
from g2vlm.errors import InputError


@dataclass(frozen=True)
class Row:
    """One row without its pictures."""

    path: Path
    number: int
    values: dict[str, Any]


def read_rows(paths: Sequence[Path], columns: Sequence[str]) -> list[Row]:
    """Rows of all files, only some columns of them.

    Raises:
        InputError: a file is no parquet, or lacks a column.
        MissingExtraError: pyarrow is not installed.
    """
    rows = []
    for path in paths:
        try:
            table = parquet().ParquetFile(path).read(columns=list(columns))
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"Expected a parquet file in {path}: {error}.") from error
        missing = sorted(set(columns) - set(table.column_names))
        if missing:
            raise InputError(
                f"Expected columns {', '.join(columns)} in {path}, but {', '.join(missing)} is missing."
            )
        rows += [Row(path, number, values) for number, values in enumerate(table.to_pylist())]
    return rows


def read_pictures(path: Path, number: int, column: str) -> tuple[Image.Image, ...]:
    """Pictures of one row: a list of, or one, encoded picture or {"bytes": ...}.

    Raises:
        InputError: the row holds something else.
    """
    groups = _ends(path)
    group = next(k for k, end in enumerate(groups) if number < end)
    first = groups[group - 1] if group else 0
    content = _group(path, group, column)[number - first]
    parts = content if isinstance(content, list) else [content]
    try:
        encoded = [part["bytes"] if isinstance(part, dict) else part for part in parts]
        return tuple(Image.open(io.BytesIO(one)).convert("RGB") for one in encoded)
    except (OSError, KeyError, TypeError) as error:
        raise InputError(
            f"Expected pictures in row {number} of {path}, column {column}: {error!r}."
        ) from error


@lru_cache(maxsize=64)
def _ends(path: Path) -> tuple[int, ...]:
    """Number of the row after each row group."""
    about = parquet().ParquetFile(path).metadata
    ends, total = [], 0
    for k in range(about.num_row_groups):
        total += about.row_group(k).num_rows
        ends.append(total)
    return tuple(ends)


@lru_cache(maxsize=1)
def _group(path: Path, group: int, column: str) -> list[Any]:
    """The pictures of one row group: neighbouring questions lie in the same one."""
    return list(
        parquet().ParquetFile(path).read_row_group(group, columns=[column]).column(column).to_pylist()
    )
