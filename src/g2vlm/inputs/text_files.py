"""Text that people wrote with any editor, in UTF-8, UTF-16, UTF-32 or an older 8-bit encoding.

The byte-order mark decides where there is one. Else the text is UTF-8 if it can be, UTF-16 if every other
byte is zero, and otherwise what the system's language settings name or Windows-1252, which shares its letters
with Latin-1. Guessing is safe for the first two: hardly any text in an older encoding is valid UTF-8.
"""

import codecs
import json
import locale
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from g2vlm.errors import InputError

_MARKS = {
    # UTF-32 first: its little-endian mark begins with that of UTF-16.
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_MARK = "\N{ZERO WIDTH NO-BREAK SPACE}"
_NOT_TEXT = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


@runtime_checkable
class ByteLines(Protocol):
    """A stream of bytes that is read line by line."""

    def readline(self) -> bytes:
        """The next bytes up to a line feed and with it; empty at the end."""
        ...


def decode_text(data: bytes, origin: str) -> str:
    """The characters of some bytes, whatever they were written with, without a byte-order mark.

    Args:
        data: the bytes.
        origin: where they come from, for messages.

    Raises:
        InputError: they are no text.
    """
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return _checked(_decoded(data[len(mark) :], encoding, origin), origin)
    return _checked(_decoded(data, _guess(data), origin), origin)


def decoded_lines(stream: ByteLines, origin: str) -> Iterator[str]:
    """Lines of a stream as they arrive, without line breaks and byte-order marks.

    A stream with a byte-order mark, or one whose first line looks like UTF-16, is read in that encoding. In
    any other, each line is decoded by itself, so that a line is known as soon as it was sent.

    Raises:
        InputError: it cannot be read, or a line is no text.
    """
    first = _readline(stream, origin)
    encoding = next((name for mark, name in _MARKS.items() if first.startswith(mark)), _guess(first))
    if encoding.startswith(("utf-16", "utf-32")):
        yield from _wide_lines(first, stream, encoding, origin)
        return
    line = first
    while line:
        # A carriage return alone ends a line too, as on old Macs.
        yield from decode_text(line, origin).removesuffix("\n").removesuffix("\r").split("\r")
        line = _readline(stream, origin)


def read_questions(path: Path) -> tuple[str, ...]:
    """The questions in a file: one per line, or JSON lines where the name ends in .jsonl, .ndjson or .json.

    A JSON line is a text, or an object whose `question` is one. Empty lines are skipped.

    Raises:
        InputError: no such file, no text, no questions, or a line that holds none; the line is named.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"Expected a file of questions at {path}, got {error.strerror}: name a text file, one "
            "question per line."
        ) from error
    text = decode_text(data, str(path))
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    if path.suffix.lower() in JSON_SUFFIXES:
        questions = _json_questions(text, lines, path)
    else:
        questions = [line for line in lines if line]
    if not questions:
        raise InputError(f"Expected questions in {path}, found none: write one per line.")
    return tuple(questions)


def text_of_argument(word: str) -> str:
    """A word of the command line as text; bytes that the system could not decode are decoded here.

    Raises:
        InputError: they are no text.
    """
    try:
        word.encode()
    except UnicodeEncodeError:
        # Python keeps what it cannot decode as half surrogates, each of which stands for a byte.
        return decode_text(word.encode(errors="surrogateescape"), "the command line")
    return word


def _json_questions(text: str, lines: list[str], path: Path) -> list[str]:
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = None
    if isinstance(whole, list):
        return [_question_of(value, f"{path}, entry {k}") for k, value in enumerate(whole, start=1)]
    questions = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number}: expected one JSON value per line, got text that is not JSON "
                f"({error.msg}): name the file .txt if it holds plain questions."
            ) from error
        questions.append(_question_of(value, f"{path}, line {number}"))
    return questions


def _question_of(value: object, where: str) -> str:
    question = value.get("question") if isinstance(value, dict) else value
    if not isinstance(question, str) or not question.strip():
        raise InputError(
            f'{where}: expected a text, or an object with a text "question", got {str(value)[:60]!r}.'
        )
    return question.strip()


def _readline(stream: ByteLines, origin: str) -> bytes:
    try:
        return stream.readline()
    except OSError as error:
        raise InputError(f"Expected text from {origin}, got {error.strerror}.") from error


def _wide_lines(first: bytes, stream: ByteLines, encoding: str, origin: str) -> Iterator[str]:
    """Lines of two or four bytes per character, which a byte-wise line end may cut in the middle."""
    decoder = codecs.getincrementaldecoder(encoding)()
    rest, piece = "", first
    while piece:
        try:
            rest += decoder.decode(piece)
        except UnicodeDecodeError as error:
            raise _not_text(origin) from error
        *lines, rest = rest.split("\n")
        for line in lines:
            yield _checked(line.rstrip("\r"), origin)
        piece = _readline(stream, origin)
    if decoder.getstate()[0]:  # half a character at the end
        raise _not_text(origin)
    if rest:
        yield _checked(rest.rstrip("\r"), origin)


def _guess(data: bytes) -> str:
    """The encoding of bytes without a mark."""
    try:
        data.decode()
        # ASCII in UTF-16 is valid UTF-8 too, with zeros between the letters; no text has those.
        if 0 not in data:
            return "utf-8"
    except UnicodeDecodeError:
        pass
    # In text of any European language in UTF-16, most high bytes are zero.
    even, odd = data[::2], data[1::2]
    if odd.count(0) > len(odd) / 2 > even.count(0):
        return "utf-16-le"
    if even.count(0) > len(even) / 2 > odd.count(0):
        return "utf-16-be"
    return "8-bit"


def _decoded(data: bytes, encoding: str, origin: str) -> str:
    if encoding != "8-bit":
        try:
            return data.decode(encoding)
        except UnicodeDecodeError as error:
            raise _not_text(origin) from error
    for name in (locale.getpreferredencoding(do_setlocale=False), "cp1252"):
        try:
            return data.decode(name)
        except UnicodeDecodeError:
            continue
    # The five bytes that Windows-1252 leaves undefined are control characters of Latin-1.
    return data.decode("latin-1")


def _checked(text: str, origin: str) -> str:
    if _NOT_TEXT.search(text):
        raise _not_text(origin)
    return text.strip(_MARK)


def _not_text(origin: str) -> InputError:
    return InputError(f"Expected text from {origin}, got other data: save it as plain text in UTF-8.")
