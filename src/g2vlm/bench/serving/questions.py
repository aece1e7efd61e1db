"""Questions about one scene: side by side, one after the other, offline, and with everything recomputed."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from g2vlm.bench.serving.process import ServiceProcess
from g2vlm.client.scenes import RemoteScene
from g2vlm.client.service import Client
from g2vlm.pipeline import Model

NUM_QUESTIONS = 16
NUM_RECOMPUTED = 4
"""Questions of the slowest way that are timed."""
_THINGS = ("lamp", "table", "chair", "sofa", "bed", "shelf", "plant", "box")
_FORMS = ("How far is the {} from me?", "What colour is the {}?")


def questions() -> list[str]:
    """Sixteen different questions."""
    return [form.format(thing) for form in _FORMS for thing in _THINGS]


@dataclass(frozen=True)
class QuestionRates:
    """Questions a second, medians."""

    concurrent: float
    """Sixteen clients at once."""
    sequential: float
    """One client after the other."""
    offline: float
    """`Perception.ask_many` in this process."""
    recomputed: float
    """One call of the model for each question, the photos read and perceived anew."""
    num_different: int
    """Answers of the service that differ from those of `Perception.ask`."""


def measure_questions(
    service: ServiceProcess, model: Model, photos: Sequence[Path], repeats: int
) -> QuestionRates:
    """Measure all ways by turns.

    Args:
        service: an idle one of the same checkpoint.
        model: in this process.
        photos: of the scene.
        repeats: rounds that count; one more warms up.
    """
    asked = questions()
    perception = model.perceive([str(path) for path in photos])
    expected = [perception.ask(question).text for question in asked]
    seconds: dict[str, list[float]] = {}
    different = 0
    with Client(service.address) as client, ThreadPoolExecutor(NUM_QUESTIONS) as threads:
        scene = client.reconstruct(list(photos))
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "concurrent": (lambda: _side_by_side(threads, scene, asked), len(asked)),
            "sequential": (lambda: [scene.ask(question).text for question in asked], len(asked)),
            "offline": (lambda: perception.ask_many(asked), len(asked)),
            "recomputed": (lambda: _recompute(model, photos, asked[:NUM_RECOMPUTED]), NUM_RECOMPUTED),
        }
        for round_number in range(repeats + 1):
            for name, (way, count) in ways.items():
                start = time.perf_counter()
                answers = way()
                taken = time.perf_counter() - start
                if round_number:
                    seconds.setdefault(name, []).append(taken / count)
                if name in ("concurrent", "sequential"):
                    assert isinstance(answers, list)
                    different += sum(a != b for a, b in zip(answers, expected, strict=True))
        scene.delete()
    rates = {name: 1 / statistics.median(taken) for name, taken in seconds.items()}
    return QuestionRates(**rates, num_different=different)


def _side_by_side(threads: ThreadPoolExecutor, scene: RemoteScene, asked: Sequence[str]) -> list[str]:
    return [answer.text for answer in threads.map(scene.ask, asked)]


def _recompute(model: Model, photos: Sequence[Path], asked: Sequence[str]) -> list[str]:
    return [model.perceive([str(path) for path in photos]).ask(question).text for question in asked]
