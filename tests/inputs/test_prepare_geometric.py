"""The geometric encoder's input: bit-exact with the released one, the origin of every pixel known."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from g2vlm.errors import InputError
from g2vlm.inputs.decode import Photo, decode_file
from g2vlm.inputs.geometric import Fit, StretchedPhotosWarning, canvas_size, prepare_geometric


def gray(width: int, height: int, level: int = 0) -> Photo:
    return Photo(Image.new("RGB", (width, height), (level, level, level)), f"{width}x{height}")


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.parametrize(("case", "count"), [("landscape", 3), ("portrait", 2)])
def test_equals_the_released_preparation(
    parity_data: Path, computed_images: Path, fit: Fit, case: str, count: int
) -> None:
    expected = load_file(parity_data / f"computed_{case}.safetensors")["recon.images[::9]"][0]
    photos = [Photo(decode_file(computed_images / f"{case}_{view}.png"), str(view)) for view in range(count)]
    images = prepare_geometric(photos, fit=fit)
    assert torch.equal(images.pixels[:, :, ::9, ::9], expected)
    assert images.pixels.dtype == torch.float32
    assert images.valid.all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((640, 480), (518, 392)),
        ((480, 640), (518, 686)),
        ((518, 518), (518, 518)),
        ((1036, 70), (518, 28)),  # 2.5 rows: ties go to even, as in Python's round
        ((1036, 98), (518, 56)),  # 3.5 rows
        ((1920, 1080), (518, 294)),
        ((1, 1), (518, 518)),
    ],
)
def test_size_of_the_canvas(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert canvas_size(size) == expected


@pytest.mark.parametrize("width", [0, -14, 13, 15, 517])
def test_width_in_whole_patches(width: int) -> None:
    with pytest.raises(InputError, match=f"multiple of 14, got {width}"):
        prepare_geometric([gray(64, 48)], width=width)


def test_photo_too_flat() -> None:
    with pytest.raises(InputError, match="800x10, too flat"):
        prepare_geometric([gray(800, 10)])
    with pytest.raises(InputError, match="at least one photo"):
        prepare_geometric([])


def test_stretching_says_so() -> None:
    photos = [gray(640, 480), gray(480, 640), gray(642, 480)]
    with pytest.warns(StretchedPhotosWarning, match="1 of 3 photos .* 480x640"):
        images = prepare_geometric(photos, width=56)
    assert images.valid.all()
    assert images.pixels.shape == (3, 3, 42, 56)
    assert images.original_sizes == ((640, 480), (480, 640), (642, 480))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare_geometric(photos, width=56, fit=Fit.PAD)


@pytest.mark.parametrize("size", [(480, 640), (300, 301), (1600, 200), (31, 400), (400, 31)])
def test_padding_keeps_the_shape_and_marks_itself(size: tuple[int, int]) -> None:
    images = prepare_geometric([gray(640, 480), gray(*size)], width=112, fit=Fit.PAD)
    valid, pixels = images.valid[1], images.pixels[1]
    rows, cols = valid.any(dim=1).nonzero().ravel(), valid.any(dim=0).nonzero().ravel()
    height, width = len(rows), len(cols)
    assert valid.sum() == height * width  # one rectangle
    assert height == 84 or width == 112  # as large as fits
    assert abs(width - height * size[0] / size[1]) <= max(1.0, size[0] / size[1])
    assert abs((rows[0] + rows[-1]) - 83) <= 1  # centred
    assert abs((cols[0] + cols[-1]) - 111) <= 1
    assert (pixels[:, valid] == 0).all()
    assert (pixels[:, ~valid] == 1).all()
    assert (~valid).any()


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.filterwarnings("ignore::g2vlm.inputs.geometric.StretchedPhotosWarning")
def test_pixels_are_where_the_transform_says(fit: Fit) -> None:
    """A soft spot in the original is found at the transformed place."""
    first = gray(320, 240)
    for width, height, u, v in [
        (320, 240, 200, 70),
        (240, 320, 60, 250),
        (90, 50, 30, 20),
        (700, 600, 400, 111),
    ]:
        y, x = np.mgrid[0:height, 0:width]
        sigma = width / 25
        spot = np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma**2))
        photo = Photo(Image.fromarray(np.repeat((255 * spot)[..., None], 3, axis=2).astype(np.uint8)), "spot")
        images = prepare_geometric([first, photo], width=308, fit=fit)
        weight = (images.pixels[1, 0] * images.valid[1]).double()
        rows, cols = torch.meshgrid(*(torch.arange(n).double() for n in weight.shape), indexing="ij")
        found = torch.stack([(weight * cols).sum(), (weight * rows).sum()]) / weight.sum()
        expected = images.T_model_original[1] @ torch.tensor([u, v, 1.0], dtype=torch.float64)
        assert expected[2] == 1
        assert (found - expected[:2]).abs().max() < 0.15, (width, height)


@pytest.mark.parametrize("fit", Fit)
@pytest.mark.filterwarnings("ignore::g2vlm.inputs.geometric.StretchedPhotosWarning")
def test_corners_of_the_photo_meet_the_corners_of_the_valid_part(fit: Fit) -> None:
    photos = [gray(640, 480), gray(480, 640), gray(1000, 333), gray(17, 40)]
    images = prepare_geometric(photos, width=140, fit=fit)
    for index, (width, height) in enumerate(images.original_sizes):
        rows, cols = images.valid[index].nonzero().unbind(1)
        corners = torch.tensor([[-0.5, width - 0.5], [-0.5, height - 0.5], [1, 1]], dtype=torch.float64)
        expected = torch.tensor([[cols.min() - 0.5, cols.max() + 0.5], [rows.min() - 0.5, rows.max() + 0.5]])
        assert torch.allclose((images.T_model_original[index] @ corners)[:2], expected.double(), atol=1e-9)


def test_transform_starts_from_the_upright_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x112] = 6
    Image.new("RGB", (64, 48)).save(tmp_path / "turned.jpg", exif=exif)
    images = prepare_geometric([Photo(decode_file(tmp_path / "turned.jpg"), "turned")], width=42)
    assert images.original_sizes == ((48, 64),)
    assert images.pixels.shape[2:] == (56, 42)
    assert images.T_model_original[0, 0, 0] == 42 / 48


def test_extreme_shapes_survive_padding() -> None:
    images = prepare_geometric([gray(64, 48), gray(1000, 1), gray(1, 1000)], width=56, fit=Fit.PAD)
    assert images.valid[1].sum() == 56
    assert images.valid[2].sum() == 42


def test_needs_neither_opencv_nor_transformers() -> None:
    code = (
        "import sys, g2vlm.inputs.photos, g2vlm.inputs.geometric, g2vlm.inputs.semantic, g2vlm.inputs.text\n"
        "assert not {'cv2', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
