"""Questions written with any editor: encodings, byte-order marks, line ends, files that are no text."""

import io
import json
import threading
from pathlib import Path

import pytest

from g2vlm.errors import InputError
from g2vlm.inputs.text_files import decode_text, decoded_lines, read_questions, text_of_argument

LINES = ["Where is the lamp?", "Wo ist die Tür?", "Où est la chaise – là ?"]
CHINESE = ["椅子在哪里？", "Где лампа?"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
)
def test_any_encoding_gives_the_same_questions(encoding: str, end: str, tmp_path: Path) -> None:
    data = end.join(LINES).encode(encoding)
    assert list(decoded_lines(io.BytesIO(data), "here")) == LINES
    ended = end.join([*LINES, ""]).encode(encoding)
    assert [line for line in decoded_lines(io.BytesIO(ended), "here") if line] == LINES
    file = tmp_path / "questions.txt"
    file.write_bytes(data)
    assert read_questions(file) == tuple(LINES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_other_scripts(encoding: str) -> None:
    data = "\n".join(CHINESE).encode(encoding)
    assert list(decoded_lines(io.BytesIO(data), "here")) == CHINESE


def test_latin_1_and_old_macs() -> None:
    data = "\r".join(LINES[:2]).encode("latin-1")
    assert list(decoded_lines(io.BytesIO(data), "here")) == LINES[:2]
    assert decode_text(b"caf\xe9 \x81", "here") == "café \x81"


def test_separators_inside_a_line_stay() -> None:
    text = json.dumps("one\u2028two", ensure_ascii=False)
    assert list(decoded_lines(io.BytesIO(text.encode()), "here")) == [text]


def test_a_line_is_known_as_soon_as_it_was_sent() -> None:
    import os

    reading, writing = os.pipe()
    answered = threading.Event()

    def ask() -> None:
        with open(writing, "wb", buffering=0) as pipe:
            pipe.write("Tür?\n".encode("cp1252"))
            assert answered.wait(10)
            pipe.write(b"lamp?\n")

    asker = threading.Thread(target=ask)
    asker.start()
    with open(reading, "rb") as pipe:
        lines = decoded_lines(pipe, "here")
        assert next(lines) == "Tür?"
        answered.set()
        assert list(lines) == ["lamp?"]
    asker.join()


@pytest.mark.parametrize(
    "data", [bytes(range(256)), b"\x89PNG\r\n\x1a\n\x00\x00", b"\xff\xfea", b"\xff\xfe\x00\xd8"]
)
def test_what_is_no_text_is_told(data: bytes) -> None:
    with pytest.raises(InputError, match="Expected text from here"):
        list(decoded_lines(io.BytesIO(data), "here"))
    with pytest.raises(InputError, match="Expected text from here"):
        decode_text(data, "here")


def test_json_lines(tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    file.write_text('"How far?"\n\n{"question": " Where? ", "id": 7}\n', encoding="utf-16")
    assert read_questions(file) == ("How far?", "Where?")
    file = tmp_path / "questions.json"
    file.write_text('[\n "How far?",\n {"question": "Where?"}\n]')
    assert read_questions(file) == ("How far?", "Where?")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("q.jsonl", '"a"\n{"text": "b"}', "line 2: expected a text, or an object"),
        ("q.jsonl", '"a"\nWhere is it?', "line 2: expected one JSON value per line"),
        ("q.json", '["a", 7]', "entry 2: expected a text"),
        ("q.txt", " \n\n", "found none"),
        ("q.txt", "", "found none"),
    ],
)
def test_files_without_questions_name_the_line(name: str, text: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=expected):
        read_questions(tmp_path / name)


def test_a_folder_or_nothing_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.txt"):
        with pytest.raises(InputError, match="Expected a file of questions"):
            read_questions(path)


def test_arguments_that_the_system_could_not_decode() -> None:
    assert text_of_argument("Tür?") == "Tür?"
    assert text_of_argument("T\udcfcr?") == "Tür?"
