"""Run the tests as other machines would: other instructions, no compiler, no home, other interpreters.

    python scripts/check_machines.py                 every setting, whole suite; takes the night
    python scripts/check_machines.py --scope fast    the same with the fast suite
    python scripts/check_machines.py --scope dependent   the rooms that a machine can make a difference to
    python scripts/check_machines.py --scope short   what .ci/run does: what a setting can change, in minutes
    python scripts/check_machines.py --only avx2     settings whose name holds a word
    python scripts/check_machines.py --python 3.12   this other interpreter, in place of all that are found

Each interpreter gets an environment of its own, into which the package is installed, and runs the demo first.
A setting that passed with the same files is not run again. Prints a table with the processor time of each
setting beside that of this machine as it is, keeps it with the output of every run in --folder, and exits
with 1 if a setting fails or takes more than twice as long.
"""

import argparse
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
SLOWEST = 2.0
"""How many times as long as on this machine a setting may take, in time of the processor."""
DEPENDENT = ("tests/model", "tests/inference", "tests/checkpoints", "tests/packaging", "tests/parity")
DEPENDENT += ("tests/bench", "tests/cli", "tests/test_pipeline.py", "tests/test_model_threads.py")
"""Where a processor, a compiler or a home can make a difference."""
DECIDED = tuple(
    f"tests/model/test_{what}.py" for what in ("capabilities", "kept", "precision", "quantization")
)
DECIDED += ("tests/model/native", "tests/inference/test_decoding.py", "tests/cli/test_cli_main.py")
"""What is decided on a machine, and how answers are decoded."""
SPOKEN = tuple(f"tests/{room}" for room in ("checkpoints", "cli", "test_pipeline.py"))
"""Where the package meets the interpreter, its libraries and other programs most."""
SCOPES = {
    "whole": ((), ()),
    "dependent": (DEPENDENT, ("-m", "not slow", *DEPENDENT)),
    "fast": (("-m", "not slow"), ("-m", "not slow")),
    "short": (("-m", "not slow", *DECIDED), ("-m", "not slow", *SPOKEN)),
}
"""Words for pytest: of settings of this interpreter, and of other interpreters."""
INSTRUCTIONS = ("AVX2", "AVX512_CORE", "AVX512_CORE_VNNI", "AVX512_CORE_BF16", "AVX512_CORE_AMX")
LEFT_OUT_OF_SHORT = ("as it is", *(f"oneDNN {isa}" for isa in INSTRUCTIONS[1:]), "ATen avx2")
"""The plain run among them: who asks for a short form has just run the whole suite."""
INTERPRETERS = ("3.11", "3.12", "3.13")
"""What the package supports."""
OWN_INTERPRETER = f"{sys.version_info.major}.{sys.version_info.minor}"
COMPILERS = {"cc", "gcc", "c99", "c89", "clang", "g++", "c++", "tcc"}
COUNTS = ("passed", "skipped", "failed", "error")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A machine that is played."""

    name: str
    variables: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    """None removes a variable."""
    python: str = sys.executable
    """Another interpreter is installed into an environment of its own."""

    @property
    def is_other_interpreter(self) -> bool:
        """Whether it is not the interpreter that runs this script."""
        return self.python != sys.executable


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a setting came out."""

    name: str
    passed: bool
    counts: Mapping[str, int]
    """Tests by how they ended."""
    seconds: float
    processor_s: float
    """Does not grow much when others use the machine too."""
    load: float
    """Processes that wanted a core at the end, the minute's mean."""
    last_line: str


def settings(scratch: Path, interpreters: Mapping[str, str]) -> list[Setting]:
    """Every setting, this machine as it is first.

    Args:
        scratch: an empty folder that lives as long as the runs.
        interpreters: paths by version.
    """
    found = [Setting("as it is")]
    found += [Setting(f"oneDNN {isa}", {"ONEDNN_MAX_CPU_ISA": isa}) for isa in INSTRUCTIONS]
    found += [Setting(f"ATen {name}", {"ATEN_CPU_CAPABILITY": name}) for name in ("default", "avx2")]
    found.append(Setting("no compiler", {"PATH": str(_tools_without_compiler(scratch)), "CC": None}))
    # A file in place of a folder is what even root cannot write into.
    blocked, temporary = scratch / "file", scratch / "temporary"
    blocked.touch()
    temporary.mkdir()  # where the package goes then: not where that of the user is
    places = {
        "HOME": None,
        "XDG_CACHE_HOME": str(blocked),
        "G2VLM_CACHE": str(blocked),
        "TMPDIR": str(temporary),
    }
    found.append(Setting("no home, unwritable cache", places))
    return found + [Setting(f"python {version}", {}, path) for version, path in interpreters.items()]


def _tools_without_compiler(scratch: Path) -> Path:
    """A folder with everything on the PATH but compilers."""
    folder = scratch / "tools"
    folder.mkdir()
    for place in os.environ.get("PATH", "").split(os.pathsep):
        for tool in sorted(Path(place).glob("*")) if place else ():
            if not (set(tool.name.split("-")) & COMPILERS or (folder / tool.name).is_symlink()):
                (folder / tool.name).symlink_to(tool)
    return folder


def find_interpreter(version: str) -> str | None:
    """Path of a Python that can make environments: on the PATH, or one that pyenv installed."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path("~").expanduser() / ".pyenv")
    candidates = [f"python{version}", *map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python")))]
    question = "import ensurepip, sys, venv; print(sys.executable); print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        try:
            done = subprocess.run([candidate, "-c", question], capture_output=True, text=True, check=False)
        except OSError:
            continue
        path, _, found = done.stdout.strip().partition("\n")
        if done.returncode == 0 and found == version:
            return path
    return None


def interpreters(wanted: Sequence[str]) -> dict[str, str]:
    """Interpreters by version: those that are wanted, else every other one that is found.

    Raises:
        SystemExit: one that is wanted is missing.
    """
    versions = [word.removeprefix("python") for word in wanted]
    found = {}
    for version in versions or [one for one in INTERPRETERS if one != OWN_INTERPRETER]:
        path = find_interpreter(version)
        if path is not None:
            found[version] = path
        elif wanted:
            raise SystemExit(f"Expected a Python {version} on the PATH or of pyenv, found none: install it.")
        else:
            say(f"python {version}: left out, there is none on the PATH nor of pyenv")
    return found


def environment_of(setting: Setting, folder: Path) -> Path:
    """Where another interpreter is installed into."""
    return folder / "environments" / setting.name.split()[-1]


def prepare(setting: Setting, folder: Path, log: Path) -> str | None:
    """Install into an environment of another interpreter and run the demo there.

    Returns:
        The interpreter of the environment; None if something failed, which the log tells.
    """
    python = str(folder / "bin" / "python")
    own = ["-c", str(ROOT / "constraints-cpu.txt")] if _no_gpu() else []
    own += os.environ.get("PIP_ARGS", "").split()
    install = ["-m", "pip", "install", "--quiet", *own, "-e", f"{ROOT}[dev]"]
    # The network is for installing: the weights of the demo are inside.
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    steps: list[tuple[list[str], Mapping[str, str]]] = [
        ([setting.python, "-m", "venv", str(folder)], os.environ),
        ([python, *install], os.environ),
        ([python, "-m", "g2vlm", "demo", "--folder", str(folder / "demo")], offline),
    ]
    with log.open("w") as file:
        for command, environment in steps:
            start = time.monotonic()
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=file, check=False)
            if done.returncode:
                return None
            what = command[command.index("-m") + 1 :][:2]
            say(f"{setting.name}: {' '.join(what)} took {time.monotonic() - start:.0f} s")
    return python


def _no_gpu() -> bool:
    return shutil.which("nvidia-smi") is None or bool(
        subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).returncode
    )


def run(setting: Setting, words: Sequence[str], folder: Path) -> Outcome:
    """Run the tests in one setting; what they print goes into a file, and its end to stderr if they fail."""
    start, before = time.monotonic(), _processor_s()
    log = folder / f"{re.sub(r'[^A-Za-z0-9.]+', '-', setting.name)}.log"
    python: str | None = setting.python
    if setting.is_other_interpreter:
        python = prepare(setting, environment_of(setting, folder), log)
    status = 1
    if python is not None:
        changed = {**os.environ, **setting.variables}
        environment = {name: value for name, value in changed.items() if value is not None}
        with log.open("a" if setting.is_other_interpreter else "w") as file:
            start, before = time.monotonic(), _processor_s()  # the tests alone
            command = [python, "-m", "pytest", *words]
            status = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=file, stderr=file, check=False
            ).returncode
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] or [""]
    if status:
        print(f"== {setting.name}\n" + "\n".join(lines[-40:]), file=sys.stderr, flush=True)
    last = lines[-1].strip("= ")
    if status < 0:  # cut off from outside: says nothing about the tests
        last = f"killed by signal {-status}"
    spent = time.monotonic() - start, _processor_s() - before, os.getloadavg()[0]
    return Outcome(setting.name, status == 0, counts(last), *spent, last)


def _processor_s() -> float:
    """Processor time of everything that was started and has ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def counts(line: str) -> dict[str, int]:
    """Read `3 passed, 1 skipped in 2.00s`."""
    found = {word: int(number) for number, word in re.findall(r"(\d+) (passed|skipped|failed|error)", line)}
    return {name: found.get(name, 0) for name in COUNTS}


def files_id() -> str | None:
    """A digest of every file that git does not ignore; None outside of a git checkout."""
    with tempfile.TemporaryDirectory() as folder:
        # An index of its own: what the user has staged stays as it is.
        environment = {**os.environ, "GIT_INDEX_FILE": str(Path(folder) / "index")}
        for command in (["git", "add", "--all", "."], ["git", "write-tree"]):
            try:
                done = subprocess.run(
                    command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
                )
            except OSError:
                return None
            if done.returncode:
                return None
    return done.stdout.strip()


class Record:
    """What passed with these very files and these words, kept so that a night's work goes on after a stop.

    Args:
        path: a JSON file, read if it is there.
        files: digest of the files; None keeps nothing for later.
        words: of pytest, by kind of setting.
    """

    def __init__(self, path: Path, files: str | None, words: object) -> None:
        self._path = path
        self._key = {"files": files, "words": json.loads(json.dumps(words))}
        self._outcomes: dict[str, Outcome] = {}
        stored = json.loads(path.read_text()) if path.is_file() and files is not None else {}
        if {name: stored.get(name) for name in self._key} == self._key:
            self._outcomes = {one["name"]: Outcome(**one) for one in stored["outcomes"]}

    def passed(self, name: str) -> Outcome | None:
        """The outcome of a setting that passed before."""
        found = self._outcomes.get(name)
        return found if found is not None and found.passed else None

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome: the whole file is there, or the one before."""
        self._outcomes[outcome.name] = outcome
        content = {**self._key, "outcomes": [dataclasses.asdict(one) for one in self._outcomes.values()]}
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self._path)


def table(outcomes: Sequence[Outcome]) -> str:
    """One row a setting, as Markdown."""
    rows = [
        f"| machine | {' | '.join(COUNTS)} | time | of the processor | of the usual | load |",
        f"| --- | {' | '.join('--:' for _ in COUNTS)} | --: | --: | --: | --: |",
    ]
    for one, share in zip(outcomes, shares(outcomes), strict=True):
        name = one.name if one.passed else f"{one.name} FAILED ({one.last_line})"
        numbers = " | ".join(str(one.counts[name]) for name in COUNTS)
        times = f"{one.seconds:.0f} s | {one.processor_s:.0f} s"
        usual = "" if share is None else f"{share:.2f}"
        rows.append(f"| {name} | {numbers} | {times} | {usual} | {one.load:.1f} |")
    return "\n".join(rows)


def shares(outcomes: Sequence[Outcome]) -> list[float | None]:
    """Processor time over that of this machine as it is; None where that was not run."""
    usual = next((one for one in outcomes if one.name == "as it is"), None)
    if usual is None:
        return [None] * len(outcomes)
    return [one.processor_s / usual.processor_s for one in outcomes]


def failing(outcomes: Sequence[Outcome]) -> list[str]:
    """Settings that failed or took too long."""
    pairs = zip(outcomes, shares(outcomes), strict=True)
    return [one.name for one, share in pairs if not one.passed or (share or 0) > SLOWEST]


def say(text: str) -> None:
    """Tell the user what is going on."""
    print(text, file=sys.stderr, flush=True)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scope", choices=SCOPES, default="whole", help="how much of the tests")
    parser.add_argument(
        "--only", action="append", default=[], help="settings whose name holds this, beside the usual one"
    )
    parser.add_argument("--python", action="append", default=[], help="version of another interpreter")
    parser.add_argument("--workers", default="2", help="test processes at a time")
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs" / "machines", help="what is kept")
    parser.add_argument("--remove", action="store_true", help="remove environments when done: gigabytes")
    parser.add_argument("--again", action="store_true", help="also what passed before")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace, scratch: Path) -> list[Setting]:
    """The settings that the options ask for."""
    others = interpreters(options.python)
    if options.scope == "short" and not options.python:
        # One more is what minutes allow: installing takes most of them. The newest, which differs most.
        others = dict(sorted(others.items(), key=lambda one: int(one[0].split(".")[1]))[-1:])
    found = settings(scratch, others)
    if options.scope == "short":
        found = [one for one in found if one.name not in LEFT_OUT_OF_SHORT]
    words = [word.lower() for word in options.only]
    return [
        one
        for one in found
        if not words or one.name == "as it is" or any(word in one.name.lower() for word in words)
    ]


def main() -> int:
    """Run the settings that were asked for."""
    options = read_options()
    words = [["-n", options.workers, *part] for part in SCOPES[options.scope]]
    options.folder.mkdir(parents=True, exist_ok=True)
    record = Record(options.folder / f"{options.scope}.json", files_id(), words)
    scratch = Path(tempfile.mkdtemp(prefix="g2vlm-machines-"))
    outcomes = []
    try:
        for setting in chosen(options, scratch):
            outcome = None if options.again else record.passed(setting.name)
            if outcome is None:
                say(f"{setting.name}: started")
                outcome = run(setting, words[setting.is_other_interpreter], options.folder)
                record.add(outcome)
            if options.remove and setting.is_other_interpreter:
                shutil.rmtree(environment_of(setting, options.folder), ignore_errors=True)
            outcomes.append(outcome)
            say(f"{outcome.name}: {outcome.last_line}")
            (options.folder / f"{options.scope}.md").write_text(table(outcomes) + "\n")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(table(outcomes))
    if late := failing(outcomes):
        say(f"failed or took more than {SLOWEST:g} times as long: {', '.join(late)}")
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())
