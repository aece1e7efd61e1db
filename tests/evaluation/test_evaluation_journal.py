"""The journal: nothing finished is lost, nothing foreign is accepted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from g2vlm.data.samples import SceneSample
from g2vlm.errors import InputError, OutputError
from g2vlm.evaluation.benchmarks.synthetic import truth_of
from g2vlm.evaluation.geometry import compare
from g2vlm.evaluation.records import AnswerRecord, Journal, SceneRecord, read_records
from g2vlm.scene.scene import Scene

IDENTITY = {"task": "test-1", "seeds": (1, 2)}


@pytest.fixture
def record(sample: SceneSample, as_scene: Callable[..., Scene]) -> SceneRecord:
    answer = AnswerRecord(
        sight="full",
        family="counting",
        is_choice=True,
        needs_multiple_views=False,
        question="How many?",
        choices=("1", "2"),
        truth="B",
        answer="“B”\n",
        read=None,
        is_right=False,
        mra=None,
    )
    geometry = compare(as_scene(sample), truth_of(sample))
    return SceneRecord("7", geometry, (answer,), None, {"ask_s": 0.5})


def test_records_come_back_as_they_were(tmp_path: Path, record: SceneRecord) -> None:
    Journal(tmp_path / "new" / "j.jsonl", IDENTITY).add(record)
    assert Journal(tmp_path / "new" / "j.jsonl", IDENTITY).records == {"7": record}


def test_a_line_that_was_cut_off_is_dropped_and_the_rest_kept(tmp_path: Path, record: SceneRecord) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path, IDENTITY)
    journal.add(record)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:100])
    again = Journal(path, IDENTITY)
    assert set(again.records) == {"7"}
    again.add(SceneRecord("8", failure="nothing"))
    assert set(Journal(path, IDENTITY).records) == {"7", "8"}


def test_reading_leaves_a_file_that_is_being_written_alone(tmp_path: Path, record: SceneRecord) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, IDENTITY).add(record)
    content = path.read_bytes() + b'{"scene": "8", "geom'
    path.write_bytes(content)
    assert read_records(path) == (record,)
    assert path.read_bytes() == content
    with pytest.raises(InputError, match="missing"):
        read_records(tmp_path / "missing.jsonl")


def test_a_header_that_was_cut_off_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('{"journal_ver')
    assert Journal(path, IDENTITY).records == {}
    assert len(path.read_text().splitlines()) == 1


def test_another_run_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    Journal(tmp_path / "j.jsonl", IDENTITY)
    with pytest.raises(InputError, match="seeds"):
        Journal(tmp_path / "j.jsonl", {**IDENTITY, "seeds": (1, 3)})


@pytest.mark.parametrize("line", ["no json", "[]", '{"scene": "1"}', json.dumps({"run": {}})])
def test_files_that_are_no_journals_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path, IDENTITY)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        Journal(path, IDENTITY)
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1"):
        Journal(path, IDENTITY)


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Expected to write"):
        Journal(tmp_path / "file" / "j.jsonl", IDENTITY)
