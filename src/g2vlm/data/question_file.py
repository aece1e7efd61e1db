"""Question files of one's own: JSON lines in LLaVA's layout, with the images beside them.

One object per line:

    {"id": "7", "image": ["a.jpg", "b.jpg"], "conversations": [
        {"from": "human", "value": "<image><image>How far apart are the chairs?"},
        {"from": "gpt", "value": "1.4"}]}

`image` is a path or a list of paths, relative to the file's folder unless another folder is given. Messages
alternate between `human` and `gpt`; `<image>` placeholders are optional, but if there are any there must be
one for each image.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError
from g2vlm.inputs.text_files import decoded_lines

IMAGE_PLACEHOLDER = "<image>"
_SPEAKERS = {"human": 0, "user": 0, "gpt": 1, "assistant": 1}


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    """Without image placeholders."""
    answer: str


@dataclass(frozen=True)
class Conversation:
    """Images, and questions about them with answers."""

    identifier: str
    images: tuple[Path, ...]
    """Absolute paths of existing files."""
    turns: tuple[Turn, ...]


def read_question_file(path: Path, image_folder: Path | None = None) -> tuple[Conversation, ...]:
    """Reads a whole question file.

    Args:
        path: the JSON lines; empty lines are skipped.
        image_folder: what image paths are relative to; the file's folder when not given.

    Raises:
        InputError: naming the line and what is wrong with it, if the file is missing, empty or malformed or
            an image does not exist.
    """
    conversations = tuple(iterate_question_file(path, image_folder))
    if not conversations:
        raise InputError(f"Expected at least one question in {path}, found none: write one object per line.")
    return conversations


def iterate_question_file(path: Path, image_folder: Path | None = None) -> Iterator[Conversation]:
    """Like `read_question_file`, one line at a time, for files larger than memory."""
    folder = (image_folder or path.parent).absolute()
    try:
        stream = path.open("rb")
    except OSError as error:
        raise InputError(
            f"Cannot read the question file {path}: {error.strerror}. Give the path of a .jsonl file."
        ) from error
    with stream:
        for number, line in enumerate(decoded_lines(stream, str(path)), start=1):
            if line.strip():
                yield parse_conversation(line, f"{path}, line {number}", folder)


def write_question_file(path: Path, conversations: Sequence[Conversation]) -> None:
    """Writes conversations in the layout that `read_question_file` reads.

    Image paths become relative to the file's folder where the images lie in it, and stay absolute elsewhere.
    """
    folder = path.parent.absolute()
    with path.open("w", encoding="utf-8") as lines:
        for conversation in conversations:
            images = [
                str(image.relative_to(folder)) if image.is_relative_to(folder) else str(image)
                for image in conversation.images
            ]
            messages = []
            for k, turn in enumerate(conversation.turns):
                prefix = IMAGE_PLACEHOLDER * len(images) if k == 0 else ""
                messages.append({"from": "human", "value": prefix + turn.question})
                messages.append({"from": "gpt", "value": turn.answer})
            record = {"id": conversation.identifier, "image": images, "conversations": messages}
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")


def parse_conversation(line: str, where: str, folder: Path) -> Conversation:
    """One line of a question file.

    Args:
        line: the JSON object.
        where: the line's name in messages.
        folder: what image paths are relative to.

    Raises:
        InputError: saying what is wrong with it, or which image does not exist.
    """
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where}: expected one JSON object per line, got text that is not JSON ({error.msg} at column "
            f"{error.colno}). A JSON array or a pretty-printed file must be converted to one line per object."
        ) from error
    if not isinstance(record, dict):
        raise InputError(
            f"{where}: expected a JSON object with image and conversations, got {_kind(record)}."
        )
    images = _images(record, where, folder)
    messages = record.get("conversations")
    if not isinstance(messages, list) or not messages:
        raise InputError(
            f'{where}: expected "conversations" to be a list of messages, got {_kind(messages)}.'
        )
    texts = [_message(message, k, where) for k, message in enumerate(messages)]
    if len(texts) % 2:
        raise InputError(
            f"{where}: expected an answer after every question, got {len(texts)} messages: add the last one."
        )
    placeholders = sum(text.count(IMAGE_PLACEHOLDER) for text in texts[::2])
    if placeholders not in (0, len(images)):
        raise InputError(
            f"{where}: expected {placeholders} images for {placeholders} {IMAGE_PLACEHOLDER} placeholders, "
            f"got {len(images)}: add images or remove placeholders."
        )
    turns = tuple(
        Turn(question.replace(IMAGE_PLACEHOLDER, "").strip(), answer.strip())
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
    )
    if any(not turn.question or not turn.answer for turn in turns):
        raise InputError(f"{where}: expected every question and answer to have text, got an empty one.")
    return Conversation(str(record.get("id", where)), images, turns)


def _images(record: dict[str, Any], where: str, folder: Path) -> tuple[Path, ...]:
    names = record.get("image", record.get("images"))
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f'{where}: expected "image" to be a path or a list of paths, got {_kind(names)}.')
    paths = tuple(folder / name for name in names)
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise InputError(
            f"{where}: image not found: {', '.join(missing)}. Paths are relative to {folder}; choose another "
            "image folder if the images are elsewhere."
        )
    return paths


def _message(message: object, position: int, where: str) -> str:
    if not isinstance(message, dict) or not isinstance(message.get("value"), str):
        raise InputError(
            f'{where}: expected message {position + 1} to have "from" and a text "value", got '
            f"{_kind(message)}."
        )
    speaker = message.get("from")
    if not isinstance(speaker, str) or _SPEAKERS.get(speaker) != position % 2:
        wanted = "gpt" if position % 2 else "human"
        raise InputError(
            f'{where}: expected message {position + 1} from "{wanted}" (questions and answers alternate), '
            f"got {speaker!r}."
        )
    return str(message["value"])


def _kind(value: object) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
