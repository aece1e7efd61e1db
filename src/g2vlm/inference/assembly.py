"""From the network's geometry to a `Scene`."""

import numpy as np
import torch

from g2vlm.geometry.agreement import reprojection_agreement
from g2vlm.geometry.cameras import fit_intrinsics
from g2vlm.geometry.poses import transform_points
from g2vlm.inference.spilling import in_memory
from g2vlm.inputs.decode import Photo
from g2vlm.inputs.geometric import GeometricImages
from g2vlm.model.network import Allocate, GeometryPrediction
from g2vlm.scene.scene import Scale, ScaleKind, Scene
from g2vlm.scene.view import View

NETWORK_SCALE = Scale(ScaleKind.RELATIVE, "the network's own unit")


def assemble_scene(
    prediction: GeometryPrediction,
    images: GeometricImages,
    photos: tuple[Photo, ...],
    scale: Scale = NETWORK_SCALE,
    allocate: Allocate = in_memory,
) -> Scene:
    """Put the predictions of one sequence together with the photos they belong to.

    Intrinsics are recovered from the camera points. Confidence is the sigmoid of the confidence head, or,
    where the checkpoint has none, the agreement of each point with the depth that other views give it.

    Args:
        prediction: of a batch of one.
        images: what the network saw.
        photos: names and times of the views.
        scale: unit of the scene.
        allocate: makes room for dense results.
    """
    # Cameras and agreement are computed where the points are; only results leave a GPU.
    points, poses = prediction.points_camera[0].float(), prediction.T_world_camera[0].float()
    device = points.device
    finite = torch.stack([view.isfinite().all(dim=-1) for view in points])
    valid = images.valid.to(device) & finite
    fits = [fit_intrinsics(view, mask.float()) for view, mask in zip(points, valid, strict=True)]
    intrinsics = torch.stack([fit.K for fit in fits])
    confidence = allocate(tuple(valid.shape), torch.float32)
    if prediction.confidence_logits is not None:
        logits = prediction.confidence_logits[0].float().cpu()
        torch.mul(logits.sigmoid(), valid.cpu(), out=confidence)
    else:
        on_cpu = device.type == "cpu"
        world = allocate(tuple(points.shape), torch.float32) if on_cpu else torch.empty_like(points)
        for i, view in enumerate(points):
            world[i] = transform_points(poses[i], view)
        confidence.copy_(reprojection_agreement(world, poses, intrinsics, valid))
    points, poses, intrinsics, valid = (kind.cpu() for kind in (points, poses, intrinsics, valid))
    colours = allocate(tuple(points.shape), torch.uint8)
    for i, pixels in enumerate(images.pixels):
        colours[i] = (pixels.permute(1, 2, 0) * 255).round()
    views = tuple(
        View(
            name=photo.name,
            rgb=colours[i].numpy(),
            points_camera=points[i].numpy(),
            T_world_camera=poses[i].numpy(),
            K=intrinsics[i].numpy().astype(np.float32),
            confidence=confidence[i].numpy(),
            valid=valid[i].numpy(),
            original_size=images.original_sizes[i],
            T_model_original=images.T_model_original[i].numpy(),
            time_s=photo.time_s,
            source_path=None if photo.path is None else str(photo.path),
            frame_index=photo.frame_index,
            focal_measured=bool(fits[i].found),
        )
        for i, photo in enumerate(photos)
    )
    return Scene(views=views, scale=scale)
