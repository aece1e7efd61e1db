"""Run the tests as other machines would: other instructions, no compiler, no home, other interpreters.

    python scripts/check_machines.py                 every setting, whole suite
    python scripts/check_machines.py --fast          the same with the fast suite
    python scripts/check_machines.py --only avx2     settings whose name holds a word
    python scripts/check_machines.py --python python3.12 --python python3.13

Prints a table with the time of each setting beside that of this machine as it is, and exits with 1 if one
fails or takes more than twice as long.
"""

import argparse
import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLOWEST = 2.0
"""How many times as long as on this machine a setting may take."""
FAST = ("tests/geometry", "tests/model", "tests/scene", "tests/export", "tests/cli")
INSTRUCTIONS = ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_AMX")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A machine that is played."""

    name: str
    variables: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """None removes a variable."""
    python: str = sys.executable


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a setting came out."""

    setting: Setting
    passed: bool
    seconds: float
    last_line: str


def settings(scratch: Path, pythons: Sequence[str]) -> list[Setting]:
    """Every setting, this machine as it is first."""
    found = [Setting("as it is")]
    found += [Setting(f"oneDNN {isa}", {"ONEDNN_MAX_CPU_ISA": isa}) for isa in INSTRUCTIONS]
    found += [Setting(f"ATen {name}", {"ATEN_CPU_CAPABILITY": name}) for name in ("default", "avx2")]
    found.append(Setting("no compiler", {"PATH": str(_tools_without_compiler(scratch)), "CC": None}))
    # A file in place of a folder is what even root cannot write into.
    blocked = scratch / "file"
    blocked.touch()
    places = {"HOME": None, "XDG_CACHE_HOME": str(blocked), "G2VLM_CACHE": str(blocked)}
    found.append(Setting("no home, unwritable cache", places))
    return found + [Setting(f"python {Path(name).name}", {}, name) for name in pythons]


def _tools_without_compiler(scratch: Path) -> Path:
    """A folder with everything on the PATH but compilers."""
    folder = scratch / "tools"
    folder.mkdir()
    compilers = ("cc", "gcc", "c99", "c89", "clang", "g++", "c++", "tcc")
    for place in os.environ.get("PATH", "").split(os.pathsep):
        for tool in sorted(Path(place).glob("*")) if place else ():
            named = tool.name.split("-")
            if not (set(named) & set(compilers) or (folder / tool.name).is_symlink()):
                (folder / tool.name).symlink_to(tool)
    return folder


def run(setting: Setting, words: Sequence[str]) -> Outcome:
    """Run the tests in one setting; what they print goes to stderr."""
    changed = {**os.environ, **setting.variables}
    environment = {name: value for name, value in changed.items() if value is not None}
    command = [setting.python, "-m", "pytest", *words]
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()] or done.stderr.splitlines() or [""]
    if done.returncode:
        print(f"== {setting.name}\n" + "\n".join(lines[-40:]), file=sys.stderr, flush=True)
    last = lines[-1].strip("= ")
    if done.returncode < 0:  # cut off from outside: says nothing about the tests
        last = f"killed by signal {-done.returncode}"
    return Outcome(setting, done.returncode == 0, time.monotonic() - start, last)


def table(outcomes: Sequence[Outcome]) -> str:
    """One row a setting."""
    usual = outcomes[0].seconds
    rows = ["| machine | tests | time | of the usual |", "| --- | --- | --: | --: |"]
    for one in outcomes:
        tests = one.last_line if one.passed else f"FAILED: {one.last_line}"
        rows.append(f"| {one.setting.name} | {tests} | {one.seconds:.0f} s | {one.seconds / usual:.2f} |")
    return "\n".join(rows)


def failing(outcomes: Sequence[Outcome]) -> list[str]:
    """Settings that failed or took too long."""
    usual = outcomes[0].seconds
    return [one.setting.name for one in outcomes if not one.passed or one.seconds > SLOWEST * usual]


def main() -> int:
    """Run the settings that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fast", action="store_true", help="the fast suite instead of the whole one")
    parser.add_argument("--only", default="", help="settings whose name holds this, beside the usual one")
    parser.add_argument("--python", action="append", default=[], help="another interpreter, installed into")
    parser.add_argument("--workers", default="2", help="test processes at a time")
    options = parser.parse_args()
    words = ["-n", options.workers, *(("-m", "not slow", *FAST) if options.fast else ())]
    scratch = Path(tempfile.mkdtemp(prefix="g2vlm-machines-"))
    try:
        first, *others = settings(scratch, options.python)
        outcomes = []
        for setting in [first, *(one for one in others if options.only.lower() in one.name.lower())]:
            outcomes.append(run(setting, words))
            print(f"{setting.name}: {outcomes[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(table(outcomes))
    if late := failing(outcomes):
        print(f"failed or took more than {SLOWEST:g} times as long: {', '.join(late)}", file=sys.stderr)
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())
