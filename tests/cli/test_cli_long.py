"""`g2vlm recon --window`: a long folder in pieces, continued, in both formats."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.cli.main import main


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("frames")
    draw = np.random.default_rng(0)
    for index in range(7):
        Image.fromarray(draw.integers(0, 255, (42, 56, 3), dtype=np.uint8)).save(folder / f"view{index}.png")
    checkpoint = random_checkpoint(tmp_path_factory.mktemp("weights") / "tiny")
    return [
        "recon",
        "--data_path",
        str(folder),
        "--ckpt",
        str(checkpoint),
        "--dtype",
        "float32",
        "--window",
        "4",
    ]


def test_a_long_reconstruction_is_written_and_continued(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "walk.ply"
    assert main([*words, "--overlap", "2", "--save_path", str(target), "--json"]) == 0
    captured = capsys.readouterr()
    summary = json.loads(captured.out)
    pieces = tmp_path / "walk_pieces"
    assert (summary["frames"], summary["pieces"], summary["files"]) == (7, 3, [str(target)])
    assert f"element vertex {summary['points']}" in target.read_bytes()[:600].decode("ascii", "ignore")
    assert str(pieces) in captured.err
    before = {file: file.stat().st_mtime_ns for file in pieces.glob("piece_*.npz")}
    assert len(before) == 3
    stored = tmp_path / "walk.npz"
    again = [*words, "--overlap", "2", "--save_path", str(stored), "--pieces", str(pieces), "--anchor_first"]
    assert main(again) == 0
    assert capsys.readouterr().out.startswith("7 frames in 3 pieces, ")
    assert {file: file.stat().st_mtime_ns for file in pieces.glob("piece_*.npz")} == before
    with np.load(stored) as scene:
        assert len(scene["names"]) == 7
        np.testing.assert_allclose(scene["T_world_camera"][0], np.eye(4), atol=1e-5)


def test_mistakes_are_found_before_the_model_is_loaded(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = ["--save_path", str(tmp_path / "a.ply")]
    for flags, message in [
        (["--overlap", "3"], "half of the window"),
        (["--overlap", "1", "--max_views", "3"], "got both"),
        (["--spill", "somewhere"], "--window or --spill, got both"),
    ]:
        assert main([*words, *target, *flags]) == 2
        captured = capsys.readouterr()
        assert message in captured.err
        assert "checkpoint:" not in captured.err
    assert main([*words, *target, "--overlap", "2"]) == 0
    assert main([*words, *target, "--overlap", "1"]) == 2
    assert "overlap was 2, now 1" in capsys.readouterr().err
