"""What is told about scenes."""

import math

from g2vlm.errors import InputError
from g2vlm.scene.scene import Scene
from g2vlm.scene.view import View
from g2vlm.server.scenes.schemas import Scene as SceneBody
from g2vlm.server.scenes.schemas import SceneFacts, SceneView
from g2vlm.server.store.records import JobState, SceneRecord


def facts_of(scene: Scene) -> SceneFacts:
    """What a scene holds."""
    try:
        bounds = [[float(x) for x in corner] for corner in scene.bounds()]
    except InputError:  # no point is valid
        bounds = None
    if bounds is not None and not all(math.isfinite(x) for corner in bounds for x in corner):
        bounds = None
    return SceneFacts(
        num_points=scene.num_points,
        scale=scene.scale.kind.value,
        bounds=bounds,
        views=[_view(view) for view in scene.views],
    )


def _view(view: View) -> SceneView:
    return SceneView(
        name=view.name,
        original_size=list(view.original_size),
        time_s=None if view.time_s is None else float(view.time_s),
        K=[[float(x) for x in row] for row in view.K_original],
        T_world_camera=[[float(x) for x in row] for row in view.T_world_camera],
        focal_measured=view.focal_measured,
    )


_STATUS = {
    JobState.QUEUED: "queued",
    JobState.HANDED_BACK: "queued",
    JobState.RUNNING: "running",
    JobState.DONE: "done",
    JobState.FAILED: "failed",
}


def body_of(record: SceneRecord, progress: float) -> SceneBody:
    """A scene as it is told.

    Args:
        record: of the store.
        progress: of its computation, 0 to 1.
    """
    is_done = record.state is JobState.DONE
    return SceneBody.model_validate(
        {
            "id": record.id,
            "status": _STATUS[record.state],
            "progress": 1.0 if is_done else progress,
            "created_at": record.created_s,
            "expires_at": record.expires_s,
            "bytes": record.num_bytes,
            "error": record.error or None,
            "result": record.about if is_done else None,
        }
    )
