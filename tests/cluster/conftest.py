from pathlib import Path

import pytest

from g2vlm.checkpoints.random import random_checkpoint


@pytest.fixture(scope="session")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_checkpoint(tmp_path_factory.mktemp("random") / "weights")
