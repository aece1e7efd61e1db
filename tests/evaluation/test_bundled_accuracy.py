"""The shipped weights are as good as their record says, on rooms that they were not trained on.

The bounds lie below what was measured by more than such few rooms scatter, and far above a model that knows
nothing: weights that were exchanged, cut, or loaded into the wrong place do not reach them.
"""

import json

import pytest

from g2vlm.checkpoints.places import has_bundled
from g2vlm.cli.main import main


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    if not has_bundled():
        pytest.skip("this installation carries no checkpoint")
    path = tmp_path_factory.mktemp("accuracy") / "figures.json"
    rooms = ["--num_scenes", "6", "--num_views", "4", "--num_questions", "2", "--sights", "full"]
    words = ["eval", "synthetic", "--ckpt", "g2vlm-tiny", "--dtype", "float32", *rooms]
    assert main([*words, "--save_path", str(path)]) == 0
    return {figure["key"]: figure["value"] for figure in json.loads(path.read_text())["figures"]}


def test_depth_and_cameras(figures):
    # Measured 0.093, 0.95, 0.62; one depth for a whole room gives about 0.35, cameras that stand still 0.05.
    assert figures["depth/abs_rel"] < 0.13
    assert figures["depth/delta"] > 0.88
    assert figures["pose/auc30"] > 0.45


def test_answers(figures):
    # Measured 58 % of 12 questions, and none that cannot be read; the best blind guess is right in 25 %.
    assert figures["questions/all/full"] > 0.4
    assert figures["questions/unread/full"] < 0.1
