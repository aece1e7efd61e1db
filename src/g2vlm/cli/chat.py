"""`g2vlm chat`: answers about photos or a video, streamed as they are generated."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from g2vlm.cli.scene_options import SceneOptions, require_writable
from g2vlm.cli.terminal import Output, add_timings, format_timings, reserved_stdout, say, write_json
from g2vlm.errors import InputError

if TYPE_CHECKING:
    from g2vlm.inference.perception import Perception
    from g2vlm.inference.sampling import Sampling

DEFAULT_QUESTION = "How far is the chair from me in the image?"
_FAREWELLS = ("exit", "quit")


@dataclass(frozen=True, kw_only=True)
class Options(SceneOptions):
    """Answer questions about photos or a video."""

    question: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """What to ask. Without it: "How far is the chair from me in the image?"."""
    interactive: bool = False
    """Look once, then answer questions from the keyboard or a pipe, one per line, until an empty file or "
    "exit."""
    save_path: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the 3-D scene seen in the same pass (.ply or .npz)."""
    max_new_tokens: int = 100
    """Longest answer, in tokens."""
    temperature: float = 0.0
    """0 takes the likeliest token each time; higher values draw more freely."""
    top_p: float = 1.0
    """Draw among the likeliest tokens that together have this probability."""
    top_k: int = 0
    """Draw among this many likeliest tokens; 0 for all."""
    seed: int = 0
    """Seed of the draws."""

    def check(self) -> None:
        """Refuse what no model could answer, before one is loaded.

        Raises:
            InputError: An empty question, or no room for an answer.
        """
        if self.max_new_tokens < 1:
            raise InputError(f"Expected --max_new_tokens of at least 1, got {self.max_new_tokens}.")
        if self.question is not None and not self.question.strip():
            raise InputError("Expected a question after --question, got an empty text.")

    def sampling(self) -> "Sampling":
        """How to draw tokens."""
        from g2vlm.inference.sampling import Sampling

        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, seed=self.seed)


def run(options: Options) -> int:
    """Look at the photos once, answer one question or several."""
    with reserved_stdout() as out:
        options.check()
        sampling = options.sampling()
        target = None if options.save_path is None else require_writable(options.save_path)
        start = time.perf_counter()
        photos = options.photos()
        reading = {"read_s": time.perf_counter() - start}
        model = options.load_model()
        loading = add_timings(reading, model.timings)
        perception = model.perceive(photos, fit=options.fit)
        seen = add_timings(loading, model.timings)
        say(format_timings(seen))
        if target is not None:
            perception.scene.save(target)
            say(f"scene: {target}")
        ask = _asker(options, perception, sampling, out)
        answers = [ask(question) for question in _questions(options)]
        if options.json and options.interactive:
            write_json(out, {"answers": answers, "timings": seen})
        elif options.json:
            (answer,) = answers
            write_json(out, {**answer, "timings": {**seen, **answer["timings"]}})
    return 0


def _asker(
    options: Options, perception: "Perception", sampling: "Sampling", out: Output
) -> Callable[[str], dict[str, Any]]:
    """A function that asks, shows the answer as it comes, and returns it for `--json`."""

    def show(text: str) -> None:
        out.write(text)
        out.flush()

    def ask(question: str) -> dict[str, Any]:
        answer = perception.ask(
            question,
            max_new_tokens=options.max_new_tokens,
            sampling=sampling,
            on_text=None if options.json else show,
        )
        if not options.json:
            show("\n")
        return {
            "question": question,
            "answer": answer.text,
            "token_ids": list(answer.token_ids),
            "finished": answer.finished,
            "timings": dict(answer.timings),
        }

    return ask


def _questions(options: Options) -> Iterator[str]:
    if not options.interactive:
        yield DEFAULT_QUESTION if options.question is None else options.question
        return
    if options.question is not None:
        yield options.question
    while True:
        if sys.stdin.isatty():
            print("question (or exit): ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        question = line.strip()
        if not line or question.lower() in _FAREWELLS:
            return
        if question:
            yield question
