"""Question files: what is read, and what is said about mistakes."""

import json
from pathlib import Path

import pytest

from g2vlm.data.question_file import Conversation, Turn, read_question_file, write_question_file
from g2vlm.errors import InputError


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "pictures" / name).write_bytes(b"not decoded here")
    return tmp_path


def write(folder: Path, *records: object) -> Path:
    path = folder / "questions.jsonl"
    path.write_text(
        "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records) + "\n", encoding="utf-8"
    )
    return path


GOOD = {
    "id": 7,
    "image": ["pictures/a.jpg", "pictures/b.jpg"],
    "conversations": [
        human("<image>\n<image>\nHow far is it?"),
        gpt(" 1.4 "),
        human("And to the door?"),
        gpt("2.0"),
    ],
}


def test_reads_turns_and_images(folder: Path) -> None:
    path = write(
        folder, GOOD, "", {"image": "pictures/b.jpg", "conversations": [human("What is it?"), gpt("A bed")]}
    )
    first, second = read_question_file(path)
    assert first.identifier == "7"
    assert first.images == (folder / "pictures/a.jpg", folder / "pictures/b.jpg")
    assert first.turns == (Turn("How far is it?", "1.4"), Turn("And to the door?", "2.0"))
    assert second.images == (folder / "pictures/b.jpg",)


def test_images_may_lie_elsewhere(folder: Path) -> None:
    path = write(folder, {"image": "a.jpg", "conversations": [human("?"), gpt("!")]})
    (conversation,) = read_question_file(path, folder / "pictures")
    assert conversation.images == (folder / "pictures/a.jpg",)


def test_what_is_written_is_read_back(folder: Path) -> None:
    written = (
        Conversation("x", (folder / "pictures/a.jpg",), (Turn("Wie groß?", "2 m"), Turn("Und hoch?", "1 m"))),
    )
    path = folder / "again.jsonl"
    write_question_file(path, written)
    assert read_question_file(path) == written
    assert '"pictures/a.jpg"' in path.read_text(encoding="utf-8")


def broken(**changes: object) -> dict[str, object]:
    return {**GOOD, **changes}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ('{"image": ', "line 2: expected one JSON object per line"),
        ("[1, 2]", "line 2: expected a JSON object"),
        (broken(image=[]), 'expected "image" to be a path'),
        (broken(image=[3]), 'expected "image" to be a path'),
        (broken(image=["pictures/c.jpg", "pictures/a.jpg"]), r"image not found: .*c\.jpg"),
        (broken(image="pictures/a.jpg"), "expected 2 images for 2 <image> placeholders, got 1"),
        (broken(conversations="hi"), 'expected "conversations" to be a list'),
        (broken(conversations=[]), 'expected "conversations" to be a list'),
        (broken(conversations=[human("a")]), "an answer after every question"),
        (broken(conversations=[gpt("a"), human("b")]), 'message 1 from "human"'),
        (broken(conversations=[human("a"), human("b")]), 'message 2 from "gpt"'),
        (broken(conversations=[human("a"), {"from": "gpt"}]), "expected message 2"),
        (broken(conversations=[human("<image><image>"), gpt("b")]), "got an empty one"),
    ],
)
def test_mistakes_are_named_with_their_line(folder: Path, record: object, message: str) -> None:
    path = write(folder, GOOD, record)
    with pytest.raises(InputError, match=message) as caught:
        read_question_file(path)
    assert "line 2" in str(caught.value)


def test_missing_empty_and_binary_files(folder: Path) -> None:
    with pytest.raises(InputError, match="Cannot read the question file"):
        read_question_file(folder / "none.jsonl")
    with pytest.raises(InputError, match="at least one question"):
        read_question_file(write(folder, ""))
    (folder / "bad.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_question_file(folder / "bad.jsonl")
