"""Streamed PLY files hold the same points as files written at once."""

import numpy as np
import pytest

from g2vlm.errors import OutputError
from g2vlm.export.ply import write_ply
from g2vlm.export.ply_stream import write_ply_pieces
from g2vlm.scene.cloud import PointCloud


def cloud(seed: int, count: int) -> PointCloud:
    rng = np.random.default_rng(seed)
    return PointCloud(
        rng.normal(size=(count, 3)).astype(np.float32),
        rng.integers(0, 256, (count, 3), dtype=np.uint8),
        rng.random(count, dtype=np.float32),
        np.zeros(count, np.int32),
    )


def header_and_body(path) -> tuple[list[str], bytes]:
    head, body = path.read_bytes().split(b"end_header\n", 1)
    return head.decode("ascii").splitlines(), body


def test_pieces_make_the_same_vertices_as_the_whole(tmp_path):
    parts = [cloud(0, 5), cloud(1, 0), cloud(2, 1234)]
    whole = PointCloud(
        *(
            np.concatenate([getattr(p, f) for p in parts])
            for f in ("points", "colors", "confidence", "view_index")
        )
    )
    write_ply(whole, tmp_path / "whole.ply", ["a comment"])
    assert write_ply_pieces(iter(parts), tmp_path / "pieces.ply", ["a comment"]) == 1239
    expected, found = header_and_body(tmp_path / "whole.ply"), header_and_body(tmp_path / "pieces.ply")
    assert found[1] == expected[1]
    assert [line for line in found[0] if "streamed" not in line] == expected[0]


def test_nothing_is_left_when_writing_fails(tmp_path):
    def broken():
        yield cloud(0, 3)
        raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="on fire"):
        write_ply_pieces(broken(), tmp_path / "a.ply")
    with pytest.raises(OutputError, match="got none"):
        write_ply_pieces([], tmp_path / "a.ply")
    assert not list(tmp_path.iterdir())
