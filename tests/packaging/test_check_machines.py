"""The script that plays other machines."""

import importlib.util
import os
import shutil
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


def test_no_compiler_means_none_on_the_path_but_all_other_tools(script: ModuleType, tmp_path: Path) -> None:
    by_name = {one.name: one for one in script.settings(tmp_path, ["/some/python3.13"])}
    path = by_name["no compiler"].variables["PATH"]
    assert all(
        shutil.which(name, path=path) is None for name in ("gcc", "cc", "clang", "x86_64-linux-gnu-gcc")
    )
    assert shutil.which("sh", path=path) is not None
    assert by_name["python python3.13"].python == "/some/python3.13"
    blocked = by_name["no home, unwritable cache"].variables
    assert blocked["HOME"] is None
    with pytest.raises(OSError, match="Not a directory"):
        os.mkdir(f"{blocked['XDG_CACHE_HOME']}/folder")


def test_failures_and_late_settings_are_named(script: ModuleType) -> None:
    def outcome(name: str, seconds: float, passed: bool = True) -> object:
        return script.Outcome(script.Setting(name), passed, seconds, "3 passed")

    outcomes = [
        outcome("as it is", 10),
        outcome("fine", 19),
        outcome("late", 21),
        outcome("broken", 5, False),
    ]
    assert script.failing(outcomes) == ["late", "broken"]
    assert "| late | 3 passed | 21 s | 2.10 |" in script.table(outcomes)
    assert "FAILED: 3 passed" in script.table(outcomes)


def test_variables_are_set_and_removed(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import os\ndef test_it(): assert 'HOME' not in os.environ and os.environ['PLAYED'] == 'yes'\n"
    )
    words = ["-p", "no:xdist", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path / "test_it.py")]
    setting = script.Setting("played", {"HOME": None, "PLAYED": "yes"})
    assert script.run(setting, words).passed
    assert not script.run(script.Setting("other", {"PLAYED": "no"}), words).passed


def test_a_run_that_was_killed_is_told_from_one_that_failed(script: ModuleType, tmp_path: Path) -> None:
    killer = tmp_path / "python"
    killer.write_text("#!/bin/sh\nkill -KILL $$\n")
    killer.chmod(0o700)
    found = script.run(script.Setting("killed", {}, str(killer)), [])
    assert not found.passed
    assert found.last_line == "killed by signal 9"
