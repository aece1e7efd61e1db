"""Scenes whose dense results lie on disk."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import g2vlm
from g2vlm.checkpoints.random import random_checkpoint
from g2vlm.errors import OutputError
from g2vlm.inference.spilling import in_memory, on_disk
from g2vlm.model import network as network_module
from g2vlm.scene.scene import Scene


@pytest.fixture
def photos() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8))


def mapped_bytes() -> int:
    """Bytes of files without a name that this process has mapped."""
    deleted = [
        line.split() for line in Path("/proc/self/maps").read_text().splitlines() if "(deleted)" in line
    ]
    ends = [[int(end, 16) for end in fields[0].split("-")] for fields in deleted]
    return sum(end - start for start, end in ends)


def equal(one: Scene, other: Scene) -> bool:
    return all(
        np.array_equal(getattr(own, name), getattr(its, name))
        for own, its in zip(one.views, other.views, strict=True)
        for name in ("points_camera", "T_world_camera", "confidence", "rgb", "valid", "K")
    )


def test_a_spilled_scene_is_the_same_and_leaves_nothing(
    tmp_path: Path, photos: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = g2vlm.load(random_checkpoint(tmp_path / "model"), device="cpu", dtype="float32")
    whole = model.reconstruct(photos)
    monkeypatch.setattr(network_module, "HEAD_TOKENS_PER_CHUNK", 1)  # one view at a time
    pieces = model.reconstruct(photos)
    before = mapped_bytes()
    spilled = model.reconstruct(photos, spill=tmp_path / "spill")
    pixels = len(spilled) * spilled.views[0].valid.size
    # Points, confidence and colours.
    assert mapped_bytes() - before >= pixels * (12 + 4 + 3)
    assert equal(spilled, pieces)
    np.testing.assert_allclose(spilled.views[2].points_camera, whole.views[2].points_camera, rtol=1e-4)
    assert not list((tmp_path / "spill").iterdir())
    for ending in (".npz", ".ply"):
        for name, scene in (("one", spilled), ("two", pieces)):
            scene.save(tmp_path / f"{name}{ending}")
        assert (tmp_path / f"one{ending}").read_bytes() == (tmp_path / f"two{ending}").read_bytes()
    del spilled, scene
    assert mapped_bytes() == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_tensors_on_disk_hold_what_is_written(tmp_path: Path, dtype: torch.dtype) -> None:
    for allocate in (in_memory, on_disk(tmp_path)):
        tensor = allocate((2, 3, 5), dtype)
        values = torch.arange(30).view(2, 3, 5).to(dtype)
        tensor.copy_(values)
        assert torch.equal(tensor, values)


def test_places_that_cannot_be_written_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Expected to write into .*file, got .*choose another folder"):
        on_disk(tmp_path / "file")

    def full(*_: int) -> None:
        raise OSError(28, os.strerror(28))

    allocate = on_disk(tmp_path)
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"Expected room for 0\.00 GB in .*, got No space left"):
        allocate((4,), torch.float32)
