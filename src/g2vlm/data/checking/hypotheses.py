"""What may be wrong with cameras and depth, each as a change that would make it right."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.spatial.transform import Rotation

from g2vlm.data.checking.views import CheckedView

Views = Sequence[CheckedView]
_GL = np.diag([1.0, -1.0, -1.0, 1.0])
_NED = np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
_PYTORCH3D = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNITS = {
    1e-3: "millimetres were read as metres",
    1e3: "metres were read as millimetres",
    1e-2: "centimetres were read as metres",
    1e2: "metres were read as centimetres",
    0.1: "the unit is a tenth of what was taken",
    10.0: "the unit is ten times what was taken",
    0.2: "counts of 1/5000 m were read as millimetres",
    5.0: "millimetres were read as counts of 1/5000 m",
    0.25: "counts of 1/4000 m were read as millimetres",
    4.0: "millimetres were read as counts of 1/4000 m",
    0.8: "counts of 1/5000 m were read as counts of 1/4000 m",
    1.25: "counts of 1/4000 m were read as counts of 1/5000 m",
    1000 / 256: "counts of 1/256 m were read as millimetres",
    0.256: "millimetres were read as counts of 1/256 m",
    1000 / 512: "counts of 1/512 m were read as millimetres",
    0.512: "millimetres were read as counts of 1/512 m",
}


class Cause(Enum):
    """What kind of thing is wrong."""

    NOTHING = "nothing"
    INVERTED_POSES = "inverted poses"
    CAMERA_AXES = "camera axes"
    QUATERNION_ORDER = "quaternion order"
    SHIFTED_POSES = "shifted poses"
    DEPTH_UNIT = "depth unit"
    INTRINSICS = "intrinsics"
    BROKEN_FRAMES = "broken frames"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Hypothesis:
    """One thing that may be wrong, and how everything looks once it is put right."""

    cause: Cause
    what: str
    """What it looks like: "poses look inverted"."""
    fix: str
    """What to do."""
    right: Callable[[Views], list[CheckedView]]
    focal_factor: float | None = None
    """Of hypotheses about focal lengths, which can be made finer."""


AS_GIVEN = Hypothesis(Cause.NOTHING, "as given", "", lambda views: list(views))


def pose_hypotheses() -> list[Hypothesis]:
    """What may be wrong with poses."""

    def axes(cause: Cause, name: str, matrix: np.ndarray) -> list[Hypothesis]:
        fix = f"convert them, T_world_camera = T @ {_shown(matrix)}"
        inverted = f"invert them, then {fix.removeprefix('convert them, ')} with T the inverse"
        return [
            Hypothesis(cause, f"poses look like {name} ones", fix, _posed(lambda T: T @ matrix)),
            Hypothesis(
                Cause.INVERTED_POSES,
                f"poses look like inverted {name} ones",
                inverted,
                _posed(lambda T: np.linalg.inv(T) @ matrix),
            ),
        ]

    found = [
        Hypothesis(
            Cause.INVERTED_POSES,
            "poses look inverted (world-to-camera)",
            "invert them: T_world_camera is wanted, which takes points of the camera to the world",
            _posed(np.linalg.inv),
        )
    ]
    found += axes(Cause.CAMERA_AXES, "OpenGL (y up, z backwards)", _GL)
    found += axes(Cause.CAMERA_AXES, "NED (x forward, z down)", _NED)
    found += axes(Cause.CAMERA_AXES, "PyTorch3D (x left, y up)", _PYTORCH3D)
    found += [
        _quaternion("w x y z", "x y z w", (1, 2, 3, 0)),
        _quaternion("x y z w", "w x y z", (3, 0, 1, 2)),
    ]
    return [*found, _shift(1), _shift(-1)]


def depth_hypotheses() -> list[Hypothesis]:
    """What may be wrong with the unit of the depth."""
    return [depth_hypothesis(factor) for factor in _UNITS]


def depth_hypothesis(factor: float) -> Hypothesis:
    """The unit of the depth is not that of the poses.

    Args:
        factor: what depth has to be multiplied by; the usual one that is nearest gives the reason.
    """
    usual = min(_UNITS, key=lambda known: abs(np.log(known / factor)))
    near = abs(np.log(usual / factor)) < np.log(1.3)
    reason = f" (perhaps {_UNITS[usual]})" if near else ""
    return Hypothesis(
        Cause.DEPTH_UNIT,
        f"depth looks {_times(factor)} beside the poses{reason}",
        f"multiply depth by {usual if near else factor:.4g}, or positions by {1 / factor:.4g}",
        _deep(factor),
    )


def intrinsics_hypotheses() -> list[Hypothesis]:
    """What may be wrong with K."""
    sizes = (0.25, 1 / 3, 0.4, 0.5, 2 / 3, 0.75, 4 / 3, 1.5, 2.0, 2.5, 3.0, 4.0)
    found = [_other_size(factor) for factor in sizes]
    found += [focal_hypothesis(factor) for factor in (0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 1.7, 2.0)]
    found.append(
        Hypothesis(
            Cause.INTRINSICS,
            "the principal point looks wrong",
            "put cx, cy near the middle of the picture",
            _seen(_centred),
        )
    )
    return found


def _other_size(factor: float) -> Hypothesis:
    return Hypothesis(
        Cause.INTRINSICS,
        f"K looks as if it belonged to pictures {1 / factor:.3g} times as large",
        f"multiply its first two rows by {factor:.4g}",
        _seen(lambda K, size: np.diag([factor, factor, 1.0]) @ K),
    )


def focal_hypothesis(factor: float) -> Hypothesis:
    """Focal lengths are wrong by a factor.

    Args:
        factor: what they have to be multiplied by.
    """
    too = f"{factor:.3g} times too short" if factor > 1 else f"{1 / factor:.3g} times too long"
    return Hypothesis(
        Cause.INTRINSICS,
        f"focal lengths look {too}",
        f"multiply fx and fy by {factor:.3g}",
        _seen(lambda K, size: np.diag([factor, factor, 1.0]) @ _moved(K, factor)),
        focal_factor=factor,
    )


def _posed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Views], list[CheckedView]]:
    return lambda views: [
        dataclasses.replace(view, T_world_camera=change(view.T_world_camera)) for view in views
    ]


def _deep(factor: float) -> Callable[[Views], list[CheckedView]]:
    # Scaling the poses instead is the same and cheaper.
    def change(T: np.ndarray) -> np.ndarray:
        T = T.copy()
        T[:3, 3] /= factor
        return T

    return _posed(change)


def _seen(
    change: Callable[[np.ndarray, tuple[int, int]], np.ndarray],
) -> Callable[[Views], list[CheckedView]]:
    return lambda views: [dataclasses.replace(view, K=change(view.K, view.size)) for view in views]


def _moved(K: np.ndarray, factor: float) -> np.ndarray:
    """K whose principal point is where it was once its first two rows are multiplied."""
    K = K.copy()
    K[:2, 2] /= factor
    return K


def _centred(K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    K = K.copy()
    K[0, 2], K[1, 2] = (size[0] - 1) / 2, (size[1] - 1) / 2
    return K


def _quaternion(had: str, read: str, order: tuple[int, ...]) -> Hypothesis:
    return Hypothesis(
        Cause.QUATERNION_ORDER,
        f"quaternions look as if {had} were read as {read}",
        f"read them as {had}",
        _posed(lambda T: _reordered(T, order)),
    )


def _shift(by: int) -> Hypothesis:
    def right(views: Views) -> list[CheckedView]:
        last = len(views) - 1
        return [
            dataclasses.replace(view, T_world_camera=views[min(max(k + by, 0), last)].T_world_camera)
            for k, view in enumerate(views)
        ]

    side = "next" if by > 0 else "previous"
    return Hypothesis(
        Cause.SHIFTED_POSES,
        f"pictures look as if they had the pose of their neighbour; that of the {side} one fits",
        "look for a picture or a pose that is missing at the beginning of the list",
        right,
    )


def _reordered(T: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    T = T.copy()
    quaternion = Rotation.from_matrix(T[:3, :3]).as_quat()
    T[:3, :3] = Rotation.from_quat(quaternion[list(order)]).as_matrix()
    return T


def _shown(matrix: np.ndarray) -> str:
    if np.array_equal(matrix, np.diag(np.diag(matrix))):
        return f"diag({', '.join(f'{x:g}' for x in np.diag(matrix))})"
    return "[" + "; ".join(" ".join(f"{x:g}" for x in row) for row in matrix) + "]"


def _times(factor: float) -> str:
    return f"{1 / factor:.4g} times too large" if factor < 1 else f"{factor:.4g} times too small"
