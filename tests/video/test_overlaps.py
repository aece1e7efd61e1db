"""Overlaps: exact pieces are aligned exactly, spoiled ones as well as their noise allows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from g2vlm.bench.simulated_walk import SimulatedWalk, WalkOptions
from g2vlm.errors import InputError
from g2vlm.video.frames import FramePreparer
from g2vlm.video.overlaps import measure_overlap, shared_frames
from g2vlm.video.pieces import Piece

EXACT = WalkOptions(
    num_frames=60,
    laps=0.15,
    heading_bias_rad=0.0,
    heading_noise_rad=0.0,
    scale_drift=0.0,
    depth_noise=0.0,
    outlier_share=0.0,
)


def piece_of(world: SimulatedWalk, frames: range) -> Piece:
    photos = tuple(list(world.frames())[frames.start : frames.stop])
    images = FramePreparer(width=world.options.width, patch=1)(list(photos))
    return Piece(tuple(frames), *world(photos, images))


def true_similarity(world: SimulatedWalk, first: Piece, second: Piece) -> np.ndarray:
    """4x4 from the camera poses and units of exact pieces."""

    def piece_from_world(piece: Piece) -> np.ndarray:
        frames = list(piece.frames[:2])
        true = world.T_world_camera[frames]
        own = [view.T_world_camera.astype(np.float64) for view in piece.views[:2]]
        unit = np.linalg.norm(own[1][:3, 3] - own[0][:3, 3]) / np.linalg.norm(true[1, :3, 3] - true[0, :3, 3])
        R = own[0][:3, :3] @ true[0, :3, :3].T
        T = np.eye(4)
        T[:3, :3] = unit * R
        T[:3, 3] = own[0][:3, 3] - unit * R @ true[0, :3, 3]
        return T

    return piece_from_world(first) @ np.linalg.inv(piece_from_world(second))


def test_exact_pieces_are_aligned_exactly():
    world = SimulatedWalk(EXACT)
    first, second = piece_of(world, range(12)), piece_of(world, range(8, 20))
    assert shared_frames(first, second) == [8, 9, 10, 11]
    overlap = measure_overlap(first, second)
    expected = true_similarity(world, first, second)
    found = overlap.first_from_second.matrix().numpy()
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    assert overlap.deviation < 1e-5


def test_noise_and_trusted_outliers_hardly_move_the_alignment():
    spoiled = SimulatedWalk(replace(EXACT, depth_noise=0.03, outlier_share=0.2))
    first, second = piece_of(spoiled, range(12)), piece_of(spoiled, range(8, 20))
    overlap = measure_overlap(first, second)
    expected = true_similarity(spoiled, first, second)
    error = np.linalg.inv(expected) @ overlap.first_from_second.matrix().numpy()
    scale = np.cbrt(np.linalg.det(error[:3, :3]))
    assert abs(scale - 1) < 0.01
    assert Rotation.from_matrix(error[:3, :3] / scale).magnitude() < 0.005
    moved = error @ np.append(overlap.centre.numpy(), 1.0)
    assert np.linalg.norm(moved[:3] - overlap.centre.numpy()) < 0.01 * overlap.extent
    assert 0.005 < overlap.deviation < 0.06


def test_extent_and_centre_are_in_the_unit_of_the_second():
    world = SimulatedWalk(EXACT)
    first, second = piece_of(world, range(12)), piece_of(world, range(8, 20))
    grown = Piece(
        second.frames,
        tuple(
            replace(
                view,
                points_camera=4 * view.points_camera,
                T_world_camera=np.block(
                    [[view.T_world_camera[:3, :3], 4 * view.T_world_camera[:3, 3:]], [np.eye(4)[3:]]]
                ).astype(np.float32),
            )
            for view in second.views
        ),
        second.descriptors,
    )
    overlap, larger = measure_overlap(first, second), measure_overlap(first, grown)
    assert larger.extent == pytest.approx(4 * overlap.extent, rel=1e-4)
    torch.testing.assert_close(larger.centre, 4 * overlap.centre, rtol=1e-4, atol=1e-4)
    scales = [float(one.first_from_second.scale) for one in (overlap, larger)]
    assert scales[1] == pytest.approx(scales[0] / 4, rel=1e-4)


def test_pieces_that_cannot_be_aligned_are_refused():
    world = SimulatedWalk(EXACT)
    first, second = piece_of(world, range(6)), piece_of(world, range(4, 10))
    with pytest.raises(InputError, match="none in common"):
        measure_overlap(first, piece_of(world, range(10, 14)))
    views = tuple(replace(view, confidence=np.zeros_like(view.confidence)) for view in second.views)
    with pytest.raises(InputError, match="none that both"):
        measure_overlap(first, Piece(second.frames, views, second.descriptors))
    views = tuple(replace(view, valid=np.zeros_like(view.valid)) for view in second.views)
    with pytest.raises(InputError, match="both pieces hold"):
        measure_overlap(first, Piece(second.frames, views, second.descriptors))
