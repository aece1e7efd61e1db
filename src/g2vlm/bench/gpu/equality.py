"""A device against the CPU in float32, on the small trained model: first right, then fast."""

from collections.abc import Iterator

import numpy as np

from g2vlm.bench.results import Measurement
from g2vlm.bench.session import Session
from g2vlm.checkpoints.hub import BUNDLED_NAME
from g2vlm.evaluation.checkup.answering import decode, surprises
from g2vlm.evaluation.checkup.examples import read_examples
from g2vlm.evaluation.checkup.geometry import depth_difference
from g2vlm.evaluation.checkup.looking import Looker
from g2vlm.evaluation.results import Better
from g2vlm.model.precision import Precision
from g2vlm.opening import load
from g2vlm.scene.scene import Scene

QUESTIONS = 4
"""Questions whose answers are compared token by token."""


def measure_equality(session: Session) -> Iterator[Measurement]:
    """How far depth, rotations, answers and their probabilities are from those of the CPU in float32."""
    examples = read_examples()
    plain = Looker(load(BUNDLED_NAME, device="cpu", dtype="float32"), examples.photos)
    true_scene, seen = plain.scene(), plain.look()
    unlikely = surprises(plain, seen, examples)
    asked = examples.questions[:QUESTIONS]
    wanted = [answer.token_ids for answer in decode(plain, seen, asked)]
    for precision in dict.fromkeys((Precision.FLOAT32, session.placement.precision)):
        name = precision.value
        session.say(f"results in {name} on {session.device} against those of the CPU")
        look = Looker(load(BUNDLED_NAME, device=str(session.device), dtype=name), examples.photos)
        scene, here = look.scene(), look.look()
        found = [answer.token_ids for answer in decode(look, here, asked)]
        same = sum(
            a == b for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=False)
        )
        longest = sum(max(len(one), len(other)) for one, other in zip(found, wanted, strict=True))
        apart = float((surprises(look, here, examples) - unlikely).abs().mean())
        for what, value, unit, better in (
            ("depth", 100 * depth_difference(scene, true_scene), "%", Better.LOWER),
            ("rotation", _largest_turn_deg(scene, true_scene), "degrees", Better.LOWER),
            ("probabilities", apart, "nats", Better.LOWER),
            ("tokens", 100 * same / longest, "%", Better.HIGHER),
        ):
            label = f"{LABELS[what]}, {name} against float32 on the CPU"
            yield Measurement(f"equality/{name}/{what}", label, value, unit, better, note=BUNDLED_NAME)


LABELS = {
    "depth": "median difference of depth",
    "rotation": "largest difference of rotations",
    "probabilities": "mean difference of log-probabilities of true answers",
    "tokens": "same tokens in answers",
}


def _largest_turn_deg(scene: Scene, other: Scene) -> float:
    """Largest angle between the rotations of the same views."""
    a, b = (np.stack([view.T_world_camera[:3, :3] for view in one.views]) for one in (scene, other))
    # The arcsine of the chord keeps small angles, which the arccosine of a trace would lose.
    chord = np.linalg.norm(a - b, axis=(1, 2)) / np.sqrt(8)
    return float(np.degrees(2 * np.arcsin(np.clip(chord, 0, 1))).max())
