"""The script that plays other machines."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "scripts" / "check_machines.py"
    spec = importlib.util.spec_from_file_location("check_machines", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_machines"] = module
    spec.loader.exec_module(module)
    return module


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o700)
    return path


def test_no_compiler_means_none_on_the_path_but_all_other_tools(script: ModuleType, tmp_path: Path) -> None:
    by_name = {one.name: one for one in script.settings(tmp_path, {"3.13": "/some/python"})}
    path = by_name["no compiler"].variables["PATH"]
    assert all(
        shutil.which(name, path=path) is None for name in ("gcc", "cc", "clang", "x86_64-linux-gnu-gcc")
    )
    assert shutil.which("sh", path=path) is not None
    assert by_name["python 3.13"].python == "/some/python"
    blocked = by_name["no home, unwritable cache"].variables
    assert blocked["HOME"] is None
    with pytest.raises(OSError, match="Not a directory"):
        os.mkdir(f"{blocked['XDG_CACHE_HOME']}/folder")


def outcome(script: ModuleType, name: str, processor_s: float, passed: bool = True) -> object:
    return script.Outcome(
        name, passed, script.counts("3 passed"), 2 * processor_s, processor_s, 0.5, "3 passed"
    )


def test_failures_and_late_settings_are_named(script: ModuleType) -> None:
    outcomes = [
        outcome(script, "as it is", 10),
        outcome(script, "fine", 19),
        outcome(script, "late", 21),
        outcome(script, "broken", 5, False),
    ]
    assert script.failing(outcomes) == ["late", "broken"]
    assert "| late | 3 | 0 | 0 | 0 | 42 s | 21 s | 2.10 | 0.5 |" in script.table(outcomes)
    assert "FAILED (3 passed)" in script.table(outcomes)


def test_without_the_usual_run_only_failures_count(script: ModuleType) -> None:
    outcomes = [outcome(script, "one", 1), outcome(script, "other", 100), outcome(script, "broken", 1, False)]
    assert script.failing(outcomes) == ["broken"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("1 failed, 30 passed, 2 skipped in 2.00s", {"passed": 30, "skipped": 2, "failed": 1, "error": 0}),
        ("2 errors in 0.10s", {"passed": 0, "skipped": 0, "failed": 0, "error": 2}),
        ("killed by signal 9", {"passed": 0, "skipped": 0, "failed": 0, "error": 0}),
    ],
)
def test_tests_are_counted(script: ModuleType, line: str, expected: dict[str, int]) -> None:
    assert script.counts(line) == expected


def words_for(test: Path) -> list[str]:
    (test.parent / "pytest.ini").write_text("[pytest]\n")  # not this project's
    return ["-p", "no:xdist", "--rootdir", str(test.parent), "-c", str(test.parent / "pytest.ini"), str(test)]


def test_variables_are_set_and_removed(script: ModuleType, tmp_path: Path) -> None:
    test = tmp_path / "test_it.py"
    test.write_text(
        "import os\ndef test_it(): assert 'HOME' not in os.environ and os.environ['PLAYED'] == 'yes'\n"
    )
    setting = script.Setting("played", {"HOME": None, "PLAYED": "yes"})
    found = script.run(setting, words_for(test), tmp_path)
    assert found.passed
    assert found.counts["passed"] == 1
    assert found.processor_s > 0.05
    other = script.run(script.Setting("other, too", {"PLAYED": "no"}), words_for(test), tmp_path)
    assert not other.passed
    assert other.counts["failed"] == 1
    assert "HOME" in (tmp_path / "other-too.log").read_text()


def test_a_run_that_was_killed_is_told_from_one_that_failed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer = executable(tmp_path / "python", "kill -KILL $$")
    monkeypatch.setattr(script, "prepare", lambda setting, folder, log: (log.touch(), str(killer))[1])
    found = script.run(script.Setting("python 3.13", {}, "/some/python"), [], tmp_path)
    assert not found.passed
    assert found.last_line == "killed by signal 9"


def test_an_interpreter_that_cannot_be_installed_into_failed(script: ModuleType, tmp_path: Path) -> None:
    broken = executable(tmp_path / "python", "echo no such module; exit 1")
    found = script.run(script.Setting("python 3.13", {}, str(broken)), [], tmp_path)
    assert not found.passed
    assert found.last_line == "no such module"


def test_interpreters_are_found_on_the_path_and_of_pyenv(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = f"[ $1 = -c ] && echo {tmp_path}/real && echo 3.12"
    shims, versions = tmp_path / "shims", tmp_path / "versions"
    executable(shims / "python3.13", "echo 'not of this version' >&2; exit 127")  # as shims of pyenv do
    executable(versions / "3.12.1/bin/python", answer)
    monkeypatch.setenv("PATH", f"{shims}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setattr(script, "INTERPRETERS", ("3.12", "3.13"))
    monkeypatch.setattr(script, "OWN_INTERPRETER", "3.11")
    assert script.interpreters([]) == {"3.12": f"{tmp_path}/real"}
    assert "python 3.13: left out" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"Python 3\.13 .* found none"):
        script.interpreters(["python3.13"])


def test_what_passed_with_the_same_files_is_not_run_again(script: ModuleType, tmp_path: Path) -> None:
    path, words = tmp_path / "whole.json", [["-n", "2"], ("-m", "not slow")]
    record = script.Record(path, "abc", words)
    record.add(outcome(script, "as it is", 10))
    record.add(outcome(script, "broken", 10, False))
    again = script.Record(path, "abc", words)
    assert again.passed("as it is") == outcome(script, "as it is", 10)
    assert again.passed("broken") is None
    assert again.passed("other") is None
    for files, others in (("def", words), (None, words), ("abc", [["-n", "1"]])):
        assert script.Record(path, files, others).passed("as it is") is None


def test_new_files_and_changes_are_seen_and_the_index_is_left_alone(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    assert script.files_id() is None  # no checkout
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("outputs\n")
    before = script.files_id()
    (tmp_path / "outputs").write_text("left out")
    assert script.files_id() == before
    (tmp_path / "new.py").write_text("one")
    first = script.files_id()
    (tmp_path / "new.py").write_text("two")
    assert len({before, first, script.files_id()}) == 3
    staged = subprocess.run(["git", "-C", str(tmp_path), "ls-files"], capture_output=True, check=True)
    assert staged.stdout == b""


def test_the_short_form_leaves_out_what_has_just_been_run(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "interpreters", lambda wanted: {"3.12": "/some/python"})
    options = script.read_options(["--scope", "short"])
    names = [one.name for one in script.chosen(options, tmp_path)]
    assert names == ["oneDNN AVX2", "ATen default", "no compiler", "no home, unwritable cache", "python 3.12"]


def test_settings_are_chosen_by_words(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "interpreters", lambda wanted: {"3.12": "/some/python"})
    options = script.read_options(["--only", "avx2", "--only", "python"])
    names = [one.name for one in script.chosen(options, tmp_path)]
    assert names == ["as it is", "oneDNN AVX2", "ATen avx2", "python 3.12"]


def test_a_run_goes_on_where_it_was_stopped_and_keeps_a_table(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def run(setting: object, words: list[str], folder: Path) -> object:
        started.append((setting.name, words[-1]))
        if setting.is_other_interpreter:
            script.environment_of(setting, folder).mkdir(parents=True)
        return outcome(script, setting.name, 10, passed=len(started) != 2)

    found = [
        script.Setting("as it is"),
        script.Setting("other"),
        script.Setting("python 3.12", {}, "/some/python"),
    ]
    monkeypatch.setattr(script, "chosen", lambda options, scratch: found)
    monkeypatch.setattr(script, "run", run)
    monkeypatch.setattr(script, "files_id", lambda: "abc")
    monkeypatch.setattr(script, "SCOPES", {"whole": (("one",), ("two",))})
    monkeypatch.setattr(sys, "argv", ["check_machines.py", "--folder", str(tmp_path), "--remove"])
    assert script.main() == 1
    assert started == [("as it is", "one"), ("other", "one"), ("python 3.12", "two")]
    assert "other FAILED" in (tmp_path / "whole.md").read_text()
    assert not (tmp_path / "environments" / "3.12").exists()
    assert script.main() == 0
    assert started[3:] == [("other", "one")]
    assert "FAILED" not in (tmp_path / "whole.md").read_text()
