"""Which views are drawn, and what becomes of K and depth when a part of a picture is taken."""

import io

import numpy as np
import pytest
from exact_room import exact_views, render

from g2vlm.data.posed_frame import PosedFrame
from g2vlm.data.shards.choosing import OVERLAP_RANGE, WINDOW_FACTOR, ViewChoice, choose_views
from g2vlm.data.shards.framing import Framing, framed
from g2vlm.scene.scale import ScaleKind


def band(count: int, reach: float) -> np.ndarray:
    """Views along a line that overlap with their neighbours."""
    distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
    return np.clip(1 - distance / reach, 0, 1)


@pytest.mark.parametrize("rule", list(ViewChoice))
@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_views_are_different_and_drawn_the_same_again(rule: ViewChoice, count: int) -> None:
    overlap = band(40, 8)
    for seed in range(20):
        chosen = choose_views(rule, overlap, count, np.random.default_rng(seed))
        assert len(set(chosen)) == count
        assert set(chosen) <= set(range(40))
        assert chosen == choose_views(rule, overlap, count, np.random.default_rng(seed))


def test_each_rule_keeps_its_promise() -> None:
    overlap, rng = band(400, 8), np.random.default_rng(0)
    for _ in range(50):
        chosen = sorted(choose_views(ViewChoice.STRATIFIED, overlap, 4, rng))
        assert [k // 100 for k in chosen] == [0, 1, 2, 3]
        chosen = choose_views(ViewChoice.WINDOW, overlap, 4, rng)
        assert max(chosen) - min(chosen) < 4 * WINDOW_FACTOR
        chosen = choose_views(ViewChoice.COVISIBILITY, overlap, 4, rng)
        for view in chosen:
            best = max(overlap[view, other] for other in chosen if other != view)
            assert OVERLAP_RANGE[0] <= best <= 1 - 1 / 8 + 1e-9


def test_views_that_overlap_with_none_are_taken_all_the_same() -> None:
    chosen = choose_views(ViewChoice.COVISIBILITY, np.eye(3), 3, np.random.default_rng(0))
    assert sorted(chosen) == [0, 1, 2]


@pytest.mark.parametrize("framing", [Framing(), Framing(1.7, 0.2, 0.9), Framing(1.0, 0.0, 0.0)])
@pytest.mark.parametrize("size", [(80, 60), (56, 70), (200, 30)])
def test_a_part_is_what_its_camera_sees(framing: Framing, size: tuple[int, int]) -> None:
    view = exact_views(1, 320, 240)[0]
    buffer = io.BytesIO()
    view.image.save(buffer, "PNG")
    depth = view.depth[1::2, 1::2].astype(np.float32)  # coarser than the picture
    frame = PosedFrame("s", "f", buffer.getvalue(), view.K, view.T_world_camera, ScaleKind.METRIC, depth)
    part = framed(frame, size, framing)
    truth = render(view.T_world_camera, part.K, size)
    assert part.valid.all()
    # Of the nearest pixel: exact but for the slope within one or two pixels.
    error = np.abs(part.depth - truth.depth) / truth.depth
    assert np.median(error) < 0.006
    assert (error < 0.05).mean() > 0.97
    inside = np.abs(part.rgb.astype(float) - truth.rgb).mean()
    beside = np.abs(np.roll(part.rgb, 6, axis=1).astype(float) - truth.rgb).mean()
    assert inside < 0.75 * beside


def test_large_photos_are_decoded_small_and_placed_the_same() -> None:
    view = exact_views(1, 1280, 960)[0]
    found = []
    for kind in ("PNG", "JPEG"):
        buffer = io.BytesIO()
        view.image.save(buffer, kind, quality=95)
        frame = PosedFrame("s", "f", buffer.getvalue(), view.K, view.T_world_camera, ScaleKind.METRIC)
        found.append(framed(frame, (70, 56), Framing(1.2, 0.3, 0.6)))
    np.testing.assert_array_equal(found[0].K, found[1].K)
    assert np.abs(found[0].rgb.astype(float) - found[1].rgb).mean() < 4
    assert not found[0].valid.any()
