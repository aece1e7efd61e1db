"""What is read from an answer, and when it is right."""

import math

import pytest

from g2vlm.evaluation.metrics.answers import (
    asked_unit,
    is_within,
    mean_relative_accuracy,
    read_choice,
    read_number,
    relative_error,
)

CHOICES = ("right", "left", "up", "down")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        (" b.", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B. left", "B"),
        ("B left", "B"),
        ("C) 2.0 m", "C"),
        ("Left", "B"),
        ("left.", "B"),
        ("The answer is B", "B"),
        ("Answer: D", "D"),
        ("From view 1 to view 2 it moved left. So it is left. Answer: B", "B"),
        ("First I thought answer: A, but the answer is (C).", "C"),
        ("It went to the left of the chair", "B"),
        ("A", "A"),
        ("A chair went left", "B"),
        ("I think it is (D) because of the shade", "D"),
        ("(B) or (C)", "B"),
        ("It is (B) or (C)", None),
        ("left or right", None),
        ("E", None),
        ("", None),
        ("no idea", None),
    ],
)
def test_choices_are_read(text: str, letter: str | None) -> None:
    assert read_choice(text, CHOICES) == letter


def test_letters_count_without_known_choices() -> None:
    assert read_choice("E. the fifth", ()) == "E"


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("2.4", "metres", 2.4),
        ("2.4m", "metres", 2.4),
        ("about 240 cm", "metres", 2.4),
        ("2.4 metres.", "centimetres", 240),
        ("The depth at the red point is 2.4 m. Answer: 2.5", "metres", 2.5),
        ("In view 1 it is 3 m", "metres", 3),
        ("1,234.5 mm", "metres", 1.2345),
        ("6 feet", "metres", 1.8288),
        ("90°", "degrees", 90),
        (f"{math.pi} rad", "degrees", 180),
        ("three", None, 3),
        ("There are 2 chairs", None, 2),
        ("-0.5", None, -0.5),
        (".5", None, 0.5),
        ("5e-1", None, 0.5),
        ("none", None, None),
        ("view1", None, None),
        ("", None, None),
    ],
)
def test_numbers_are_read(text: str, unit: str | None, number: float | None) -> None:
    assert read_number(text, unit) == pytest.approx(number)


@pytest.mark.parametrize(
    ("question", "unit"),
    [
        ("How far is it? Answer with a number in metres.", "metres"),
        ("By what angle? Answer with a number in degrees.", "degrees"),
        ("How many chairs are in the view? Answer with a number.", None),
    ],
)
def test_the_asked_unit_is_read_from_the_question(question: str, unit: str | None) -> None:
    assert asked_unit(question) == unit


def test_within_a_quarter_includes_the_quarter() -> None:
    assert is_within(1.25, 1.0)
    assert is_within(2.25, 3.0)
    assert not is_within(1.26, 1.0)
    assert not is_within(None, 1.0)
    assert is_within(0.0, 0.0)
    assert not is_within(0.1, 0.0)
    assert relative_error(math.nan, 1.0) == math.inf


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, 1.0), (1.04, 1.0), (1.05, 0.9), (0.8, 0.6), (1.49, 0.1), (1.5, 0.0), (None, 0.0)],
)
def test_mean_relative_accuracy_counts_thresholds(value: float | None, expected: float) -> None:
    assert mean_relative_accuracy(value, 1.0) == pytest.approx(expected)
