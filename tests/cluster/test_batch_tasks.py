"""What a batch is told to do: folders of scenes and manifests, and mistakes in them."""

import json

import pytest
from batch_scenes import write_scenes

from g2vlm.cluster.tasks import SceneTask, read_tasks
from g2vlm.errors import InputError


def test_folders_are_scenes_in_natural_order(tmp_path):
    write_scenes(tmp_path, ["room10", "room2", "küche [2024]"])
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "notes.txt").write_text("not a scene")
    tasks = read_tasks(tmp_path)
    assert [task.id for task in tasks] == ["küche [2024]", "room2", "room10"]
    assert tasks[1].source == str(tmp_path / "room2")


def rows(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_manifest_names_images_questions_and_views(tmp_path):
    manifest = rows(
        tmp_path / "scenes.jsonl",
        {"id": "a", "images": ["a/1.jpg", "/abs/2.jpg"], "questions": ["How far?"], "max_views": 2},
        "",
        {"id": "b", "video": "b.mp4"},
        {"id": "c", "folder": "c"},
    )
    first, second, third = read_tasks(manifest)
    assert first == SceneTask("a", (str(tmp_path / "a/1.jpg"), "/abs/2.jpg"), ("How far?",), 2)
    assert first.source == list(first.sources)
    assert (second.source, third.source) == (str(tmp_path / "b.mp4"), str(tmp_path / "c"))


def test_a_table_says_the_same(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = [{"id": "a", "images": ["1.jpg"], "questions": ["How far?"]}, {"id": "b", "images": ["2.jpg"]}]
    parquet.write_table(pyarrow.Table.from_pylist(table), tmp_path / "scenes.parquet")
    first, second = read_tasks(tmp_path / "scenes.parquet")
    assert (first.questions, second.questions) == (("How far?",), ())
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(InputError, match="parquet file"):
        read_tasks(tmp_path / "broken.parquet")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("{", "JSON in line 1"),
        ("[1]", "an object"),
        ({"id": "a"}, "one of images, video and folder"),
        ({"id": "a", "images": [], "folder": "x"}, "one of images, video and folder"),
        ({"id": "a", "images": []}, "got none"),
        ({"id": "a", "images": "1.jpg"}, "lists of texts"),
        ({"id": "a", "images": [1]}, "lists of texts"),
        ({"id": "a", "folder": "x", "questions": "How far?"}, "lists of texts"),
        ({"id": "a", "folder": "x", "max_views": 0}, "max_views"),
        ({"id": "a", "folder": "x", "colour": "red"}, "colour"),
        ({"id": "../a", "folder": "x"}, "name a folder"),
        ({"id": ".a", "folder": "x"}, "name a folder"),
        ({"id": "a" * 201, "folder": "x"}, "name a folder"),
        ("", "at least one scene"),
    ],
)
def test_mistakes_in_a_manifest_are_told_with_their_place(tmp_path, row, told):
    with pytest.raises(InputError, match=told):
        read_tasks(rows(tmp_path / "scenes.jsonl", row))


def test_an_id_is_used_once_whatever_the_file_system(tmp_path):
    manifest = rows(tmp_path / "s.jsonl", {"id": "Room", "folder": "x"}, {"id": "room", "folder": "y"})
    with pytest.raises(InputError, match="every id once"):
        read_tasks(manifest)


def test_nothing_to_do_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    for place, told in (
        ("empty", "folders of photos"),
        ("missing.jsonl", "no such file"),
        ("x.csv", "manifest"),
    ):
        with pytest.raises(InputError, match=told):
            read_tasks(tmp_path / place)
