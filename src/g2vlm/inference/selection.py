"""Reading only some keys of other views, and what that costs in accuracy."""

import time
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from g2vlm.errors import InputError
from g2vlm.geometry.rotations import rotation_angle
from g2vlm.inference.prompts import PromptBuilder
from g2vlm.model.config import ViewAttention
from g2vlm.model.key_selection import KeySelection, SelectingMemory
from g2vlm.model.network import G2VLM, GeometryPrediction, ModelInputs, Wants


def select_keys(inputs: ModelInputs, selection: KeySelection | None) -> SelectingMemory | None:
    """The memory that makes one reconstruction pass read chosen keys; None for the dense pass.

    Raises:
        InputError: the views do not form one block.
    """
    if selection is None:
        return None
    if inputs.photographs is None:
        raise InputError("Expected views to select keys of, got text only.")
    return SelectingMemory(inputs.layout, inputs.photographs.images.shape[1], selection)


@dataclass(frozen=True)
class SelectionLoss:
    """How a pass with chosen keys differs from the dense pass over the same views."""

    num_views: int
    selection: KeySelection
    keys_read: float
    """Share of all keys of views that a query reads."""
    points: float
    """Median distance of camera points, relative to their own distance from the camera."""
    rotation_rad: float
    """Largest angle between camera rotations."""
    position: float
    """Largest distance of camera centres, relative to the largest distance between two dense ones."""
    dense_s: float
    """Seconds of the dense pass."""
    selected_s: float
    """Seconds of the pass with chosen keys."""


@torch.inference_mode()
def selection_loss(
    network: G2VLM,
    prompts: PromptBuilder,
    pixels: Float[Tensor, "views 3 height width"],
    selection: KeySelection,
) -> SelectionLoss:
    """Reconstruct views densely and with chosen keys, and compare.

    Args:
        network: at least the parts that reconstruction needs.
        prompts: for its tokenizer and device.
        pixels: at least two prepared views.
        selection: which keys are read.
    """
    if len(pixels) < 2:
        raise InputError(f"Expected at least 2 views to compare, got {len(pixels)}.")
    inputs = prompts.reconstruction(pixels, ViewAttention.GLOBAL).inputs
    dense, dense_s = _timed(network, inputs, None)
    chosen, selected_s = _timed(network, inputs, selection)
    patches = inputs.layout.blocks[-1].num_geometric // len(pixels)
    read = patches + (len(pixels) - 1) * min(selection.keys_per_view, patches)
    return SelectionLoss(
        num_views=len(pixels),
        selection=selection,
        keys_read=read / (patches * len(pixels)),
        points=_points_moved(dense, chosen),
        rotation_rad=_turned(dense, chosen),
        position=_cameras_moved(dense, chosen),
        dense_s=dense_s,
        selected_s=selected_s,
    )


def _timed(
    network: G2VLM, inputs: ModelInputs, selection: KeySelection | None
) -> tuple[GeometryPrediction, float]:
    start = time.perf_counter()
    geometry = network(inputs, Wants(geometry=True), select_keys(inputs, selection)).geometry
    assert isinstance(geometry, GeometryPrediction)
    # Reading a number waits for a GPU to finish.
    float(geometry.T_world_camera.sum())
    return geometry, time.perf_counter() - start


def _points_moved(dense: GeometryPrediction, chosen: GeometryPrediction) -> float:
    moved = (chosen.points_camera - dense.points_camera).norm(dim=-1)
    return float((moved / dense.points_camera.norm(dim=-1)).median())


def _turned(dense: GeometryPrediction, chosen: GeometryPrediction) -> float:
    R_dense, R_chosen = dense.T_world_camera[..., :3, :3], chosen.T_world_camera[..., :3, :3]
    return float(rotation_angle(R_dense.mT @ R_chosen).max())


def _cameras_moved(dense: GeometryPrediction, chosen: GeometryPrediction) -> float:
    centres, moved = dense.T_world_camera[0, :, :3, 3], chosen.T_world_camera[0, :, :3, 3]
    spread = torch.cdist(centres, centres).max().clamp_min(torch.finfo(centres.dtype).tiny)
    return float((moved - centres).norm(dim=-1).max() / spread)
