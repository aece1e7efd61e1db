"""From published question sets to one question file of JSON lines, with the pictures it speaks of.

Read are: LLaVA's layout as a JSON array or as JSON lines (SPAR-7M's with its marks, which are drawn onto
copies of the pictures); records with `question` and `answer` (or `gt_answer`) and `image`, `images` or
`image_list`, as MindCube, OST-Bench and OmniSpatial have them; and folders of parquet files with such
columns, as Hugging Face's `datasets` stores them, pictures inside or by path. Conversations keep all turns
and all pictures. Records without a picture are told and left out: question files are about pictures.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from g2vlm.data.language.marking import draw_marks, marks_of
from g2vlm.errors import InputError
from g2vlm.inputs.text_files import decoded_lines
from g2vlm.scene.writing import atomic_path

_IMAGE_KEYS = ("image", "images", "image_list", "image_path")
_TALK_KEYS = ("conversations", "messages", "texts")
_ANSWER_KEYS = ("answer", "gt_answer", "ground_truth")
_HUMAN, _MODEL = {"human", "user"}, {"gpt", "assistant", "model"}


@dataclass
class ConversionReport:
    """What was written and what was left out."""

    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Target:
    pictures: Path
    """Folder of pictures that had to be written."""
    source: Path
    """What paths of pictures are relative to."""


def convert_questions(
    source: Path, target: Path, images: Path | None = None, limit: int | None = None
) -> ConversionReport:
    """Write a question file, and the pictures that are not files of their own or carry marks.

    Args:
        source: a .json, .jsonl or .parquet file, or a folder of parquet files.
        target: the .jsonl file; pictures go to a folder of its name beside it.
        images: what paths of pictures are relative to; the source's folder without it.
        limit: records at most.

    Raises:
        InputError: the source cannot be read, or no record of it can be used.
        OutputError: the target cannot be written.
    """
    report = ConversionReport()
    place = _Target(target.with_suffix(""), images or (source if source.is_dir() else source.parent))
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as lines:
        for number, record in enumerate(_records(source)):
            if limit is not None and report.written >= limit:
                break
            try:
                converted = _converted(record, number, place)
            except (KeyError, TypeError, ValueError, OSError) as error:
                name = "a picture is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
                report.dropped[name if not str(error).startswith("no ") else str(error)] += 1
                continue
            lines.write(json.dumps(converted, ensure_ascii=False) + "\n")
            report.written += 1
        if not report.written:
            reasons = ", ".join(f"{count} times: {reason}" for reason, count in report.dropped.items())
            raise InputError(f"Expected questions about pictures in {source}, found none ({reasons}).")
    return report


def _records(source: Path) -> Iterator[dict[str, Any]]:
    if source.is_dir() or source.suffix == ".parquet":
        yield from _rows(source)
        return
    try:
        with source.open("rb") as file:
            if file.read(64).lstrip()[:1] == b"[":
                file.seek(0)
                yield from json.load(file)
                return
            file.seek(0)
            yield from (json.loads(line) for line in decoded_lines(file, str(source)) if line.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"Expected a JSON array or JSON lines in {source}: {error}.") from error


def _rows(source: Path) -> Iterator[dict[str, Any]]:
    from g2vlm.data.shards.writing import parquet

    files = sorted(source.rglob("*.parquet")) if source.is_dir() else [source]
    if not files:
        raise InputError(f"Expected parquet files in {source}, found none.")
    for file in files:
        for batch in parquet().ParquetFile(file).iter_batches(batch_size=16):
            yield from batch.to_pylist()


def _converted(record: dict[str, Any], number: int, place: _Target) -> dict[str, Any]:
    """A record in the layout of question files.

    Raises:
        ValueError: it holds no picture or no answer.
    """
    pictures = _pictures(record)
    if not pictures:
        raise ValueError("no picture")
    marks = marks_of(record)
    paths = []
    for k, picture in enumerate(pictures):
        mine = tuple(mark for mark in marks if mark.picture == k)
        content = picture if isinstance(picture, bytes) else None
        path = (place.source / str(picture)).resolve() if content is None else place.source
        if content is None and not path.is_file():
            raise FileNotFoundError(path)
        if content is not None or mine:
            with Image.open(path if content is None else io.BytesIO(content)) as image:
                path = place.pictures / f"{number:08d}-{k}.jpg"
                with atomic_path(path) as temporary:
                    draw_marks(image, mine).save(temporary, "JPEG", quality=95)
        paths.append(str(path))
    talk = _talk(record)
    return {"id": str(record.get("id", number)), "image": paths, "conversations": talk}


def _pictures(record: dict[str, Any]) -> list[bytes | str]:
    for key in _IMAGE_KEYS:
        value = record.get(key)
        if value:
            values = value if isinstance(value, list) else [value]
            return [_picture(item) for item in values]
    return []


def _picture(value: object) -> bytes | str:
    """Bytes, a path, or the pair of both that `datasets` stores."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, bytes | str) or not value:
        raise TypeError(f"a picture expected, got {type(value).__name__}")
    return value


def _talk(record: dict[str, Any]) -> list[dict[str, str]]:
    for key in _TALK_KEYS:
        if isinstance(record.get(key), list):
            turns = [turn for message in record[key] for turn in _turns(message)]
            speakers = [who for who, _ in turns]
            if not turns or speakers != ["human", "gpt"] * (len(turns) // 2):
                raise ValueError("no alternating questions and answers")
            return [{"from": who, "value": text} for who, text in turns]
    answer = next((str(record[key]) for key in _ANSWER_KEYS if record.get(key) not in (None, "")), None)
    if answer is None:
        raise ValueError("no answer")
    return [{"from": "human", "value": str(record["question"])}, {"from": "gpt", "value": answer}]


def _turns(message: dict[str, Any]) -> list[tuple[str, str]]:
    """One message, or a question with its answer, as several collections spell them."""
    if "user" in message and "assistant" in message:
        return [("human", str(message["user"])), ("gpt", str(message["assistant"]))]
    who = str(message.get("from", message.get("role", "")))
    text = message.get("value", message.get("content"))
    if isinstance(text, list):
        text = "".join(str(part.get("text") or "") for part in text if isinstance(part, dict))
    if who == "system":
        return []
    if who not in _HUMAN | _MODEL or not isinstance(text, str):
        raise ValueError("no speaker or text")
    return [("human" if who in _HUMAN else "gpt", text)]
