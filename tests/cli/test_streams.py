"""Terminals that cannot show everything, and outputs that are closed, full or left early."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from g2vlm.cli.shared.streams import ReaderLeftError, ResultStream
from g2vlm.cli.shared.terminal import say, write_json
from g2vlm.errors import OutputError

PROBE = """
import sys, types
from pathlib import Path
from dataclasses import dataclass
from g2vlm.cli import main as cli
from g2vlm.cli.shared.terminal import reserved_stdout, say, write_json

@dataclass(frozen=True)
class Options:
    pass

def run(options):
    with reserved_stdout() as out:
        say("working \\u623f")
        Path("made.txt").write_text("scene")
        out.kept(Path("made.txt"))
        out.write("result \\u623f\\n")
        out.write("more\\n" * 20000)
        write_json(out, {"name": "\\u623f"})
    return 0

module = types.ModuleType("probe_command")
module.Options, module.run = Options, run
sys.modules["probe_command"] = module
cli.COMMANDS["probe"] = cli.Command("probe_command", "a test")
sys.exit(cli.main(["probe"]))
"""


@pytest.fixture
def probe(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a command in a shell with other streams; its result, and a file that it makes first."""

    def run(redirection: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        (tmp_path / "probe.py").write_text(PROBE, encoding="utf-8")
        script = f'"{sys.executable}" probe.py {redirection}'
        environment = {**os.environ, **variables}
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", script], cwd=tmp_path, env=environment, capture_output=True
        )

    return run


def test_a_terminal_that_shows_ascii_only(probe: Callable[..., subprocess.CompletedProcess[bytes]]) -> None:
    for variables in (
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ):
        result = probe("", **variables)
        assert result.returncode == 0, result.stderr
        lines = result.stdout.decode("ascii").splitlines()
        assert lines[0] == r"result \u623f"
        assert json.loads("".join(lines[-3:])) == {"name": "房"}
        assert rb"working \u623f" in result.stderr


def test_a_full_disk_is_told_with_what_was_made(
    probe: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    result = probe("> /dev/full")
    assert result.returncode == 2
    last = result.stderr.decode().splitlines()[-1]
    assert last.startswith("g2vlm probe: Expected to write the result to standard output, got No space left")
    assert last.endswith("What was made is in made.txt.")
    assert (tmp_path / "made.txt").read_text() == "scene"


@pytest.mark.parametrize("words", ["--help", "recon --help", "--version", "doctor"])
def test_no_command_meets_a_full_disk_with_a_traceback(words: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    script = f"{sys.executable} -m g2vlm {words} > /dev/full"
    result = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr


def test_a_closed_stdout_is_told_before_the_work(
    probe: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    result = probe(">&-")
    assert result.returncode == 2
    assert result.stderr.startswith(b"g2vlm: Expected standard output to be open")
    assert not (tmp_path / "made.txt").exists()


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "<&-", "<&- 2>&-"])
def test_messages_that_reach_nobody_stop_no_work(
    redirection: str, probe: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    result = probe(redirection)
    assert result.returncode == 0
    assert result.stdout.decode().startswith("result 房\nmore\n")
    assert b"working" not in result.stdout


@pytest.mark.parametrize("redirection", ["| head -1", "2>&1 | head -1"])
def test_a_reader_that_leaves_ends_the_command_quietly(
    redirection: str, probe: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    result = probe(redirection)
    assert result.returncode == 0
    assert result.stderr in (b"", "working 房\n".encode())
    assert (tmp_path / "made.txt").exists()


def test_names_that_are_no_text_come_out_as_they_went_in(tmp_path: Path) -> None:
    script = (
        "from g2vlm.cli.shared.streams import *\n"
        "prepare_streams()\nResultStream().write('caf\\udce9 \\ud800\\n')"
    )
    result = subprocess.run([sys.executable, "-X", "utf8", "-c", script], capture_output=True, check=True)
    assert result.stdout == b"caf\xe9 \\ud800\n"


class Stream:
    """A stand-in for stdout."""

    encoding = "utf-8"

    def __init__(self, error: Exception | None = None) -> None:
        self.text, self.error = "", error

    def write(self, text: str) -> None:
        if self.error is not None:
            raise self.error
        self.text += text

    def flush(self) -> None:
        pass


def test_json_is_valid_whatever_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    monkeypatch.setattr("sys.stdout", stream)
    value = {"nan": float("nan"), "deep": [{"inf": (float("-inf"), 1.5)}], "name": "caf\udce9", "é": True}
    write_json(ResultStream(), value)
    stream.text.encode()
    told = json.loads(stream.text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told == {"nan": None, "deep": [{"inf": [None, 1.5]}], "name": "caf\udce9", "é": True}


def test_a_stream_says_how_it_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Stream(BrokenPipeError()))
    with pytest.raises(ReaderLeftError):
        ResultStream().write("text")
    monkeypatch.setattr("sys.stdout", Stream(ValueError("I/O operation on closed file")))
    with pytest.raises(OutputError, match="closed file"):
        ResultStream().write("text")
    monkeypatch.setattr("sys.stderr", Stream(OSError(28, "No space left on device")))
    say("nobody hears this")
