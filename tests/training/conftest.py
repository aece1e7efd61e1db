from pathlib import Path

import pytest
from small_runs import small_checkpoint_folder


@pytest.fixture(scope="session")
def training_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint_folder(tmp_path_factory.mktemp("training") / "checkpoint")
