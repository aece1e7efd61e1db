"""Point clouds of the size that a format wants."""

from g2vlm.errors import OutputError
from g2vlm.scene.cloud import PointCloud
from g2vlm.scene.save_options import SaveOptions
from g2vlm.scene.scene import Scene

FEW_POINTS = 200_000
"""Points that formats for training hold unless asked otherwise."""


def capped_cloud(scene: Scene, options: SaveOptions, default: int | None = None) -> PointCloud:
    """The points of a scene, at most as many as asked for, evenly spread.

    Args:
        scene: with at least one valid point.
        options: of which `max_points` counts.
        default: the most points where `options` does not say; all if None.

    Raises:
        OutputError: no valid points.
    """
    require_points(scene)
    most = default if options.max_points is None else options.max_points
    cloud = scene.point_cloud()
    return cloud if most is None else cloud.spread(most)


def require_points(scene: Scene) -> None:
    """Refuse a scene without valid points.

    Raises:
        OutputError: there is none.
    """
    if scene.num_points == 0:
        raise OutputError("Expected a scene with points to write, but all are invalid: filter less.")
