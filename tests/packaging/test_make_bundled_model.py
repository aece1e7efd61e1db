"""The script that makes the bundled model: what it would run, leaves out, and goes on with."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_bundled_model.py"


def planned(runs: Path, *words: str) -> list[str]:
    command = [sys.executable, str(SCRIPT), "--runs", str(runs), "--dry_run", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def log(run: Path, ending: str) -> None:
    run.mkdir(parents=True, exist_ok=True)
    line = {"kind": "end", "step": 5, "seconds": 1.0, "ending": ending}
    (run / "log.jsonl").write_text(json.dumps(line) + "\n")


def test_each_stage_starts_from_the_one_before_and_is_done_once(tmp_path: Path) -> None:
    first, second, *measured = planned(tmp_path, "--steps", "7", "--", "--threads", "1")
    assert "g2vlm train photo-geometry" in first
    assert "--init_from" not in first
    assert f"--init_from {tmp_path / 'photo-geometry' / 'model'}" in second
    for line in (first, second):
        assert line.startswith("to do")
        assert line.endswith("--steps 7 --threads 1")
    assert len(measured) == 3
    assert all(str(tmp_path / "photo-language" / "model") in line for line in measured)

    log(tmp_path / "photo-geometry", "interrupted")
    assert planned(tmp_path)[0].startswith("to do")
    log(tmp_path / "photo-geometry", "complete")
    (tmp_path / "rooms.json").write_text("{}")
    assert [line[:5] for line in planned(tmp_path)] == ["done ", "to do", "done ", "to do", "to do"]
