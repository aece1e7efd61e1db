"""What a known checkpoint computed when it was healthy, in a few hundred numbers."""

import json
from dataclasses import asdict, dataclass
from importlib import resources

import numpy as np
from jaxtyping import Float
from torch import Tensor

from g2vlm.evaluation.checkup.rows import Group, Row
from g2vlm.scene.scene import Scene

ROWS, COLUMNS = 6, 8
"""Grid of pixels of each view whose depth is recorded."""
DEPTH, ROTATION_DEG, SURPRISE = 0.01, 0.5, 0.006
"""How far results may be from the recorded ones: bfloat16 and other processors stay within half of it."""


@dataclass(frozen=True)
class Recording:
    """Results on the example photos."""

    depth: list[list[float]]
    """z-depth of each view on a grid, in the network's unit."""
    rotations: list[list[list[float]]]
    """Of each view, camera to world."""
    surprises: list[float]
    """Of each true answer: mean negative log-probability, nats."""

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Recording":
        """What `to_json` wrote."""
        return cls(**json.loads(text))


def record(scene: Scene, surprises: Float[Tensor, " questions"]) -> Recording:
    """Take down what a model says about the example photos."""
    depth = [_grid(view.depth) for view in scene.views]
    return Recording(
        depth=[[float(f"{value:.5g}") for value in view.ravel()] for view in depth],
        rotations=[
            [[round(float(value), 5) for value in row] for row in view.T_world_camera[:3, :3]]
            for view in scene.views
        ],
        surprises=[round(value, 4) for value in surprises.tolist()],
    )


def _grid(depth: np.ndarray) -> np.ndarray:
    rows = ((np.arange(ROWS) + 0.5) * depth.shape[0] / ROWS).astype(int)
    columns = ((np.arange(COLUMNS) + 0.5) * depth.shape[1] / COLUMNS).astype(int)
    return depth[np.ix_(rows, columns)]


def recorded(name: str) -> Recording | None:
    """What was recorded of a checkpoint by name; None if nothing was."""
    file = resources.files("g2vlm") / "evaluation" / "checkup" / f"{name.replace('/', '--')}.json"
    return Recording.from_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def recording_row(found: Recording, known: Recording | None) -> Row:
    """Compare results with the recorded ones of the same checkpoint."""
    if known is None:
        text = "nothing is recorded of this checkpoint; the report holds what it computes"
        return Row(Group.CONSISTENCY, "results against recorded ones", None, text, "", "")
    a, b = np.array(found.depth), np.array(known.depth)
    depth = float(np.median(np.abs(a / b - 1)))
    # The arcsine of the chord keeps small angles, which the arccosine of a trace would lose.
    chord = np.linalg.norm(np.array(found.rotations) - np.array(known.rotations), axis=(1, 2)) / np.sqrt(8)
    rotation_deg = float(np.degrees(2 * np.arcsin(np.clip(chord, 0, 1))).max())
    words = float(np.abs(np.array(found.surprises) - np.array(known.surprises)).mean())
    return Row(
        Group.CONSISTENCY,
        "results against recorded ones",
        depth <= DEPTH and rotation_deg <= ROTATION_DEG and words <= SURPRISE,
        f"depth {depth:.2%}, rotations {rotation_deg:.2f} degrees, answers {words:.3f} nats apart",
        f"{DEPTH:.0%}, {ROTATION_DEG} degrees, {SURPRISE} nats or less",
        "more: another checkpoint, weights in other places, or other precision",
    )
