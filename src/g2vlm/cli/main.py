"""Dispatch of `g2vlm COMMAND`, and the one place where errors become exit codes.

A command is a module with a frozen dataclass `Options` (its fields become the flags) and a function
`run(options) -> int`. Neither they nor the flag parser are imported before a command is named, so that
`g2vlm --help` answers at once.
"""

import difflib
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

from g2vlm import __version__
from g2vlm.cli.shared.streams import ReaderLeftError, ResultStream, prepare_streams
from g2vlm.cli.shared.terminal import say
from g2vlm.errors import G2VLMError, OutputError

EXIT_MISTAKE = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """Where a command lives and what it does, in one line."""

    module: str
    """Module with `Options` and `run`."""
    summary: str
    """One line for the overview."""
    group: str = "more"
    """What it is for, as a title in the overview."""


START, SCENES, CHECKPOINTS, MEASURE = "start here", "scenes and answers", "checkpoints", "measure and train"
COMMANDS = {
    "demo": Command("g2vlm.cli.demo", "the whole way on the example images, offline", START),
    "doctor": Command("g2vlm.cli.doctor", "check this machine and installation", START),
    "recon": Command("g2vlm.cli.recon", "reconstruct a 3-D scene from photos or a video", SCENES),
    "chat": Command("g2vlm.cli.chat", "answer questions about photos or a video", SCENES),
    "view": Command("g2vlm.cli.view", "look, measure, ask, export: a page in the browser", SCENES),
    "metric": Command("g2vlm.cli.metric", "bring a scene to metres by known lengths, cameras, depth", SCENES),
    "serve": Command("g2vlm.cli.serve", "the HTTP service: chat completions, scenes, depth", SCENES),
    "measure": Command("g2vlm.cli.measure", "read distances, heights, boxes, areas off a scene", SCENES),
    "export": Command("g2vlm.cli.export", "write a scene for other software: glb, colmap, ...", SCENES),
    "batch": Command("g2vlm.cli.batch", "many scenes at once, on this machine or a cluster", SCENES),
    "download": Command(
        "g2vlm.cli.download", "fetch a checkpoint from the hub, or complete one", CHECKPOINTS
    ),
    "info": Command("g2vlm.cli.info", "say what a checkpoint holds: parts, sizes, keys", CHECKPOINTS),
    "assemble": Command(
        "g2vlm.cli.assemble", "put public towers into a checkpoint to train from", CHECKPOINTS
    ),
    "data": Command("g2vlm.cli.data", "prepare data sets for training, check them, look at them", MEASURE),
    "compare": Command("g2vlm.cli.compare", "two scenes or checkpoints on the same photos", MEASURE),
    "eval": Command("g2vlm.cli.eval", "measure a checkpoint on a benchmark", MEASURE),
    "bench": Command("g2vlm.cli.bench", "measure speed and memory beside this machine's own", MEASURE),
    "train": Command("g2vlm.cli.train", "train or fine-tune a model by a recipe", MEASURE),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; None for those of this process.

    Returns:
        Exit code: 0 fine, 2 a mistake the user can correct, 130 interrupted; commands may define others.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        prepare_streams()
    except OutputError as error:
        return _complain("g2vlm", str(error))
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        return _answer("g2vlm", overview())
    if words[0] in ("-V", "--version", "version"):
        return _answer("g2vlm", f"g2vlm {__version__}")
    name = words[0].replace("_", "-")
    if name not in COMMANDS:
        return _complain(
            "g2vlm", f"Expected a command ({', '.join(COMMANDS)}), got {words[0]!r}{_hint(name)}."
        )
    return run_command(name, words[1:])


def overview() -> str:
    """Text of `g2vlm --help`."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: g2vlm COMMAND [OPTIONS]",
        "",
        "From photos or a video to a 3-D scene and to answers about it.",
    ]
    for title in dict.fromkeys(command.group for command in COMMANDS.values()):
        members = [(name, command) for name, command in COMMANDS.items() if command.group == title]
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {command.summary}" for name, command in members)]
    return "\n".join(
        [
            *lines,
            "",
            "g2vlm COMMAND --help lists the options of a command.",
            "g2vlm --version prints the version.",
        ]
    )


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Parse the options of one command, run it, and turn its errors into a line and an exit code."""
    program = f"g2vlm {name}"

    def run() -> int:
        module = importlib.import_module(COMMANDS[name].module)
        if any(word in ("-h", "--help") for word in arguments):
            from g2vlm.cli.help import help_text

            ResultStream().write(help_text(module.Options, program) + "\n")
            return 0
        return int(module.run(_parse(module.Options, program, arguments)))

    return _exit_code(program, run)


def _answer(program: str, text: str) -> int:
    """Print a text as the result of the whole call."""

    def run() -> int:
        ResultStream().write(text + "\n")
        return 0

    return _exit_code(program, run)


def _exit_code(program: str, run: Callable[[], int]) -> int:
    """Run something, and turn its errors into a line and an exit code."""
    try:
        with _plain_warnings(program):
            return run()
    except SystemExit as stop:  # the flag parser has said what is wrong, or printed its help
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        say(f"\n{program}: interrupted")
        return EXIT_INTERRUPTED
    except ReaderLeftError:
        return 0
    except G2VLMError as error:
        if _debugging():
            raise
        return _complain(program, str(error))
    except (MemoryError, RuntimeError) as error:
        if _debugging() or not _is_out_of_memory(error):
            raise
        advice = "use fewer views (--max_views), --dtype bfloat16, or a machine with more memory"
        return _complain(program, f"Expected the job to fit into memory, but it did not: {advice}.")


class _HeldBack(io.StringIO):
    """Takes what the flag parser says, which looks as it would on the stream it is held back from."""

    def isatty(self) -> bool:
        return sys.stderr is not None and sys.__stderr__ is not None and sys.__stderr__.isatty()


def _parse(options: type[Any], program: str, arguments: Sequence[str]) -> Any:
    """Read flags into the options of a command.

    Raises:
        G2VLMError: a value is out of range.
        SystemExit: the flags cannot be read; the parser has said why.
    """
    import tyro

    from g2vlm.cli.shared.ranges import check_ranges

    said = _HeldBack()
    try:
        with redirect_stderr(said):
            parsed = tyro.cli(
                options, prog=program, args=arguments, config=(tyro.conf.EnumChoicesFromValues,)
            )
    except SystemExit as stop:
        # The parser takes an error of ours for one of its own, and would explain it in its own way.
        if isinstance(stop.__context__, G2VLMError):
            raise stop.__context__ from None
        say(said.getvalue(), end="")
        raise
    check_ranges(parsed)
    return parsed


def _is_out_of_memory(error: BaseException) -> bool:
    """Also torch's own class, without importing torch, and its CPU allocator, which has no class."""
    named = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or named or "can't allocate memory" in str(error)


def _complain(program: str, message: str) -> int:
    say(f"{program}: {' '.join(message.split())}")
    return EXIT_MISTAKE


def _hint(name: str) -> str:
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    return f": did you mean {close[0]}?" if close else ": see g2vlm --help"


def _debugging() -> bool:
    return os.environ.get("G2VLM_DEBUG", "") not in ("", "0")


@contextmanager
def _plain_warnings(program: str) -> Iterator[None]:
    """Show warnings as one line on stderr instead of a line of source code."""

    def show(message: Warning | str, category: type[Warning], *where: object) -> None:
        say(f"{program}: warning: {' '.join(str(message).split())}")

    before = warnings.showwarning
    warnings.showwarning = show  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.showwarning = before
