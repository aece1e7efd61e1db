"""Published question sets become question files: all turns, all pictures, marks where they belong."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from g2vlm.cli.main import main
from g2vlm.data.language.converting import convert_questions
from g2vlm.data.language.marking import Mark, draw_marks, marks_of
from g2vlm.data.question_file import read_question_file
from g2vlm.errors import InputError


def picture(path: Path, level: int = 90) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((100, 200, 3), level, dtype=np.uint8)).save(path)
    return path.name


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[k % 2], "value": text} for k, text in enumerate(texts)]


def test_llava_arrays_keep_turns_and_pictures(tmp_path: Path) -> None:
    names = [picture(tmp_path / f"{k}.png") for k in range(2)]
    records = [
        {"id": "a", "image": names, "conversations": talk("<image><image>How far?", "2 m", "And up?", "1 m")},
        {"id": "b", "conversations": talk("No picture", "none")},
        {"id": "c", "image": "gone.png", "conversations": talk("?", "!")},
        {"id": "d", "image": names[0], "conversations": talk("half")},
    ]
    (tmp_path / "set.json").write_text(json.dumps(records))
    report = convert_questions(tmp_path / "set.json", tmp_path / "out.jsonl")
    assert report.written == 1
    assert dict(report.dropped) == {
        "no picture": 1,
        "a picture is missing": 1,
        "no alternating questions and answers": 1,
    }
    (conversation,) = read_question_file(tmp_path / "out.jsonl")
    assert [turn.answer for turn in conversation.turns] == ["2 m", "1 m"]
    assert [path.name for path in conversation.images] == names


def test_marks_of_spar_are_drawn_where_they_belong(tmp_path: Path) -> None:
    names = [picture(tmp_path / f"{k}.png") for k in range(2)]
    info = {"red_point": [[250, 500]], "blue_point": [[750, 500]], "point_img_idx": [[1, 0]]}
    record = {"id": "a", "image": names, "conversations": talk("<image><image>Which?", "red")}
    record |= {"spar_info": json.dumps(info), "green_bbox": [[100, 100, 400, 900]]}
    (tmp_path / "set.jsonl").write_text(json.dumps(record) + "\n")
    convert_questions(tmp_path / "set.jsonl", tmp_path / "out.jsonl")
    (conversation,) = read_question_file(tmp_path / "out.jsonl")
    first, second = (np.asarray(Image.open(path)).astype(int) for path in conversation.images)
    assert np.abs(first[50, 150] - [0, 0, 255]).max() < 40
    assert np.abs(second[50, 50] - [255, 0, 0]).max() < 40
    assert np.abs(first[50, 20] - [0, 255, 0]).max() < 60  # the box's left side
    assert np.abs(second[50, 150] - 90).max() < 10
    assert np.asarray(Image.open(tmp_path / "0.png")).max() == 90  # the source is left alone


def test_marks_are_read_in_the_order_of_their_pictures() -> None:
    record = {"red_point": [[1, 2]], "blue_bbox": [[1, 2, 3, 4]], "bbox_img_idx": [[2]]}
    assert marks_of(record) == (Mark("red", 0, (1.0, 2.0)), Mark("blue", 2, (1.0, 2.0, 3.0, 4.0)))
    with pytest.raises(ValueError, match="2 numbers"):
        marks_of({"red_point": [[1, 2, 3]]})
    marked = draw_marks(Image.new("RGB", (100, 100)), (Mark("yellow", 0, (500.0, 500.0)),))
    assert marked.getpixel((50, 50)) == (255, 255, 0)


def test_parquet_folders_with_pictures_inside(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (10, 200, 30)).save(buffer, "PNG")
    stored = {"bytes": buffer.getvalue(), "path": "x.png"}
    rows = [
        {"question": "Which colour?", "answer": "green", "image_list": [stored, stored]},
        {"question": "Why?", "answer": "", "image_list": [stored]},
    ]
    (tmp_path / "data").mkdir()
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "data" / "train-0.parquet")
    report = convert_questions(tmp_path / "data", tmp_path / "out.jsonl")
    assert (report.written, dict(report.dropped)) == (1, {"no answer": 1})
    (conversation,) = read_question_file(tmp_path / "out.jsonl")
    assert len(conversation.images) == 2
    with Image.open(conversation.images[0]) as image:
        assert np.abs(np.array(image.getpixel((20, 20))) - [10, 200, 30]).max() < 8


@pytest.mark.parametrize(
    "record",
    [
        {"question": "Where?", "gt_answer": "A", "images": ["0.png"]},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "Where?"},
                      {"role": "assistant", "content": [{"type": "text", "text": "A"}]}], "image": "0.png"},
        {"texts": [{"user": "Where?", "assistant": "A"}], "images": ["0.png"]},
    ],
)  # fmt: skip
def test_other_spellings(record: dict, tmp_path: Path) -> None:
    picture(tmp_path / "0.png")
    (tmp_path / "set.jsonl").write_text(json.dumps(record))
    convert_questions(tmp_path / "set.jsonl", tmp_path / "out.jsonl")
    (conversation,) = read_question_file(tmp_path / "out.jsonl")
    assert [(turn.question, turn.answer) for turn in conversation.turns] == [("Where?", "A")]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "photos" / "0.png")
    (tmp_path / "set.jsonl").write_text(json.dumps({"question": "?", "answer": "!", "image": "0.png"}))
    words = [str(tmp_path / "set.jsonl"), str(tmp_path / "out.jsonl")]
    assert main(["data", "questions", *words]) == 2
    assert "a picture is missing" in capsys.readouterr().err
    assert not (tmp_path / "out.jsonl").exists()
    assert main(["data", "questions", *words, "--images", str(tmp_path / "photos")]) == 0
    assert "1 conversations" in capsys.readouterr().out
    with pytest.raises(InputError, match="JSON"):
        convert_questions(tmp_path / "nothing.json", tmp_path / "out.jsonl")
