"""Other feed-forward reconstruction models, through their own packages where the user has installed them.

Each package is imported when it is asked for; licences are theirs. Photos are resized here (aspect kept up to
whole patches, nothing cropped), so that every pixel of a map lies where the comparison looks for it.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.evaluation.prediction import Prediction
from g2vlm.evaluation.predictors.interface import Views
from g2vlm.evaluation.predictors.saved import covering
from g2vlm.geometry.cameras import unproject

_WIDTH, _PATCH = 518, 14
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Peer:
    """Where a peer's package and weights come from."""

    package: str
    """What is imported."""
    source: str
    """Where it is published."""
    weights: str
    """Hub id that is loaded unless another is named."""
    load: Callable[[str, torch.device], "Callable[[Sequence[Image.Image]], Said]"]


@dataclass(frozen=True, eq=False)
class Said:
    """What a peer says: everything per view, over whole photos."""

    T_world_camera: Float[np.ndarray, "views 4 4"]
    points_camera: Float[np.ndarray, "views height width 3"]
    K: Float[np.ndarray, "views 3 3"] | None


@dataclass(frozen=True)
class PeerModel:
    """One of `PEERS`, loaded.

    Raises:
        InputError: no such peer, or its package is not installed.
    """

    name: str
    weights: str | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Load it."""
        if self.name not in PEERS:
            raise InputError(f"Expected a peer among {', '.join(PEERS)}, got {self.name!r}.")
        peer = PEERS[self.name]
        run = peer.load(self.weights or peer.weights, torch.device(self.device))
        object.__setattr__(self, "_run", run)

    def reconstruct(self, views: Views) -> Prediction:
        """What the peer says about the photos alone."""
        run: Callable[[Sequence[Image.Image]], Said] = self._run  # type: ignore[attr-defined]
        with torch.inference_mode():
            said = run(views.photos)
        points = said.points_camera.astype(np.float32)
        return Prediction(
            original_sizes=views.sizes,
            T_model_original=covering(views.sizes, points.shape[1:3]),
            T_world_camera=said.T_world_camera,
            K=said.K,
            points_camera=points,
            valid=np.isfinite(points).all(axis=-1) & (points[..., 2] > 0),
        )


def _needed(module: str, peer: str) -> ModuleType:
    """A module of a peer's package.

    Raises:
        InputError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        source = PEERS[peer].source
        raise InputError(
            f"Expected the package {PEERS[peer].package!r} to be installed for --predictor {peer} ({error}): "
            f"follow {source}."
        ) from error


def prepared(photos: Sequence[Image.Image]) -> Float[Tensor, "views 3 height width"]:
    """Photos at width 518 and the height of the first one's aspect in whole patches, RGB in [0, 1]."""
    width, height = photos[0].size
    rows = max(1, round(height * _WIDTH / width / _PATCH)) * _PATCH
    resized = [photo.convert("RGB").resize((_WIDTH, rows), Image.Resampling.BICUBIC) for photo in photos]
    pixels = np.stack([np.asarray(photo) for photo in resized])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _poses(T_camera_world: Tensor) -> np.ndarray:
    """Camera-to-world 4x4 of world-to-camera 3x4 or 4x4."""
    T = torch.eye(4, dtype=torch.float64).repeat(len(T_camera_world), 1, 1)
    T[:, :3] = T_camera_world[:, :3].double().cpu()
    return np.asarray(torch.linalg.inv(T).float())


def _unprojected(depth: Tensor, K: Tensor) -> np.ndarray:
    return np.asarray(unproject(depth.float().cpu(), K.float().cpu()))


def _vggt(weights: str, device: torch.device) -> Callable[[Sequence[Image.Image]], Said]:
    model = _needed("vggt.models.vggt", "vggt").VGGT.from_pretrained(weights).to(device).eval()
    decode = _needed("vggt.utils.pose_enc", "vggt").pose_encoding_to_extri_intri

    def run(photos: Sequence[Image.Image]) -> Said:
        images = prepared(photos).to(device)
        said = model(images)
        extrinsic, K = decode(said["pose_enc"], images.shape[-2:])
        depth = said["depth"][0, ..., 0]
        return Said(_poses(extrinsic[0]), _unprojected(depth, K[0]), K[0].float().cpu().numpy())

    return run


def _vggt_omega(weights: str, device: torch.device) -> Callable[[Sequence[Image.Image]], Said]:
    model = _needed("vggt_omega.models", "vggt_omega").VGGTOmega()
    model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    model = model.to(device).eval()
    decode = _needed("vggt_omega.utils.pose_enc", "vggt_omega").encoding_to_camera

    def run(photos: Sequence[Image.Image]) -> Said:
        images = prepared(photos).to(device)
        said = model(images)
        extrinsic, K = decode(said["pose_enc"], images.shape[-2:])
        depth = said["depth"].reshape(len(photos), *images.shape[-2:])
        return Said(_poses(extrinsic[0]), _unprojected(depth, K[0]), K[0].float().cpu().numpy())

    return run


def _pi3(weights: str, device: torch.device) -> Callable[[Sequence[Image.Image]], Said]:
    model = _needed("pi3.models.pi3", "pi3").Pi3.from_pretrained(weights).to(device).eval()

    def run(photos: Sequence[Image.Image]) -> Said:
        said = model(prepared(photos)[None].to(device))
        points = said["local_points"][0].float().cpu().numpy()
        return Said(said["camera_poses"][0].float().cpu().numpy(), points, None)

    return run


def _map_anything(weights: str, device: torch.device) -> Callable[[Sequence[Image.Image]], Said]:
    models = _needed("mapanything.models", "mapanything")
    model = models.MapAnything.from_pretrained(weights).to(device).eval()

    def run(photos: Sequence[Image.Image]) -> Said:
        mean, std = (torch.tensor(values)[:, None, None] for values in _IMAGENET)
        images = ((prepared(photos) - mean) / std).to(device)
        views = [{"img": image[None], "data_norm_type": ["dinov2"]} for image in images]
        said = model.infer(views, apply_mask=False, mask_edges=False)
        poses = torch.cat([view["camera_poses"] for view in said]).float().cpu().numpy()
        points = torch.cat([view["pts3d_cam"] for view in said]).float().cpu().numpy()
        return Said(poses, points, torch.cat([view["intrinsics"] for view in said]).float().cpu().numpy())

    return run


def _depth_anything(weights: str, device: torch.device) -> Callable[[Sequence[Image.Image]], Said]:
    model = _needed("depth_anything_3.api", "depth_anything_3").DepthAnything3.from_pretrained(weights)
    model = model.to(device=device)

    def run(photos: Sequence[Image.Image]) -> Said:
        said = model.inference([photo.convert("RGB") for photo in photos])
        K = torch.from_numpy(np.asarray(said.intrinsics))
        points = _unprojected(torch.from_numpy(np.asarray(said.depth)), K)
        return Said(_poses(torch.from_numpy(np.asarray(said.extrinsics))), points, K.float().numpy())

    return run


PEERS: dict[str, Peer] = {
    "vggt": Peer("vggt", "https://github.com/facebookresearch/vggt", "facebook/VGGT-1B", _vggt),
    "vggt_omega": Peer(
        "vggt_omega",
        "https://github.com/facebookresearch/vggt-omega",
        "vggt_omega_1b_416_reproduce.pt",
        _vggt_omega,
    ),
    "pi3": Peer("pi3", "https://github.com/yyfz/Pi3", "yyfz233/Pi3", _pi3),
    "mapanything": Peer(
        "mapanything",
        "https://github.com/facebookresearch/map-anything",
        "facebook/map-anything",
        _map_anything,
    ),
    "depth_anything_3": Peer(
        "depth_anything_3",
        "https://github.com/ByteDance-Seed/Depth-Anything-3",
        "depth-anything/DA3-LARGE-1.1",
        _depth_anything,
    ),
}
"""By the name that `--predictor` takes."""
