"""The example photos that ship with the package: small, and overlapping views of one size."""

import runpy
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from g2vlm.evaluation.checkup.examples import read_examples


def test_four_small_example_photos_ship_with_the_package() -> None:
    folder = resources.files("g2vlm") / "examples" / "recon_images"
    photos = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".jpg")), key=lambda e: e.name
    )
    assert [photo.name for photo in photos] == [f"view_{k}.jpg" for k in range(1, 5)]
    assert sum(len(photo.read_bytes()) for photo in photos) < 400_000
    for photo in photos:
        with photo.open("rb") as stream, Image.open(stream) as image:
            assert image.size == (640, 480)
            pixels = np.asarray(image.convert("L"), dtype=float)
        assert 60 < pixels.mean() < 220
        assert pixels.std() > 15


@pytest.mark.slow
def test_truth_about_the_example_photos_is_what_the_world_shows() -> None:
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "render_examples.py"))
    sample = script["true_sample"](script["SEED"], script["PATH"])
    truth = read_examples().truth
    assert (truth.depth - sample.depth).abs().max() < 0.001
    torch.testing.assert_close(truth.K, sample.K)
    torch.testing.assert_close(truth.T_world_camera, sample.T_world_camera, atol=2e-6, rtol=0)
