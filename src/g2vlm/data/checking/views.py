"""Frames as they are checked, and features that two of them share."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image

from g2vlm.data.posed_frame import PosedFrame, resized_intrinsics

LONG_SIDE = 640
"""Pictures are made this large before features are looked for."""
_FEWEST_MATCHES = 24
_MOST_FEATURES = 3000


@dataclass(frozen=True, eq=False)
class CheckedView:
    """What is known of a frame at the size at which it is checked."""

    name: str
    size: tuple[int, int]
    K: Float[np.ndarray, "3 3"]
    """In pixels of `size`."""
    T_world_camera: Float[np.ndarray, "4 4"]
    depth: Float[np.ndarray, "rows columns"] | None
    """z-depth, 0 where it is unknown, any size with the same field of view."""

    def depth_at(self, points: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, " points"]:
        """Depth at pixels, 0 where it is unknown or steps within the pixels around."""
        assert self.depth is not None
        rows, columns = self.depth.shape
        u = ((points[:, 0] + 0.5) * columns / self.size[0]).astype(int).clip(1, columns - 2)
        v = ((points[:, 1] + 0.5) * rows / self.size[1]).astype(int).clip(1, rows - 2)
        around = np.stack([self.depth[v + dv, u + du] for dv in (-1, 0, 1) for du in (-1, 0, 1)])
        known = np.where(around > 0, around, np.nan)
        some = np.isfinite(known).sum(axis=0) >= 3
        known[:, ~some] = 1.0
        low, high, middle = np.nanmin(known, axis=0), np.nanmax(known, axis=0), np.nanmedian(known, axis=0)
        return np.where(some & (high - low < 0.05 * middle), middle, 0.0)


@dataclass(frozen=True, eq=False)
class Matches:
    """Pixels of two views that show the same place, as their looks alone tell."""

    first: int
    second: int
    """Numbers of the views."""
    points_first: Float[np.ndarray, "points 2"]
    points_second: Float[np.ndarray, "points 2"]


def checked_view(frame: PosedFrame) -> tuple[CheckedView, np.ndarray]:
    """A frame at the size at which it is checked, and its picture in grey at that size."""
    width, height = frame.size
    factor = min(1.0, LONG_SIDE / max(width, height))
    size = (max(8, round(width * factor)), max(8, round(height * factor)))
    grey = Image.fromarray(frame.pixels()).convert("L").resize(size, Image.Resampling.BOX)
    depth = None
    if frame.depth_m is not None and frame.known is not None:
        depth = np.where(frame.known, frame.depth_m, 0.0).astype(np.float64)
    K = resized_intrinsics(frame.K, (width, height), size)
    view = CheckedView(f"{frame.scene}/{frame.frame}", size, K, frame.T_world_camera, depth)
    return view, np.asarray(grey)


class Matcher:
    """Finds shared features; those of each picture are computed once.

    Matches are kept if they are each other's nearest, clearly nearer than the next, and if they fit one
    epipolar geometry, whichever: nothing that is to be checked takes part.

    Args:
        pictures: in grey, as `checked_view` returns them.
    """

    def __init__(self, pictures: list[np.ndarray]) -> None:
        import cv2

        self._pictures = pictures
        self._detector = cv2.SIFT.create(nfeatures=_MOST_FEATURES, contrastThreshold=0.02)
        self._found: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def between(self, first: int, second: int) -> Matches | None:
        """Shared features of two pictures; None where there are too few."""
        import cv2

        (points_a, words_a), (points_b, words_b) = self._features(first), self._features(second)
        if min(len(points_a), len(points_b)) < _FEWEST_MATCHES:
            return None
        matcher = cv2.BFMatcher(cv2.NORM_L2)
        there = {
            pair[0].queryIdx: pair[0].trainIdx
            for pair in matcher.knnMatch(words_a, words_b, k=2)
            if len(pair) == 2 and pair[0].distance < 0.8 * pair[1].distance
        }
        back = {match.queryIdx: match.trainIdx for match in matcher.match(words_b, words_a)}
        chosen = [(a, b) for a, b in there.items() if back.get(b) == a]
        if len(chosen) < _FEWEST_MATCHES:
            return None
        a, b = points_a[[i for i, _ in chosen]], points_b[[j for _, j in chosen]]
        cv2.setRNGSeed(0)
        _, inliers = cv2.findFundamentalMat(a, b, cv2.USAC_MAGSAC, 1.5, 0.999, 2000)
        if inliers is None or inliers.sum() < _FEWEST_MATCHES:
            return None
        kept = inliers[:, 0] > 0
        return Matches(first, second, a[kept].astype(np.float64), b[kept].astype(np.float64))

    def _features(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number not in self._found:
            keypoints, words = self._detector.detectAndCompute(self._pictures[number], None)
            points = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float32).reshape(-1, 2)
            self._found[number] = (points, words if words is not None else np.zeros((0, 128), np.float32))
        return self._found[number]
