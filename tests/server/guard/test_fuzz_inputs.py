"""Broken inputs are read or refused; the long form, of a million, is `make check-server`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts" / "fuzz_inputs.py"


def fuzz(inputs: int, folder: Path) -> dict[str, object]:
    words = ["--inputs", str(inputs), "--state", folder / "state.json", "--keep", folder / "crashes"]
    done = subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_broken_inputs_crash_nothing_and_runs_go_on_where_they_were(tmp_path: Path) -> None:
    pytest.importorskip("fastapi", reason="bodies of requests are read with it")
    assert fuzz(100, tmp_path)["tried"] == 100
    result = fuzz(400, tmp_path)
    assert (result["tried"], result["crashed"]) == (400, 0)
    by_kind = result["by_kind"]
    assert isinstance(by_kind, dict)
    for kind in ("image", "video", "sniff", "npz"):
        assert by_kind[kind]["read"] > 0, by_kind
        assert by_kind[kind]["refused"] > 0, by_kind
