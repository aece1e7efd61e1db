"""Put a trained model into the package, with the record of how it was made.

    python scripts/bundle_model.py runs/tiny-geometry runs/tiny-vg-ce --notes notes.json --figures eval.json

The model is that of the last run. The record (`TRAINING.json`) holds the notes as they are (what a log cannot
say), the curves of all runs in order, thinned, and the figures of `g2vlm eval synthetic`. Afterwards put what
the model computes where `g2vlm doctor` finds it: `recording` of  g2vlm doctor --ckpt g2vlm-tiny --json  into
src/g2vlm/evaluation/checkup/g2vlm-tiny.json.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "src" / "g2vlm" / "checkpoints" / "bundled" / "g2vlm-tiny"
RECORD = "TRAINING.json"
SUMS = "SHA256SUMS"
"""Against which `g2vlm doctor --ckpt` compares the weights."""
LARGEST_BYTES = 25_000_000
CURVE_POINTS = 40
DIGITS = 4


def curve(lines: list[dict[str, Any]], kind: str, most: int | None = None) -> list[dict[str, float]]:
    """The log's numbers of one kind, without times, at most so many of them, evenly spread."""
    chosen = [line for line in lines if line["kind"] == kind]
    if most is not None and len(chosen) > most:
        chosen = [chosen[round(i * (len(chosen) - 1) / (most - 1))] for i in range(most)]
    hidden = ("kind", "time")
    return [
        {name: round(value, DIGITS) for name, value in line.items() if name not in hidden} for line in chosen
    ]


def run_record(run: Path) -> dict[str, Any]:
    """Steps, seconds and curves of a run, from its log."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    end = [line for line in lines if line["kind"] == "end"][-1]
    return {
        "steps": end["step"],
        "seconds": end["seconds"],
        "training_curve": curve(lines, "train", CURVE_POINTS),
        "validation": curve(lines, "validation"),
    }


def figures_of(result: Path) -> dict[str, Any]:
    """What was evaluated, and each figure with its 95 % interval."""
    stored = json.loads(result.read_text(encoding="utf-8"))
    figures = {
        figure["key"]: [round(figure[name], DIGITS) for name in ("value", "low", "high")]
        for figure in stored["figures"]
    }
    return {"settings": stored["settings"], "num_scenes": stored["num_scenes"], "value, low, high": figures}


def main() -> None:
    """Copy the model and write its record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs, in order")
    parser.add_argument("--notes", type=Path, required=True, help="JSON object with what a log cannot say")
    parser.add_argument("--figures", type=Path, nargs="*", default=[], help="results of g2vlm eval synthetic")
    parser.add_argument("--into", type=Path, default=FOLDER)
    options = parser.parse_args()
    model = options.runs[-1] / "model"
    weights = model / "model.safetensors"
    if weights.stat().st_size > LARGEST_BYTES:
        raise SystemExit(f"Expected weights of at most {LARGEST_BYTES} bytes, got {weights.stat().st_size}.")
    record = json.loads(options.notes.read_text(encoding="utf-8"))
    record["runs"] = {run.name: run_record(run) for run in options.runs}
    record["figures"] = {path.stem: figures_of(path) for path in options.figures}
    options.into.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        shutil.copy2(file, options.into / file.name)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (options.into / SUMS).write_text(f"{digest}  {weights.name}\n", encoding="utf-8")
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (options.into / RECORD).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
