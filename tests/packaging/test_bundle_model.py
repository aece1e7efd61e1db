"""The script that puts a trained model into the package."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "bundle_model.py"


def write_run(folder: Path, steps: int) -> None:
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "model.safetensors").write_bytes(b"weights of " + folder.name.encode())
    lines = [{"kind": "train", "step": step, "time": 1.0, "loss": 1 / step} for step in range(1, steps + 1)]
    lines += [{"kind": "validation", "step": steps, "time": 2.0, "abs_rel": 0.123456}]
    lines += [{"kind": "end", "step": steps, "time": 3.0, "seconds": 12.5, "ending": "complete"}]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))


def test_model_of_the_last_run_with_the_record_of_all(tmp_path: Path) -> None:
    for name, steps in (("first", 100), ("second", 3)):
        write_run(tmp_path / name, steps)
    figure = {"key": "depth/abs_rel", "value": 0.1, "low": 0.09, "high": 0.11, "unit": "share"}
    result = {"settings": {"first_seed": 0}, "num_scenes": 200, "figures": [figure]}
    (tmp_path / "eval.json").write_text(json.dumps(result))
    (tmp_path / "notes.json").write_text(json.dumps({"status": "fine"}))
    into = tmp_path / "bundled"
    command = [sys.executable, str(SCRIPT), "first", "second", "--notes", "notes.json"]
    command += ["--figures", "eval.json", "--into", str(into)]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (into / "model.safetensors").read_bytes() == b"weights of second"
    digest = hashlib.sha256(b"weights of second").hexdigest()
    assert (into / "SHA256SUMS").read_text() == f"{digest}  model.safetensors\n"
    record = json.loads((into / "TRAINING.json").read_text())
    assert record["status"] == "fine"
    first, second = record["runs"]["first"], record["runs"]["second"]
    assert (first["steps"], first["seconds"]) == (100, 12.5)
    steps = [point["step"] for point in first["training_curve"]]
    assert (len(steps), steps[0], steps[-1]) == (40, 1, 100)
    assert [point["step"] for point in second["training_curve"]] == [1, 2, 3]
    assert first["validation"] == [{"step": 100, "abs_rel": 0.1235}]
    assert record["figures"]["eval"]["value, low, high"]["depth/abs_rel"] == [0.1, 0.09, 0.11]
