"""The sheet of a scene that matplotlib draws."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from rendered_room import rendered_room

from g2vlm.scene.plotting import _map_axes


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return rendered_room(tmp_path_factory.mktemp("photos"))


def test_every_view_has_photo_depth_and_confidence_and_cameras_stand_on_a_map(room, tmp_path):
    figure = room.plot()
    assert len(figure.axes) == 3 * 3 + 1
    arrows = figure.axes[-1].patches
    assert len(arrows) == 3
    figure.savefig(tmp_path / "room.png")
    assert (tmp_path / "room.png").stat().st_size > 10_000


def test_many_views_show_six_and_all_cameras(room):
    many = replace(room, views=room.views * 5)
    figure = many.plot()
    assert len(figure.axes) == 3 * 6 + 1
    assert len(figure.axes[-1].patches) == 15


def test_a_scene_without_points_is_drawn(room):
    empty = replace(room, views=tuple(replace(v, valid=np.zeros_like(v.valid)) for v in room.views))
    assert len(empty.plot().axes) == 10


def test_ahead_of_the_first_camera_is_upwards_on_the_map(room):
    up = np.array([0.0, -1.0, 0.0])
    right, ahead = _map_axes(room.views[0], up)
    assert ahead @ room.views[0].T_world_camera[:3, 2] > 0.5
    assert right @ room.views[0].T_world_camera[:3, 0] > 0.5
