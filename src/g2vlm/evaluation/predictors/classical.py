"""From two photos with known intrinsics to their relative pose the classical way: SIFT, essential matrix.

OpenCV throughout: SIFT (Lowe 2004), nearest neighbours with the ratio test, five points in RANSAC (Nister
2004), the pose by the side on which points lie. Pairs only: there is no depth and no trajectory.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.predictors.interface import Views

_LARGEST_PX = 1600
_FEATURES = 4096
_RATIO = 0.8
_INLIER_PX = 1.0
_LEAST_MATCHES = 8


@dataclass(frozen=True, eq=False)
class _Features:
    rays: np.ndarray
    """(n, 2): pixels in units of the focal length, seen from the principal point."""
    descriptors: np.ndarray
    focal_px: float


@dataclass(frozen=True)
class Classical:
    """Relative poses of all pairs; those without enough matches are not found."""

    def reconstruct(self, views: Views) -> Prediction:
        """Needs the true intrinsics.

        Raises:
            InputError: they are not known.
        """
        if views.K is None:
            raise InputError("Expected known intrinsics for SIFT and the essential matrix, got none.")
        found = [_features(photo, K) for photo, K in zip(views.photos, views.K, strict=True)]
        pairs = [_relative_pose(a, b) for a, b in combinations(found, 2)]
        return Prediction(
            original_sizes=views.sizes, T_first_second=np.stack(pairs) if pairs else np.empty((0, 4, 4))
        )


def _features(photo: Image.Image, K: np.ndarray) -> _Features:
    import cv2

    width, height = photo.size
    scale = min(1.0, _LARGEST_PX / max(width, height))
    gray = photo.convert("L")
    if scale < 1:
        gray = gray.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    keypoints, descriptors = cv2.SIFT.create(nfeatures=_FEATURES).detectAndCompute(np.asarray(gray), None)
    if descriptors is None:
        return _Features(np.empty((0, 2)), np.empty((0, 128), np.float32), float(K[0, 0] * scale))
    pixels = np.array([keypoint.pt for keypoint in keypoints])
    # Back to pixels of the photo by the half-pixel rule, then to rays.
    original = (pixels + 0.5) * [width / gray.width, height / gray.height] - 0.5
    rays = (original - K[:2, 2]) / [K[0, 0], K[1, 1]]
    return _Features(rays, descriptors, float(K[0, 0] * scale))


def _relative_pose(first: _Features, second: _Features) -> np.ndarray:
    """Pose of the second camera in the first one's frame, translation of length 1; NaN where not found."""
    import cv2

    lost = np.full((4, 4), np.nan)
    a, b = _matches(first, second)
    if len(a) < _LEAST_MATCHES:
        return lost
    cv2.setRNGSeed(0)  # RANSAC draws: the same photos give the same pose
    threshold = _INLIER_PX / ((first.focal_px + second.focal_px) / 2)
    E, inliers = cv2.findEssentialMat(a, b, np.eye(3), cv2.RANSAC, 0.9999, threshold)
    if E is None or E.shape != (3, 3):
        return lost
    count, R, t, _ = cv2.recoverPose(E, a, b, np.eye(3), mask=inliers)
    if count < _LEAST_MATCHES:
        return lost
    # OpenCV's pose takes points from the first camera to the second; ours is the inverse.
    T_first_second = np.eye(4)
    T_first_second[:3, :3], T_first_second[:3, 3] = R.T, -R.T @ t[:, 0]
    return T_first_second


def _matches(first: _Features, second: _Features) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    if len(first.rays) < 2 or len(second.rays) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(first.descriptors, second.descriptors, k=2)
    kept = [m for m, other in nearest if m.distance < _RATIO * other.distance]
    return first.rays[[m.queryIdx for m in kept]], second.rays[[m.trainIdx for m in kept]]
