"""`g2vlm chat`: answers about photos or a video, streamed as they are generated."""

import itertools
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from g2vlm.cli.remote import RemoteOptions
from g2vlm.cli.shared.known_options import (
    KNOWN_FIELDS,
    MASK_FIELDS,
    KnownOptions,
    photo_files,
    tell_calibration,
)
from g2vlm.cli.shared.scene_options import SceneOptions, require_writable, write_scene
from g2vlm.cli.shared.streams import ResultStream
from g2vlm.cli.shared.terminal import add_timings, format_timings, reserved_stdout, say, write_json
from g2vlm.errors import G2VLMError, InputError
from g2vlm.inputs.pointing import Coordinates
from g2vlm.inputs.text_files import decoded_lines, read_questions, text_of_argument

if TYPE_CHECKING:
    from g2vlm.inference.perception import Perception
    from g2vlm.inference.sampling import Sampling
    from g2vlm.scene.metre.calibration import KnownThings
    from g2vlm.scene.scene import Scene

DEFAULT_QUESTION = "How far is the chair from me in the image?"
_FAREWELLS = ("exit", "quit")


@dataclass(frozen=True, kw_only=True)
class Options(SceneOptions, RemoteOptions, KnownOptions):
    """Answer questions about photos or a video."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "input": (
            "data_path",
            "question",
            "questions",
            "interactive",
            "max_views",
            "frames",
            "frame_count",
            "frame_rate",
        ),
        "model": (
            "ckpt",
            "download",
            "device",
            "dtype",
        ),
        "output": (
            "save_path",
            "measure",
            "reasoning",
            "max_new_tokens",
            "json",
        ),
        "what is known": KNOWN_FIELDS,
        "what to leave out": MASK_FIELDS,
        "expert": (
            "coordinates",
            "temperature",
            "top_p",
            "top_k",
            "seed",
            "fit",
            "view_attention",
            "quantization",
            "compiled",
            "server",
            "tf32",
        ),
    }
    EXAMPLES: ClassVar[tuple[str, ...]] = (
        'g2vlm chat --data_path photos/room --question "How far is the chair?"',
        "g2vlm chat --data_path photos/room --interactive",
        "g2vlm chat --data_path photos/room --questions questions.txt --json",
        'g2vlm chat --question "How far is (90, 200) from (220, 210)?" --measure',
    )

    question: Annotated[str | None, tyro.conf.arg(metavar="TEXT")] = None
    """What to ask. Without it: "How far is the chair from me in the image?"."""
    questions: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Look once, then answer the questions in this file: one per line, or JSON lines (.jsonl)."""
    interactive: bool = False
    """Look once, then answer questions from the keyboard or a pipe, one per line, until it ends or a line
    says exit."""
    save_path: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """Also write the 3-D scene seen in the same pass; the ending chooses the format, or KIND:PATH."""
    reasoning: Literal["auto", "on", "off"] = "auto"
    """Whether answers say what was measured first; auto leaves it to the model, on and off put it into the
    question."""
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
    measure: bool = False
    """Beside each answer, say what the 3-D scene has for the points that the question, or else the answer,
    names: depths, distances. Points are (u, v) or [x, y], in image 2 where there are several."""
    coordinates: Coordinates = Coordinates.AUTO
    """What the numbers of points count: pixels of the photo, thousandths or fractions of its sides; auto:
    pixels in (), thousandths in [], unless the text or the numbers say otherwise."""

    def first_questions(self) -> tuple[str, ...]:
        """What is asked before anything is read from standard input; checked before a model is loaded.

        Raises:
            InputError: an empty question, a file without questions, or no room for an answer.
        """
        if self.max_new_tokens < 1:
            raise InputError(f"Expected --max_new_tokens of at least 1, got {self.max_new_tokens}.")
        if self.question is not None and not self.question.strip():
            raise InputError("Expected a question after --question, got an empty text.")
        asked = [] if self.question is None else [text_of_argument(self.question)]
        if self.questions is not None:
            asked += read_questions(self.questions)
        if self.interactive and sys.stdin is None:
            raise InputError("Expected questions on standard input, but it is closed: use --questions FILE.")
        return tuple(asked) if asked or self.interactive else (DEFAULT_QUESTION,)

    @property
    def asks_several(self) -> bool:
        """Whether `--json` prints a list of answers."""
        return self.interactive or self.questions is not None

    def sampling(self) -> "Sampling":
        """How to draw tokens."""
        from g2vlm.inference.sampling import Sampling

        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k, seed=self.seed)


def run(options: Options) -> int:
    """Look at the photos once, answer one question or several."""
    with reserved_stdout() as out:
        first = options.first_questions()
        sampling = options.sampling()
        target = None if options.save_path is None else require_writable(options.save_path)
        if options.server is not None:
            return _run_remote(options, options.server, first, out)
        start = time.perf_counter()
        photos = options.mask_photos(options.photos(asking=True))
        known = options.known_things(photo_files(photos)) if options.knows_anything else None
        reading = {"read_s": time.perf_counter() - start}
        model = options.load_model()
        loading = add_timings(reading, model.timings)
        perception = model.perceive(photos, fit=options.fit)
        seen = add_timings(loading, model.timings)
        say(format_timings(seen))
        scene = perception.scene if known is None else _calibrated(perception.scene, known)
        if target is not None:
            write_scene(scene, target)
            out.kept(target.path)
            say(f"scene: {target}")
        ask = _asker(options, perception, (sampling, scene), out)
        questions = itertools.chain(first, _typed_questions() if options.interactive else ())
        if options.json:
            _answer_as_json(options, questions, ask, out, seen)
        else:
            for question in questions:
                ask(question)
    return 0


def _calibrated(scene: "Scene", known: "KnownThings") -> "Scene":
    """The scene with what is known."""
    calibration = scene.calibrated(known)
    tell_calibration(calibration)
    return calibration.scene


def _run_remote(options: Options, url: str, first: tuple[str, ...], out: ResultStream) -> int:
    """Have a service look and answer."""
    from g2vlm.cli.remote import connect, looking

    if options.save_path is not None:
        raise InputError(
            "Expected --save_path with g2vlm recon --server: a chat with a service gives no scene."
        )
    if options.measure or options.knows_anything or options.masks_anything:
        raise InputError(
            "Expected no --measure, masks and nothing known beside --server: a chat with a service gives no "
            "scene."
        )
    with connect(options, url) as client:
        source = options.source()
        say(f"sending {source} to {url}")
        start = time.perf_counter()
        uploads = client.upload(source)
        wanted = {
            **looking(options),
            # The limit of this command counts passes, that of the service tokens of the text.
            "max_tokens": max(1, options.max_new_tokens - 1),
            "temperature": options.temperature,
            "top_p": options.top_p,
            "top_k": options.top_k,
            "seed": options.seed,
        }

        def ask(question: str) -> dict[str, Any]:
            began = time.perf_counter()
            on_text = None if options.json else out.write
            answer = client.ask_uploads(question, uploads, on_text=on_text, **wanted)
            if not options.json:
                out.write("\n")
            return {
                "question": question,
                "answer": answer.text,
                "finished": answer.finish_reason == "stop",
                "timings": {"service_s": time.perf_counter() - began},
            }

        questions = itertools.chain(first, _typed_questions() if options.interactive else ())
        if options.json:
            _answer_as_json(options, questions, ask, out, {"upload_s": time.perf_counter() - start})
        else:
            for question in questions:
                ask(question)
    return 0


def _answer_as_json(
    options: Options,
    questions: Iterable[str],
    ask: Callable[[str], dict[str, Any]],
    out: ResultStream,
    timings: dict[str, float],
) -> None:
    """Answer all, then write one object; whatever ends the answers early, those given are written first."""
    answers: list[dict[str, Any]] = []
    problem: dict[str, str] = {}
    try:
        for question in questions:
            answers.append(ask(question))  # noqa: PERF401  (those before an error must be kept)
    except BaseException as error:
        told = str(error) if isinstance(error, G2VLMError) else type(error).__name__
        problem = {"error": " ".join(told.split())}
        raise
    finally:
        if options.asks_several or not answers:
            write_json(out, {"answers": answers, "timings": timings, **problem})
        else:
            (answer,) = answers
            write_json(out, {**answer, "timings": {**timings, **answer["timings"]}})


def _asker(
    options: Options,
    perception: "Perception",
    means: "tuple[Sampling, Scene]",
    out: ResultStream,
) -> Callable[[str], dict[str, Any]]:
    """A function that asks, shows the answer as it comes, and returns it for `--json`.

    Args:
        options: of the command.
        perception: answers.
        means: how to draw tokens, and the scene to measure in.
        out: where answers go.
    """
    from g2vlm.inference.citing import cite
    from g2vlm.inference.prompts import Reasoning

    reasoning = Reasoning(options.reasoning)

    sampling, scene = means

    def ask(question: str) -> dict[str, Any]:
        answer = perception.ask(
            reasoning.asked(question),
            max_new_tokens=options.max_new_tokens,
            sampling=sampling,
            on_text=None if options.json else out.write,
        )
        measured = {}
        if options.measure:
            # In the scene with what is known, which the perception itself does not have.
            citation = cite(scene, question, answer.text, options.coordinates)
            measured = {"measured": citation.summary()}
        if not options.json:
            out.write("\n")
            if options.measure:
                out.write("".join(f"  measured: {line}\n" for line in citation.lines))
        return {
            "question": question,
            **measured,
            "answer": answer.text,
            "token_ids": list(answer.token_ids),
            "finished": answer.finished,
            "log_probability": answer.log_probability,
            "confidence": answer.confidence,
            "timings": dict(answer.timings),
        }

    return ask


def _typed_questions() -> Iterator[str]:
    """Questions from the keyboard or a pipe, in whatever encoding; ends with the input or a farewell."""
    for line in _typed_lines():
        question = line.strip()
        if question.lower() in _FAREWELLS:
            return
        if question:
            yield question


def _typed_lines() -> Iterator[str]:
    if not hasattr(sys.stdin, "buffer"):  # text that a program put in place of standard input
        yield from sys.stdin
        return
    if not sys.stdin.isatty():
        yield from decoded_lines(sys.stdin.buffer, "standard input")
        return
    while True:
        say("question (or exit): ", end="")
        try:
            # One line at a time: one that is no text must not end the session.
            yield next(decoded_lines(sys.stdin.buffer, "the keyboard"))
        except StopIteration:
            return
        except InputError as error:
            say(str(error))
