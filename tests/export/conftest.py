"""One rendered room for all formats: perfect geometry, photos in files."""

import pytest
from rendered_room import rendered_room

from g2vlm.scene.scene import Scene


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return rendered_room(tmp_path_factory.mktemp("photos"))
