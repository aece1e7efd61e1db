"""Shards as a whole: nothing half, nothing twice, the same by one process or two, told what was left out."""

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from exact_room import exact_views
from miniatures import MINIATURES, save_depth, save_png, save_text, scannet

pytest.importorskip("pyarrow", reason="prepared data need the extra data")

from g2vlm.cli.main import main
from g2vlm.data.prepare import conversion
from g2vlm.data.prepare.admission import Choice
from g2vlm.data.prepare.conversion import Preparation, prepare
from g2vlm.data.prepare.indoor.seven_scenes import SevenScenes
from g2vlm.data.prepare.registry import layout_named
from g2vlm.data.shards.reading import PreparedData
from g2vlm.errors import InputError


def sequences(root: Path, count: int) -> Path:
    """A room of several sequences in the layout of 7-Scenes."""
    views = exact_views(3)
    for number in range(1, count + 1):
        for k, view in enumerate(views):
            stem = root / "lounge" / f"seq-{number:02d}" / f"frame-{k:06d}"
            save_png(view, stem.with_name(stem.name + ".color.png"))
            save_depth(view.depth, stem.with_name(stem.name + ".depth.png"), 1000)
            save_text(view.T_world_camera, stem.with_name(stem.name + ".pose.txt"))
    np.savetxt(root / "lounge" / "camera-intrinsics.txt", views[0].K)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the records of parts, which hold no more than the others."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_shards_are_webdataset_tars(tmp_path: Path) -> None:
    tars = pytest.importorskip("webdataset.tariterators")
    scannet(tmp_path / "source")
    prepare(Preparation(layout_named("scannet"), tmp_path / "source", tmp_path / "out"))
    shard = tmp_path / "out" / "shard-00000.tar"
    with shard.open("rb") as stream:
        samples = list(
            tars.group_by_keys({**member, "__url__": str(shard)} for member in tars.tar_file_iterator(stream))
        )
    frames = list(PreparedData(tmp_path / "out"))
    assert len(samples) == len(frames) == 4
    for sample, frame in zip(samples, frames, strict=True):
        assert sample["rgb.jpg"] == frame.rgb
        assert json.loads(sample["json"])["frame"] == frame.frame


def test_pictures_keep_their_bytes(tmp_path: Path) -> None:
    sequences(tmp_path / "source", 1)
    prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out"))
    for frame in PreparedData(tmp_path / "out"):
        source = tmp_path / "source" / "lounge" / "seq-01" / f"{frame.frame}.color.png"
        assert frame.rgb == source.read_bytes()


def test_two_processes_write_what_one_writes(tmp_path: Path) -> None:
    sequences(tmp_path / "source", 3)
    for name, workers in (("one", 1), ("two", 2)):
        prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / name, workers=workers))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_an_interrupted_run_leaves_whole_shards_and_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences(tmp_path / "source", 3)
    prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "whole"))
    original, calls = conversion.posed_frames, []

    def failing(*arguments: object) -> Iterator[object]:
        calls.append(arguments)
        for number, frame in enumerate(original(*arguments)):
            if len(calls) == 2 and number == 1:
                raise KeyboardInterrupt
            yield frame

    job = Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out")
    monkeypatch.setattr(conversion, "posed_frames", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare(job)
    monkeypatch.undo()
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["index", "shard-00000.tar"]
    with tarfile.open(tmp_path / "out" / "shard-00000.tar") as shard:
        assert sum(name.endswith(".json") for name in shard.getnames()) == 3
    report = prepare(job)
    assert (report.earlier_scenes, report.scenes) == (1, 2)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert prepare(job).scenes == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from g2vlm.data.shards import writing
    from g2vlm.errors import OutputError

    sequences(tmp_path / "source", 1)

    def full(frame: object) -> dict[str, bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "encode_frame", full)
    with pytest.raises((OSError, OutputError), match="No space left"):
        prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out"))
    assert sorted(contents(tmp_path / "out")) == ["index/settings.json"]


def test_scenes_that_were_added_later_are_added(tmp_path: Path) -> None:
    sequences(tmp_path / "source", 1)
    job = Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out")
    prepare(job)
    sequences(tmp_path / "source", 2)
    report = prepare(job)
    assert (report.earlier_scenes, report.scenes) == (1, 1)
    assert len(PreparedData(tmp_path / "out")) == 6


def test_other_choices_are_not_mixed_in(tmp_path: Path) -> None:
    sequences(tmp_path / "source", 1)
    prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out"))
    with pytest.raises(InputError, match="as it began"):
        prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out", Choice(every=2)))


def test_limits(tmp_path: Path) -> None:
    sequences(tmp_path / "source", 3)
    choice = Choice(every=2, max_frames=1)
    prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out", choice, limit=2))
    frames = list(PreparedData(tmp_path / "out"))
    assert [(frame.scene, frame.frame) for frame in frames] == [
        ("lounge/seq-01", "frame-000000"),
        ("lounge/seq-02", "frame-000000"),
    ]


def test_damaged_files_are_left_out_and_told(tmp_path: Path) -> None:
    folder = sequences(tmp_path / "source", 2) / "lounge" / "seq-01"
    (folder / "frame-000000.color.png").write_bytes(b"no picture")
    (folder / "frame-000001.depth.png").unlink()
    (folder / "frame-000002.pose.txt").write_text("1 2 3\n")
    report = prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out"))
    reasons = dict(report.drops.counts)
    assert reasons.pop("its picture cannot be read") == 1
    assert reasons.pop("its depth is missing") == 1
    assert list(reasons.values()) == [1]
    assert "the scene cannot be read" in next(iter(reasons))
    assert len(PreparedData(tmp_path / "out")) == 3
    assert "lounge/seq-01/frame-000000" in "\n".join(report.lines())


def test_overlap_is_that_of_the_views(tmp_path: Path) -> None:
    sequences(tmp_path / "source", 1)
    prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out"))
    data = PreparedData(tmp_path / "out")
    overlap = data.overlap(data.scenes[0])
    views = exact_views(3)
    for i in range(3):
        for j in range(3):
            assert abs(overlap[i, j] - seen_too(views[i], views[j])) < 0.06, (i, j)


def seen_too(first, second) -> float:
    """Share of all pixels of a view whose surface another view sees, from the exact depth."""
    height, width = first.depth.shape
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.linalg.inv(first.K) @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
    local = rays * first.depth.ravel()
    world = first.T_world_camera[:3, :3] @ local + first.T_world_camera[:3, 3:]
    T = np.linalg.inv(second.T_world_camera)
    x, y, z = T[:3, :3] @ world + T[:3, 3:]
    column = np.round(second.K[0, 0] * x / z + second.K[0, 2]).astype(int)
    row = np.round(second.K[1, 1] * y / z + second.K[1, 2]).astype(int)
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    there = second.depth[row.clip(0, height - 1), column.clip(0, width - 1)]
    return float((inside & (abs(z - there) < 0.1 * np.maximum(z, there))).mean())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    MINIATURES["frames"](source)
    words = ["data", "prepare", str(source / "frames.json"), str(tmp_path / "out"), "--json"]
    assert main([*words, "--dry_run"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 3
    assert not (tmp_path / "out").exists()
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["frames"], told["dropped"]) == (3, {"its entry cannot be read": 1})
    assert main(["data", "list"]) == 0
    assert "scannet: ScanNet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "nothing", "here", "out"], "Expected a data set"),
        (["prepare", "scannet"], "Expected a data set, its folder and a target"),
        (["prepare", "scannet", "no-such-folder", "out"], "which is none"),
        (["prepare", "scannet", ".", "out", "--every", "0"], "Expected --every of 1 or more"),
        (["prepare", "scannet", ".", "out"], "found no scene there"),
        (["prepare", ".", "out"], "or a COLMAP model"),
        (["dance"], "Expected one of"),
    ],
)
def test_mistakes_are_told(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_is_no_prepared_data_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="g2vlm data prepare"):
        PreparedData(tmp_path)


def test_remote_data_are_the_same(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    sequences(tmp_path / "source", 1)
    prepare(Preparation(SevenScenes(), tmp_path / "source", tmp_path / "out"))
    memory = fsspec.filesystem("memory")
    for name, content in contents(tmp_path / "out").items():
        memory.pipe(f"/prepared/{name}", content)
    near, far = PreparedData(tmp_path / "out"), PreparedData("memory://prepared")
    for a, b in zip(near, far, strict=True):
        assert a.rgb == b.rgb
        np.testing.assert_array_equal(a.depth_m, b.depth_m)


def test_depth_that_fits_no_millimetres_is_kept(tmp_path: Path) -> None:
    from g2vlm.data.posed_frame import PosedFrame
    from g2vlm.data.shards.encoding import decode_frame, encode_frame
    from g2vlm.scene.scale import ScaleKind

    view = exact_views(1)[0]
    buffer = io.BytesIO()
    view.image.save(buffer, "PNG")
    for factor, scale in ((1e-6, ScaleKind.RELATIVE), (1e6, ScaleKind.RELATIVE), (40.0, ScaleKind.METRIC)):
        depth = (view.depth * factor).astype(np.float32)
        valid = depth > depth.min() * 1.2
        frame = PosedFrame("s", "f", buffer.getvalue(), view.K, view.T_world_camera, scale, depth, valid)
        members = encode_frame(frame)
        assert "depth.npy" in members
        back = decode_frame(members, "here")
        np.testing.assert_allclose(back.depth_m, depth, rtol=1e-3)
        np.testing.assert_array_equal(back.known, valid)
