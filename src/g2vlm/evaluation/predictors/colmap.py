"""Structure from motion with known intrinsics by COLMAP (pycolmap), where it is installed."""

import importlib.util
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from g2vlm.errors import InputError, MissingExtraError
from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.predictors.interface import Views


def is_installed() -> bool:
    """Whether pycolmap can be imported."""
    return importlib.util.find_spec("pycolmap") is not None


@dataclass(frozen=True)
class Colmap:
    """Incremental mapping with exhaustive matching, intrinsics fixed at the true ones.

    Raises:
        MissingExtraError: pycolmap is not installed.
    """

    def __post_init__(self) -> None:
        """Say so now, before hours of other work."""
        if not is_installed():
            raise MissingExtraError("Comparing with COLMAP", "colmap")

    def reconstruct(self, views: Views) -> Prediction:
        """Poses of the largest model; views outside are not found.

        Raises:
            InputError: intrinsics are not known.
        """
        if views.K is None:
            raise InputError("Expected known intrinsics for COLMAP, got none.")
        with tempfile.TemporaryDirectory() as folder:
            poses = _map(Path(folder), views, views.K)
        return Prediction(original_sizes=views.sizes, T_world_camera=poses)


def _map(folder: Path, views: Views, intrinsics: np.ndarray) -> np.ndarray:
    import pycolmap

    images = folder / "images"
    images.mkdir()
    names = [f"{k:06d}.png" for k in range(len(views.photos))]
    database = folder / "database.db"
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    for name, photo, K in zip(names, views.photos, intrinsics, strict=True):
        photo.convert("RGB").save(images / name)
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = "PINHOLE"
        # COLMAP's pixel centres lie at halves.
        reader.camera_params = ",".join(map(str, (K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5)))
        pycolmap.extract_features(
            database, images, [name], pycolmap.CameraMode.PER_IMAGE, reader, device=pycolmap.Device.cpu
        )
    # One thread and fixed draws: the same photos give the same poses.
    pycolmap.set_random_seed(0)
    matching, verification = pycolmap.FeatureMatchingOptions(), pycolmap.TwoViewGeometryOptions()
    matching.num_threads, verification.ransac.random_seed = 1, 0
    pycolmap.match_exhaustive(
        database, matching, verification_options=verification, device=pycolmap.Device.cpu
    )
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    options.random_seed, options.min_model_size = 0, 2
    models = pycolmap.incremental_mapping(database, images, folder, options)
    poses = np.full((len(names), 4, 4), np.nan)
    if models:
        largest = max(models.values(), key=lambda model: model.num_reg_images())
        for image in largest.images.values():
            if image.has_pose:
                T = np.eye(4)
                T[:3] = image.cam_from_world().inverse().matrix()
                poses[names.index(image.name)] = T
    return poses
