"""Small scenes on disk for the tests of batches."""

import numpy as np
from PIL import Image


def write_scenes(folder, names, num_views=2, size=(56, 42)):
    """Folders of a few small photos each."""
    draws = np.random.default_rng(0)
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(num_views):
            pixels = draws.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
