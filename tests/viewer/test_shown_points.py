"""What a look shows of prepared points, and which pixel each comes from."""

from dataclasses import replace

import numpy as np
import pytest

from g2vlm.viewer.points import ColorBy, Look, ShownPoints


@pytest.fixture(scope="module")
def points(room) -> ShownPoints:
    return ShownPoints.of(room)


def visible(points: ShownPoints, look: Look) -> np.ndarray:
    return np.concatenate([points.visible(block, look) for block in points.pyramid.blocks])


def test_points_know_their_pixels(points, room):
    for place in (0, 17, 5000, len(points.cloud) - 1):
        view, (u, v) = points.pixel(place)
        np.testing.assert_allclose(points.cloud.points[place], room.views[view].points_world[v, u], atol=1e-6)


def test_pixels_are_told_where_some_hold_no_point(room):
    valid = room.views[0].valid.copy()
    valid[::2, 5:] = False
    part = ShownPoints.of(replace(room, views=(replace(room.views[0], valid=valid),)), first_view=7)
    view, (u, v) = part.pixel(123)
    assert view == 7
    np.testing.assert_allclose(part.cloud.points[123], room.views[0].points_world[v, u], atol=1e-6)


def test_looks_hide_what_they_say(points):
    assert visible(points, Look()).all()
    sure = visible(points, Look(min_confidence=0.6))
    np.testing.assert_array_equal(sure, points.cloud.confidence >= np.float32(0.6))
    hidden = visible(points, Look(hidden_views=frozenset({0, 2})))
    np.testing.assert_array_equal(hidden, points.cloud.view_index == 1)
    low, high = points.cloud.points.min(axis=0), points.cloud.points.max(axis=0)
    middle = (low + high) / 2
    clipped = visible(points, Look(clip=(tuple(low.tolist()), tuple(middle.tolist()))))
    np.testing.assert_array_equal(clipped, (points.cloud.points <= middle).all(axis=1))


@pytest.mark.parametrize("color_by", list(ColorBy))
def test_every_colouring_has_bytes_for_every_point(points, color_by):
    block = points.pyramid.blocks[0]
    colors = points.colors(block, Look(color_by=color_by))
    assert (colors.shape, colors.dtype) == ((len(block), 3), np.uint8)
    if color_by is ColorBy.PHOTO:
        np.testing.assert_array_equal(colors, points.cloud.colors[: len(block)])
    else:
        assert len(np.unique(colors, axis=0)) > 1
