"""Make the model that ships with the package, from nothing to its place in the package, in one command.

    python scripts/make_bundled_model.py --runs runs --watch FRAMES

Collected assets come first (`scripts/collect_assets.py`); without them the world is drawn with procedural
textures, and the record says so. The stages are recipes of `g2vlm train`; then the result is measured by
`g2vlm eval` and put into the package with its record by `scripts/bundle_model.py`. Whatever is done already
is not done again, so the same command goes on after an interruption; `--dry_run` prints the commands only.
"""

import argparse
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from g2vlm.bench.machine import describe_machine
from g2vlm.data.world.photo.library import assets_folder
from g2vlm.data.world.photo.packing import INDEX_FILE

SCRIPTS = Path(__file__).parent
STAGES = ("photo-geometry", "photo-language")


@dataclass(frozen=True)
class Job:
    """One command, and the file that is there once it has succeeded."""

    words: tuple[str, ...]
    result: Path

    @property
    def done(self) -> bool:
        """Whether it need not run again."""
        if self.result.name != "log.jsonl":
            return self.result.is_file()
        if not self.result.is_file():
            return False
        lines = self.result.read_text(encoding="utf-8").splitlines()
        ends = [line for line in map(json.loads, lines) if line["kind"] == "end"]
        return bool(ends) and ends[-1]["ending"] == "complete"

    def run(self) -> None:
        """Run it to its end, shown as it goes.

        Raises:
            SystemExit: it failed or was interrupted.
        """
        print(f"$ {shlex.join(self.words)}", file=sys.stderr, flush=True)
        code = subprocess.run(self.words, check=False).returncode
        if code != 0:
            raise SystemExit(code)


def training_jobs(options: argparse.Namespace) -> list[Job]:
    """The stages in order, each from the model of the one before."""
    jobs = []
    before: Path | None = None
    for name in STAGES:
        run = options.runs / name
        words = [sys.executable, "-m", "g2vlm", "train", name, "--folder", str(run)]
        words += ["--store", str(options.runs / "rooms"), "--save_minutes", "5"]
        words += [] if before is None else ["--init_from", str(before / "model")]
        words += [] if options.watch is None else ["--watch", str(options.watch)]
        words += [] if options.steps is None else ["--steps", str(options.steps)]
        jobs.append(Job((*words, *options.train), run / "log.jsonl"))
        before = run
    return jobs


def measuring_jobs(options: argparse.Namespace) -> list[Job]:
    """What the finished model is worth: in the words of the training, in held-out ones, on photographs."""
    model = str(options.runs / STAGES[-1] / "model")
    common = [sys.executable, "-m", "g2vlm", "eval", "synthetic", "--ckpt", model, "--dtype", "float32"]
    common += ["--num_scenes", str(options.num_scenes), "--num_views", "4"]
    kinds = {
        "rooms": ["--num_missing", "2"],
        "held_out": ["--num_missing", "2", "--phrasing", "held_out", "--reasoned", "False"],
        "photographs": ["--world", "photo", "--num_missing", "2"],
    }
    jobs = []
    for name, words in kinds.items():
        result = options.runs / f"{name}.json"
        jobs.append(Job((*common, *words, "--save_path", str(result)), result))
    return jobs


def notes(jobs: Sequence[Job], status: str) -> dict[str, Any]:
    """What the logs of the runs do not say."""
    index = assets_folder() / INDEX_FILE
    assets = json.loads(index.read_text(encoding="utf-8"))["sources"] if index.is_file() else None
    return {
        "model": "g2vlm-tiny",
        "status": status,
        "hardware": describe_machine(torch.device("cpu")).processor,
        "software": f"Python {platform.python_version()}, torch {torch.__version__}",
        "assets": assets or "none: procedural textures only",
        "commands": [shlex.join(("g2vlm", *job.words[3:])) for job in jobs],
    }


def main() -> None:
    """Do what is left to do."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs and results are kept")
    parser.add_argument("--watch", type=Path, help="folders of real frames, measured while training")
    parser.add_argument("--steps", type=int, help="steps of each stage instead of the recipe's")
    parser.add_argument("--num_scenes", type=int, default=200, help="test rooms of each evaluation")
    parser.add_argument("--status", default="", help="a sentence for users: what the model knows")
    parser.add_argument("--into", type=Path, help="where the model goes; the package by default")
    parser.add_argument("--dry_run", action="store_true", help="print what would run")
    parser.add_argument("train", nargs="*", help="after --: more words for every g2vlm train")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    training, measuring = training_jobs(options), measuring_jobs(options)
    for job in (*training, *measuring):
        if options.dry_run:
            print(("done  " if job.done else "to do ") + shlex.join(job.words))
        elif not job.done:
            job.run()
    if options.dry_run:
        return
    record = options.runs / "notes.json"
    record.write_text(json.dumps(notes([*training, *measuring], options.status), indent=1), encoding="utf-8")
    words = [sys.executable, str(SCRIPTS / "bundle_model.py")]
    words += [str(options.runs / name) for name in STAGES]
    words += ["--notes", str(record), "--figures", *(str(job.result) for job in measuring)]
    words += [] if options.into is None else ["--into", str(options.into)]
    Job(tuple(words), options.runs / "bundled").run()


if __name__ == "__main__":
    main()
