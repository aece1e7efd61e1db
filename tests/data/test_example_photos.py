"""The example photos that ship with the package: small, and overlapping views of one size."""

from importlib import resources

import numpy as np
from PIL import Image


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
