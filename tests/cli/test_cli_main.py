"""Dispatch, exit codes and streams of the command line."""

import ast
import dataclasses
import importlib
import subprocess
import sys
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest

from g2vlm import __version__
from g2vlm.cli import main as cli
from g2vlm.errors import InputError

HEAVY = (
    "torch",
    "numpy",
    "scipy",
    "cv2",
    "PIL",
    "transformers",
    "tokenizers",
    "huggingface_hub",
    "tyro",
    "rich",
)


@dataclass(frozen=True)
class Options:
    """Do a test."""

    data_path: str = "here"
    """Where."""
    count: int = 1
    """How many."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Options], int]], None]:
    """Install a command named `probe` that runs the given function."""

    def install(run: Callable[[Options], int]) -> None:
        module = types.ModuleType("probe_command")
        module.Options, module.run = Options, run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_command", module)
        monkeypatch.setitem(cli.COMMANDS, "probe", cli.Command("probe_command", "a test"))

    return install


def modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stderr.split())


def test_importing_the_package_costs_nothing() -> None:
    loaded = modules_after("import g2vlm")
    assert "g2vlm" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_overview_loads_nothing_heavy(word: str) -> None:
    loaded = modules_after(f"from g2vlm.cli.main import main\nassert main(['{word}']) == 0")
    assert "g2vlm.cli.main" in loaded
    assert not loaded & set(HEAVY)


def test_overview_names_every_command_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in cli.COMMANDS.items():
        assert f"  {name} " in text
        assert command.summary in text
    assert max(map(len, text.splitlines())) <= 100
    assert cli.main([]) == 0
    assert capsys.readouterr().out == text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"g2vlm {__version__}\n"


def test_python_m_is_the_same_program() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "g2vlm", "--help"], capture_output=True, text=True, check=True
    )
    assert result.stdout == cli.overview() + "\n"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_documents_every_option(name: str) -> None:
    module = importlib.import_module(cli.COMMANDS[name].module)
    assert dataclasses.is_dataclass(module.Options)
    assert module.Options.__dataclass_params__.frozen
    assert callable(module.run)
    documented: set[str] = set()
    for base in module.Options.__mro__[:-1]:
        documented |= documented_fields(Path(sys.modules[base.__module__].__file__).read_text())
    assert not {option.name for option in dataclasses.fields(module.Options)} - documented


def documented_fields(source: str) -> set[str]:
    """Fields of classes behind which a docstring stands."""
    bodies = [node.body for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    return {
        field.target.id
        for body in bodies
        for field, behind in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant)
    }


def test_a_field_without_a_docstring_is_seen() -> None:
    fields = ("one: (\n        int\n    )", "'One.'", "other: int", "third: int", "'Third.'")
    source = "class Options:\n" + "".join(f"    {line}\n" for line in fields)
    assert documented_fields(source) == {"one", "third"}


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_help_of_every_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"usage: g2vlm {name}" in out


def test_unknown_command_suggests_a_known_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["recno"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "did you mean recon?" in captured.err
    assert captured.err.count("\n") == 1


def test_hyphens_and_underscores_mean_the_same(command: Callable[..., None]) -> None:
    seen: list[Options] = []
    command(lambda options: seen.append(options) or 0)
    assert cli.main(["probe", "--data_path", "there", "--count", "3"]) == 0
    assert cli.main(["probe", "--data-path", "there", "--count", "3"]) == 0
    assert seen == [Options("there", 3)] * 2


def test_exit_code_of_a_command_is_passed_on(command: Callable[..., None]) -> None:
    command(lambda options: 7)
    assert cli.main(["probe"]) == 7


def test_wrong_flag_and_wrong_value_end_with_two(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(lambda options: 0)
    assert cli.main(["probe", "--cuont", "3"]) == 2
    assert cli.main(["probe", "--count", "many"]) == 2
    assert capsys.readouterr().out == ""


def fail(error: BaseException) -> Callable[[Options], int]:
    def run(options: Options) -> int:
        raise error

    return run


def test_mistake_of_the_user_is_one_line_and_two(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(fail(InputError("Expected photos,\n  got none: name a folder.")))
    assert cli.main(["probe"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "g2vlm probe: Expected photos, got none: name a folder.\n"


def test_debug_shows_the_traceback(command: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2VLM_DEBUG", "1")
    command(fail(InputError("Expected photos.")))
    with pytest.raises(InputError):
        cli.main(["probe"])


def test_defects_are_not_dressed_up(command: Callable[..., None]) -> None:
    command(fail(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        cli.main(["probe"])


def test_interrupt_ends_with_130(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(fail(KeyboardInterrupt()))
    assert cli.main(["probe"]) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    ],
)
def test_out_of_memory_says_what_to_do(
    error: Exception, command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    command(fail(error))
    assert cli.main(["probe"]) == 2
    assert "--max_views" in capsys.readouterr().err


def test_warnings_are_one_line_on_stderr(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: Options) -> int:
        warnings.warn("Left out b.jpg: empty.", UserWarning, stacklevel=1)
        return 0

    command(run)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert cli.main(["probe"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "g2vlm probe: warning: Left out b.jpg: empty.\n"


def test_reader_that_leaves_early_is_no_error() -> None:
    script = "import sys\nfrom g2vlm.cli.main import main\nsys.exit(main(['info', '--help']))"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()
