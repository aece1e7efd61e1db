"""Questions about how the camera moved and turned between two views."""

import math
from dataclasses import replace

import numpy as np

from g2vlm.data.questions.forms import Ask, AskForm
from g2vlm.data.questions.observations import Observations
from g2vlm.data.questions.question import (
    Quantity,
    Question,
    QuestionFamily,
    Reference,
    SeenAt,
    Topic,
    choice_question,
    quantity_question,
)
from g2vlm.data.questions.several_views import two_views, whole_views
from g2vlm.data.world.draws import Draws

_MIN_MOVE_M = 0.12
_MIN_TURN_RAD = math.radians(8)


def camera_translation(seen: Observations, draws: Draws) -> Question | None:
    """Which way, or how far, the camera moved."""
    pair = two_views(seen, draws)
    if pair is None:
        return None
    x, _, z = shift = seen.relative(*pair)[:3, 3]
    length = float(np.linalg.norm(shift))
    if length < _MIN_MOVE_M:
        return None
    sideways = f"{abs(x):.1f} m to the {'left' if x < 0 else 'right'}"
    ahead = f"{abs(z):.1f} m {'backward' if z < 0 else 'forward'}"
    moved = f" the camera moved {sideways} and {ahead}"
    measured = f"From view 1 to view 2{moved}."
    references = (*whole_views(pair), Reference("view 2", (SeenAt(pair[1]),), moved))
    topic = Topic(QuestionFamily.CAMERA_TRANSLATION, pair, needs_multiple_views=True, references=references)
    if draws.chance(0.4):
        quantity = Quantity(length, "metres", (0.1, 4.0), decimals=2 if length < 1 else 1)
        stem = draws.choice(
            (
                "How far did the camera move from view 1 to view 2?",
                "What is the distance between the camera positions of view 1 and view 2?",
            )
        )
        measured = f"{measured} That is {quantity.written()} m."
        topic = replace(topic, ask=Ask(AskForm.MOVED_BY))
        return quantity_question(topic, draws, stem, measured, quantity)
    along_x = abs(x) > abs(z)
    major, minor = (x, z) if along_x else (z, x)
    # Two choices along one axis: orbits would make "left or right" the better guess of four.
    if abs(major) < 1.4 * abs(minor):
        return None
    words = ("left", "right") if along_x else ("backward", "forward")
    correct, wrong = words if major < 0 else words[::-1]
    asked = "to the left or to the right" if along_x else "forward or backward"
    topic = replace(topic, ask=Ask(AskForm.MOVED_SIDEWAYS if along_x else AskForm.MOVED_AHEAD))
    stem = draws.choice(
        (
            f"From view 1 to view 2, did the camera move {asked}?",
            f"Compared with view 1, was view 2 taken after moving {asked}?",
            f"Seen in the direction of view 1, did the camera go {asked} for view 2?",
        )
    )
    return choice_question(topic, draws, stem, measured, correct, [wrong])


def camera_rotation(seen: Observations, draws: Draws) -> Question | None:
    """Which way, or by how much, the camera turned."""
    pair = two_views(seen, draws)
    if pair is None:
        return None
    # Headings about the vertical: the roll of the cameras does not matter.
    headings = [math.atan2(*seen.T_world_camera[view][[0, 2], 2]) for view in pair]
    turn = math.remainder(headings[1] - headings[0], 2 * math.pi)
    if abs(turn) < _MIN_TURN_RAD:
        return None
    quantity = Quantity(abs(math.degrees(turn)), "degrees", (6.0, 110.0), decimals=0)
    correct, wrong = ("left", "right") if turn < 0 else ("right", "left")
    turned = f" the camera turned {quantity.written()} degrees to the {correct}"
    measured = f"From view 1 to view 2{turned}."
    references = (*whole_views(pair), Reference("view 2", (SeenAt(pair[1]),), turned))
    topic = Topic(QuestionFamily.CAMERA_ROTATION, pair, needs_multiple_views=True, references=references)
    if draws.chance(0.4):
        stem = draws.choice(
            (
                "By what angle did the camera turn from view 1 to view 2?",
                "How many degrees apart are the viewing directions of view 1 and view 2, seen from above?",
            )
        )
        topic = replace(topic, ask=Ask(AskForm.TURNED_BY))
        return quantity_question(topic, draws, stem, measured, quantity)
    stem = draws.choice(
        (
            "From view 1 to view 2, did the camera turn left or right?",
            "To which side was the camera turned between view 1 and view 2?",
            "Compared with view 1, does view 2 look more to the left or more to the right?",
        )
    )
    topic = replace(topic, ask=Ask(AskForm.TURNED_TO))
    return choice_question(topic, draws, stem, measured, correct, [wrong])
