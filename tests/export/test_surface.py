"""Grid meshes: they cover what is seen, face their camera, and stop at edges."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from tilted_wall import HEIGHT, WIDTH, build_view

from g2vlm.errors import OutputError
from g2vlm.export.surface import scene_mesh, view_mesh
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scale import Scale, ScaleKind
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View


def normals_and_ways(view: View, mesh) -> tuple[np.ndarray, np.ndarray]:
    corners = mesh.points[mesh.faces].astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return normals, view.T_world_camera[:3, 3] - corners.mean(axis=1)


def test_a_smooth_wall_is_covered_once_and_faces_its_camera():
    view = build_view(1)
    mesh = view_mesh(view, 0.2)
    assert len(mesh.points) == HEIGHT * WIDTH
    assert len(mesh.faces) == 2 * (HEIGHT - 1) * (WIDTH - 1)
    normals, ways = normals_and_ways(view, mesh)
    assert ((normals * ways).sum(axis=1) > 0).all()
    edges = np.sort(np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]]))
    _, times = np.unique(edges, axis=0, return_counts=True)
    assert times.max() == 2
    assert (times == 1).sum() == 2 * (HEIGHT - 1) + 2 * (WIDTH - 1)  # the border alone is open
    np.testing.assert_array_equal(mesh.points, view.points_world.reshape(-1, 3))
    np.testing.assert_array_equal(mesh.colors, view.rgb.reshape(-1, 3))


def test_texture_coordinates_count_from_the_border_of_the_original_photo():
    view = build_view(0)
    mesh = view_mesh(view, 0.2)
    # The original was four times as wide and three times as high, so model pixel 0 covers 0 .. 1 / WIDTH.
    np.testing.assert_allclose(mesh.uv[0], [0.5 / WIDTH, 0.5 / HEIGHT], atol=1e-6)
    np.testing.assert_allclose(mesh.uv[-1], [1 - 0.5 / WIDTH, 1 - 0.5 / HEIGHT], atol=1e-6)


def test_no_triangle_crosses_a_step_or_an_invalid_pixel():
    plain = build_view(0)
    points = plain.points_camera.copy()
    points[:, WIDTH // 2 :] *= 2
    points[0, 0] = np.nan
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[0, 0] = False
    view = replace(plain, points_camera=points, valid=valid)
    mesh = view_mesh(view, 0.2)
    depth = np.linalg.inv(view.T_world_camera)[2] @ np.c_[mesh.points, np.ones(len(mesh.points))].T
    span = np.ptp(depth[mesh.faces], axis=1)
    assert span.max() < 0.5
    assert np.isfinite(mesh.points).all()
    # Both halves keep their triangles; of the square with the invalid corner one is left.
    halves = 2 * (HEIGHT - 1) * (WIDTH // 2 - 1)
    assert len(mesh.faces) == 2 * halves - 1


def test_squares_are_split_along_the_smaller_step():
    view = build_view(0)
    points = view.points_camera.copy()
    points[..., 2] = 2.0
    points[2, 3, 2] = 2.05  # one pixel behind: no diagonal should end there
    mesh = view_mesh(replace(view, points_camera=points), 0.2)
    corner = int(
        np.flatnonzero(
            np.isclose(mesh.points, replace(view, points_camera=points).points_world[2, 3]).all(1)
        )[0]
    )
    assert (mesh.faces == corner).any(axis=1).sum() == 4


def test_meshes_of_all_views_are_joined(scene_of_two):
    mesh = scene_mesh(scene_of_two, 0.2)
    assert len(mesh.points) == 2 * HEIGHT * WIDTH
    assert mesh.faces.max() == len(mesh.points) - 1
    with pytest.raises(OutputError, match="raise mesh_edge"):
        scene_mesh(scene_of_two, 1e-9)


@pytest.fixture
def scene_of_two() -> Scene:
    return Scene((build_view(0), build_view(1)), Scale(ScaleKind.RELATIVE, "test"))


@pytest.mark.parametrize("ending", [".ply", ".obj"])
def test_trimesh_reads_corners_colours_and_triangles(scene_of_two, tmp_path, ending):
    expected = scene_mesh(scene_of_two, 0.2)
    path = scene_of_two.save(f"mesh:{tmp_path / f'wall{ending}'}", SaveOptions(mesh_edge=0.2))
    loaded = trimesh.load(path, process=False, maintain_order=True)
    np.testing.assert_allclose(loaded.vertices, expected.points, rtol=1e-6)
    np.testing.assert_array_equal(loaded.faces, expected.faces)
    np.testing.assert_array_equal(loaded.visual.vertex_colors[:, :3], expected.colors)
