"""Compiled passes: the same choices as plain ones, and no new graph for every length."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import g2vlm
from g2vlm.errors import DeviceError


def test_compiled_answers_are_those_of_plain_passes(tmp_path: Path) -> None:
    program = [sys.executable, str(Path(__file__).with_name("compiled_answers.py")), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["compiled"] == found["plain"]
    assert min(len(ids) for rows in found["plain"] for ids in rows) > 2
    # For one question and for several: one graph for the first size of memory, and one for all others.
    assert found["graphs"] <= 4


def test_compiled_answers_take_a_gpu() -> None:
    with pytest.raises(DeviceError, match=r"Expected a CUDA GPU .* got cpu"):
        g2vlm.load("g2vlm-tiny", device="cpu", compiled=True)
