"""The scenes of a batch: folders and videos in a folder, or the lines of a manifest."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError
from g2vlm.inputs.formats.kinds import FileKind, kind_of, read_head
from g2vlm.inputs.listing import natural_key
from g2vlm.inputs.text_files import decode_text

MANIFEST_ENDINGS = (".jsonl", ".parquet")
KEYS = ("id", "images", "video", "folder", "questions", "max_views")
_LONGEST_ID_BYTES = 200


@dataclass(frozen=True)
class SceneTask:
    """One scene: where its photos are and what is asked about it."""

    id: str
    """Name of its folder in the output."""
    sources: tuple[str, ...]
    """Photo files in their order, or one folder or video."""
    questions: tuple[str, ...] = ()
    max_views: int | None = None
    """At most so many views, spread evenly."""

    def __post_init__(self) -> None:
        is_name = self.id and "/" not in self.id and "\\" not in self.id and "\0" not in self.id
        if not is_name or self.id.startswith(".") or len(self.id.encode()) > _LONGEST_ID_BYTES:
            raise InputError(
                f"Expected an id that can name a folder (no slash, no dot at its beginning, at most "
                f"{_LONGEST_ID_BYTES} bytes), got {self.id!r}."
            )
        if not self.sources:
            raise InputError(f"Expected images, a video or a folder of the scene {self.id!r}, got none.")

    @property
    def source(self) -> str | list[str]:
        """As `load_photos` takes it."""
        return self.sources[0] if len(self.sources) == 1 else list(self.sources)


def read_tasks(source: Path) -> list[SceneTask]:
    """The scenes of a folder or a manifest.

    Args:
        source: a folder, in which every folder and every video is a scene of its name; or a manifest, JSON
            lines or parquet, with an `id` and one of `images` (a list), `video` and `folder` in each row,
            relative to the manifest, and perhaps `questions` and `max_views`.

    Returns:
        In natural order of the folder, or as the manifest lists them.

    Raises:
        InputError: nothing there, a row that says too little or something unknown, or an id used twice.
    """
    if source.is_dir():
        tasks = list(_in_folder(source))
        if not tasks:
            raise InputError(f"Expected folders of photos or videos in {source}, found none.")
        return _distinct(tasks, source)
    if source.suffix not in MANIFEST_ENDINGS:
        raise InputError(
            f"Expected a folder of scenes or a manifest ({' or '.join(MANIFEST_ENDINGS)}), got {source}."
        )
    if not source.is_file():
        raise InputError(f"Expected the manifest {source}, found no such file.")
    rows = _json_rows(source) if source.suffix == ".jsonl" else _parquet_rows(source)
    tasks = [_of_row(row, source, number) for number, row in rows]
    if not tasks:
        raise InputError(f"Expected at least one scene in {source}, found none.")
    return _distinct(tasks, source)


def _in_folder(folder: Path) -> Iterator[SceneTask]:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    for entry in sorted(entries, key=lambda entry: natural_key(entry.name)):
        if entry.is_dir():
            yield SceneTask(entry.name, (str(entry),))
        elif kind_of(read_head(entry)) is FileKind.VIDEO:
            yield SceneTask(entry.stem, (str(entry),))


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(decode_text(path.read_bytes(), str(path)).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"Expected JSON in line {number} of {path}, got: {error}.") from error
        if not isinstance(row, dict):
            raise InputError(f"Expected an object in line {number} of {path}, got {line[:60]}.")
        yield number, row


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise InputError(
            f"Reading {path} needs pyarrow: pip install 'g2vlm[cluster]', or use JSON lines."
        ) from error
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise InputError(f"Expected a parquet file, got {path}: {error}.") from error
    for number, row in enumerate(table.to_pylist(), 1):
        # A column that some rows leave empty holds None there.
        yield number, {key: value for key, value in row.items() if value is not None}


def _of_row(row: Mapping[str, Any], manifest: Path, number: int) -> SceneTask:
    place = f"row {number} of {manifest}"
    if unknown := sorted(set(row) - set(KEYS)):
        raise InputError(f"Expected only {', '.join(KEYS)} in {place}, got {', '.join(unknown)}.")
    given = [key for key in ("images", "video", "folder") if key in row]
    if "id" not in row or len(given) != 1:
        raise InputError(
            f"Expected an id and one of images, video and folder in {place}, got "
            f"{', '.join(row) or 'nothing'}."
        )
    named = row[given[0]] if given[0] == "images" else [row[given[0]]]
    questions, max_views = row.get("questions", ()), row.get("max_views")
    texts = [*named, *questions] if isinstance(named, list) and not isinstance(questions, str) else [None]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"Expected lists of texts for images and questions in {place}.")
    if max_views is not None and (not isinstance(max_views, int) or max_views < 1):
        raise InputError(f"Expected max_views of at least 1 in {place}, got {max_views!r}.")
    sources = tuple(str(manifest.parent / name) for name in named)
    return SceneTask(str(row["id"]), sources, tuple(questions), max_views)


def _distinct(tasks: Iterable[SceneTask], source: Path) -> list[SceneTask]:
    seen: dict[str, SceneTask] = {}
    for task in tasks:
        # Folded, since some file systems do not tell "Room" from "room".
        if (other := seen.setdefault(task.id.casefold(), task)) is not task:
            raise InputError(
                f"Expected every id once in {source}, got {task.id!r} for {other.sources[0]} and "
                f"{task.sources[0]}: rename one of them."
            )
    return list(seen.values())
