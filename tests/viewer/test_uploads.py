"""Names and sizes of what browsers send."""

import pytest

from g2vlm.errors import InputError
from g2vlm.viewer.limits import Limits
from g2vlm.viewer.uploads import store


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("photo 1.JPG", "photo 1.JPG"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("/absolute.png", "absolute.png"),
        ("küche (2).heic", "küche (2).heic"),
        ("a\0b*?.png", "a_b__.png"),
        (".hidden.png", "hidden.png"),
        ("...", "photo"),
        ("x" * 300 + ".jpeg", "x" * 80 + ".jpeg"),
    ],
)
def test_names_stay_inside_of_the_folder(name, stored, tmp_path):
    path = store(name, b"content", tmp_path)
    assert path == tmp_path / stored
    assert path.read_bytes() == b"content"


def test_equal_names_get_numbers(tmp_path):
    assert [store("a.png", b"1", tmp_path).name for _ in range(3)] == ["a.png", "a-2.png", "a-3.png"]


def test_empty_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="empty file"):
        store("a.png", b"", tmp_path)


def test_limits_are_positive():
    with pytest.raises(InputError, match="max_files of at least 1, got 0"):
        Limits(max_files=0)
