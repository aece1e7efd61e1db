"""Two scenes of the same photos: what a similarity explains is no difference, the rest shows where it is."""

from dataclasses import replace

import numpy as np
import pytest
from rendered_room import rendered_room
from scipy.spatial.transform import Rotation

from g2vlm.errors import InputError
from g2vlm.evaluation.scene_difference import compare_scenes


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    return rendered_room(tmp_path_factory.mktemp("photos"))


def test_frame_and_unit_are_no_difference(room):
    T = np.eye(4)
    T[:3, :3] = 0.25 * Rotation.from_rotvec([0.3, -1, 0.5]).as_matrix()
    T[:3, 3] = [3, 1, -2]
    other = room.transformed(T)
    found = compare_scenes(room, replace(other, views=other.views[::-1]))
    assert found.scale == pytest.approx(4, rel=1e-4)
    for view in found.views:
        assert view.rotation_deg < 0.05
        assert view.translation < 1e-3
        assert view.depth_ratio == pytest.approx(1, abs=1e-3)
        assert view.point_distance < 1e-3
    assert found.clouds.accuracy_median < 1e-3
    assert [view.name for view in found.views] == [view.name for view in room.views]


def test_one_moved_camera_shows_in_its_row(room):
    T = room.views[2].T_world_camera.copy()
    T[:3, :3] = T[:3, :3] @ Rotation.from_rotvec([0, np.radians(5), 0]).as_matrix().astype(np.float32)
    T[:3, 3] += np.float32(0.1)
    found = compare_scenes(
        room, replace(room, views=(*room.views[:2], replace(room.views[2], T_world_camera=T)))
    )
    assert found.views[2].rotation_deg == pytest.approx(5, abs=0.3)
    assert found.views[2].translation == pytest.approx(0.1 * np.sqrt(3), abs=0.03)
    assert max(view.rotation_deg for view in found.views[:2]) < 0.3


def test_depth_of_one_view_shows_in_its_ratio(room):
    deeper = replace(room.views[0], points_camera=room.views[0].points_camera * np.float32(1.2))
    found = compare_scenes(room, replace(room, views=(deeper, *room.views[1:])))
    ratios = [view.depth_ratio for view in found.views]
    assert ratios[0] / ratios[1] == pytest.approx(1.2, abs=0.02)
    assert found.views[0].depth_spread < 0.02


def test_other_resolutions_compare_pixel_by_place(tmp_path, room):
    small = tuple(
        replace(
            view,
            rgb=np.ascontiguousarray(view.rgb[1::3, 1::3]),
            points_camera=np.ascontiguousarray(view.points_camera[1::3, 1::3]),
            confidence=np.ascontiguousarray(view.confidence[1::3, 1::3]),
            valid=np.ascontiguousarray(view.valid[1::3, 1::3]),
            T_model_original=np.array([[1 / 3, 0, -1 / 3], [0, 1 / 3, -1 / 3], [0, 0, 1]])
            @ view.T_model_original,
        )
        for view in room.views
    )
    found = compare_scenes(room, replace(room, views=small))
    assert all(view.depth_ratio == pytest.approx(1, abs=0.02) for view in found.views)
    with pytest.raises(InputError, match="views of one size"):
        found.side_by_side()


def test_side_by_side_they_do_not_overlap_unless_asked(room):
    found = compare_scenes(room, room)
    both = found.side_by_side()
    assert [view.name[:2] for view in both.views] == ["A "] * 3 + ["B "] * 3
    right = room.views[0].T_world_camera[:3, 0]
    first, second = (
        np.concatenate([v.points_world[v.valid] for v in views]) @ right
        for views in (both.views[:3], both.views[3:])
    )
    assert np.percentile(first, 99) < np.percentile(second, 1)
    same = found.side_by_side(overlaid=True)
    np.testing.assert_allclose(same.views[3].points_world, room.views[0].points_world, atol=1e-3)


def test_scenes_of_other_photos_are_refused(room):
    other = replace(room, views=tuple(replace(view, name=f"other {view.name}") for view in room.views))
    with pytest.raises(InputError, match=r"of the same photos, got photo 0\.png"):
        compare_scenes(room, other)


def test_the_table_and_the_summary_hold_every_view(room):
    found = compare_scenes(room, room)
    assert found.table().count("| photo ") == 3
    assert len(found.summary()["views"]) == 3
