"""Every converter on a miniature of its layout: K, poses and depth against the exact truth."""

import io
from pathlib import Path

import miniatures_indoor  # noqa: F401 - registers more
import miniatures_outdoor  # noqa: F401
import numpy as np
import pytest
from miniatures import MINIATURES
from PIL import Image

pytest.importorskip("pyarrow", reason="prepared data need the extra data")

from g2vlm.data.prepare.conversion import Preparation, prepare, rehearse
from g2vlm.data.prepare.registry import LAYOUTS, layout_named
from g2vlm.data.shards.reading import PreparedData
from g2vlm.scene.scale import ScaleKind


def test_every_data_set_has_a_miniature() -> None:
    assert set(MINIATURES) == set(LAYOUTS)


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_frames_are_the_truth(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    expected = MINIATURES[name](source)
    report = prepare(Preparation(layout_named(name), source, tmp_path / "out"))
    assert dict(report.drops.counts) == expected.dropped
    data = PreparedData(tmp_path / "out")
    frames = [frame for frame in data if frame.scene == expected.scene]
    assert tuple(frame.frame for frame in frames) == expected.names, {frame.scene for frame in data}
    for frame, view in zip(frames, expected.views, strict=True):
        assert frame.size == view.size
        np.testing.assert_allclose(frame.K, view.K, atol=1e-4)
        pose = view.T_world_camera.copy()
        pose[:3, 3] *= expected.unit
        np.testing.assert_allclose(frame.T_world_camera, pose, atol=1e-5 * max(1.0, expected.unit))
        assert (frame.scale is ScaleKind.METRIC) == expected.is_metric
        _same_depth(frame, view, expected)
        _same_picture(frame.rgb, view, expected.exact_pictures)


def _same_depth(frame, view, expected) -> None:
    if not expected.has_depth:
        assert frame.depth_m is None
        return
    known = frame.known
    truth = view.depth * expected.unit
    if truth.shape != known.shape:
        step = truth.shape[0] // known.shape[0]
        truth = truth[step // 2 :: step, step // 2 :: step]
    assert known.mean() > 0.5
    # Half floats and files of few digits: an absolute error, and a relative one.
    compared = known & (truth > 0)
    error = np.abs(frame.depth_m - truth)[compared]
    exact = error <= expected.depth_error * expected.unit + 6e-4 * truth[compared]
    assert exact.mean() >= expected.share_within, np.sort(error)[-10:]
    assert not known[truth == 0].any()


def _same_picture(encoded: bytes, view, exact: bool) -> None:
    with Image.open(io.BytesIO(encoded)) as image:
        found = np.asarray(image.convert("RGB")).astype(float)
    # JPEG and resizing blur the blocks of the texture; a wrong picture differs by about 60.
    assert np.abs(found - view.rgb).mean() < 25


@pytest.mark.parametrize("name", sorted(MINIATURES))
def test_a_dry_run_tells_the_same_and_writes_nothing(name: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    expected = MINIATURES[name](source)
    before = sorted(path for path in tmp_path.rglob("*"))
    report = rehearse(Preparation(layout_named(name), source, tmp_path / "out"))
    assert report.frames >= len(expected.names)
    assert sorted(path for path in tmp_path.rglob("*")) == before
