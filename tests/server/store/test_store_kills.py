"""The store after `kill -9`; the long form is `make check-server`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "check_store_kills.py"


@pytest.mark.slow
def test_nothing_is_lost_half_or_corrupt_after_kills() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--kills", "10", "--rows", "100", "--seed", "1"],
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kills"] == 10
    assert result["wrong"] == 0
