"""A COLMAP folder: `images/` beside `sparse/0/`, as COLMAP, gsplat, nerfstudio and others expect them."""

import os
from dataclasses import replace

import numpy as np

from g2vlm.export.colmap.files import write_binary, write_text
from g2vlm.export.colmap.model import SparseCamera, SparseImage, SparseModel, build_model
from g2vlm.export.colmap.tracks import Tracks, agreeing_tracks
from g2vlm.export.conventions import (
    CORNER_SHIFT_PX,
    about,
    original_intrinsics,
    quaternion_wxyz,
    world_to_camera,
)
from g2vlm.export.originals import image_names, originals, place_image
from g2vlm.scene.formats import Progress, no_progress
from g2vlm.scene.save_options import ImageFiles, SaveOptions
from g2vlm.scene.scene import Scene
from g2vlm.scene.writing import atomic_folder


def write_colmap(
    scene: Scene,
    path: str | os.PathLike[str],
    options: SaveOptions = SaveOptions(),
    on_progress: Progress = no_progress,
    measured: Tracks | None = None,
) -> None:
    """Write a sparse model in the world of the scene, with cameras of the original photos.

    Args:
        scene: with valid points.
        path: a folder, new or written before.
        options: `max_points` (200,000 by default), `images`, `photos`, `shared_camera`, `text`.
        on_progress: told about every view, twice.
        measured: further points whose observations were matched between pictures, from a refinement.

    Raises:
        OutputError: no valid points, or a place that cannot be written.
    """
    steps = 2 * len(scene)
    tracks = agreeing_tracks(scene, options.max_points, lambda done, _: on_progress(done, steps))
    if measured is not None:
        tracks = _joined(tracks, measured)
    model = sparse_model(scene, tracks, options)
    facts = about(
        scene,
        "colmap",
        pixels="centres at halves, size of the original photos",
        poses="world to camera, OpenCV axes",
        num_points=len(model.points),
        num_points_with_track=int(np.count_nonzero(np.diff(model.points.track_start))),
        num_observations=len(model.points.track_image),
    )
    with atomic_folder(path, facts) as folder:
        sparse = folder / "sparse" / "0"
        sparse.mkdir(parents=True)
        (write_text if options.text else write_binary)(model, sparse)
        if options.images is not ImageFiles.NONE:
            pictures = zip(model.images, originals(scene, options.photos), strict=True)
            for done, (image, original) in enumerate(pictures, start=len(scene) + 1):
                place_image(original, folder / "images" / image.name, options.images)
                on_progress(done, steps)
    on_progress(steps, steps)


def sparse_model(scene: Scene, tracks: Tracks, options: SaveOptions) -> SparseModel:
    """The cameras and images of a scene with tracks of points."""
    cameras, camera_of = _cameras(scene, shared=options.shared_camera)
    images = []
    for index, (view, name) in enumerate(zip(scene.views, image_names(scene), strict=True)):
        T_camera_world = world_to_camera(view)
        images.append(
            SparseImage(
                image_id=index + 1,
                camera_id=camera_of[index],
                name=name,
                quaternion=quaternion_wxyz(T_camera_world[:3, :3]),
                translation=T_camera_world[:3, 3],
                pixels=np.empty((0, 2)),
                point_ids=np.empty(0, dtype=np.int64),
            )
        )
    return build_model(cameras, tuple(images), tracks.xyz, tracks.rgb, tracks.seen)


def _cameras(scene: Scene, *, shared: bool) -> tuple[tuple[SparseCamera, ...], list[int]]:
    """Cameras, and which one each view has. Shared ones have the median intrinsics of their photos."""
    groups: dict[object, list[int]] = {}
    for index, view in enumerate(scene.views):
        groups.setdefault(view.original_size if shared else index, []).append(index)
    cameras, camera_of = [], [0] * len(scene)
    for camera_id, members in enumerate(groups.values(), start=1):
        K = np.median([original_intrinsics(scene.views[index]) for index in members], axis=0)
        width, height = scene.views[members[0]].original_size
        centre = (float(K[0, 2] + CORNER_SHIFT_PX), float(K[1, 2] + CORNER_SHIFT_PX))
        cameras.append(SparseCamera(camera_id, width, height, (float(K[0, 0]), float(K[1, 1])), centre))
        for index in members:
            camera_of[index] = camera_id
    return tuple(cameras), camera_of


def _joined(first: Tracks, second: Tracks) -> Tracks:
    return Tracks(
        xyz=np.concatenate([first.xyz, second.xyz]),
        rgb=np.concatenate([first.rgb, second.rgb]),
        seen=replace(
            first.seen,
            point=np.concatenate([first.seen.point, second.seen.point + len(first.xyz)]),
            view=np.concatenate([first.seen.view, second.seen.view]),
            pixel=np.concatenate([first.seen.pixel, second.seen.pixel]),
        ),
    )
