"""What a camera makes of light: exposure, blur, noise, tone, lens and compression."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class SensorRanges:
    """Ranges that the faults of a camera are drawn from, one camera for each sample."""

    brightness: tuple[float, float] = (0.09, 0.34)
    """Mean linear value that the exposure aims at."""
    exposure_between_views: float = 0.25
    """Largest change of the logarithm of the exposure between views."""
    white_balance: float = 0.14
    vignetting: float = 0.35
    noise: float = 0.045
    """Largest standard deviation at a quarter of full brightness, before the tone curve."""
    motion_share: float = 0.25
    motion_px: float = 4.0
    defocus_px: float = 0.9
    distortion_px: float = 1.2
    """Largest shift in the corners that a wrong model of the lens leaves."""
    jpeg_share: float = 0.6
    jpeg_quality: tuple[int, int] = (45, 96)


def expose(
    linear: Float[Tensor, "scenes views 3 height width"],
    generators: Sequence[np.random.Generator],
    ranges: SensorRanges,
) -> Float[Tensor, "scenes views 3 height width"]:
    """Pictures of display colours in [0, 1] from linear light.

    Args:
        linear: any scale.
        generators: sources of the draws, one for each scene: its pictures depend on nothing else.
        ranges: how strong the faults are.
    """
    # One scene at a time: its pictures stay in a core's cache.
    shown = [_exposed(linear[k : k + 1], (rng,), ranges) for k, rng in enumerate(generators)]
    return torch.cat(shown)


def _exposed(linear: Tensor, generators: Sequence[np.random.Generator], ranges: SensorRanges) -> Tensor:
    """Pictures of one scene."""
    _, views, _, height, width = linear.shape
    device = linear.device

    def drawn(*shape: int) -> Tensor:
        return _drawn(generators, *shape).to(device)

    image = _distorted(linear, (drawn() * 2 - 1) * ranges.distortion_px)
    # Exposure: of the whole sample for some cameras, of each view for others, and never quite right.
    # Lamps and the sky count no more than a few times the mean.
    level = image.clamp_max(2.5 * image.mean())
    whole, own = level.mean(dim=(1, 2, 3, 4)), level.mean(dim=(2, 3, 4))
    automatic = drawn()[:, None] * (drawn()[:, None] < 0.6)
    mean = torch.exp(torch.lerp(whole.clamp_min(1e-4).log()[:, None], own.clamp_min(1e-4).log(), automatic))
    target = ranges.brightness[0] * (ranges.brightness[1] / ranges.brightness[0]) ** drawn()[:, None]
    jitter = torch.exp((drawn(views) * 2 - 1) * ranges.exposure_between_views * drawn()[:, None])
    image = image * (target / mean * jitter)[..., None, None, None]
    balance = 1 + (drawn(1, 3) * 2 - 1) * ranges.white_balance
    balance = balance * (1 + (drawn(views, 3) * 2 - 1) * 0.02)
    image = image * balance[..., None, None] * _vignette(drawn() * ranges.vignetting, height, width)
    image = _blurred(image, generators, ranges)
    # Photons and read-out: the share of noise grows with darkness.
    strength = (ranges.noise * drawn() ** 2)[:, None, None, None, None]
    seeds = [int(rng.integers(2**62)) for rng in generators]
    grain = torch.stack(
        [torch.randn(image.shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
    )
    grain = grain.to(device)
    grain = torch.where(drawn()[:, None, None, None, None] < 0.5, _chroma_smoothed(grain), grain)
    image = image + grain * strength * torch.sqrt(image.clamp_min(0.0) * 0.8 + 0.02)
    image = _tone(image.clamp_min(0.0), drawn(), drawn(), drawn())
    return _compressed(image, generators, ranges)


def _drawn(generators: Sequence[np.random.Generator], *shape: int) -> Tensor:
    """Uniform numbers, the scenes first."""
    return torch.from_numpy(np.stack([rng.random(shape, dtype=np.float32) for rng in generators]))


def _distorted(image: Tensor, shift_px: Tensor) -> Tensor:
    """Mild radial distortion, so many pixels in the corners."""
    scenes, views, _, height, width = image.shape
    y = torch.linspace(-1, 1, height, device=image.device)[:, None] * height / max(height, width)
    x = torch.linspace(-1, 1, width, device=image.device)[None] * width / max(height, width)
    squared = x * x + y * y
    factor = 1 + shift_px[:, None, None] / (max(height, width) / 2) * squared / 2
    grid = torch.stack(
        [x * factor * max(height, width) / width, y * factor * max(height, width) / height], dim=-1
    )
    grid = grid.repeat_interleave(views, dim=0)
    moved = F.grid_sample(
        image.flatten(0, 1), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return moved.unflatten(0, (scenes, views))


def _vignette(strength: Tensor, height: int, width: int) -> Tensor:
    y = torch.linspace(-1, 1, height, device=strength.device)[:, None]
    x = torch.linspace(-1, 1, width, device=strength.device)[None]
    fall = (x * x + y * y) / 2
    return (1 - strength[:, None, None] * fall)[:, None, None]


def _blurred(image: Tensor, generators: Sequence[np.random.Generator], ranges: SensorRanges) -> Tensor:
    """Defocus of the whole sample, and motion along a line in some views: one small kernel for each view."""
    scenes, views, channels, height, width = image.shape
    size = 2 * math.ceil(ranges.motion_px / 2) + 3
    step = torch.arange(size) - size // 2
    defocus = _drawn(generators, 1) * ranges.defocus_px + 0.25
    moving = _drawn(generators, 1) < ranges.motion_share
    length = _drawn(generators, views) * ranges.motion_px * moving
    turn = _drawn(generators, views) * math.pi
    v, u = torch.meshgrid(step, step, indexing="ij")
    along = u * turn.cos()[..., None, None] + v * turn.sin()[..., None, None]
    across = v * turn.cos()[..., None, None] - u * turn.sin()[..., None, None]
    past = (along.abs() - length[..., None, None] / 2).clamp_min(0.0)
    kernel = torch.exp(-(past**2 + across**2) / (2 * defocus[..., None, None] ** 2))
    kernel = (kernel / kernel.sum(dim=(-1, -2), keepdim=True)).to(image.device)
    flat = image.reshape(1, scenes * views * channels, height, width)
    padded = F.pad(flat, (size // 2,) * 4, mode="replicate")
    weight = kernel.flatten(0, 1).repeat_interleave(channels, dim=0)[:, None]
    return F.conv2d(padded, weight, groups=scenes * views * channels).view(image.shape)


def _chroma_smoothed(grain: Tensor) -> Tensor:
    """Noise as processing leaves it: coarser, and more alike in the three colours."""
    flat = grain.flatten(0, 1)
    soft = F.avg_pool2d(F.pad(flat, (1, 1, 1, 1), mode="replicate"), 3, stride=1) * 2.2
    return (0.5 * soft + 0.5 * soft.mean(1, keepdim=True)).view(grain.shape)


def _tone(image: Tensor, curve: Tensor, contrast: Tensor, colour: Tensor) -> Tensor:
    """From linear light to display colours: gamma or a filmic shoulder, contrast and saturation."""

    def each(value: Tensor) -> Tensor:
        return value[:, None, None, None, None]

    filmic = 1 - torch.exp(-image * 1.4)
    shown = torch.lerp(image.clamp(0.0, 1.0), filmic, each((curve * 1.5).clamp_max(1.0))).clamp(1e-5, 1.0)
    shown = shown ** each(0.42 + 0.1 * (contrast - 0.5))
    # An S curve about the middle.
    s = shown * shown * (3 - 2 * shown)
    shown = torch.lerp(shown, s, each(contrast * 0.8))
    grey = shown.mean(dim=2, keepdim=True)
    return (grey + (shown - grey) * each(0.7 + 0.65 * colour)).clamp(0.0, 1.0)


def _compressed(image: Tensor, generators: Sequence[np.random.Generator], ranges: SensorRanges) -> Tensor:
    """JPEG for a share of the samples; eight bits for all."""
    views = image.shape[1]
    pixels = (image * 255).round().to(torch.uint8)
    for scene, rng in enumerate(generators):
        if rng.random() >= ranges.jpeg_share:
            continue
        quality = int(rng.integers(*ranges.jpeg_quality))
        for view in range(views):
            buffer = io.BytesIO()
            array = pixels[scene, view].permute(1, 2, 0).cpu().numpy()
            Image.fromarray(array).save(buffer, "JPEG", quality=quality)
            with Image.open(buffer) as decoded:
                back = torch.from_numpy(np.array(decoded))
            pixels[scene, view] = back.permute(2, 0, 1).to(pixels.device)
    return pixels.float() / 255
