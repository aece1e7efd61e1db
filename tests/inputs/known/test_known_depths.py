"""Depth folders of every kind, and our own exports, read back."""

from dataclasses import replace

import numpy as np
import pytest
from noisy_room import box_room
from PIL import Image

from g2vlm.errors import InputError
from g2vlm.export import save_scene
from g2vlm.inputs.known.depths import read_depth_folder
from g2vlm.scene.metre import KnownThings
from g2vlm.scene.save_options import MapFiles, SaveOptions, Upsampling
from g2vlm.scene.scale import Scale, ScaleKind

DEPTH = np.array([[0.5, 1.25, 0.0], [2.0, 3.0, 4.0]], dtype=np.float32)


def read(folder, **options) -> np.ndarray:
    (only,) = read_depth_folder(folder, **options).maps
    assert only.name.startswith("0001")
    return only.load()


def test_png_counts_millimetres_or_what_is_said(tmp_path):
    counts = (DEPTH * 1000).astype(np.uint16)
    counts[0, 0] = 65535  # as some cameras mark holes
    Image.fromarray(counts).save(tmp_path / "0001.png")
    np.testing.assert_allclose(read(tmp_path), np.where(counts == 65535, 0, DEPTH), rtol=1e-6)
    np.testing.assert_allclose(read(tmp_path, counts_per_metre=500)[1], 2 * DEPTH[1])


def test_npy_is_metres(tmp_path):
    np.save(tmp_path / "0001.npy", DEPTH[..., None])
    np.testing.assert_array_equal(read(tmp_path), DEPTH)


def test_exr_is_metres(tmp_path):
    OpenEXR = pytest.importorskip("OpenEXR")
    header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": DEPTH}).write(str(tmp_path / "0001.exr"))
    np.testing.assert_array_equal(read(tmp_path), DEPTH)


@pytest.mark.filterwarnings("ignore:The originals")
@pytest.mark.parametrize("maps", list(MapFiles))
def test_depth_we_export_is_read_back(tmp_path, maps):
    if maps is MapFiles.EXR:
        pytest.importorskip("OpenEXR")
    truth = replace(box_room(), scale=Scale(ScaleKind.METRIC, "test"))
    save_scene(truth, tmp_path / "depth", SaveOptions(maps=maps, upsampling=Upsampling.NEAREST))
    result = box_room(unit=0.25).calibrated(KnownThings(depth=read_depth_folder(tmp_path / "depth")))
    assert result.findings[0].factor == pytest.approx(4, rel=1e-3)
    assert result.findings[0].residual < 2e-3
    assert "by file name" in str(result)


@pytest.mark.filterwarnings("ignore:The originals")
def test_depth_we_export_without_metres_is_refused(tmp_path):
    save_scene(box_room(), tmp_path / "depth")
    with pytest.raises(InputError, match="without metres"):
        read_depth_folder(tmp_path / "depth")


def test_what_is_no_depth_is_refused(tmp_path):
    with pytest.raises(InputError, match="folder of depth maps"):
        read_depth_folder(tmp_path / "none")
    with pytest.raises(InputError, match="got none"):
        read_depth_folder(tmp_path)
    Image.fromarray((10 * DEPTH).astype(np.uint8)).save(tmp_path / "0001.png")
    with pytest.raises(InputError, match="8-bit"):
        read(tmp_path)
    with pytest.raises(InputError, match="above 0"):
        read_depth_folder(tmp_path, 0.0)
    (tmp_path / "0001.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="Cannot read the depth map"):
        read(tmp_path)
    (tmp_path / "0001.png").unlink()
    (tmp_path / "0001.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="Cannot read the depth map"):
        read(tmp_path)
