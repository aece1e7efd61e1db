"""Small files of numbers and JSON, with errors that name the file."""

import json
from pathlib import Path
from typing import Any

from g2vlm.errors import InputError
from g2vlm.inputs.decode import file_content, printable

_ABOUT = "g2vlm.json"
_LEVELS_UP = 3


def content_of(path: Path, what: str) -> bytes:
    """All bytes of a file; at least one.

    Raises:
        InputError: it cannot be read; the message says what was expected there.
    """
    try:
        return file_content(path.expanduser())
    except InputError as error:
        raise InputError(f"Expected {what} at {printable(str(path))}: {error}.") from error


def text_of(path: Path, what: str) -> str:
    """The text of a file, UTF-8.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return content_of(path, what).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"Expected {what} as UTF-8 text at {printable(str(path))}: it is no text."
        ) from error


def json_of(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InputError: it cannot be read, or is no JSON object.
    """
    try:
        document = json.loads(text_of(path, what))
    except ValueError as error:
        raise InputError(f"Expected {what} as JSON at {printable(str(path))}: {error}.") from error
    if not isinstance(document, dict):
        raise InputError(f"Expected {what} as one JSON object at {printable(str(path))}.")
    return document


def numbers_of(line: str) -> list[float] | None:
    """The numbers of a line, apart by spaces or commas; None if it holds anything else."""
    try:
        return [float(word) for word in line.replace(",", " ").split()]
    except ValueError:
        return None


def written_by_g2vlm(path: Path) -> dict[str, Any] | None:
    """What `g2vlm export` says about the folder that holds a file, in `g2vlm.json`; None without it."""
    folder = path if path.is_dir() else path.parent
    for place in [folder, *folder.absolute().parents][:_LEVELS_UP]:
        if (place / _ABOUT).is_file():
            return json_of(place / _ABOUT, "what g2vlm says about a folder")
    return None
