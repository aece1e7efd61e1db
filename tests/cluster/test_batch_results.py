"""What is done of a batch survives whatever is killed, and a scene has a bounded number of attempts."""

import json

import pytest

from g2vlm.cluster.results import SUMMARY, Attempts, ResultFolder, State
from g2vlm.errors import OutputError


@pytest.fixture
def results(tmp_path):
    folder = ResultFolder(tmp_path / "out", "first", max_attempts=2)
    folder.prepare()
    return folder


def finish(results, scene, text="{}"):
    with results.writing(scene) as folder:
        (folder / SUMMARY).write_text(text)


def test_a_scene_is_done_when_its_folder_is_there(results):
    with results.writing("a") as folder:
        (folder / SUMMARY).write_text('{"views": 2}')
        assert not results.is_done("a")
    assert results.state("a") is State.DONE
    assert results.summary("a") == {"id": "a", "state": "done", "views": 2}


def test_what_breaks_off_leaves_nothing_that_counts(results):
    results.begin("a")
    with pytest.raises(OutputError), results.writing("a") as folder:
        (folder / "missing" / "half").write_text("x")
    assert not results.is_done("a")
    assert not list(results.path.glob("a*"))


def test_a_scene_that_kills_its_process_is_given_up(results):
    for _ in range(2):
        assert results.is_open("a")
        results.begin("a")
    assert not results.is_open("a")
    assert results.state("a") is State.QUARANTINED
    # Somebody who starts again wants to see it tried again, after all others.
    again = ResultFolder(results.path, "second", max_attempts=2)
    assert again.is_open("a")
    assert again.is_suspect("a")
    again.begin("a")
    assert again.attempts("a") == Attempts("second", 1, 2)


def test_an_error_is_kept_and_one_that_is_final_ends_the_attempts(results):
    results.begin("a")
    results.fail("a", "disk full", is_final=False)
    assert results.is_open("a")
    assert not results.is_suspect("a")
    results.begin("a")
    results.fail("a", "no photo", is_final=True)
    assert not results.is_open("a")
    assert results.summary("a") == {"id": "a", "state": "failed", "attempts": 2, "error": "no photo"}


def test_an_interruption_is_no_attempt(results):
    results.begin("a")
    results.withdraw("a")
    assert results.attempts("a") == Attempts()
    results.begin("a")
    results.begin("a")
    results.withdraw("a")
    assert results.attempts("a").begun == 1


def test_notes_that_cannot_be_read_count_as_none(results):
    (results.path / ".attempts" / "a.json").write_text("{")
    assert results.is_open("a")


def test_two_runs_may_finish_the_same_scene(results):
    other = ResultFolder(results.path, "second")
    with results.writing("a") as mine:
        (mine / SUMMARY).write_text('{"views": 1}')
        finish(other, "a", '{"views": 1}')
    assert json.loads((results.path / "a" / SUMMARY).read_text()) == {"views": 1}


def test_the_table_has_a_row_for_every_scene(results):
    parquet = pytest.importorskip("pyarrow.parquet")
    finish(
        results,
        "a",
        json.dumps({"views": 2, "points": 3, "bounds": [[0, 0, 0], [1, 1, 1]], "answers": ["x"]}),
    )
    results.begin("b")
    results.fail("b", "no photo", is_final=True)
    rows = parquet.read_table(results.write_table(["a", "b", "c"])).to_pylist()
    assert [row["state"] for row in rows] == ["done", "failed", "open"]
    assert rows[0]["bounds"] == [[0, 0, 0], [1, 1, 1]]
    assert rows[1]["error"] == "no photo"
